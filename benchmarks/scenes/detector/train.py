"""Train the tiny Grounding DINO of the Scenes world on one CPU core.

    python -m benchmarks.scenes.detector.train --out build/train/detector --minutes 70 \\
        --export data/scenes/models/detector

Stages: two minutes of dense per-cell classes for the backbone, then detection with cosine rates
fitted to the wall-time budget. A killed run continues with `--resume` from its last checkpoint.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn
from transformers import GroundingDinoForObjectDetection

from benchmarks.scenes.detector.backbone import pretrain_backbone
from benchmarks.scenes.detector.data import DetectorBatches
from benchmarks.scenes.detector.deformable import use_dense_attention
from benchmarks.scenes.detector.evaluate import best_threshold, predict
from benchmarks.scenes.detector.forward import training_loss
from benchmarks.scenes.detector.model import DISTRACTORS, build_model, build_tokenizer, export
from benchmarks.scenes.options import finder_options
from benchmarks.scenes.training.finder_run import FinderRun
from benchmarks.scenes.training.loop import Average, cosine_rate, step_if_finite
from benchmarks.scenes.training.scene_cache import SceneCache
from gazetteer.data.scenes.world import CONCEPT_NAMES

WORDS = (*CONCEPT_NAMES, *DISTRACTORS)


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Decay for matrices only; sampling offsets learn ten times slower, as in Deformable DETR."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        scale = 0.1 if "sampling_offsets" in name else 1.0
        decay = 0.05 if parameter.dim() > 1 and "embed" not in name else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return [{"params": p, "scale": s, "weight_decay": d} for (s, d), p in groups.items()]


class Run(FinderRun):
    """The detector's training."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.vocabulary: dict[str, int] = build_tokenizer(WORDS).get_vocab()
        self.model = build_model()
        use_dense_attention(self.model)
        self.batches = DetectorBatches(self.cache, self.vocabulary, arguments.batch, arguments.seed)
        self.noise = torch.Generator().manual_seed(arguments.seed)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model), lr=arguments.rate, betas=(0.9, 0.99))
        self.average = Average([self.model], 0.998)

    def about(self) -> dict[str, Any]:
        """With the words, whose places in the vocabulary are learned."""
        return {**super().about(), "words": " ".join(WORDS)}

    def state(self) -> dict[str, Any]:
        """With the stream of the noise."""
        return {**super().state(), "noise": self.noise.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """With the stream of the noise."""
        super().restore(state)
        self.noise.set_state(state["noise"])

    def step(self) -> dict[str, float]:
        """One optimizer step; returns the parts of the loss and the gradient norm."""
        rate = cosine_rate(self.arguments.rate, self.budget, warmup=300)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        with torch.autocast("cpu", torch.bfloat16):
            loss, parts = training_loss(self.model, self.batches(), self.noise)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        step_if_finite(self.optimizer, norm)
        self.budget.tick()
        self.average.update(self.budget.step)
        return {**parts, "norm": float(norm)}

    def check(self, details: bool) -> None:
        """Precision, recall and false alarms."""
        print_quality(self.model, self.held_out, self.vocabulary, "validation", details)


def print_quality(
    model: GroundingDinoForObjectDetection, cache: SceneCache, vocabulary: dict[str, int], name: str, details: bool
) -> None:
    """Print precision, recall and false alarms at the best threshold, and per concept on request."""
    rows = range(len(cache))
    threshold, quality = best_threshold(predict(model, cache, vocabulary, rows), cache, rows)
    print(
        f"{name}: threshold {threshold} precision {quality.precision:.3f} recall {quality.recall:.3f} "
        f"false alarms {quality.false_alarms:.4f}",
        flush=True,
    )
    if details:
        for concept, (precision, recall, count) in quality.per_concept.items():
            print(f"  {concept}: precision {precision:.3f} recall {recall:.3f} of {count}")


def main() -> None:
    """Train, evaluate on unseen seeds, export."""
    arguments = finder_options(__doc__, "detector", (70.0, 2.0, 4.0), 16, 6e-4).parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    run = Run(arguments)
    if not run.resume() and arguments.pretrain_minutes:
        pretrain_backbone(run.model, run.cache, arguments.pretrain_minutes, arguments.seed)
        run.average = Average([run.model], run.average.decay)
    run.train()
    if arguments.export:
        run.average.swap()
        size = export(run.model.eval(), build_tokenizer(WORDS), arguments.export)
        print(f"exported {arguments.export}: {size / 1e6:.2f} MB")
        print_quality(run.model, run.unseen(), run.vocabulary, "unseen seeds", details=True)


if __name__ == "__main__":
    main()
