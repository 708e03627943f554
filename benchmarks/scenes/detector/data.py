"""Training batches of the detector: a picture, a caption of asked words, the boxes of those words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.scenes.detector.augment import boxes_of, crop_and_flip, smear
from benchmarks.scenes.detector.model import CLS, DISTRACTORS, DOT, MEAN, PAD, SEP, STD, UNK
from benchmarks.scenes.training.scene_cache import SceneCache
from gazetteer.data.scenes.world import CONCEPT_NAMES

SLOW_CONCEPTS = {"mountain": 4.0, "road": 2.0, "dog": 2.0}
"""Learned last (outlines that fade out or are covered): how many times as often scenes with them are drawn."""


@dataclass(frozen=True)
class Target:
    """What one caption asks for in one picture.

    boxes: float [n, 4], centre x, centre y, width, height in 0..1.
    phrases: long [n], which phrase of this caption each box belongs to.
    tokens: bool [phrases, length], the tokens of every phrase of this caption.
    """

    boxes: Tensor
    phrases: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class Batch:
    """pixels: float [B, 3, S, S]; ids and mask: long [B, length]; one target per picture."""

    pixels: Tensor
    ids: Tensor
    mask: Tensor
    targets: list[Target]


def normalise(image: Tensor) -> Tensor:
    """Image float [3, H, W] in 0..1 to the normalised input of the model."""
    return (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def sample_words(present: list[str], generator: np.random.Generator, all_words: bool) -> list[str]:
    """The words of one caption, in random order: all sixteen, or some present and some absent ones.

    An empty string stands for a word the tokenizer does not know.
    """
    words = list(CONCEPT_NAMES)
    if not all_words:
        asked = [word for word in present if generator.random() < 0.75]
        absent = [word for word in CONCEPT_NAMES if word not in present]
        words = asked + [word for word in absent if generator.random() < generator.choice([0.1, 0.4, 0.8])]
    others = generator.choice(len(DISTRACTORS), int(generator.choice([0, 0, 1, 3, 8])), replace=False)
    words += [DISTRACTORS[i] for i in others]
    if generator.random() < 0.1 or not words:
        words.append("")
    return [words[i] for i in generator.permutation(len(words))]


def encode(words: list[str], vocabulary: dict[str, int]) -> tuple[list[int], list[list[int]]]:
    """Token ids of "a. b. c." and, for every word, the positions of its tokens."""
    ids, positions = [CLS], []
    for word in words:
        pieces = [vocabulary.get(piece, UNK) for piece in word.split()] or [UNK]
        positions.append(list(range(len(ids), len(ids) + len(pieces))))
        ids += [*pieces, DOT]
    return [*ids, SEP], positions


class DetectorBatches:
    """Seeded random batches from a scene cache; the position in the stream is the generator's state."""

    def __init__(self, cache: SceneCache, vocabulary: dict[str, int], batch_size: int, seed: int) -> None:
        self.cache, self.vocabulary, self.batch_size = cache, vocabulary, batch_size
        self.generator = np.random.default_rng(seed)
        often = np.ones(len(CONCEPT_NAMES) + 1)  # the last place is that of -1, no instance
        often[[CONCEPT_NAMES.index(name) for name in SLOW_CONCEPTS]] = list(SLOW_CONCEPTS.values())
        self.cumulative = np.cumsum(often[cache.concepts].max(axis=1))

    def __call__(self) -> Batch:
        """The next batch: half of its captions ask for all words."""
        draws = self.generator.random(self.batch_size) * self.cumulative[-1]
        rows = np.searchsorted(self.cumulative, draws, side="right")
        samples = [self._sample(int(row), index % 2 == 0) for index, row in enumerate(rows)]
        length = max(len(ids) for _, ids, _, _, _ in samples)
        targets = []
        for _, _, positions, boxes, phrases in samples:
            tokens = torch.zeros(len(positions), length, dtype=torch.bool)
            for phrase, places in enumerate(positions):
                tokens[phrase, places] = True
            targets.append(Target(boxes, phrases, tokens))
        ids = torch.tensor([ids + [PAD] * (length - len(ids)) for _, ids, _, _, _ in samples])
        return Batch(torch.stack([sample[0] for sample in samples]), ids, (ids != PAD).long(), targets)

    def _sample(self, row: int, all_words: bool) -> tuple[Tensor, list[int], list[list[int]], Tensor, Tensor]:
        image = torch.from_numpy(self.cache.images[row].copy()).permute(2, 0, 1).float() / 255
        owners = torch.from_numpy(self.cache.owners[row].copy())
        image, owners = crop_and_flip(image, owners, self.generator)
        concepts = self.cache.concepts[row]
        names = [CONCEPT_NAMES[c] for c in concepts if c >= 0]
        boxes, keep = boxes_of(owners.numpy(), len(names))
        present = sorted({name for name, stays in zip(names, keep, strict=True) if stays})
        words = sample_words(present, self.generator, all_words)
        ids, positions = encode(words, self.vocabulary)
        asked = [i for i, name in enumerate(names) if keep[i] and name in words]
        xyxy = torch.from_numpy(boxes[asked]) / image.shape[-1]
        centred = torch.cat([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], 1)
        phrases = torch.tensor([words.index(names[i]) for i in asked], dtype=torch.long)
        return normalise(smear(image, self.generator)), ids, positions, centred, phrases
