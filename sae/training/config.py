"""How an autoencoder is trained: one frozen, validated data class."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Count, Effect, NonNegative, Positive, Seed, setting, settings

if TYPE_CHECKING:
    from gazetteer.sae.model.autoencoder import SAEConfig


@settings("sae.train")
class TrainConfig:
    """Settings of one training run; the defaults are the paper's (appendix A) where it states any."""

    k: Count = setting(Effect.TRAINING, "Features a vector may use.", default=10)
    expansion: Count = setting(
        Effect.TRAINING,
        "Dictionary size as a multiple of the width, n = expansion · d; ignored when n is given.",
        default=4,
    )
    n: Count | None = setting(Effect.TRAINING, "Dictionary size, or None.", default=None)
    lr: Positive = setting(
        Effect.TRAINING,
        "Adam's learning rate at its plateau; the paper's suits its thousands of steps, a run of hundreds "
        "wants ten times as much or more.",
        default=1e-4,
    )
    batch_size: Count = setting(Effect.TRAINING, "Vectors a step.", default=4096)
    epochs: Count = setting(Effect.TRAINING, "Passes over the vectors; ignored when steps is given.", default=1)
    steps: Count | None = setting(Effect.TRAINING, "Optimizer steps, or None.", default=None)
    alpha: NonNegative = setting(Effect.TRAINING, "Weight of AuxK; 0 turns it off.", default=1 / 32)
    k_aux: Count = setting(Effect.TRAINING, "Dead features that may explain the residual of one vector.", default=256)
    dead_after: Count | None = setting(
        Effect.TRAINING,
        "Vectors without firing after which a feature counts as dead; None = a tenth of the run (a fixed "
        "count from a longer run leaves AuxK idle: 10 million of 12.8 million vectors is nearly all).",
        default=None,
    )
    fire_above: NonNegative = setting(Effect.TRAINING, "Activations up to this do not count as firing.", default=0.0)
    warmup: NonNegative = setting(
        Effect.TRAINING, "Share of the steps over which the rate rises linearly from 0.", default=0.0
    )
    decay: NonNegative = setting(
        Effect.TRAINING, "Share of the steps, at the end, over which it falls linearly to 0.", default=0.0
    )
    median_vectors: Count = setting(
        Effect.TRAINING,
        "First vectors, whose geometric median b starts from and whose variance scales the loss.",
        default=32768,
    )
    batch_topk: bool = setting(
        Effect.TRAINING, "Train as BatchTopK: k features a vector on average, not each.", default=False
    )
    max_k: Count | None = setting(
        Effect.TRAINING, "With batch_topk, at most so many features a vector (none: 4k).", default=None
    )
    prefixes: tuple[float, ...] = setting(
        Effect.TRAINING,
        "Matryoshka prefixes as ascending shares of the dictionary in (0, 1), e.g. (0.125, 0.25, 0.5); the "
        "whole dictionary always comes last.",
        default=(),
    )
    candidates: bool | None = setting(
        Effect.TRAINING,
        "Find the codes through a coarse bfloat16 product whose proposals are scored in full precision "
        "(`sae.kernels.candidates`): the same codes up to rounding, for less work where the machine has "
        "bfloat16 and the autoencoder is large; None = exactly there.",
        default=None,
    )
    compile: bool = setting(
        Effect.TRAINING,
        "Run the loss through torch.compile, which needs a compiler; without one, or where it fails, a "
        "warning says so and training goes on without.",
        default=False,
    )
    seed: Seed = setting(Effect.TRAINING, "Of the initial directions and of the order of the vectors.", default=0)
    checkpoint_every: Count = setting(
        Effect.NOTHING, "Steps between checkpoints of the whole training state.", default=500
    )
    keep: Count = setting(Effect.NOTHING, "How many of the latest checkpoints stay while the run lasts.", default=1)
    log_every: Count = setting(Effect.NOTHING, "Steps between entries of the history.", default=50)

    def __post_init__(self) -> None:
        if self.warmup + self.decay > 1:
            raise InputError("sae.train.warmup and sae.train.decay are shares of the steps that sum to at most 1.")
        if not all(low < high < 1 for low, high in zip((0.0, *self.prefixes), self.prefixes, strict=False)):
            raise InputError(f"sae.train.prefixes must be ascending shares between 0 and 1, not {list(self.prefixes)}.")

    @classmethod
    def paper(cls, k: int = 10) -> TrainConfig:
        """n = 4d, k of 10 or 20, Adam at 1e-4, batch 4096, one epoch, AuxK 1/32 of 256, firing above 1e-3.

        Raises:
            InputError: another k; `TrainConfig` takes any.
        """
        if k not in (10, 20):
            raise InputError(f"The paper trains with k=10 and k=20, not {k}.")
        return cls(k=k, fire_above=1e-3)

    def shape(self, d: int) -> SAEConfig:
        """The autoencoder's shape for vectors of width d; raises InputError when k exceeds n."""
        from gazetteer.sae.model.autoencoder import SAEConfig

        n = self.n if self.n is not None else self.expansion * d
        prefixes = (*(max(1, round(fraction * n)) for fraction in self.prefixes), n) if self.prefixes else ()
        return SAEConfig(d, n, self.k, self.batch_topk, self.max_k, prefixes)

    def total_steps(self, vectors: int) -> int:
        """Steps of the run on a set of so many vectors; raises InputError when they do not fill one batch."""
        steps = self.steps if self.steps is not None else self.epochs * vectors // self.batch_size
        if steps < 1 or vectors < 1:
            raise InputError(
                f"{vectors} vectors do not fill one batch of sae.train.batch_size={self.batch_size}; "
                "lower it, or capture more pictures."
            )
        return steps

    def learning_rate(self, step: int, steps: int) -> float:
        """The rate of 0-based `step` of `steps`: linear warm-up, plateau, linear decay; never 0."""
        rising, falling = self.warmup * steps, self.decay * steps
        factor = min(1.0, (step + 1) / rising if rising else 1.0, (steps - step) / falling if falling else 1.0)
        return self.lr * factor

    def dead_threshold(self, steps: int) -> int:
        """Vectors without firing after which a feature is dead."""
        return self.dead_after if self.dead_after is not None else max(1, steps * self.batch_size // 10)

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)
