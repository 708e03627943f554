"""Train the tiny Grounding DINO of the Scenes world on one CPU core.

    python -m benchmarks.scenes.detector.train --out build/train/detector --minutes 70 \\
        --export data/scenes/models/detector

Stages: two minutes of dense per-cell classes for the backbone, then detection with cosine rates
fitted to the wall-time budget. A killed run continues with `--resume` from its last checkpoint.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
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
from benchmarks.scenes.loop import Average, Budget, cosine_rate, load_checkpoint, save_checkpoint
from benchmarks.scenes.options import add_views
from benchmarks.scenes.scene_cache import SceneCache, read_or_write
from gazetteer.data.scenes.world import CONCEPT_NAMES, EVAL_SEEDS

VALIDATION_SEED = 999_000_000
"""Validation scenes come from the training range but are never trained on; evaluation seeds stay unseen."""
WORDS = (*CONCEPT_NAMES, *DISTRACTORS)


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Decay for matrices only; sampling offsets learn ten times slower, as in Deformable DETR."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        scale = 0.1 if "sampling_offsets" in name else 1.0
        decay = 0.05 if parameter.dim() > 1 and "embed" not in name else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return [{"params": p, "scale": s, "weight_decay": d} for (s, d), p in groups.items()]


class Run:
    """Everything that a checkpoint holds: model, averages, optimizer, streams, budget."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.manual_seed(arguments.seed)
        self.arguments = arguments
        self.cache = read_or_write(arguments.scenes, 0, arguments.count, arguments.views)
        validation = Path(f"{arguments.scenes}_validation")
        self.held_out = read_or_write(validation, VALIDATION_SEED, 100, arguments.views)
        self.vocabulary: dict[str, int] = build_tokenizer(WORDS).get_vocab()
        self.model = build_model()
        use_dense_attention(self.model)
        self.batches = DetectorBatches(self.cache, self.vocabulary, arguments.batch, arguments.seed)
        self.noise = torch.Generator().manual_seed(arguments.seed)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model), lr=arguments.rate, betas=(0.9, 0.99))
        self.average = Average([self.model], 0.998)
        self.budget = Budget(arguments.minutes, None)
        self.path = arguments.out / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint (readable with weights_only)."""
        state = {
            "model": self.model.state_dict(), "average": self.average.shadow,
            "optimizer": self.optimizer.state_dict(), "step": self.budget.step, "seconds": self.budget.seconds,
            "rng": torch.get_rng_state(), "noise": self.noise.get_state(),
            "stream": str(self.batches.generator.bit_generator.state),
        }  # fmt: skip
        save_checkpoint(self.path, state)

    def load(self) -> None:
        """Continue exactly where the checkpoint was written."""
        import ast

        state = load_checkpoint(self.path)
        self.model.load_state_dict(state["model"])
        self.average.load(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.budget.step, self.budget.seconds = state["step"], state["seconds"]
        torch.set_rng_state(state["rng"])
        self.noise.set_state(state["noise"])
        self.batches.generator.bit_generator.state = ast.literal_eval(state["stream"])

    def step(self) -> dict[str, float]:
        """One optimizer step; returns the parts of the loss and the gradient norm."""
        rate = cosine_rate(self.arguments.rate, self.budget, warmup=300)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        with torch.autocast("cpu", torch.bfloat16):
            loss, parts = training_loss(self.model, self.batches(), self.noise)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), 5.0))
        if norm == norm and norm != float("inf"):  # one bad batch must not end an hour of training
            self.optimizer.step()
        self.budget.tick()
        self.average.update(self.budget.step)
        return {**parts, "norm": norm}

    def report(self, sums: dict[str, float], steps: int, started: float) -> None:
        """One line of mean losses since the last report."""
        parts = " ".join(f"{name}={value / steps:.3f}" for name, value in sums.items() if "0." not in name)
        speed = (time.monotonic() - started) / steps
        print(f"step {self.budget.step} {100 * self.budget.fraction:.1f}% {speed:.3f}s/step {parts}", flush=True)

    def validate(self, details: bool = False) -> None:
        """Quality of the averaged weights on held-out scenes."""
        self.average.swap()
        print_quality(self.model.eval(), self.held_out, self.vocabulary, "validation", details)
        self.model.train()
        self.average.swap()
        self.budget.restart_clock()

    def train(self) -> None:
        """Train until the budget is used up."""
        sums: dict[str, float] = {}
        steps, started, last_check = 0, time.monotonic(), time.monotonic()
        self.model.train()
        self.budget.restart_clock()
        while self.budget.fraction < 1:
            for name, value in self.step().items():
                sums[name] = sums.get(name, 0.0) + value
            steps += 1
            if steps == 100:
                self.report(sums, steps, started)
                sums, steps, started = {}, 0, time.monotonic()
            if time.monotonic() - last_check > 60 * self.arguments.check_minutes:
                self.validate()
                self.save()
                last_check = started = time.monotonic()
        self.save()
        self.validate(details=True)


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


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/train/detector"))
    parser.add_argument("--scenes", type=Path, default=Path("build/train/scenes"), help="cache of rendered scenes")
    parser.add_argument("--count", type=int, default=16000, help="how many training scenes to render")
    parser.add_argument("--minutes", type=float, default=70.0)
    parser.add_argument("--pretrain-minutes", type=float, default=2.0)
    parser.add_argument("--check-minutes", type=float, default=4.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=0)
    add_views(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    parser.add_argument("--export", type=Path, help="folder for the trained model")
    return parser.parse_args()


def main() -> None:
    """Train, evaluate on unseen seeds, export."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    run = Run(arguments)
    if arguments.resume and run.path.exists():
        run.load()
    elif arguments.pretrain_minutes:
        pretrain_backbone(run.model, run.cache, arguments.pretrain_minutes, arguments.seed)
        run.average = Average([run.model], run.average.decay)
    run.train()
    if arguments.export:
        run.average.swap()
        size = export(run.model.eval(), build_tokenizer(WORDS), arguments.export)
        print(f"exported {arguments.export}: {size / 1e6:.2f} MB")
        unseen = read_or_write(Path(f"{arguments.scenes}_eval"), EVAL_SEEDS.start, 200, arguments.views)
        print_quality(run.model, unseen, run.vocabulary, "unseen seeds", details=True)


if __name__ == "__main__":
    main()
