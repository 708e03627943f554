"""Write the prompt files of the labelling job and of SAE training: `python -m benchmarks.scenes.prompts`.

They are captions of scenes that no model was trained on, none is in both files, and none is word for word the caption
of a scene that the text-to-image models were trained on (short captions often are: of 3,000, 810 were).
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.scenes.options import add_views
from gazetteer.data.core.errors import InputError
from gazetteer.data.scenes.captions import write_caption
from gazetteer.data.scenes.layout import sample_layout
from gazetteer.data.scenes.prompts import prompt_pool
from gazetteer.data.scenes.weights import world_views
from gazetteer.data.scenes.world import TRAIN_SEEDS

FOLDER = Path(__file__).resolve().parents[2] / "data" / "scenes"
LABEL_PROMPTS, SAE_PROMPTS = 3000, 2000
TRAINED = 100_000
"""Scenes that the text-to-image models are trained on, the first of the training seeds."""


def write_prompts(folder: Path, views: Sequence[str] = (), trained: int = TRAINED) -> None:
    """Write ``prompts.txt`` and ``prompts_sae.txt``, one prompt a line, none in both and none a training caption."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = training_captions(views, trained)
    label = _others(prompt_pool(2 * LABEL_PROMPTS, 1, views), taken)[:LABEL_PROMPTS]
    sae = _others(prompt_pool(2 * SAE_PROMPTS, 2, views), taken.union(label))[:SAE_PROMPTS]
    (folder / "prompts.txt").write_text("\n".join(label) + "\n", encoding="utf-8")
    (folder / "prompts_sae.txt").write_text("\n".join(sae) + "\n", encoding="utf-8")


def training_captions(views: Sequence[str], scenes: int) -> set[str]:
    """The captions of the first training scenes."""
    layouts = (sample_layout(seed, views) for seed in TRAIN_SEEDS[:scenes])
    return {write_caption(layout, layout.items) for layout in layouts}


def _others(prompts: Sequence[str], taken: Collection[str]) -> list[str]:
    return [prompt for prompt in dict.fromkeys(prompts) if prompt not in taken]


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER)
    add_views(parser, default=None)
    options = parser.parse_args()
    write_prompts(options.out, world_views() if options.views is None else options.views)


if __name__ == "__main__":
    main()
