"""The state of a training run, one step of it, and its exact copy on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.plain_json import json_object
from gazetteer.sae.kernels.adam import MOMENTS, Adam
from gazetteer.sae.kernels.candidates import candidates_pay
from gazetteer.sae.kernels.compiled import compiled_or_plain
from gazetteer.sae.kernels.gradients import Step, loss_and_gradients
from gazetteer.sae.kernels.median import geometric_median
from gazetteer.sae.model.autoencoder import Codes, SparseAutoencoder
from gazetteer.sae.model.chunks import is_finite, mean_square, remove_along
from gazetteer.sae.training.config import TrainConfig
from gazetteer.sae.training.feed import Feed
from gazetteer.sae.training.tensor_file import write_tensors

PARAMETERS = ("encoder", "decoder", "bias")
# Steps between two looks at what is on the device: which features are dead, and whether all losses were finite. A step
# in between asks the device for nothing, and so never waits for it.
LOOK_EVERY = 10


class Trainer:
    """Everything that a step reads or changes.

    No random number is drawn after the start: the initial directions and the order of the vectors are
    functions of the seed, and the place in that order is the step. Weights, Adam's moments, the counters
    below and the step are therefore the whole state, and a restored run goes on to the same bits (same
    machine and thread count).

    Attributes:
        sae: the autoencoder in training.
        step: steps done.
        idle: [n] int64, vectors since each feature last fired.
        mse_scale: 1 / mean((x − mean x)²) of the first vectors, in squared units of the activations.
        history: one dict of numbers every ``log_every`` steps.
    """

    def __init__(self, d: int, config: TrainConfig, steps: int, device: torch.device | str = "cpu") -> None:
        """A run of `steps` steps on vectors of width d, before its first step."""
        self.config, self.steps = config, steps
        self.sae = SparseAutoencoder(config.shape(d), device).requires_grad_(False)
        self.idle = torch.zeros(self.sae.config.n, dtype=torch.int64, device=device)
        self.step = 0
        self.mse_scale = 1.0
        self.history: list[dict[str, float]] = []
        self._candidates = candidates_pay(self.sae) if config.candidates is None else config.candidates
        self._loss = compiled_or_plain(loss_and_gradients) if config.compile else loss_and_gradients
        self._adam = Adam([self.sae.encoder, self.sae.decoder, self.sae.bias])
        self._feed = Feed(device)
        self._dead = torch.zeros(0, dtype=torch.int64, device=device)
        # Of the first loss that was not finite: its step (-1: none was), whether the vectors were, and itself.
        self._failed = torch.tensor([-1.0, 1.0, 0.0], device=device)

    def start(self, first: Tensor) -> None:
        """Tied random directions; b and the loss's scale from the first vectors [count, d].

        Raises:
            InputError: the vectors are not finite, or all the same.
        """
        first = first.to(self.sae.bias.device)
        _expect_finite(first, 0)
        variance = float(mean_square(first, first.mean(dim=0)))
        if not variance > 0.0:
            raise InputError("the activations are all the same; there is nothing to learn.")
        self.mse_scale = 1.0 / variance
        self.sae.initialise(self.config.seed, geometric_median(first))

    def dead(self) -> Tensor:
        """Features that have not fired for ``dead_after`` vectors: [dead] int64, ascending."""
        return (self.idle >= self.config.dead_threshold(self.steps)).nonzero().squeeze(1)

    def advance(self, x: Tensor) -> Step:
        """One optimizer step on x [batch, d]; on an accelerator it returns before the step is done.

        Raises, within `LOOK_EVERY` steps:
            InputError: an x was not finite.
            GazetteerError: a loss was not, although its x was.
        """
        config, sae = self.config, self.sae
        x = self._feed(x)
        if self.step % LOOK_EVERY == 0:
            self.look()
        result = self._loss(sae, x, self.mse_scale, self._dead, config.k_aux, config.alpha, self._candidates)
        self._watch(result.loss, x)
        rate = config.learning_rate(self.step, self.steps)
        self._update(result, rate)
        self._count(result.codes, len(x))
        self._track_threshold(result.codes.values)
        self.step += 1
        if (self.step - 1) % config.log_every == 0 or self.step == self.steps:
            self.check()
            numbers = {name: float(getattr(result, name)) for name in ("loss", "mse", "auxk")}
            self.history.append({"step": self.step - 1, **numbers, "dead": len(self._dead), "lr": rate})
        return result

    def look(self) -> None:
        """Take stock of what the steps so far left on the device: `check`, and the features that AuxK revives next."""
        self.check()
        self._dead = self.dead()

    def check(self) -> None:
        """Raises as `advance` if a loss so far was not finite."""
        step, finite, loss = self._failed.tolist()
        if step >= 0 and not finite:
            raise InputError(f"the activations of step {step:.0f} hold NaN or infinity.")
        if step >= 0:
            raise GazetteerError(f"training diverged: the loss is {loss} at step {step:.0f}; lower sae.train.lr.")

    def _watch(self, loss: Tensor, x: Tensor) -> None:
        """Remember the first loss that is not finite, without asking for it."""
        finite = torch.isfinite(x.sum()).to(loss.dtype)
        now = torch.stack([torch.full_like(loss, float(self.step)), finite, loss]).to(self._failed.dtype)
        first = ~torch.isfinite(loss) & (self._failed[0] < 0)
        self._failed = torch.where(first, now, self._failed)

    def _count(self, codes: Codes, vectors: int) -> None:
        """Let every feature be idle for so many vectors more, save those that fired."""
        n = len(self.idle)
        features = torch.where(codes.values > self.config.fire_above, codes.indices, n)
        fired = torch.zeros(n + 1, dtype=torch.bool, device=self.idle.device).index_fill_(0, features.reshape(-1), True)
        self.idle.add_(vectors).masked_fill_(fired[:n], 0)

    def _track_threshold(self, values: Tensor) -> None:
        """BatchTopK's threshold: the mean over recent steps of the smallest activation that was kept.

        Recent are a twentieth of the training, at least ten and at most a thousand: what untrained weights gave is
        forgotten by the end, when the rate has fallen and the activations hardly move.
        """
        threshold = self.sae.threshold
        if threshold is not None:
            smallest = values.masked_fill(values <= 0, float("inf")).amin()
            recent = min(1000, max(10, self.steps // 20))
            moved = threshold.lerp(smallest, max(1 / (self.step + 1), 1 / recent))
            threshold.copy_(torch.where(torch.isfinite(smallest), moved, threshold))

    def _update(self, result: Step, rate: float) -> None:
        """Adam on the gradients, with concept vectors kept on the unit sphere."""
        sae, gradients = self.sae, result.gradients
        # Along f_i the loss can only be lowered by growing f_i, which the norm forbids; Adam must not count
        # it.
        remove_along(gradients.decoder, sae.decoder)
        self._adam.advance(gradients, rate)
        sae.normalise_decoder()

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Write the whole state, atomically; `identity` (JSON) says which run it belongs to; raises as `check`."""
        self.check()
        tensors: dict[str, Tensor] = {"idle": self.idle, "dead": self._dead, **self.sae.state_dict()}
        for name, moments in zip(PARAMETERS, self._adam.moments, strict=True):
            tensors |= {f"{name}.{key}": value for key, value in moments.items()}
        state = {
            "identity": identity,
            "step": self.step,
            "mse_scale": self.mse_scale,
            "history": self.history,
        }
        write_tensors(path, tensors, {"state": json.dumps(state)})

    def restore(self, state: TrainingSnapshot) -> None:
        """Continue from a state of the same run.

        Raises:
            InputError: the state is of another shape.
        """
        tensors = state.tensors
        try:
            # Copied into memory that torch allocated: its alignment can decide the last bit of a product.
            with torch.no_grad():
                for name, value in self.sae.state_dict().items():
                    value.copy_(tensors[name])
            self.idle.copy_(tensors["idle"])
            # States written before they held it followed `idle` at every step.
            self._dead = tensors["dead"].to(self.idle.device, copy=True) if "dead" in tensors else self.dead()
            self._adam.restore([{key: tensors[f"{name}.{key}"] for key in MOMENTS} for name in PARAMETERS])
        except (KeyError, RuntimeError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise InputError(f"the training state does not fit this SAE ({why}); delete it to start over.") from error
        self.step, self.mse_scale, self.history = state.step, state.mse_scale, state.history


class TrainingSnapshot(NamedTuple):
    """What `Trainer.save` wrote: which run it belongs to, its numbers and its tensors by name."""

    identity: dict[str, Any]
    step: int
    mse_scale: float
    history: list[dict[str, float]]
    tensors: dict[str, Tensor]


def read_snapshot(path: Path) -> TrainingSnapshot:
    """Read a training state; raises InputError when it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            state = json_object(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            snapshot = TrainingSnapshot(**state, tensors=tensors)
        sound = isinstance(snapshot.identity, dict) and isinstance(snapshot.step, int)
        sound = sound and isinstance(snapshot.mse_scale, int | float) and isinstance(snapshot.history, list)
        if not sound or not all(isinstance(row, dict) for row in snapshot.history):
            raise ValueError("what it holds is of other kinds")
        return snapshot
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"the training state {path} is damaged; delete it to start over.") from error


def _expect_finite(x: Tensor, step: int) -> None:
    if not is_finite(x):
        raise InputError(f"the activations of step {step} hold NaN or infinity.")
