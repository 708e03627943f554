"""Do the nulls of the labels hold? Simulated features and concepts whose truth is known, through the real rules.

    python benchmarks/label_null.py --json

Each simulation makes pictures with concepts (a sky at the top of nearly all, a sea below the horizon of a third, boats
on the sea, blobs elsewhere), looks, and features of one sort, and asks the whole trust rule about them:

    independent   blobs and wide patches that know nothing of any concept
    place         always the top, the bottom or a side of the frame
    company       random cells in every picture of the sea, in as many more where the sea is larger
    style         random cells in the pictures of a look that most suns share
    duplicated    independent features, each ten times over
    open          independent features against 1,000 words, most of them rare
    holes         independent features, half of them everywhere, on given pictures of which up to 60 % is marked to be
                  ignored, from a side of the frame or at random cells
    bottom        the same, always from the bottom
    sizes         all of these at other numbers of pictures, as NAME_PICTURES
    power         features that cover half of a concept in 5 to 40 of its pictures, and words of the open vocabulary

For each: ``tested`` pairs; ``rejected`` by both nulls, so that the feature is said to know where the concept is;
``trusted`` as a thing, stuff or part; ``scenes`` and ``places`` trusted as such (the scenes of
``company`` are right, and so are the places of ``place`` and, elsewhere, ``centre``, for that is where most blobs lie);
``p_below_05``: share of the tested pairs with p <= .05 (first null; company and
style: the second one, on the pairs that the company makes). All rejections but those of ``power`` are false.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._null_worlds import (
    SEA,
    STYLES,
    SUN,
    Simulated,
    bottom,
    company,
    duplicated,
    holes,
    independent,
    knowing,
    open_vocabulary,
    place,
    style,
)
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.labeling.rules.config import LabelConfig

# The pair that a simulation tempts the rule with: (its concept); None: every pair.
FALSE: dict[str, tuple[Callable[..., Simulated], int | None, int]] = {
    "independent": (independent, None, 4),
    "place": (place, None, 4),
    "company": (company, SEA, 12),
    "style": (style, SUN, 12),
    "duplicated": (duplicated, None, 4),
    "open": (open_vocabulary, None, 1),
    "holes": (holes, None, 4),
    "bottom": (bottom, None, 4),
}
SIZES = (40, 120, 1000)
OPEN_SIZES = (400, 1600)
POWER = (5, 10, 20, 40)


def judge(made: Simulated, config: LabelConfig, concept: int | None = None) -> dict[str, float]:
    """Counts of one simulation, of all pairs or those with one concept; ``below``: of the null that is in question."""
    rows, tests = made.candidates(config)
    pairs = [row for row in rows if row["kind"] not in ("style", "place")]
    which = "p_value"
    if concept is not None:
        which = "where_p_value"
        pairs = [row for row in pairs if row["concept"] == f"c{concept:04d}"]
        tests = sum(row["p_value"] is not None for row in pairs)
    both = [r for r in pairs if r["where_q_value"] is not None and r["where_q_value"] <= config.max_q]
    return {
        "tested": tests, "rejected": len(both),
        "trusted": sum(row["trusted"] and row["kind"] in SPATIAL_KINDS for row in pairs),
        "scenes": sum(row["trusted"] and row["kind"] == "scene" for row in pairs),
        "places": sum(row["trusted"] and row["kind"] == "place" for row in rows),
        "below": sum(row[which] is not None and row[which] <= 0.05 for row in pairs),
    }  # fmt: skip


def simulate(name: str, repeats: int = 0, config: LabelConfig | None = None, **sizes: int) -> dict[str, Any]:
    """One false simulation, summed over its repeats."""
    make, concept, usual = FALSE[name]
    config = config or LabelConfig(styles=STYLES if name != "open" else ())
    worlds = (make(np.random.default_rng((5, number)), **sizes) for number in range(repeats or usual))
    judged = [judge(made, config, concept) for made in worlds]
    total = {key: int(sum(verdict[key] for verdict in judged)) for key in judged[0]}
    below = total.pop("below")
    return {
        **total, "p_below_05": round(below / max(1, total["tested"]), 4), "repeats": len(judged),
        "repeats_with_a_rejection": sum(verdict["rejected"] > 0 for verdict in judged),
    }  # fmt: skip


def power(pictures: int = 308, cover: float = 0.5) -> list[dict[str, Any]]:
    """How often features that know a concept in n of its pictures are said to, beside 100 that know nothing."""
    random = np.random.default_rng(7)
    made = independent(random, pictures, features=100)
    wanted = []
    for count in POWER:
        for concept in range(4, 16):
            wanted.append((count, concept, len(made.fires)))
            made.fires.append(knowing(random, made, concept, count, cover))
    return _curve(made, wanted, LabelConfig(styles=STYLES))


def open_power(pictures: int = 800) -> list[dict[str, Any]]:
    """The same for rare words of the open vocabulary: features that know one in all its pictures, by their number."""
    random = np.random.default_rng(8)
    made = open_vocabulary(random, pictures)
    shown = made.concepts.any(axis=2).sum(axis=0)
    wanted = []
    for count in (5, 8, 12, 15):
        for concept in np.flatnonzero(shown == count)[:10]:
            wanted.append((count, int(concept), len(made.fires)))
            made.fires.append(knowing(random, made, int(concept), count))
    return _curve(made, wanted, LabelConfig(min_expected=0.05))


def _curve(made: Simulated, wanted: list[tuple[int, int, int]], config: LabelConfig) -> list[dict[str, Any]]:
    rows, tests = made.candidates(config)
    by_pair = {(row["feature"], row["concept"]): row for row in rows}
    curve = []
    for count in sorted({count for count, _, _ in wanted}):
        tested = [by_pair.get((feature, f"c{concept:04d}")) for n, concept, feature in wanted if n == count]
        known = [
            row for row in tested if row and row["where_q_value"] is not None and row["where_q_value"] <= config.max_q
        ]
        trusted = [row for row in known if row["trusted"] and row["kind"] in SPATIAL_KINDS]
        curve.append({
            "pictures": count, "features": len(tested), "tests": tests,
            "rejected": round(len(known) / len(tested), 3), "trusted": round(len(trusted) / len(tested), 3),
        })  # fmt: skip
    return curve


def main(argv: list[str] | None = None) -> int:
    """Run every simulation and print what it gave."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", nargs="+", choices=[*FALSE, "sizes", "power"], help="some of the simulations")
    arguments = parser.parse_args(argv)
    begun = time.process_time()
    result: dict[str, Any] = {}
    for name in arguments.only or [*FALSE, "sizes", "power"]:
        if name == "sizes":
            result |= {
                f"{false}_{n}": simulate(false, max(1, FALSE[false][2] // 2), pictures=n)
                for false in FALSE for n in (OPEN_SIZES if false == "open" else SIZES)
            }  # fmt: skip
        elif name == "power":
            result |= {"power": power(), "power_open": open_power()}
        else:
            result[name] = simulate(name)
        print(f"{name}: {json.dumps(result.get(name, ''))}", file=sys.stderr, flush=True)
    result["cpu_seconds"] = round(time.process_time() - begun, 1)
    if arguments.json:
        print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
