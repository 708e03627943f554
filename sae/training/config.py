"""How an autoencoder is trained: one frozen, validated data class."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.sae.model.autoencoder import SAEConfig

OPTIONAL = ("n", "steps", "dead_after", "max_k", "candidates")
"""Settings that may be None."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; the defaults are the paper's (appendix A) where it states any.

    Attributes:
        k: features a vector may use.
        expansion: dictionary size as a multiple of the width, n = expansion · d; ignored when n is given.
        n: dictionary size, or None.
        lr: Adam's learning rate at its plateau; the paper's suits its thousands of steps, a run of hundreds
            wants ten times as much or more.
        batch_size: vectors a step.
        epochs: passes over the vectors; ignored when steps is given.
        steps: optimizer steps, or None.
        alpha: weight of AuxK; 0 turns it off.
        k_aux: dead features that may explain the residual of one vector.
        dead_after: vectors without firing after which a feature counts as dead; None = a tenth of the run.
            (A fixed count from a longer run leaves AuxK idle: 10 million of 12.8 million vectors is nearly
            all.)
        fire_above: activations up to this do not count as firing.
        warmup: share of the steps over which the rate rises linearly from 0.
        decay: share of the steps, at the end, over which it falls linearly to 0.
        median_vectors: first vectors, whose geometric median b starts from and whose variance scales the
        loss.
        batch_topk, max_k: train as BatchTopK, with at most max_k features a vector (None = 4k); see `SAEConfig`.
        prefixes: Matryoshka prefixes as ascending shares of the dictionary in (0, 1), e.g. (0.125, 0.25, 0.5); the
            whole dictionary always comes last.
        candidates: find the codes through a coarse bfloat16 product whose proposals are scored in full precision
            (`sae.kernels.candidates`): the same codes up to rounding, for less work where the machine has bfloat16 and
            the autoencoder is large; None = exactly there.
        compile: run the loss through torch.compile, which needs a compiler; without one, or where it fails, a warning
            says so and training goes on without.
        seed: of the initial directions and of the order of the vectors.
        checkpoint_every: steps between checkpoints of the whole training state.
        keep: how many of the latest checkpoints stay while the run lasts.
        log_every: steps between entries of the history.

    Raises:
        InputError: a value out of range, named.
    """

    k: int = 10
    expansion: int = 4
    n: int | None = None
    lr: float = 1e-4
    batch_size: int = 4096
    epochs: int = 1
    steps: int | None = None
    alpha: float = 1 / 32
    k_aux: int = 256
    dead_after: int | None = None
    fire_above: float = 0.0
    warmup: float = 0.0
    decay: float = 0.0
    median_vectors: int = 32768
    batch_topk: bool = False
    max_k: int | None = None
    prefixes: tuple[float, ...] = ()
    candidates: bool | None = None
    compile: bool = False
    seed: int = 0
    checkpoint_every: int = 500
    keep: int = 1
    log_every: int = 50

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "prefixes" or (value is None and field.name in OPTIONAL):
                continue
            if field.type.startswith("bool"):
                if not isinstance(value, bool):
                    raise InputError(f"sae.{field.name} must be true or false, not {value!r}.")
                continue
            whole = field.type.startswith("int")
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                kind = "a whole number" if whole else "a number"
                raise InputError(f"sae.{field.name} must be {kind}, not {value!r}.")
            least = 0 if field.name in ("alpha", "fire_above", "warmup", "decay", "seed", "lr") else 1
            if not value >= least:
                raise InputError(f"sae.{field.name} must be at least {least}, not {value}.")
        if self.lr == 0 or self.warmup + self.decay > 1:
            raise InputError("sae.lr must be above 0, and sae.warmup and sae.decay are shares that sum to at most 1.")
        object.__setattr__(self, "prefixes", tuple(self.prefixes))
        if not all(low < high < 1 for low, high in zip((0.0, *self.prefixes), self.prefixes, strict=False)):
            raise InputError(f"sae.prefixes must be ascending shares between 0 and 1, not {list(self.prefixes)}.")

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
        n = self.n if self.n is not None else self.expansion * d
        prefixes = (*(max(1, round(share * n)) for share in self.prefixes), n) if self.prefixes else ()
        return SAEConfig(d, n, self.k, self.batch_topk, self.max_k, prefixes)

    def total_steps(self, vectors: int) -> int:
        """Steps of the run on a set of so many vectors; raises InputError when they do not fill one batch."""
        steps = self.steps if self.steps is not None else self.epochs * vectors // self.batch_size
        if steps < 1 or vectors < 1:
            raise InputError(
                f"{vectors} vectors do not fill one batch of sae.batch_size={self.batch_size}; "
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
