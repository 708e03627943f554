"""`gazetteer steer`: draw pictures with and without edits."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import OwnFiles
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.edit_files import read_edits
from gazetteer.data.inputs.edits import STAGES, WINDOWS, Edit
from gazetteer.data.runs.folder import open_finished
from gazetteer.diffusion.draw import warn_of_cut
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import load_pipeline
from gazetteer.diffusion.schedule import has_step, no_step
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.experiments.draw import png_with, sample
from gazetteer.jobs.experiments.layout import check_config
from gazetteer.labeling.interventions.resolve import idle_blocks, resolve
from gazetteer.sae.model.checkpoint import load_site_saes

_FEATURES = ("saes", "sae_check.signal", "model.path", "model.config", "model.revision")
"""Settings that say which network and which dictionary a feature's number is of."""


def steer_pictures(
    config: RunConfig, edit_file: str | Path, run: str | None, prompts: Sequence[str], seed: int, out: str | Path,
    stages: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Draw every prompt without and with the edits of a file into ``OUT/<i>-plain.png`` and ``OUT/<i>-edited.png``.

    The i-th picture has the seed `seed` + i. ``OUT/steer.json`` holds prompts, seeds, how many tokens were not read,
    and the edits with the features they came to; every edited picture carries its own edits in its PNG text under the
    key ``gazetteer``.

    Args:
        run: the labelled run that turns concepts and words into features, and whose features edits number; None takes
            numbers for those of the configuration's autoencoders.
        stages: instead of once, draw every edit in each stage's window: ``<i>-early.png``, ``-middle`` and ``-final``.

    Raises:
        InputError: a bad edit, or one whose window no step lies in; a bad run, model or autoencoder, another model or
            other autoencoders than the run's, a picture number beyond the prompts, or a folder that holds somebody
            else's files of these names.
    """
    use_threads(config.threads)
    read = read_edits(edit_file)
    if run is not None:  # also where edits number features: they are those of the run's autoencoders
        check_config(config, open_finished(run), _FEATURES)
    windows = STAGES if stages else {"edited": ()}
    versions = {name: _resolved([replace(edit, window=window) for edit in read] if window else read, run)
                for name, window in windows.items()}  # fmt: skip
    edits, steps = [edit for version in versions.values() for edit in version], config.generation.steps
    idle = next((edit for edit in edits if not has_step(edit.window, steps)), None)
    if idle is not None:
        raise InputError(f"The edit of {idle.name!r} would change nothing: {no_step(idle.window, steps)}.")
    beyond = [i for edit in edits for i in edit.images if i >= len(prompts)]
    if beyond:
        raise InputError(f"{edit_file} names picture {beyond[0]} (from 0), but there are {len(prompts)} prompts.")
    pictures = (f"{i}-{name}.png" for i in range(len(prompts)) for name in ("plain", *versions))
    folder = OwnFiles(out, ["steer.json", *pictures], alone=True)
    generator = Generator(load_pipeline(config.model), config.generation)
    sites = {target.site for edit in edits for target in edit.targets if target.features}
    saes = load_site_saes(config.saes, sites, config.model.device, signal=config.sae_check.signal)
    rows = []
    cut = warn_of_cut(generator.pipe, prompts)
    for i, prompt in enumerate(prompts):
        row: dict[str, Any] = {"prompt": prompt, "seed": seed + i, "tokens_cut": cut[i]}
        row |= {"edits": [], "change": {}, "files": {}}
        plain = sample(generator, prompt, seed + i, [], saes)
        for name, version in {"plain": (), **versions}.items():
            own = [edit for edit in version if not edit.images or i in edit.images]
            own_edits = [replace(edit, images=()) for edit in own]
            picture = sample(generator, prompt, seed + i, own_edits, saes) if name != "plain" else plain
            record = {"prompt": prompt, "seed": seed + i, "edits": [edit.as_dict() for edit in own_edits]}
            row["files"][name] = f"{i}-{name}.png"
            folder.write(row["files"][name], png_with(picture, record))
            row["edits"] += [edit.digest for edit in own]
            change = float(np.abs(plain.astype(int) - picture.astype(int)).mean() / 255)
            row["change"] |= {name: round(change, 4)} if name != "plain" else {}
            _say_unchanged(row["files"][name], change, own)
        rows.append(row)
    result = {"pictures": rows, "edits": {edit.digest: edit.as_dict() for edit in edits}}
    folder.write("steer.json", f"{json.dumps(result, indent=2)}\n".encode())
    return {"out": str(out), **result}


def _say_unchanged(file: str, change: float, edits: Sequence[Edit]) -> None:
    if change == 0.0 and any(edit.strength for edit in edits):
        print(
            f"{file} is as without its edits: what they ask for is too little to see, or their features fire nowhere "
            "in their places",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def _resolved(edits: Sequence[Edit], run: str | None) -> tuple[Edit, ...]:
    if all(edit.targets for edit in edits):
        return tuple(edits)
    if run is None:
        raise InputError("Edits that name concepts or words need a finished labelling run: gazetteer steer draw RUN.")
    resolved = resolve(edits, run)
    for said in dict.fromkeys((edit.name, *idle_blocks(edit)) for edit in resolved if idle_blocks(edit)):
        print(f"no feature carries {said[0]!r} in {', '.join(said[1:])}: the edit leaves it out", file=sys.stderr)
    return resolved


def windows_with_steps(names: Sequence[str], steps: int, key: str) -> tuple[str, ...]:
    """Those of the windows named at a key that hold a sampler step; the others are said to be left out.

    Raises:
        InputError: none does.
    """
    known = tuple(name for name in names if has_step(WINDOWS[name], steps))
    for name in (name for name in names if name not in known):
        said = f"{key} {name} is left out: {no_step(WINDOWS[name], steps)}"
        if not known:
            raise InputError(f"{said}, and no other is asked for.")
        print(said, file=sys.stderr, flush=True)
    return known
