"""The methods of an evaluation by name, and which of them take their counts from another."""

from __future__ import annotations

from gazetteer.attribution.scores.controls import CONTROLS
from gazetteer.data.core.errors import InputError

TUNED = ("steps", "esd", "ca")
"""Losses of gradient steps: each on the attributed weights, with ``_all`` on all of the scope, with ``_random`` on as
many of each layer at random."""
FOLLOWERS = (*CONTROLS, "steps_random", "esd", "esd_random", "ca", "ca_random")
"""Methods that take the weights of the reference method, or as many of each layer as it does."""
CAD_FOLLOWERS = ("cad_random", "cad_magnitude", "cad_gradient", "cad_wanda")
"""Controls that zero as many weights of each layer as ``cad`` does at its own fraction."""
COMPARED = {
    "steps": ("steps_random", *CONTROLS), "cad": CAD_FOLLOWERS, "esd": ("esd_random",), "ca": ("ca_random",),
}  # fmt: skip
"""Per method its controls at equal counts of each layer; the rest choose fractions of their own and have none.

``steps_random`` is trained as ``steps`` is; the other controls of ``steps`` are zeroed."""
FEATURES = ("sae_ablate", "sae_negative", "sae_replace")
"""Methods that erase through the features of autoencoders and leave the weights alone (`features.erasing`)."""
ERASE = (
    "steps", "steps_random", "cad", "random", "steps_all", "magnitude", "esd", "esd_random", "esd_all", "ca",
    "ca_random", "ca_all", "gradient", "wanda", "live", "contrast", "iterated", *CAD_FOLLOWERS, "published", "uce",
    "repaired", *FEATURES,
)  # fmt: skip
"""In the order of an evaluation."""
AMPLIFY = (
    "steps", "steps_random", "cad", "random", "steps_all", "magnitude", "gradient", "wanda", "contrast", "iterated",
    *CAD_FOLLOWERS,
)  # fmt: skip

MOST_STEPS = 10
"""Sampler steps that an evaluation and its edits take at most."""
PARTS = ("erase", "amplify", "styles", "areas", "attacks", "located", "faithfulness", "heldout")
"""Of an evaluation; ``attacks`` and ``located`` need ``erase``, which says at which doses, and comes with them."""


def takes_all(method: str) -> bool:
    """Whether a method changes all weights of its scope, so that there is no fraction to choose."""
    return method.endswith("_all") or method == "uce"


def leader(method: str, reference: str) -> str:
    """The method whose counts per layer, at its own fraction, `method` takes; empty where it chooses a fraction itself.

    Args:
        reference: `MethodConfig.reference`, which all followers but those of ``cad`` follow.
    """
    return "cad" if method in CAD_FOLLOWERS else reference if method in FOLLOWERS else ""


def accepted(goal: str, method: str) -> None:
    """Raise InputError for a goal or a method that there is not; the sentence names those there are."""
    known = {"erase": tuple(name for name in ERASE if name not in FEATURES), "amplify": AMPLIFY}
    if goal not in known:
        raise InputError(f"Unknown goal {goal!r}; accepted: {', '.join(known)}.")
    if method in FEATURES and goal == "erase":
        raise InputError(
            f"{method} acts on features while the model runs and changes no weights: there is no edit of it, gazetteer "
            "attribute evaluate alone measures it, and gazetteer steer changes features that you name. Accepted: "
            f"{', '.join(known[goal])}."
        )
    if method not in known[goal]:
        raise InputError(f"Unknown method {method!r} to {goal}; accepted: {', '.join(known[goal])}.")
