"""A site is where one sparse autoencoder listens: a block, what of it, a guidance branch and a moment of sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from gazetteer.data.core.errors import InputError

BRANCHES = ("cond", "uncond")
IMAGE, TEXT = "image", "text"
STREAMS = (IMAGE, TEXT)
"""Which tokens of a block: cells of the picture's grid, or words of the prompt."""
SIGNALS = ("update", "output", "input")
"""What of them: what the block adds (output minus input), what it gives, or what it is given, as transcoders read."""
SITE_COLUMNS = ("block", "stream", "signal", "branch", "t")
"""The columns that name a site in every table, in this order."""


class Port(NamedTuple):
    """What is listened to of a network, whatever the branch and moment: a block, a stream and a signal."""

    block: str
    stream: str = "image"
    signal: str = "update"

    def __str__(self) -> str:
        """As the first part of a site's slug, e.g. ``transformer_blocks.1-text-output``."""
        unusual = (value for value, usual in ((self.stream, STREAMS[0]), (self.signal, SIGNALS[0])) if value != usual)
        return "-".join([self.block, *unusual])

    @classmethod
    def parse(cls, text: str) -> Port:
        """The inverse of ``str(port)``."""
        return Site.from_slug(f"{text}-{BRANCHES[0]}-t0").port

    def site(self, branch: str, t: float) -> Site:
        """The site that listens here."""
        return Site(self.block, branch, t, self.stream, self.signal)


@dataclass(frozen=True, order=True)
class Site:
    """Where one autoencoder listens.

    Attributes:
        block: module path inside the denoiser, e.g. ``mid_block.attentions.0`` or ``transformer_blocks.1``.
        branch: ``cond`` or ``uncond``, the two halves of classifier-free guidance.
        t: position in the reverse process, 1.0 = first sampler step, 0.0 = last; its first six decimals count.
        stream: ``image`` (cells) or ``text`` (words).
        signal: ``update`` (output minus input of the whole block), ``output`` or ``input``.
    """

    block: str
    branch: str
    t: float
    stream: str = STREAMS[0]
    signal: str = SIGNALS[0]

    def __post_init__(self) -> None:
        choices = (
            ("branch", self.branch, BRANCHES),
            ("stream", self.stream, STREAMS),
            ("signal", self.signal, SIGNALS),
        )
        for name, value, accepted in choices:
            if value not in accepted:
                raise InputError(f"Unknown {name} {value!r}; accepted: {', '.join(accepted)}.")
        if not 0.0 <= self.t <= 1.0:
            raise InputError(f"t must lie between 0.0 (last step) and 1.0 (first step), not {self.t}.")
        object.__setattr__(self, "t", round(float(self.t), 6))  # as it reads back from tables: a third is one site

    @property
    def port(self) -> Port:
        """What is listened to, whatever the branch and moment."""
        return Port(self.block, self.stream, self.signal)

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Everything but the moment: block, stream, signal, branch."""
        return (*self.port, self.branch)

    def at(self, t: float) -> Site:
        """The site of the same place at another moment."""
        return replace(self, t=t)

    def columns(self) -> dict[str, Any]:
        """Its values by `SITE_COLUMNS`, as tables hold them; ``Site(**columns)`` gives it back."""
        return {name: getattr(self, name) for name in SITE_COLUMNS}

    @property
    def slug(self) -> str:
        """A folder name, e.g. ``mid_block.attentions.0-cond-t0.50`` or ``transformer_blocks.1-text-output-cond-t0.50``.

        The usual stream (image) and signal (update) are not named.
        """
        return f"{self.port}-{self.branch}-t{self.t:.2f}"

    @classmethod
    def from_slug(cls, slug: str) -> Site:
        """The inverse of `slug`; raises InputError for anything else."""
        try:
            block, *what, branch, t = slug.split("-")
            stream = what.pop(0) if what and what[0] in STREAMS[1:] else STREAMS[0]
            signal = what.pop(0) if what and what[0] in SIGNALS[1:] else SIGNALS[0]
            if what:
                raise ValueError(what[0])
            return cls(block, branch, float(t.removeprefix("t")), stream, signal)
        except ValueError as error:
            raise InputError(f"{slug!r} is not a site name like mid_block.attentions.0-cond-t0.50.") from error


def called_alike(t: float) -> tuple[float, float]:
    """The lowest and the highest t that are called as this one is, so that they name the same site (`Site.slug`).

    Sites of a run differ in the two decimals of their t, which tables hold in 32 bits; whoever asks for t = 0.33 means
    the site at a third.
    """
    name, slack = f"{t:.2f}", 5e-7  # half of the sixth decimal, to which t is read back from tables
    low, high = (round(float(name) + half, 6) for half in (-0.005, 0.005))
    return (
        low - slack if f"{low:.2f}" == name else low + slack,
        high + slack if f"{high:.2f}" == name else high - slack,
    )


def step_of(t: float, steps: int) -> int:
    """0-based sampler step of position `t` among `steps` steps (t=1.0 -> 0, t=0.0 -> steps - 1)."""
    return int((1.0 - t) * (steps - 1) + 0.5)


def nearest_t(t: float, steps: int) -> float:
    """Position of the sampler step that is heard at `t` among `steps` steps (of one step, 1.0)."""
    return 1.0 - step_of(t, steps) / (steps - 1) if steps > 1 else 1.0
