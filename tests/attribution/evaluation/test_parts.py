"""An evaluation measured in several calls: parts add up where they can be compared, and are kept apart where not."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.storage.lock import hold
from gazetteer.jobs.experiments.attribute_parts import earlier, joined, joining, put_apart


def measured(**parts: Any) -> dict[str, Any]:
    """What a call gives: the parts it was not asked for are there and empty."""
    return {"settings": "s", "erase": {}, "attacks": {}, "amplify": {}, "faithfulness_rows": [], **parts}


def figures(target: float, *concepts: str) -> dict[str, Any]:
    return {"target": [target] * 3, "concepts": list(concepts)}


CAD, RANDOM, STEPS = figures(0.2, "boat"), figures(0.9, "boat"), figures(0.1, "boat")
SHOWN = {"shown": [0.5] * 3, "by_concept": {"boat": 0.5}}


def test_other_parts_and_methods_are_added_and_what_is_measured_again_replaced() -> None:
    first = measured(
        erase={"random": RANDOM, "cad": figures(0.3, "boat")}, amplify={"cad": figures(0.7, "sun")},
        faithfulness_rows=[{"concept": "boat"}], faithfulness={"cad": [0.1] * 3},
    )  # fmt: skip
    second = measured(erase={"steps": STEPS, "cad": CAD}, attacks={"cad": {"named": SHOWN}}, faithfulness={})
    before = copy.deepcopy(first)
    both = joined(first, second)
    assert both.result["erase"] == {"steps": STEPS, "cad": CAD, "random": RANDOM}
    assert list(both.result["erase"]) == ["steps", "cad", "random"]  # in the order of an evaluation
    assert both.result["amplify"] == first["amplify"] and both.result["attacks"] == second["attacks"]
    assert both.result["faithfulness"] == {"cad": [0.1] * 3}  # with the rows it is the mean of
    assert (both.kept, both.apart) == (("erase", "amplify", "faithfulness_rows"), "") and first == before
    third = joined(both.result, measured(attacks={"cad": {"words": SHOWN}, "steps": {"named": SHOWN}}))
    assert third.result["attacks"] == {"steps": {"named": SHOWN}, "cad": {"named": SHOWN, "words": SHOWN}}
    again = joined(third.result, third.result)
    assert again.result == third.result and not again.kept and not again.apart


def test_a_reference_that_is_measured_in_every_call_keeps_the_controls_of_earlier_ones() -> None:
    def steps(dose: float, **more: Any) -> dict[str, Any]:
        return {"steps": {**STEPS, "fraction": dose, **more}}

    minus = {"steps_random": {"target": [-0.5] * 3}}
    first = measured(erase={**steps(0.01, minus=minus, curve=[1]), "random": RANDOM})
    other = {"cad": {"target": [0.2] * 3}}
    both = joined(first, measured(erase={**steps(0.01, minus=other), "cad": CAD})).result["erase"]
    assert both["steps"] == {**STEPS, "fraction": 0.01, "minus": {**minus, **other}, "curve": [1]}
    areas = joined(measured(erase_areas=first["erase"]), measured(erase_areas={**steps(0.01, minus=other), "cad": CAD}))
    assert areas.result["erase_areas"] == both
    # At another dose these are other pictures, and nothing of before is said of them.
    assert joined(first, measured(erase=steps(0.03))).result["erase"]["steps"] == {**STEPS, "fraction": 0.03}


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (measured(erase={"cad": figures(0.2, "dog")}), "its erase is of boat, this one of dog"),
        (measured(erase={"cad": figures(0.2, "boat", "dog")}), "its erase is of boat, this one of boat, dog"),
        (measured(attacks={"cad": {"named": {"by_concept": {"dog": 0.0}}}}), "its attacks is of boat, this one of dog"),
        (measured(faithfulness_rows=[{"concept": "dog"}]), "its faithfulness_rows is of boat, this one of dog"),
        (measured(everywhere={"step": {"dog": [1.0]}}), "its everywhere is of boat, this one of dog"),
        (measured(overlap={"cad": {"dog": {}}}), "its overlap is of boat, this one of dog"),
        (measured(settings="other"), "it is of other settings or of an older version"),
    ],
)
def test_what_cannot_be_compared_is_not_mixed(second: dict[str, Any], why: str) -> None:
    first = measured(
        erase={"cad": CAD}, attacks={"cad": {"named": SHOWN}}, faithfulness_rows=[{"concept": "boat"}],
        everywhere={"step": {"boat": [1.0]}}, overlap={"cad": {"boat": {}}},
    )  # fmt: skip
    both = joined(first, second)
    assert (both.result, both.kept, both.apart) == (second, (), why)
    assert joined({"erase": {"cad": CAD}}, second).apart == "it is of other settings or of an older version"
    assert joined(None, second).result == second


def test_an_earlier_file_is_read_or_refused_and_put_apart_under_a_free_name(tmp_path: Path) -> None:
    assert earlier(tmp_path) is None
    file = tmp_path / "evaluation.json"
    for number in (1, 2):
        file.write_text(json.dumps(measured(number=number)))
        assert earlier(tmp_path) == measured(number=number)
        (tmp_path / f"erase-{number}.svg").write_text("plot")
        assert put_apart(tmp_path).name == f"evaluation-{number}" and not file.exists()
        assert sorted(f.name for f in (tmp_path / f"evaluation-{number}").iterdir()) == [
            f"erase-{number}.svg", "evaluation.json",
        ]  # fmt: skip
    assert json.loads((tmp_path / "evaluation-1" / "evaluation.json").read_text())["number"] == 1
    for content, said in (("{", "is damaged"), ("[]", "is damaged"), ('{"erase": 3}', "is not what this")):
        file.write_text(content)
        with pytest.raises(InputError, match=re.escape(f"{file} {said}")):
            earlier(tmp_path)


def test_calls_side_by_side_lose_nothing_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gazetteer.jobs.cli.main import main
    from gazetteer.jobs.experiments import attribute_evaluate, attribute_report

    command = ["attribute", "evaluate", "--out", str(tmp_path / "out"), "--parts"]
    base = {"settings": "same", "faithfulness_rows": []}

    def evaluated(*given: Any) -> dict[str, Any]:
        cache, parts = Path(given[3]), given[5]
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "settings.json").write_text('{"cases": 1, "source": 1}')
        if "amplify" in parts:
            return {**base, "amplify": {"steps": {"concepts": ["dog"]}}}
        assert main([*command, "amplify"]) == 0  # begun and ended while this call is measuring
        return {**base, "erase": {"cad": {"concepts": ["dog"]}}}

    monkeypatch.setattr(attribute_evaluate, "evaluate", evaluated)
    monkeypatch.setattr(attribute_report, "print_evaluation", lambda result: None)
    monkeypatch.setattr(attribute_report, "evaluation_table", lambda result: "")
    monkeypatch.setattr(attribute_report, "evaluation_plots", lambda result: {})
    assert main([*command, "erase"]) == 0
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert set(written) == {*base, "erase", "amplify"} and not (tmp_path / "out" / ".evaluation.lock").exists()


def test_only_one_call_writes_at_a_time(tmp_path: Path) -> None:
    with joining(tmp_path), pytest.raises(BlockingIOError):
        hold(tmp_path / ".evaluation.lock", wait=False)
    hold(tmp_path / ".evaluation.lock", wait=False).release()


@pytest.mark.parametrize(
    "said",
    [[], 3, None, {"erase": []}, {"erase": {"cad": 3}}, {"attacks": {"cad": {"named": 3}}}, {"overlap": {"cad": []}},
     {"everywhere": {"cad": 3}}, {"everywhere": "x"}, {"faithfulness_rows": [{}]}, {"faithfulness_rows": {"a": 3}},
     {"erase": {"cad": {"concepts": [], "fraction": 1, "minus": 3}}}],
)  # fmt: skip
def test_an_evaluation_of_another_shape_is_refused(said: Any, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"evaluation\.json is (damaged|not what this command writes)"):
        earlier(tmp_path)
