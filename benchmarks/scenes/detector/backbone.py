"""Backbone pretraining: predict what covers every cell, at both output strides."""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GroundingDinoForObjectDetection

from benchmarks.scenes.detector.augment import crop_and_flip, smear
from benchmarks.scenes.detector.data import normalise
from benchmarks.scenes.training.loop import Budget, cosine_rate, set_rate, step_if_finite
from benchmarks.scenes.training.scene_cache import SceneCache
from gazetteer.data.scenes.world import CONCEPT_NAMES

CLASSES = len(CONCEPT_NAMES) + 1


def cell_fractions(owners: Tensor, concepts: Tensor, cells: int) -> Tensor:
    """Share of every class in every cell: float [17, cells, cells]; class 0 is nothing.

    owners: uint8 [S, S]; concepts: int8 [instances].
    """
    table = torch.cat([torch.zeros(1, dtype=torch.long), concepts.long() + 1])
    classes = F.one_hot(table[owners.long()], CLASSES).permute(2, 0, 1).float()
    return F.adaptive_avg_pool2d(classes, cells)


def _batch(cache: SceneCache, generator: np.random.Generator, size: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    images, labels = [], []
    for row in generator.integers(0, len(cache), size):
        image = torch.from_numpy(cache.images[row].copy()).permute(2, 0, 1).float() / 255
        image, owners = crop_and_flip(image, torch.from_numpy(cache.owners[row].copy()), generator)
        images.append(normalise(smear(image, generator)))
        labels.append((owners, torch.from_numpy(cache.concepts[row])))
    return torch.stack(images), labels


def pretrain_backbone(
    model: GroundingDinoForObjectDetection, cache: SceneCache, minutes: float, seed: int, batch: int = 16
) -> None:
    """Train `model`'s backbone in place for `minutes` of wall time."""
    backbone = model.model.backbone.conv_encoder.model
    heads = nn.ModuleList(nn.Conv2d(channels, CLASSES, 1) for channels in backbone.channels)
    parameters = [*backbone.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.05, betas=(0.9, 0.99))
    budget, generator, running = Budget(minutes, None), np.random.default_rng(seed + 1), 0.0
    started = time.monotonic()
    while budget.fraction < 1:
        set_rate(optimizer, cosine_rate(1.5e-3, budget, warmup=50, floor=0.2))
        pixels, labels = _batch(cache, generator, batch)
        with torch.autocast("cpu", torch.bfloat16):
            maps = [head(features) for head, features in zip(heads, backbone(pixels).feature_maps, strict=True)]
        losses = []
        for logits in maps:
            fractions = torch.stack([cell_fractions(owners, concepts, logits.shape[-1]) for owners, concepts in labels])
            losses.append(F.cross_entropy(logits.float(), fractions))
        loss = torch.stack(losses).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        step_if_finite(optimizer, nn.utils.clip_grad_norm_(parameters, 5.0))
        budget.tick()
        running += float(loss.detach())
        if budget.step % 100 == 0:
            print(f"backbone step {budget.step} loss {running / 100:.3f} {time.monotonic() - started:.0f}s", flush=True)
            running = 0.0
