"""Do labels of text streams say the word? Simulated prompts and features whose truth is known, through the real rules.

    python -m benchmarks.label_words --json

Prompts are phrases such as "a red dog on the grass with two boats", one token a word. Features of one sort each:

    knows         fires on the token of one noun in 80 % of its prompts, and on 1 % of all other tokens
    next          fires on the token after one noun, whatever stands there
    company       random tokens of every prompt with one noun
    place         the third, fourth … token of most prompts
    independent   random tokens of some prompts

For each: ``features``; ``words``: how many are called a word, ``right``: by the noun that they know; ``scenes``: called
after prompts that have a word; ``tested`` pairs and ``rejected``, by both nulls (``next`` knows what follows nouns);
``p_below_05`` of the first null. Every word but those of ``knows`` is false, and every scene but those of
``knows``, ``next`` and ``company``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gazetteer.data.core.sites import TEXT, Site
from gazetteer.data.tables.codes import SparseMap
from gazetteer.data.tables.words import PromptWord
from gazetteer.labeling.evidence.counts import ImageEvidenceInput, build_evidence
from gazetteer.labeling.evidence.prompt_words import read_words
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.reduce import join_verdicts, site_candidates, site_tests

PLACES = 20
SITE = Site("simulated", "cond", 0.5, stream=TEXT)
NOUNS = ("dog", "cat", "boat", "house", "tree", "car", "cloud", "moon", "flower", "bird")
GROUNDS = ("grass", "sea", "sand", "road", "snow")
COLOURS = ("red", "blue", "green", "old")
SORTS = ("knows", "next", "company", "place", "independent")
Bools = NDArray[np.bool_]


def prompt(random: np.random.Generator) -> list[str]:
    """One to three things on a ground; a colour before half of them."""
    said: list[str] = []
    for number, noun in enumerate(random.choice(NOUNS, random.integers(1, 4), replace=False)):
        said += [["with", "and", "beside"][random.integers(3)]] if number else []
        said.append(["a", "the", "one"][random.integers(3)])
        said += [str(random.choice(COLOURS))] if random.random() < 0.5 else []
        said.append(str(noun))
    return [*said, "on", "the", str(random.choice(GROUNDS))] if random.random() < 0.7 else said


def fires(random: np.random.Generator, sort: str, number: int, prompts: list[list[str]]) -> Bools:
    """Where a feature of a sort fires: bool [N, PLACES]; the tokens of a prompt begin at 1, padding is silent."""
    noun, active = NOUNS[number % len(NOUNS)], np.zeros((len(prompts), PLACES), np.bool_)
    for i, said in enumerate(prompts):
        own, tokens = np.zeros(PLACES, np.bool_), slice(1, len(said) + 1)
        where = [place for place, word in enumerate(said, start=1) if word == noun]
        if sort == "knows":
            own[where] = random.random() < 0.8
            own[tokens] |= random.random(len(said)) < 0.01
        elif sort == "next":
            own[[place + 1 for place in where if place < len(said)]] = True
        elif sort == "company" and where:
            own[tokens] = random.random(len(said)) < 0.4
        elif sort == "place" and random.random() < 0.7:
            own[2 + number % 5] = 2 + number % 5 <= len(said)
        elif sort == "independent" and random.random() < 0.3:
            own[tokens] = random.random(len(said)) < 0.3
        active[i] = own
    return active


def candidates(prompts: list[list[str]], active: Bools, config: LabelConfig) -> tuple[list[dict[str, Any]], int]:
    """Rows of schemas.CANDIDATES by the real rules, and how many pairs were tested; active: bool [N, F, PLACES]."""
    ids = [f"p{number:05d}" for number in range(len(prompts))]
    words = [_words(said) for said in prompts]
    rows = [
        # What fires is drawn anew for every prompt, so that equal ones are witnesses of their own: their names differ.
        {"image_id": ids[i], "prompt": ids[i], "split": "discovery",
         "words": [{"word": w.word, "first": w.first, "last": w.last} for w in words[i]]}
        for i in range(len(ids))
    ]  # fmt: skip
    maps = read_words(pa.Table.from_pylist(rows), PLACES)
    image, feature, cell = np.nonzero(active)
    codes = SiteCodes(SITE, tuple(ids), 1, PLACES, image.astype(np.int32), feature.astype(np.int32),
                      cell.astype(np.int32), np.ones(len(image), np.float32))  # fmt: skip
    evidence = build_evidence(
        [ImageEvidenceInput(ids[i], "discovery", (1, 1), (), [], {SITE: _sparse(active[i])}, words[i])
         for i in range(len(ids))],
        (),
    )  # fmt: skip
    looks = np.zeros((len(ids), 0), np.bool_)
    tests = site_tests(codes, maps, looks, config)
    verdicts = join_verdicts(SITE, [tests], maps.concepts, config)
    return site_candidates(codes, maps, looks, evidence, "simulated", config, verdicts).to_pylist(), tests.pairs.count


def _words(said: list[str]) -> tuple[PromptWord, ...]:
    """With a token of no word at both ends, as text encoders have."""
    ends = PromptWord(None, 0, 0), PromptWord(None, len(said) + 1, len(said) + 1)
    return (ends[0], *(PromptWord(word, i, i) for i, word in enumerate(said, start=1)), ends[1])


def _sparse(active: Bools) -> SparseMap:
    """Activations 1 of the features bool [F, PLACES] of a prompt, a slot for every feature in every cell."""
    features = len(active)
    slots = np.tile(np.arange(features, dtype=np.uint32), PLACES)
    return SparseMap(1, PLACES, features, slots, active.T.astype(np.float16).ravel())


def simulate(sort: str, prompts: int = 300, features: int = 30, config: LabelConfig | None = None) -> dict[str, Any]:
    """What features of one sort are called."""
    config, random = config or LabelConfig(), np.random.default_rng((11, SORTS.index(sort)))
    said = [prompt(random) for _ in range(prompts)]
    active = np.stack([fires(random, sort, number, said) for number in range(features)], axis=1)
    rows, tested = candidates(said, active, config)
    best = [row for row in rows if row["rank"] == 1]
    words = [row for row in best if row["kind"] == "word"]
    return {
        "features": features, "tested": tested,
        "rejected": sum(row["where_q_value"] is not None and row["where_q_value"] <= config.max_q for row in rows),
        "words": len(words),
        "right": sum(row["concept"] == NOUNS[row["feature"] % len(NOUNS)] for row in words) if sort == "knows" else 0,
        "scenes": sum(row["kind"] == "scene" for row in best),
        "p_below_05": round(sum((row["p_value"] or 1) <= 0.05 for row in rows) / max(1, tested), 4),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run every simulation and print what it gave."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--prompts", type=int, default=300)
    arguments = parser.parse_args(argv)
    begun, result = time.process_time(), {}
    for sort in SORTS:
        result[sort] = simulate(sort, arguments.prompts)
        print(f"{sort}: {json.dumps(result[sort])}", file=sys.stderr, flush=True)
    if arguments.json:
        print(json.dumps({**result, "cpu_seconds": round(time.process_time() - begun, 1)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
