"""Pictures of which everything is known: what stands where, to the pixel, and in which look."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ExactPicture:
    """One picture with its truth.

    Attributes:
        name: unique, sortable.
        prompt: what it shows, in words.
        image: uint8 [H, W, 3].
        masks: bool [H, W] of everything that is shown, by concept; what is not named is not there.
        looks: the styles that it has.
    """

    name: str
    prompt: str
    image: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    looks: tuple[str, ...] = ()
