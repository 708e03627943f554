"""Write the prompt files of the labelling job and of SAE training, disjoint: `python -m benchmarks.scenes.prompts`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.scenes.options import add_views
from gazetteer.data.core.errors import InputError
from gazetteer.data.scenes.prompts import prompt_pool
from gazetteer.data.scenes.weights import world_views

FOLDER = Path(__file__).resolve().parents[2] / "data" / "scenes"
LABEL_PROMPTS, SAE_PROMPTS = 3000, 2000


def write_prompts(folder: Path, views: Sequence[str] = ()) -> None:
    """Write ``prompts.txt`` and ``prompts_sae.txt``, one prompt a line, none in both."""
    folder.mkdir(parents=True, exist_ok=True)
    label = list(dict.fromkeys(prompt_pool(2 * LABEL_PROMPTS, 1, views)))[:LABEL_PROMPTS]
    taken = set(label)
    sae = [p for p in dict.fromkeys(prompt_pool(2 * SAE_PROMPTS, 2, views)) if p not in taken][:SAE_PROMPTS]
    (folder / "prompts.txt").write_text("\n".join(label) + "\n", encoding="utf-8")
    (folder / "prompts_sae.txt").write_text("\n".join(sae) + "\n", encoding="utf-8")


def prompts_of(models: Path, given: Path | None = None) -> Path | None:
    """The file of prompts that other models than the embedded ones are judged by, None for the embedded one.

    That which is given, or that of the build of `benchmarks.scenes.chain` in which the models lie.

    Raises:
        InputError: there is neither, and the embedded prompts are of other views than the models.
    """
    beside = models.resolve().parent / "prompts" / "prompts.txt"
    if given or beside.is_file():
        return given or beside
    if world_views(models) != world_views():
        raise InputError(f"The embedded prompts are of other views than {models}, and {beside} is not there.")
    return None


def main() -> None:
    """Write them for the embedded models, or elsewhere for other views."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    add_views(parser, default=None)
    options = parser.parse_args()
    write_prompts(options.out, world_views() if options.views is None else options.views)


if __name__ == "__main__":
    main()
