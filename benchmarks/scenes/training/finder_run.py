"""What the trainings of detector and segmenter have in common: scenes, checkpoints and the loop."""

from __future__ import annotations

import argparse
import ast
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch

from benchmarks.scenes.training.loop import Average, Budget, load_checkpoint, require_same, save_checkpoint
from benchmarks.scenes.training.scene_cache import read_or_write
from gazetteer.data.scenes.world import EVAL_SEEDS

VALIDATION_SEED = 999_000_000
"""Validation scenes come from the training range but are never trained on; evaluation seeds stay unseen."""
REPORTED = 100
"""Steps between two lines of mean losses."""


class FinderRun(ABC):
    """Everything that a checkpoint holds: model, average, optimizer, stream, budget.

    Attributes:
        model, optimizer, batches: made by the class of a model, after the seed was set here; `batches` draws from its
            NumPy ``generator``.
    """

    model: Any
    optimizer: torch.optim.Optimizer
    batches: Any
    average: Average

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.manual_seed(arguments.seed)
        self.arguments = arguments
        self.cache = read_or_write(arguments.scenes, 0, arguments.count, arguments.views)
        validation = Path(f"{arguments.scenes}_validation")
        self.held_out = read_or_write(validation, VALIDATION_SEED, 100, arguments.views)
        self.budget = Budget(arguments.minutes, None)
        self.path = arguments.out / "checkpoint.pt"

    @abstractmethod
    def step(self) -> dict[str, float]:
        """One optimizer step; returns the parts of the loss."""

    @abstractmethod
    def check(self, details: bool) -> None:
        """Print the quality of the model as it stands, in eval mode, on `held_out`."""

    def about(self) -> dict[str, Any]:
        """What must be the same where the training goes on."""
        arguments = self.arguments
        return {"views": list(arguments.views), "seed": arguments.seed, "scenes": arguments.count}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds (readable with weights_only)."""
        return {
            "model": self.model.state_dict(), "average": self.average.shadow,
            "optimizer": self.optimizer.state_dict(), "step": self.budget.step, "seconds": self.budget.seconds,
            "rng": torch.get_rng_state(), "stream": str(self.batches.generator.bit_generator.state),
            "about": self.about(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state` was taken.

        Raises:
            InputError: other scenes, another seed or other words than now.
        """
        require_same(self.path, state.get("about"), self.about())
        self.model.load_state_dict(state["model"])
        self.average.load(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.budget.step, self.budget.seconds = state["step"], state["seconds"]
        torch.set_rng_state(state["rng"])
        self.batches.generator.bit_generator.state = ast.literal_eval(state["stream"])

    def save(self) -> None:
        """Write the checkpoint."""
        save_checkpoint(self.path, self.state())

    def resume(self) -> bool:
        """Go on from the checkpoint where that was asked for and there is one."""
        if not (self.arguments.resume and self.path.exists()):
            return False
        self.restore(load_checkpoint(self.path))
        return True

    def validate(self, details: bool = False) -> None:
        """Quality of the averaged weights on held-out scenes."""
        self.average.swap()
        self.model.eval()
        self.check(details)
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
            if steps == REPORTED:
                parts = " ".join(f"{name}={value / steps:.3f}" for name, value in sums.items() if "0." not in name)
                speed = (time.monotonic() - started) / steps
                done = f"step {self.budget.step} {100 * self.budget.fraction:.1f}% {speed:.3f}s/step"
                print(f"{done} {parts}", flush=True)
                sums, steps, started = {}, 0, time.monotonic()
            if time.monotonic() - last_check > 60 * self.arguments.check_minutes:
                self.validate()
                self.save()
                last_check = started = time.monotonic()
        self.save()
        self.validate(details=True)

    def unseen(self) -> Any:
        """Scenes of the evaluation's seeds."""
        return read_or_write(Path(f"{self.arguments.scenes}_eval"), EVAL_SEEDS.start, 200, self.arguments.views)
