"""Target assignment and losses of Grounding DINO.

transformers 5.23 looks a sample's phrase up at offset `len(label_maps[i])` in the concatenated
label maps, where it must be the total length of all earlier maps; with more than two samples, or
captions of unequal length, classification targets are wrong and words are never learned. Here
every sample keeps its own phrase table, so there is no offset to get wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.scenes.detector.data import Target

CLASS_COST, L1_COST, GIOU_COST = 2.0, 5.0, 2.0
CLASS_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0
ALPHA, GAMMA = 0.25, 2.0


def corners(boxes: Tensor) -> Tensor:
    """(cx, cy, w, h) [..., 4] to (x0, y0, x1, y1) [..., 4]."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU of broadcastable corner boxes [..., 4]; returns [...], in -1..1."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    area = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1)
    union = area - overlap
    hull = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    enclosing = hull.clamp(min=0).prod(-1)
    return overlap / (union + 1e-7) - (enclosing - union) / (enclosing + 1e-7)


def focal_terms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Focal loss of every logit if it were a positive, and if it were a negative; same shape."""
    log_yes, log_no = F.logsigmoid(logits), F.logsigmoid(-logits)
    positive = -ALPHA * log_no.exp() ** GAMMA * log_yes
    negative = -(1 - ALPHA) * log_yes.exp() ** GAMMA * log_no
    return positive, negative


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Hungarian assignment of one sample's queries to its boxes.

    logits: [queries, length]; boxes: [queries, 4] (cx, cy, w, h).
    Returns query indices and box indices, both long [min(queries, n)].
    """
    if not len(target.boxes):
        empty = torch.zeros(0, dtype=torch.long)
        return empty, empty
    tokens = target.tokens[target.phrases].float()
    tokens = tokens / tokens.sum(1, keepdim=True)
    positive, negative = focal_terms(logits)
    # padded tokens carry -inf logits; a phrase never contains one
    difference = torch.nan_to_num(positive - negative, nan=0.0, posinf=0.0, neginf=0.0)
    distance = torch.cdist(boxes, target.boxes, p=1)
    overlap = generalised_iou(corners(boxes)[:, None], corners(target.boxes)[None])
    cost = CLASS_COST * difference @ tokens.T + L1_COST * distance - GIOU_COST * overlap
    rows, columns = linear_sum_assignment(torch.nan_to_num(cost, nan=1e4).numpy())
    return torch.as_tensor(rows), torch.as_tensor(columns)


def class_targets(shape: torch.Size, targets: Sequence[Target], matches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """One-hot token targets [B, queries, length]: 1 at the tokens of the matched box's own phrase."""
    wanted = torch.zeros(shape)
    for sample, (target, (queries, boxes)) in enumerate(zip(targets, matches, strict=True)):
        wanted[sample, queries] = target.tokens[target.phrases[boxes]].float()
    return wanted


def assigned_loss(
    logits: Tensor, boxes: Tensor, mask: Tensor, targets: Sequence[Target], matches: Sequence[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Losses of one prediction layer for a given assignment, per box of the batch.

    logits: [B, queries, length]; boxes: [B, queries, 4]; mask: [B, length], 1 for real tokens.
    Returns the three weighted terms `class`, `l1` and `giou`.
    """
    wanted = class_targets(logits.shape, targets, matches)
    positive, negative = focal_terms(logits.masked_fill(mask[:, None] == 0, -30.0))
    per_token = wanted * positive + (1 - wanted) * negative
    count = max(1, sum(len(queries) for queries, _ in matches))
    classes = (per_token * mask[:, None]).sum() / count
    predicted = torch.cat([boxes[i, queries] for i, (queries, _) in enumerate(matches)])
    true = torch.cat([target.boxes[chosen] for target, (_, chosen) in zip(targets, matches, strict=True)])
    l1 = (predicted - true).abs().sum() / count
    giou = (1 - generalised_iou(corners(predicted), corners(true))).sum() / count
    return {"class": CLASS_WEIGHT * classes, "l1": L1_WEIGHT * l1, "giou": GIOU_WEIGHT * giou}


def matched_loss(logits: Tensor, boxes: Tensor, mask: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
    """`assigned_loss` for the Hungarian assignment of every sample (shapes as there)."""
    matches = [match(logits[i].detach(), boxes[i].detach(), target) for i, target in enumerate(targets)]
    return assigned_loss(logits, boxes, mask, targets, matches)
