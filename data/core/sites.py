"""A site is where one sparse autoencoder listens: a block, a guidance branch and a moment of sampling."""

from __future__ import annotations

from dataclasses import dataclass

from gazetteer.data.core.errors import InputError

BRANCHES = ("cond", "uncond")


@dataclass(frozen=True, order=True)
class Site:
    """One (block, branch, t) triple.

    Attributes:
        block: module path inside the U-Net, e.g. ``mid_block.attentions.0``.
        branch: ``cond`` or ``uncond``, the two halves of classifier-free guidance.
        t: position in the reverse process, 1.0 = first sampler step, 0.0 = last.
    """

    block: str
    branch: str
    t: float

    def __post_init__(self) -> None:
        if self.branch not in BRANCHES:
            raise InputError(f"Unknown branch {self.branch!r}; accepted: {', '.join(BRANCHES)}.")
        if not 0.0 <= self.t <= 1.0:
            raise InputError(f"t must lie between 0.0 (last step) and 1.0 (first step), not {self.t}.")

    @property
    def slug(self) -> str:
        """A folder name, e.g. ``mid_block.attentions.0-cond-t0.50``."""
        return f"{self.block}-{self.branch}-t{self.t:.2f}"

    @classmethod
    def from_slug(cls, slug: str) -> Site:
        """The inverse of `slug`; raises InputError for anything else."""
        try:
            block, branch, t = slug.rsplit("-", 2)
            return cls(block, branch, float(t.removeprefix("t")))
        except ValueError as error:
            raise InputError(f"{slug!r} is not a site name like mid_block.attentions.0-cond-t0.50.") from error


def step_of(t: float, steps: int) -> int:
    """0-based sampler step of position `t` among `steps` steps (t=1.0 -> 0, t=0.0 -> steps - 1)."""
    return int((1.0 - t) * (steps - 1) + 0.5)
