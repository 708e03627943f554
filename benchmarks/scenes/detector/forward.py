"""One training forward pass of Grounding DINO: every layer's predictions, and a denoising pass.

The denoising pass starts the decoder's own queries at jittered true boxes with a known
assignment (DN-DETR, arXiv 2203.01305). It teaches the decoder to refine and name boxes before
the two-stage proposals are any good, and adds nothing to the exported model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GroundingDinoForObjectDetection

from benchmarks.scenes.detector.data import Batch, Target
from benchmarks.scenes.detector.loss import assigned_loss, matched_loss

STRIDES = (16, 32)


def predictions(
    model: GroundingDinoForObjectDetection, hidden: Tensor, first: Tensor, later: Tensor, text: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Token logits [B, Q, length] and boxes [B, Q, 4] of every decoder layer, in float32.

    hidden: [B, layers, Q, 256]; first: [B, Q, 4] references of layer 0; later: [B, layers, Q, 4]
    references after every layer; text: [B, length, 256].
    """
    results = []
    with torch.autocast("cpu", enabled=False):
        for layer in range(hidden.shape[1]):
            state = hidden[:, layer].float()
            reference = (first if layer == 0 else later[:, layer - 1]).float()
            boxes = (model.bbox_embed[layer](state) + torch.special.logit(reference, eps=1e-5)).sigmoid()
            results.append((state @ text.float().transpose(1, 2), boxes))
    return results


def denoising_start(
    targets: Sequence[Target], slots: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Jittered true boxes for `slots` queries of every sample, in groups that hold every box once.

    Returns references [B, slots, 4], an additive attention mask [B, 1, slots, slots] that separates
    the groups (they would otherwise average each other's noise away), and the known assignment.
    """
    references = torch.full((len(targets), slots, 4), 0.5)
    mask = torch.zeros(len(targets), 1, slots, slots)
    matches = []
    for sample, target in enumerate(targets):
        count = len(target.boxes)
        used = min(slots, count * max(1, slots // count)) if count else 0
        slot = torch.arange(used)
        box = slot % max(1, count)
        true = target.boxes[box]
        shift = (torch.rand(used, 2, generator=generator) - 0.5) * 0.8
        scale = torch.exp((torch.rand(used, 2, generator=generator) - 0.5) * 1.4)
        noisy = torch.cat([true[:, :2] + shift * true[:, 2:], true[:, 2:] * scale], 1)
        references[sample, :used] = noisy.clamp(0.02, 0.98)
        group = torch.full((slots,), -1)
        group[:used] = slot // max(1, count)
        mask[sample, 0] = torch.where(group[:, None] == group[None], 0.0, -1e4)
        matches.append((slot, box))
    return references, mask, matches


def training_loss(
    model: GroundingDinoForObjectDetection, batch: Batch, generator: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Total loss of a batch and its parts: encoder proposals, decoder layers, denoising."""
    out = model.model(pixel_values=batch.pixels, input_ids=batch.ids, attention_mask=batch.mask)
    text = out.encoder_last_hidden_state_text
    length = batch.ids.shape[1]
    proposals = (out.enc_outputs_class[..., :length].float(), out.enc_outputs_coord_logits.float().sigmoid())
    terms = {"encoder": matched_loss(*proposals, batch.mask, batch.targets)}
    layers = predictions(
        model, out.intermediate_hidden_states, out.init_reference_points, out.intermediate_reference_points, text
    )
    for number, layer in enumerate(layers):
        terms[f"decoder{number}"] = matched_loss(*layer, batch.mask, batch.targets)
    vision = out.encoder_last_hidden_state_vision
    for number, loss in enumerate(denoising_losses(model, batch, vision, text, generator)):
        terms[f"denoise{number}"] = loss
    total = torch.stack([value for term in terms.values() for value in term.values()]).sum()
    return total, {f"{k}.{n}": float(v.detach()) for k, term in terms.items() for n, v in term.items()}


def denoising_losses(
    model: GroundingDinoForObjectDetection, batch: Batch, vision: Tensor, text: Tensor, generator: torch.Generator
) -> list[dict[str, Tensor]]:
    """Losses of every decoder layer when its queries start at jittered true boxes."""
    slots, size = model.config.num_queries, batch.pixels.shape[-1]
    references, attention, matches = denoising_start(batch.targets, slots, generator)
    order = torch.randperm(slots, generator=generator)
    content = model.model.query_position_embeddings.weight[order][None].expand(len(batch.targets), -1, -1)
    shapes = [(size // stride, size // stride) for stride in STRIDES]
    spatial = torch.tensor(shapes)
    out = model.model.decoder(
        inputs_embeds=content,
        vision_encoder_hidden_states=vision,
        vision_encoder_attention_mask=torch.ones(vision.shape[:2], dtype=torch.bool),
        text_encoder_hidden_states=text,
        text_encoder_attention_mask=batch.mask == 0,
        reference_points=references,
        spatial_shapes=spatial,
        spatial_shapes_list=shapes,
        level_start_index=torch.cat([spatial.new_zeros(1), spatial.prod(1).cumsum(0)[:-1]]),
        valid_ratios=torch.ones(len(batch.targets), len(shapes), 2),
        self_attn_mask=attention,
        return_dict=True,
    )
    layers = predictions(model, out.intermediate_hidden_states, references, out.intermediate_reference_points, text)
    return [_denoising_loss(logits, boxes, batch, matches) for logits, boxes in layers]


def _denoising_loss(
    logits: Tensor, boxes: Tensor, batch: Batch, matches: list[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    # unused slots of pictures without boxes are no negatives either: mask their sample out
    asked = torch.tensor([[float(len(target.boxes) > 0)] for target in batch.targets])
    return assigned_loss(logits, boxes, batch.mask * asked.long(), batch.targets, matches)
