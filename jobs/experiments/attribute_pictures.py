"""What attribution is evaluated with: prompts, a painter, and judges of pictures, from the run's configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gazetteer.attribution.edits.methods import MethodConfig, Methods
from gazetteer.attribution.evaluation.outcomes import CHOOSE, REPORT, Case, Classifier, Images, Judge, Paint
from gazetteer.attribution.objective.prompts import without
from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.diffusion.generate import GenerationConfig, Generator
from gazetteer.diffusion.load import load_pipeline
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.labeling.detect.protocol import Detection, Detector
from gazetteer.labeling.interventions.evaluation.trials import Judge as LookJudge
from gazetteer.labeling.vocabulary.concepts import Vocabulary

POOL = 400
"""Prompts of the configuration that sheets draw from; edits are made from as many others."""


def prepare(run: RunConfig, config: MethodConfig, pool: int, words: Sequence[str] = ()) -> tuple[Methods, list[Case]]:
    """The model with all methods, and `pool` cases, of whose prompts the methods see none: edits are made from others.

    Where the configuration has too few prompts for that, those of the choosing half serve for the concepts that lack
    one.

    Raises:
        InputError: a model or prompts that cannot be read.
    """
    torch.set_num_threads(run.threads or torch.get_num_threads())
    pipe: Any = load_pipeline(run.model)
    vocabulary = Vocabulary(run.vocabulary)
    known, prompts = sorted(vocabulary.concepts), read_prompts(run.prompts)
    drawn = cases(prompts, vocabulary, known, words, pool, run.seed)
    asked = {case.prompt for case in drawn}
    others = cases([p for p in prompts if p not in asked], vocabulary, known, words, pool, run.seed)
    there: frozenset[str] = frozenset().union(*(case.named for case in others))
    others += [case for case in drawn if case.half == CHOOSE and case.named - there]
    return Methods(pipe, config, known, {case.prompt: case.named for case in others}, without), drawn


def painter(pipe: Any, generation: GenerationConfig) -> Paint:
    """Paint with the pipeline as it stands, each picture from its own seed."""
    blocks = dataclasses.replace(generation, blocks=_any_block(pipe, generation), t=(1.0,))
    generator = Generator(pipe, blocks)

    def paint(prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        images: Images = []
        size = 1 if generation.exact else 8
        for start in range(0, len(prompts), size):
            part = slice(start, start + size)
            painted = generator.sample(prompts[part], seeds[part], lambda *_: None)
            images += list(painted if painted is not None else [])
        return images

    return paint


def judge(detector: Detector, concepts: Sequence[str], looks: LookJudge | None = None) -> Judge:
    """The detector, asked for all concepts of every picture; and the most probable look of a judge of looks."""

    def look(images: Images) -> list[dict[str, float]]:
        asked = [concepts] * len(images)
        found = [_areas(boxes, image) for boxes, image in zip(detector.detect(images, asked), images, strict=True)]
        if looks is not None and images:
            for one, best in zip(found, looks.probabilities(np.stack(images)).argmax(axis=1), strict=True):
                one[looks.labels[best]] = 1.0
        return found

    return look


def witness(judge: LookJudge) -> Classifier:
    """What a judge of many labels, each with a probability of its own, takes to be there: those of 0.5 or more."""

    def read(images: Images) -> list[Collection[str]]:
        if not images:
            return []
        return [
            frozenset(label for label, p in zip(judge.labels, row, strict=True) if p >= 0.5)
            for row in judge.probabilities(np.stack(images))
        ]

    return read


def cases(
    prompts: Sequence[str], vocabulary: Vocabulary, known: Sequence[str], words: Sequence[str], wanted: int, seed: int
) -> list[Case]:
    """The first prompts that name a concept or word, taken in turns for each, alternately in the two halves.

    Args:
        known, words: the concepts, and the words for the look of a picture.
        wanted: how many prompts.
        seed: of the run; the cases' own lie far from the seeds that edits are made from, so that no noise is seen
            twice.
    """
    named = [
        (p, (frozenset(vocabulary.mentioned(p)) & frozenset(known)) | {w for w in words if w in p.lower()})
        for p in dict.fromkeys(prompts)
    ]
    queues = {c: [row for row in named if c in row[1]] for c in (*known, *words)}
    taken: dict[str, frozenset[str]] = {}
    while len(taken) < wanted and any(queues.values()):
        for queue in queues.values():
            while queue and queue[0][0] in taken:
                queue.pop(0)
            # Two at a time: one for each half, so that both name every concept.
            for row in queue[:2]:
                taken[row[0]] = frozenset(row[1])
            del queue[:2]
    rows = list(taken.items())[: max(2, wanted)]
    first = seed + 1_000_000
    return [Case(p, first + i, names, CHOOSE if i % 2 == 0 else REPORT) for i, (p, names) in enumerate(rows)]


def _areas(boxes: Sequence[Detection], image: NDArray[np.uint8]) -> dict[str, float]:
    """Per concept found the share of the picture that its boxes cover together."""
    covered: dict[str, NDArray[np.bool_]] = {}
    for found in boxes:
        mask = covered.setdefault(found.concept, np.zeros(image.shape[:2], dtype=bool))
        x0, y0, x1, y1 = (round(v) for v in found.box)
        mask[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
    return {concept: float(mask.mean()) for concept, mask in covered.items()}


def _any_block(pipe: Any, generation: GenerationConfig) -> tuple[str, ...]:
    """Blocks the generator may listen to; nothing is done with them here, but another model may lack the configured."""
    names = {name for name, _ in pipe.unet.named_modules()}
    return tuple(b for b in generation.blocks if b in names) or ("mid_block",)
