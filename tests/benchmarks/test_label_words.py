"""Small versions of the simulations of text streams (benchmarks/label_words.py): who knows a word, and who does not."""

from __future__ import annotations

import json

import pytest

from benchmarks import label_words
from benchmarks.label_words import simulate
from gazetteer.labeling.rules.config import LabelConfig

QUICK = LabelConfig(permutations=200, refine=0)


def test_features_of_a_noun_are_called_by_it() -> None:
    found = simulate("knows", 200, 20, QUICK)
    assert found["words"] == found["right"] == 20


def test_features_that_fire_beside_a_noun_go_with_its_prompts_at_most() -> None:
    company, after = simulate("company", 200, 20, QUICK), simulate("next", 200, 20, QUICK)
    assert (company["words"], company["rejected"]) == (0, 0) and company["scenes"] >= 15
    assert after["words"] == 0


@pytest.mark.parametrize("sort", ["place", "independent"])
def test_features_that_know_nothing_of_words_are_called_nothing(sort: str) -> None:
    """Longer prompts hold more of everything: shuffled among all, random tokens went with words in 18 % of pairs."""
    found = simulate(sort, 300, 20, QUICK)
    assert (found["words"], found["scenes"], found["rejected"]) == (0, 0, 0)
    assert found["tested"] > 400 and found["p_below_05"] < 0.07


def test_the_program_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert label_words.main(["--json", "--prompts", "40"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(label_words.SORTS) <= set(found) and {"tested", "rejected", "words"} <= set(found["next"])
