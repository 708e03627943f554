"""Where the things of the world are: `python -m benchmarks.scenes.quadrants --views all`."""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from benchmarks.scenes.options import add_views
from gazetteer.data.core.terminal import print_table
from gazetteer.data.scenes.layout import sample_layout
from gazetteer.data.scenes.world import CONCEPTS, TRAIN_SEEDS

QUADRANTS: tuple[str, ...] = ("top left", "top right", "bottom left", "bottom right")
_THINGS = tuple(concept.name for concept in CONCEPTS if concept.kind == "thing")


def quadrant(x: float, y: float) -> str:
    """The quadrant of a point, fractions of the picture's width and height."""
    return f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"


def quadrants(seeds: Iterable[int], views: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """Of the layouts that hold a thing, the share in which one of its kind has its centre in each quadrant.

    Several of a kind may be in several quadrants, so the shares of a concept add up to 1 or more.
    """
    hits: dict[str, Counter[str]] = defaultdict(Counter)
    shown: Counter[str] = Counter()
    for seed in seeds:
        places: dict[str, set[str]] = defaultdict(set)
        for item in sample_layout(seed, views).items:
            places[item.concept].add(quadrant(item.centre_x, item.centre_y))
        for concept in _THINGS:
            shown[concept] += concept in places
            hits[concept].update(places.get(concept, ()))
    return {c: {q: round(hits[c][q] / max(1, shown[c]), 4) for q in QUADRANTS} for c in _THINGS}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layouts", type=int, default=20_000)
    add_views(parser)
    options = parser.parse_args()
    table = quadrants(TRAIN_SEEDS[: options.layouts], options.views)
    print_table(
        {"concept": "", **dict.fromkeys(QUADRANTS, ".3f")},
        ([concept, *fractions.values()] for concept, fractions in table.items()),
    )
    print(f"smallest {min(min(fractions.values()) for fractions in table.values()):.3f}")


if __name__ == "__main__":
    main()
