"""Prompts, the images they stand for, and the shards those are cut into: all named by content alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gazetteer.data.core.errors import InputError


@dataclass(frozen=True, order=True)
class Item:
    """One image to make.

    Attributes:
        prompt: the text.
        seed: of the noise; 0 to 2**63 - 1.
        image_id: 16 hex digits of prompt, seed and the models' digest.
    """

    prompt: str
    seed: int
    image_id: str


@dataclass(frozen=True)
class Shard:
    """Items that are computed and committed together, sorted by image id; the id follows from them."""

    id: str
    items: tuple[Item, ...]


def make_item(prompt: str, seed: int, fingerprint: str) -> Item:
    """The item of `prompt` and `seed` under a digest of everything else that shapes the image."""
    if not 0 <= seed < 2**63:
        raise InputError(f"A seed lies between 0 and 2**63 - 1, not {seed}.")
    return Item(prompt, seed, digest_parts("image", prompt, str(seed), fingerprint)[:16])


def planned_items(rows: Any, pictures: str, plan: str = "plan") -> list[Item]:
    """The items of a plan's rows, each of ``prompt``, ``seed`` and ``image_id``, under the digest `pictures`.

    plan: its name, for the sentences.

    Raises:
        InputError: something else than such rows, or an id that is not the one of its prompt, seed and settings.
    """
    try:
        items = [make_item(str(row["prompt"]), row["seed"], pictures) for row in rows]
        wrong = [row["image_id"] for row, item in zip(rows, items, strict=True) if row["image_id"] != item.image_id]
    except (KeyError, TypeError) as error:
        raise InputError(f"The {plan} is damaged: it does not hold prompts, seeds and image ids.") from error
    if wrong:
        raise InputError(
            f"The {plan} was edited: image {wrong[0]} is not the one of its prompt and seed under this run's settings."
        )
    return items


def shards_of(items: Iterable[Item], size: int) -> list[Shard]:
    """Cut items into shards of at most `size`, the same whatever their order; repeated items count once."""
    if size < 1:
        raise InputError(f"A shard holds at least one image, not {size}.")
    ordered = sorted({item.image_id: item for item in items}.values(), key=lambda item: item.image_id)
    cut = [tuple(ordered[start : start + size]) for start in range(0, len(ordered), size)]
    return [Shard(digest_parts("shard", *(item.image_id for item in part))[:16], part) for part in cut]


def split_of(prompt: str, heldout_fraction: float) -> str:
    """``discovery`` or ``heldout``, by a hash of the prompt: all images of one prompt are on one side."""
    if not 0.0 <= heldout_fraction <= 1.0:
        raise InputError(f"The held-out share lies between 0 and 1, not {heldout_fraction}.")
    place = int(digest_parts("split", prompt)[:13], 16) / 16**13  # 52 bits: exact in a double, below 1
    return "heldout" if place < heldout_fraction else "discovery"


def digest_parts(*parts: str) -> str:
    """sha256 of a sequence of strings, in hex."""
    # Lengths keep ("a", "bc") apart from ("ab", "c").
    running = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        running.update(len(raw).to_bytes(8, "little") + raw)
    return running.hexdigest()
