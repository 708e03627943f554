"""What devices are stated to do and stages reach of it: what `gazetteer plan` goes by without a run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gazetteer.data.core.errors import InputError

PEAK_TFLOPS = {
    "t4": 65, "v100": 125, "l4": 121, "a10": 125, "3090": 71, "4090": 165, "a6000": 155, "l40s": 362, "a100": 312,
    "h100": 989, "h200": 989, "b200": 2250, "mi300x": 1307,
}  # fmt: skip
"""Dense float16 or bfloat16 tensor rates of the vendors' data sheets, in 10^12 operations a second."""
UTILISATION = {"generate": 0.35, "detect": 0.2, "segment": 0.09, "sample": 0.35, "train": 0.2}
"""Share of that rate which a stage reaches in half precision and batches. No accelerator was at hand to measure them:
a run by --like says better."""
FLOAT32 = 0.5
"""What a model in float32 reaches of that: TF32's rate is half of float16's."""
RANGE = (0.6, 2.0)
"""Hours from stated rates may come out by these factors; of those by --like see `Measured.spread`."""


@dataclass(frozen=True)
class Rates:
    """What the plan is priced with.

    Attributes:
        tflops: sustained operations a second, in 10^12, or by stage where it is a mapping; 0: from `like` alone.
        like: a finished or begun run of the same models, whose seconds and bytes are taken; empty: none.
        devices: how many work at once.
        price: money a device and hour; 0: none asked.
    """

    tflops: float | Mapping[str, float] = 0.0
    like: str = ""
    devices: int = 1
    price: float = 0.0

    def __post_init__(self) -> None:
        numbers = (self.price, *(() if isinstance(self.tflops, Mapping) else (self.tflops,)))
        if self.devices < 1 or not all(0 <= number < math.inf for number in numbers):
            raise InputError("--devices is at least 1, and --tflops and --price are numbers from 0 on.")


def stage_rates(
    device: str, utilisation: float | None = None, dtypes: Mapping[str, str] = MappingProxyType({})
) -> dict[str, float]:
    """Sustained operations a second of every stage on a device of `PEAK_TFLOPS`, in 10^12.

    Args:
        utilisation: the share of its peak that every stage reaches; None: what `UTILISATION` states.
        dtypes: of the models, by stage; one that is not named works in half precision.
    """
    peak = PEAK_TFLOPS[device]
    if utilisation:
        return dict.fromkeys(UTILISATION, peak * utilisation)
    return {
        stage: peak * fraction * (FLOAT32 if dtypes.get(stage) == "float32" else 1.0)
        for stage, fraction in UTILISATION.items()
    }


def card_of(name: str) -> str | None:
    """The device of `PEAK_TFLOPS` that a driver calls by this name, e.g. ``NVIDIA H100 80GB HBM3``; None: unknown."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return next((card for card in PEAK_TFLOPS if card in words), None)


def seconds_of(flops: dict[str, int], tflops: float | Mapping[str, float]) -> dict[str, float] | None:
    """Seconds of every stage at a rate, or at one of its own each; None without a rate."""
    if not tflops:
        return None
    rates = tflops if isinstance(tflops, Mapping) else dict.fromkeys(flops, tflops)
    return {stage: count / (rates[stage] * 1e12) for stage, count in flops.items()}
