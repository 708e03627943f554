"""The next prompts go where features and concepts lack pictures."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.evidence.counts import ImageEvidenceInput, build_evidence
from gazetteer.labeling.rules.coverage import CoverageConfig, choose_prompts
from gazetteer.labeling.rules.seen import COLUMNS
from tests.support.runs.small_world import MID, map_code

MASK = np.ones((2, 2), bool)


def evidence(images: list[tuple[list[int], list[str]]]) -> pa.Table:
    """(features that fire, concepts present) of every image."""
    return build_evidence(
        [
            ImageEvidenceInput(
                f"i{n}", "discovery", (2, 2), ("car", "dog", "sky"), [(c, MASK) for c in concepts],
                {MID: map_code({f: np.full((1, 1), float(f in features)) for f in range(4)})},
            )
            for n, (features, concepts) in enumerate(images)
        ],
        ("car", "dog", "sky"),
    )  # fmt: skip


# Feature 0 fires with sky, often; feature 1 fires with dog, once in ten pictures.
SEEN = [([0], ["sky", "car"])] * 9 + [([1], ["dog"])]
POOL = [(f"{c} {n}", (c,)) for c in ("car", "dog", "sky") for n in range(5)]


def test_prompts_name_what_is_missing() -> None:
    chosen = choose_prompts(evidence(SEEN), POOL, set(), wanted=5, budget=5, seed=0)
    assert {prompt.split()[0] for prompt in chosen} == {"dog"}


def test_a_new_concept_is_asked_for() -> None:
    pool = [*POOL, ("a boat", ("boat",))]
    assert choose_prompts(evidence(SEEN), pool, set(), wanted=1, budget=1, seed=0) == ["a boat"]


def test_deficits_shrink_as_prompts_are_taken() -> None:
    # Two rare features: after enough dogs the boats come, long before the dogs run out.
    seen = [([0], ["sky"])] * 8 + [([1], ["dog"]), ([2], ["car"])]
    pool = [(f"{c} {n}", (c,)) for c in ("car", "dog", "sky") for n in range(40)]
    chosen = [prompt.split()[0] for prompt in choose_prompts(evidence(seen), pool, set(), 8, 24, 0)]
    assert abs(chosen.count("dog") - chosen.count("car")) <= 2
    assert chosen.count("sky") <= 2


def test_used_prompts_come_again_only_when_the_others_are_gone() -> None:
    used = {prompt for prompt, _ in POOL[:12]}
    chosen = choose_prompts(evidence(SEEN), POOL, used, 5, 20, 0)
    assert len(chosen) == 20
    assert set(chosen[:3]) == {prompt for prompt, _ in POOL[12:]}
    assert len(set(chosen[3:18])) == 15


def test_the_budget_is_spent_even_when_nothing_is_missing() -> None:
    assert len(choose_prompts(evidence(SEEN), POOL, set(), wanted=0, budget=7, seed=0)) == 7
    assert len(choose_prompts(evidence([]), POOL, set(), wanted=5, budget=7, seed=0)) == 7
    assert choose_prompts(evidence(SEEN), [], set(), 5, 7, 0) == []
    assert choose_prompts(evidence(SEEN), POOL, set(), 5, 0, 0) == []


def test_the_choice_is_a_function_of_content_and_seed() -> None:
    table = evidence(SEEN)
    first = choose_prompts(table, POOL, {"dog 1"}, 5, 9, 0)
    parts = pa.concat_tables([table, evidence([]), table.slice(0, 0)])
    assert choose_prompts(parts, POOL[::-1], ["dog 1"], 5, 9, 0) == first
    assert len(set(first)) == 9
    alone = [evidence([one]) for one in SEEN]
    narrow = (one.select(COLUMNS) for one in reversed(alone))
    assert choose_prompts(narrow, POOL, {"dog 1"}, 5, 9, 0) == first
    assert choose_prompts(table, POOL, {"dog 1"}, 5, 9, 1) != first


def test_a_sample_of_the_needs_guides_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gazetteer.labeling.rules.coverage._EXPECTED", 6)
    chosen = choose_prompts(evidence(SEEN), POOL, set(), wanted=5, budget=5, seed=0)
    assert {prompt.split()[0] for prompt in chosen} == {"dog"}


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="first"):
        CoverageConfig(first=0.0)
    with pytest.raises(InputError, match="wanted"):
        CoverageConfig(wanted=-1)
