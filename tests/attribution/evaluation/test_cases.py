"""Which prompts edits are made from: others than those painted, and where there are none, it is said."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gazetteer.attribution.evaluation.cases import CHOOSE, REPORT, draw_cases, part_prompts
from gazetteer.attribution.evaluation.suite import quick
from gazetteer.attribution.objective.prompts import paraphrases
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments import attribute_evaluate
from gazetteer.jobs.experiments.attribute_report import print_evaluation
from gazetteer.jobs.experiments.attribute_table import evaluation_table
from gazetteer.labeling.vocabulary.concepts import Vocabulary, VocabularyConfig
from tests.support.models.tiny_pipeline import tiny_pipeline

PROMPTS = [f"a {size} {concept}" for size in ("red", "big", "small", "blue") for concept in ("dog", "house")]


@pytest.mark.parametrize(("pool", "shared"), [(4, 0), (8, 4), (6, 2)])
def test_prompts_of_the_choosing_half_serve_where_there_are_too_few(pool: int, shared: int) -> None:
    prompts = part_prompts(PROMPTS, Vocabulary(VocabularyConfig(("dog", "house"))), (), pool, seed=0)
    assert prompts.shared == shared and set().union(*prompts.source.values()) == {"dog", "house"}
    assert not prompts.source.keys() & {case.prompt for case in prompts.cases if case.half == REPORT}


def test_half_of_the_prompts_of_every_concept_choose_and_half_report() -> None:
    prompts = ["a dog", "a dog and sky", "sky", "a house", "the sky at night", "a house at night", "nothing"]
    vocabulary = Vocabulary(VocabularyConfig(("dog", "house", "sky")))
    drawn = draw_cases(prompts, vocabulary, ["dog", "house", "sky"], ["night"], 6, seed=3)
    assert len(drawn) == 6 and "nothing" not in {case.prompt for case in drawn}
    assert len({case.seed for case in drawn}) == 6 and min(case.seed for case in drawn) > 1_000_000
    assert next(case for case in drawn if case.prompt == "a house at night").named == {"house", "night"}
    for concept in ("dog", "house", "sky"):
        assert {case.half for case in drawn if concept in case.named} == {CHOOSE, REPORT}
    knight = draw_cases(["a knight and sky", "sky by night"], vocabulary, ["sky"], ["night"], 2, seed=3)
    assert [case.named for case in knight] == [{"sky"}, {"sky", "night"}]


def test_paraphrases_leave_whole_by_what_name_a_prompt_names_a_concept(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("cat, black and white kitten\ngrass\n")
    vocabulary = Vocabulary(VocabularyConfig(path=str(tmp_path / "words.txt")))
    prompts = ["a Black and white kitten on grass", "a cat and grass"]
    named, plain = part_prompts(prompts, vocabulary, (), 2, seed=0).cases
    assert named.whole == {"Black and white kitten"} and plain.whole == frozenset()
    for case in (named, plain):
        ways = paraphrases(case.prompt, "cat", case.named | case.whole)
        assert ways and all(set(vocabulary.mentioned(way)) == {"cat", "grass"} for way in ways)


def test_an_evaluation_says_that_its_doses_were_chosen_on_prompts_that_edits_have_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    empty: dict[str, Any] = {"faithfulness_rows": []}
    monkeypatch.setattr(attribute_evaluate, "run_suite", lambda *_: empty)
    few = load_config(None, [f"model.path={tmp_path / 'model'}", f"prompts.path={tmp_path / 'prompts.txt'}"])
    config = quick(2, 4.0, 0)
    result = attribute_evaluate.evaluate(few, config, ["dog"])
    assert result["source_of_choosing_half"] == [4, 4]
    said = "4 of the 4 that edits were made from are of the half that doses were chosen on"
    print_evaluation(result)
    assert said in capsys.readouterr().out and said in evaluation_table(result)
    enough = attribute_evaluate.evaluate(few, dataclasses.replace(config, pool=4), ["dog"])
    assert enough["source_of_choosing_half"] == [0, 4]
    print_evaluation(enough)
    assert "doses" not in capsys.readouterr().out and "doses" not in evaluation_table(enough)
