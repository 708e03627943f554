"""A first configuration for somebody's own model: its blocks found, its keys explained, ready to be changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import BRANCHES, nearest_t
from gazetteer.data.inputs.prompt_pool import side_of
from gazetteer.diffusion.config.generation import FAR
from gazetteer.jobs.config.reference import flow
from gazetteer.jobs.config.schema import load_config
from gazetteer.labeling.vocabulary.concept_index import require_distinct
from gazetteer.labeling.vocabulary.concept_list import BUILT_IN
from gazetteer.labeling.vocabulary.words import tidy

MOST_PAIRS = 2000
"""Prompts of two concepts at most."""
TEMPLATES = (
    "a photo of {}",
    "a close-up photo of {}",
    "a painting of {}",
    "a drawing of {}",
    "{} in the morning",
    "{} at night",
    "{} in the rain",
    "{} in a city",
    "{} by the sea",
    "{} seen from far away",
    "{} in front of a wall",
    "an old picture of {}",
)
"""Prompts of every concept: so many that the labels' side and the autoencoders' side both have some of one alone."""
SHARES = (0.5, 0.5, 0.0)
"""Of the prompts, for the autoencoders and for labels."""


@dataclass(frozen=True)
class Starter:
    """What a first configuration is made from.

    Attributes:
        model: a folder in diffusers format or a hub id.
        concepts: what to look for, or one name of a list (``coco``, ``lvis``, a text file).
        prompts: a file of prompts; empty: one is written, of the concepts.
        saes: where the autoencoders are or will be.
        detector, segmenter: folders or hub ids.
        device: for all models.
        steps, guidance: of the sampler; `branches` and `dtype`: as the model runs.
    """

    model: str
    concepts: Sequence[str]
    prompts: str = ""
    saes: str = "work/saes"
    detector: str = "IDEA-Research/grounding-dino-tiny"
    segmenter: str = "facebook/sam-vit-base"
    device: str = "cpu"
    steps: int = 50
    guidance: float = 7.5
    branches: tuple[str, ...] = BRANCHES
    dtype: str = "float16"


def write_starter(start: Starter, blocks: Sequence[str], file: str | Path) -> list[Path]:
    """Write the YAML, and beside it prompts where none were named; both load as they stand.

    Args:
        blocks: the model's blocks in module order (`gazetteer.diffusion.blocks.blocks_of`).

    Returns:
        the files written.

    Raises:
        InputError: a file is there already, or something in `start` that no configuration may have.
    """
    if not _listed(start.concepts):
        require_distinct(start.concepts, "--concepts")  # as they were typed
        start = replace(start, concepts=[tidy(concept) for concept in start.concepts])
    _require_trainable(start.saes)
    path = Path(file)
    prompts = path.with_name(f"{path.stem}-prompts.txt")
    written = [path] if start.prompts else [path, prompts]
    existing = next((candidate for candidate in written if candidate.exists()), None)
    if existing is not None:
        raise InputError(f"{existing} is there already; give another --out.")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not start.prompts:
            prompts.write_text("\n".join(_prompts(start.concepts)) + "\n", encoding="utf-8")
        path.write_text(_text(start, blocks, start.prompts or prompts.name), encoding="utf-8")
        load_config(path)
    except InputError:
        for output in written:
            output.unlink(missing_ok=True)
        raise
    return written


def chosen_blocks(blocks: Sequence[str]) -> list[str]:
    """Where to listen first: the last block on the way down, the middle and the first on the way up, as the paper does
    (arXiv 2504.15473); in a network without such a shape, a quarter, half and three quarters of the way.
    """
    down, mid, up = ([block for block in blocks if block.startswith(way)] for way in ("down_", "mid_", "up_"))
    if down and up:
        return [down[-1], *mid[:1], up[0]]
    return list(dict.fromkeys(blocks[len(blocks) * quarter // 4] for quarter in (1, 2, 3)))


def _prompts(concepts: Sequence[str]) -> list[str]:
    if _listed(concepts):
        raise InputError("To take concepts from a list, name the prompts too: --prompts FILE.")
    pairs = list(combinations(concepts, 2))[:MOST_PAIRS]
    alone = [template.format(concept) for template in TEMPLATES for concept in concepts]
    prompts = alone + [f"a photo of {concept} and {other}" for concept, other in pairs]
    if {side_of(prompt, SHARES) for prompt in prompts} != {"sae", "dictionary"}:
        raise InputError(
            f"The {len(prompts)} prompts that would be written all fall on one side, and labels and autoencoders need "
            "prompts of their own; name more --concepts, or your own --prompts FILE."
        )
    return prompts


def trained_already(saes: str) -> bool:
    """Whether a folder of autoencoders holds weights."""
    return any(Path(saes).glob("**/*.safetensors"))


def _require_trainable(saes: str) -> None:
    """Refuse a place of autoencoders to come where `sae train --out FOLDER` cannot put them: it fills FOLDER/saes."""
    folder, name = os.path.split(saes.rstrip("/"))
    if not trained_already(saes) and (name != "saes" or folder in ("", ".")):
        raise InputError(
            f"--saes {saes} holds no autoencoders, and they are trained into a folder `saes` in a folder of their own: "
            "give the folder of trained ones, or one like work/saes. What a hub holds is named in the file, under saes."
        )


def _listed(concepts: Sequence[str]) -> str:
    """The list that one word names, or empty."""
    named = len(concepts) == 1 and (concepts[0] in BUILT_IN or concepts[0].endswith(".txt"))
    return concepts[0] if named else ""


def _text(start: Starter, blocks: Sequence[str], prompts: str) -> str:
    listed = _listed(start.concepts)
    vocabulary = (
        f"path: {flow(listed if listed in BUILT_IN else _absolute(listed))}"
        if listed
        else f"concepts: {flow(list(start.concepts))}"
    )
    device = f"\n  device: {flow(start.device)}" + ("" if start.device == "cpu" else "\n  exact: false")
    model_device = f"\n  device: {flow(start.device)}" + ("" if start.device == "cpu" else f"\n  dtype: {start.dtype}")
    trained = os.path.dirname(start.saes.rstrip("/"))
    exact = "" if start.device == "cpu" else "  exact: false              # pictures in batches; on a GPU\n"
    both = "or [cond, uncond]: twice the sites" if len(start.branches) > 1 else "the model never runs without a prompt"
    t = str(_moments(start.steps))
    others = [block for block in blocks if block not in chosen_blocks(blocks)]
    return f"""\
# A first configuration, to be changed. Paths are relative to this file where they exist there, else to where you are.
# `gazetteer config --config FILE` prints every key with its default and meaning; unknown keys are refused.
name: {flow(Path(start.model).name)}            # the model's name in the tables
images: 400                 # pictures to label with; more pictures, more labels (gazetteer plan says what they cost)
seed: 0

# One prompt a line, better captions of your own. Half of them label, the other half train the autoencoders.
prompts: {{path: {flow(_absolute(prompts) if start.prompts else prompts)}, side: dictionary, shares: {list(SHARES)}}}

model:
  path: {flow(_absolute(start.model))}{model_device}

generation:
  steps: {start.steps:<18} # of the sampler; models that were distilled (turbo) take fewer
  guidance: {start.guidance!r:<15} # as diffusers defines it; 1 or less: none
  blocks:                   # where to listen; a site is a block, a branch and a t
{chr(10).join(f"    - {block}" for block in chosen_blocks(blocks))}
{chr(10).join(f"    # - {block}" for block in others)}
  branches: [cond]          # {both}
  t: {t:<22} # 1.0 is the first step, 0.0 the last
{exact}
# One folder a site. To train them: gazetteer sae train --config FILE --out {trained}
saes: {flow(start.saes)}

vocabulary:
  {vocabulary}
  ask: all                  # every concept of every picture; prompt: only those that the prompt names

# Kinds of labels; stuff: concepts that fill regions; styles: looks of whole pictures, as words of your prompts.
# labels: {{stuff: [sky, grass], styles: [painting, drawing]}}

detector:                   # Grounding DINO or OWLv2: a folder or a hub id
  path: {flow(_absolute(start.detector))}{device}
segmenter:                  # SAM or SAM 2
  path: {flow(_absolute(start.segmenter))}{device}

sae:
  prompts: {{path: {flow(_absolute(prompts) if start.prompts else prompts)}, side: sae, shares: {list(SHARES)}}}
  images: 1000              # the paper takes 200,000
  stream: true              # while the pictures are sampled, with no activations on disk
  device: {flow(start.device)}

executor: serial            # ray: workers in parallel, here or on a cluster
"""


def _moments(steps: int) -> list[float]:
    """First, middle and last step, each once; the middle of few steps by where it lies."""
    if steps < 3:
        return [1.0, 0.0][: max(1, steps)]
    middle = nearest_t(0.5, steps)
    return [1.0, 0.5 if abs(middle - 0.5) <= FAR else round(middle, 2), 0.0]


def _absolute(path: str) -> str:
    """A path that exists, from anywhere; a hub id as it is."""
    return str(Path(path).resolve()) if path and Path(path).exists() else path
