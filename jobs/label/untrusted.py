"""Why features have no label: which rule stopped how many pairs, and how many pictures would change it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc

from gazetteer.data.core.sites import IMAGE
from gazetteer.data.core.terminal import print_table
from gazetteer.data.runs.folder import RunFolder

_COLUMNS = [
    "images_both", "lift", "q_value", "dataset_iou", "mass_precision", "explained", "specificity", "trusted",
]  # fmt: skip
_THRESHOLDS = (
    "min_images", "max_q", "min_lift", "min_dataset_iou", "min_precision", "min_explained", "min_specificity",
)  # fmt: skip


def stopped_pairs(run: RunFolder, images: int, stream: str = IMAGE) -> dict[str, Any]:
    """What became of every pair of a feature and a concept that was ever seen together, by the run's own thresholds.

    Args:
        images: pictures of the run.
        stream: of which the pairs are.

    Returns:
        ``pairs``; ``trusted``; ``rules``: a row a rule with its ``rule``, how many of the others it ``stopped`` and how
        many it ``stopped_alone``, having passed all others; ``images_needed``: pictures by which, at the
        rate seen so far, half of the pairs with too few pictures have enough (None: there are none).
    """
    settings = run.of_tables()
    wanted = (pc.field("stream") == stream) & ~pc.field("kind").isin(["style", "place"])
    table = run.read_final("candidates", [*_COLUMNS, "kind"], wanted)
    whole = ~np.isin(table["kind"].to_numpy(), ("scene", "part"))  # which may have any data-set IoU
    value = {name: pc.cast(table[name], "float64").to_numpy(zero_copy_only=False) for name in _COLUMNS}
    least, most_q, lift, iou, inside, explained, specific = (
        settings.get(f"labels.{name}") or 0 for name in _THRESHOLDS
    )
    with np.errstate(invalid="ignore"):  # a pair with too few pictures was not tested and has no q
        failed = {
            f"fewer than labels.min_images={least} pictures with both": value["images_both"] < least,
            f"q above labels.max_q={most_q:g}": value["q_value"] > most_q,
            f"lift below labels.min_lift={lift:g}": ~(value["lift"] >= lift),
            f"data-set IoU below labels.min_dataset_iou={iou:g}": whole & ~(value["dataset_iou"] >= iou),
            f"less of the activation inside than labels.min_precision={inside:g}": ~(value["mass_precision"] >= inside),
            f"less explained than labels.min_explained={explained:g}": ~(value["explained"] >= explained),
            f"a rival, by labels.min_specificity={specific:g}": ~(value["specificity"] >= specific),
        }
    untrusted = ~(value["trusted"] > 0)  # a second concept may be trusted that a rival would have stopped
    failed = {rule: mask & untrusted for rule, mask in failed.items()}
    counts = np.sum(list(failed.values()), axis=0)
    other = untrusted & (counts == 0)
    failed["another rule of labels"] = other
    counts = counts + other
    short = value["images_both"][next(iter(failed.values()))]
    return {
        "pairs": table.num_rows,
        "trusted": int((~untrusted).sum()),
        "rules": [
            {"rule": rule, "stopped": int(mask.sum()), "stopped_alone": int((mask & (counts == 1)).sum())}
            for rule, mask in failed.items()
            if mask.any()
        ],
        "images_needed": int(np.ceil(images * least / np.median(short))) if len(short) else None,
    }


def print_stopped(stopped: dict[str, Any], images: int, what: str = "nothing") -> None:
    """The same as text: why nothing was labelled, or `what` that was not."""
    if not stopped["pairs"]:
        print(f"why {what} is labelled: no feature ever fired in a picture that shows a concept")
        return
    print(f"why {what} is labelled, of {stopped['pairs']} pairs of a feature and a concept that were seen together:")
    print_table(
        {"pairs": "d", "by this alone": "d", "stopped by": ""},
        ((row["stopped"], row["stopped_alone"], row["rule"]) for row in stopped["rules"]),
    )
    if stopped["images_needed"] and stopped["images_needed"] > images:
        print(
            f"half of those with too few pictures would have enough with images={stopped['images_needed']} "
            f"instead of {images}"
        )
