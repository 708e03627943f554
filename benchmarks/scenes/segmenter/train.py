"""Train the tiny SAM of the Scenes world on one CPU core.

    python -m benchmarks.scenes.segmenter.train --out build/train/segmenter --minutes 22 \\
        --export data/scenes/models/segmenter

Prompts are true boxes moved by up to 8 %; the loss is dice + binary cross-entropy at 64x64, plus the
error of the predicted IoU. A killed run continues with `--resume` from its last checkpoint.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SamModel

from benchmarks.scenes.detector.augment import boxes_of
from benchmarks.scenes.detector.data import normalise
from benchmarks.scenes.options import finder_options
from benchmarks.scenes.segmenter.data import SegmentBatch, SegmentBatches
from benchmarks.scenes.segmenter.model import DenseHead, build_model, export
from benchmarks.scenes.training.finder_run import FinderRun
from benchmarks.scenes.training.loop import Average, cosine_rate, set_rate, step_if_finite
from benchmarks.scenes.training.scene_cache import SceneCache
from gazetteer.data.scenes.world import CONCEPT_NAMES


def mask_losses(logits: Tensor, predicted_iou: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of every candidate mask, its true IoU, and the error of its predicted IoU.

    logits: [B, P, M, h, w]; predicted_iou: [B, P, M]; masks: [B, P, h, w], covered shares in 0..1.
    Returns three tensors [B, P, M].
    """
    wanted = masks[:, :, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").flatten(3)
    # small masks count more, but a pixel too many costs what a missing one does: weighting the mask's own
    # pixels alone makes masks 15 % too large
    scale = wanted[0, 0, 0].numel() / (4 * wanted.flatten(3).sum(-1) + 32)
    entropy = entropy.mean(-1) * scale.clamp(1, 20)
    fraction = logits.sigmoid().flatten(3)
    flat = wanted.flatten(3)
    dice = 1 - (2 * (fraction * flat).sum(-1) + 1) / (fraction.sum(-1) + flat.sum(-1) + 1)
    on, true = logits.flatten(3) > 0, flat > 0.5
    iou = (on & true).sum(-1) / (on | true).sum(-1).clamp(min=1)
    return entropy + dice, iou, (predicted_iou - iou) ** 2


def dense_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Error of the dense head: logits and cells [B, 18, h, w], classes first, the last channel for borders."""
    borders = F.binary_cross_entropy_with_logits(logits[:, -1], cells[:, -1])
    return F.cross_entropy(logits[:, :-1], cells[:, :-1]) + borders


def training_loss(
    model: SamModel, head: DenseHead, batch: SegmentBatch, several: bool, masks: bool = True
) -> tuple[Tensor, float]:
    """Loss and mean IoU of a batch; `several` trains the three-mask output by its best candidate.

    Without `masks` only the encoder is trained, through the dense head: half the price of a step, and
    an encoder that knows what is where makes the mask decoder's task easy.
    """
    with torch.autocast("cpu", torch.bfloat16):
        embedding = model.vision_encoder(batch.pixels).last_hidden_state
        dense = head(embedding)
        if masks:
            out = model(image_embeddings=embedding, input_boxes=batch.boxes, multimask_output=several)
    loss = dense_loss(dense.float(), batch.cells)
    if not masks:
        return loss, 0.0
    losses, iou, error = mask_losses(out.pred_masks.float(), out.iou_scores.float(), batch.masks)
    best = losses.detach().argmin(-1, keepdim=True)
    total = losses.gather(-1, best).mean() + error.mean() + 0.3 * loss
    return total, float(iou.gather(-1, best).float().mean())


@torch.no_grad()
def evaluate(model: SamModel, cache: SceneCache) -> dict[str, list[tuple[float, int]]]:
    """(IoU at full resolution, area in px) of every instance from its true box, by concept."""
    results: dict[str, list[tuple[float, int]]] = {name: [] for name in CONCEPT_NAMES}
    size = cache.images.shape[1]
    for row in range(len(cache)):
        concepts = cache.concepts[row]
        boxes, keep = boxes_of(cache.owners[row], int((concepts >= 0).sum()))
        numbers = np.flatnonzero(keep)
        if not len(numbers):
            continue
        image = normalise(torch.from_numpy(cache.images[row].copy()).permute(2, 0, 1).float() / 255)
        prompts = torch.from_numpy(boxes[numbers])[None]
        out = model(pixel_values=image[None], input_boxes=prompts, multimask_output=False)
        logits = F.interpolate(out.pred_masks[0].float(), (size, size), mode="bilinear", align_corners=False)
        for number, mask in zip(numbers, (logits[:, 0] > 0).numpy(), strict=True):
            true = cache.owners[row] == number + 1
            iou = float((mask & true).sum() / (mask | true).sum())
            results[CONCEPT_NAMES[concepts[number]]].append((iou, int(true.sum())))
    return results


def print_quality(results: dict[str, list[tuple[float, int]]], name: str, details: bool) -> None:
    """Print the mean IoU over instances, of small ones apart, and by concept on request."""
    everything = [pair for pairs in results.values() for pair in pairs]
    ious = np.array([iou for iou, _ in everything])
    small = np.array([area < 300 for _, area in everything])
    print(
        f"{name}: mean IoU {ious.mean():.3f} of {len(ious)}, share above 0.8 {np.mean(ious > 0.8):.3f}, "
        f"under 300 px {ious[small].mean() if small.any() else float('nan'):.3f} of {small.sum()}",
        flush=True,
    )
    if details:
        for concept, pairs in results.items():
            if pairs:
                print(f"  {concept}: mean IoU {np.mean([iou for iou, _ in pairs]):.3f} of {len(pairs)}")


class Run(FinderRun):
    """The segmenter's training, with a head that is not exported."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.model = build_model()
        # fused attention over seven tokens is slower than plain products, and takes a quarter of a step
        self.model.mask_decoder.config._attn_implementation = "eager"
        self.head = DenseHead()
        parameters = [*self.model.parameters(), *self.head.parameters()]
        matrices = [p for p in parameters if p.dim() > 1]
        others = [p for p in parameters if p.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=arguments.rate, betas=(0.9, 0.99))
        self.batches = SegmentBatches(self.cache, arguments.batch, arguments.prompts, arguments.seed)
        self.average = Average([self.model], 0.998)

    def state(self) -> dict[str, Any]:
        """With the head."""
        return {**super().state(), "head": self.head.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """With the head."""
        super().restore(state)
        self.head.load_state_dict(state["head"])

    def step(self) -> dict[str, float]:
        """One optimizer step; returns loss and mean IoU."""
        set_rate(self.optimizer, cosine_rate(self.arguments.rate, self.budget, warmup=200))
        masks = self.budget.seconds >= 60 * self.arguments.pretrain_minutes
        loss, iou = training_loss(self.model, self.head, self.batches(), self.budget.step % 8 == 7, masks)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        step_if_finite(self.optimizer, nn.utils.clip_grad_norm_(self.model.parameters(), 1.0))
        self.budget.tick()
        self.average.update(self.budget.step)
        return {"loss": float(loss.detach()), "IoU": iou}

    def check(self, details: bool) -> None:
        """Mean IoU."""
        print_quality(evaluate(self.model, self.held_out), "validation", details)


def main() -> None:
    """Train, evaluate on unseen seeds, export."""
    options = finder_options(__doc__, "segmenter", (22.0, 5.0, 3.0), 12, 1e-3)
    options.add_argument("--prompts", type=int, default=4, help="boxes of a picture in one step")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    run = Run(arguments)
    run.resume()
    run.train()
    if arguments.export:
        run.average.swap()
        size = export(run.model.eval(), arguments.export)
        print(f"exported {arguments.export}: {size / 1e6:.2f} MB")
        print_quality(evaluate(run.model, run.unseen()), "unseen seeds", details=True)


if __name__ == "__main__":
    main()
