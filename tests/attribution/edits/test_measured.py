"""What `attribute edit` says of its dose is true of the model, the sampling and the concept at hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gazetteer.attribution.edits.defaults import EVALUATED, POOL, dose, evaluated, unlike_evaluated
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.jobs.config.schema import RunConfig, load_config
from gazetteer.jobs.experiments.attribute_edit import EditConfig, _differs, make_edit
from gazetteer.jobs.experiments.attribute_evaluate import made_with, named, read_cases, style_words
from gazetteer.jobs.experiments.attribute_model import model_marks, prompt_marks
from gazetteer.jobs.experiments.attribute_report import edit_remarks, print_edit
from gazetteer.jobs.experiments.attribute_sheet import write_sheet
from gazetteer.jobs.experiments.attribute_table import evaluation_table, sampled_with
from gazetteer.labeling.vocabulary.concepts import Vocabulary
from tests.support.models.tiny_pipeline import tiny_pipeline


def differs(run: RunConfig, **of_methods: Any) -> list[str]:
    methods = dataclasses.replace(evaluated(run.generation.steps, run.generation.guidance, run.seed), **of_methods)
    prompts = read_cases(run, POOL, style_words(run))
    marks = {**model_marks(run), **prompt_marks(prompts, list(Vocabulary(run.vocabulary).concepts))}
    return _differs(run, methods, marks, EditConfig("dog"))


def test_doses_were_chosen_on_the_shipped_configuration(tmp_path: Path) -> None:
    assert differs(load_config(None)) == differs(load_config(None, ["generation.steps=10"])) == []
    assert differs(load_config(None), tune_steps=1) == ["methods.tune_steps"]
    (tmp_path / "prompts.txt").write_text("a dog on grass\na dog and a boat\na boat on the sea\na dog at night\n")
    for override, keys in (
        ("model.scheduler=ddim", ["model.scheduler"]),
        ("model.dtype=bfloat16", ["model.dtype"]),
        ("generation.height=64", ["generation.height"]),
        ("generation.guidance=3", ["generation.guidance"]),
        ("generation.steps=50", ["generation.steps"]),
        ("generation.steps=8", ["generation.steps"]),
        ("seed=7", ["seed"]),
        (f"prompts.path={tmp_path / 'prompts.txt'}", ["prompts"]),
        ("vocabulary.concepts=[dog,boat]", ["prompts", "vocabulary.concepts"]),
    ):
        assert differs(load_config(None, [override])) == keys, override
    assert unlike_evaluated({**EVALUATED, "model.new": 1}) == ["model.new"]
    assert unlike_evaluated({key: value for key, value in EVALUATED.items() if key != "pool"}) == ["pool"]


def test_what_covers_the_picture_was_evaluated_apart_from_things() -> None:
    run = load_config(None)
    assert [named(run, c)[1] for c in ("dog", "sky", "night")] == ["objects", "areas", "styles"]
    others = dataclasses.replace(run, steer=dataclasses.replace(run.steer, concepts=("person",)))
    assert named(others, "sky")[1] == "objects"  # where nobody says which are things


def result(goal: str, method: str, kind: str, **other: Any) -> dict[str, Any]:
    own = dose(goal, method, kind)
    return {
        "goal": goal, "method": method, "kind": kind, "concept": "night", "measured": own.measured, "differs": [],
        "outcome": own.outcome and dataclasses.asdict(own.outcome), "named_by": 16, **other,
    }  # fmt: skip


def test_an_edit_says_what_the_evaluation_came_to_with_its_dose() -> None:
    assert edit_remarks(result("erase", "repaired", "styles")) == [
        "evaluated at this dose on six looks, mean: 1.00 of them left, 0.97 of all others kept: it hardly erases "
        "anything"
    ]
    (said,) = edit_remarks(result("erase", "uce", "objects"))
    assert said == "evaluated at this dose on ten objects, mean: 0.14 of them left, 1.01 of all others kept"
    (said,) = edit_remarks(result("amplify", "steps", "objects"))
    assert "13 concepts, mean: shown in 0.49 of pictures that missed them" in said and "hardly" not in said
    (said,) = edit_remarks(result("erase", "esd", "styles", differs=["seed"]))
    assert "was not chosen by an evaluation of this model so sampled (other than there: seed)" in said


def test_an_edit_made_from_the_bare_name_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    (tmp_path / "prompts.txt").write_text("a dog on grass\na dog and a boat\na boat on the sea\na house\n")
    run = load_config(None, [f"model.path={tmp_path / 'tiny'}", f"prompts.path={tmp_path / 'prompts.txt'}"])
    run = dataclasses.replace(run, generation=dataclasses.replace(run.generation, steps=3))
    methods = MethodConfig(steps=2, context=4, context_steps=1, tune_steps=1)
    for method, by, made in (
        ("steps", 0, "from 1 trajectory of the bare name house"), ("random", 0, "from 1 trajectory"),
        ("cad", None, "with 2 of the configuration's 3 sampler steps at guidance 3, from 1 trajectory of the bare"),
        ("uce", None, "in closed form, from names alone"),
    ):  # fmt: skip
        fraction = None if method == "uce" else 0.1
        config = EditConfig("house", method=method, fraction=fraction, sheet=0, pool=2)
        done = make_edit(run, methods, config, str(tmp_path / method))
        assert done["named_by"] == by and not done["measured"]
        print_edit(done)
        said = capsys.readouterr().out
        assert ("no prompt of the configuration names house beside something else" in said) == (by == 0)
        assert made in said
    assert "before and after it are painted with 3 steps" in said


@pytest.mark.parametrize(
    ("concept", "pool", "shown"),
    [
        ("boat", 4, ""),
        (
            "dog",
            4,
            "pictures are of prompts that doses are chosen on and edits made from: no prompt that is reported on ",
        ),
        ("house", 2, "no pictures: of the 2 prompts that are painted none names house; 1 that edits are made from do"),
    ],
)
def test_pictures_are_of_prompts_that_name_the_concept_in_either_half(
    concept: str, pool: int, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["a dog on grass", "a dog and a boat", "a boat on the sea", "a house"]
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    (tmp_path / "prompts.txt").write_text("\n".join(given) + "\n")
    settings = [f"model.path={tmp_path / 'tiny'}", f"prompts.path={tmp_path / 'prompts.txt'}", "generation.steps=2"]
    run = load_config(None, [*settings, "generation.height=16", "generation.width=16"])
    done = make_edit(run, MethodConfig(steps=2), EditConfig(concept, method="uce", pool=pool), str(tmp_path / "edit"))
    print_edit(done)
    said = capsys.readouterr().out
    assert shown in said and (shown or not ("pictures are of" in said or "no pictures" in said))
    assert bool(done["before"]) == ("no pictures" not in shown) and Path(done["before"]).exists()
    if done["before"]:
        sheet = write_sheet(run, [done["edit"]], 2, str(tmp_path / "sheet"), others=0)
        assert sheet["pictures"] == {"boat": 1, "dog": 2}[concept] and shown in sheet["shown"]
        rows = json.loads(Path(sheet["sheet"]).read_text())["pictures"]
        assert all((row["edits"][0] == sheet["shown"]) == bool(shown) for row in rows) and bool(sheet["shown"]) == bool(
            shown
        )
    none = make_edit(run, MethodConfig(steps=2), EditConfig(concept, method="uce", sheet=0), str(tmp_path / "none"))
    assert none["shown"] == "no pictures: --sheet is 0" and not none["before"]


def test_an_evaluation_says_how_edits_were_made() -> None:
    run = load_config(None)
    own = evaluated(16, 6.0, 0)
    full, few = (made_with(run, m) for m in (own, dataclasses.replace(own, seeds=1, context=8)))
    assert full == {"steps": 10, "guidance": 6.0, "seeds": 2, "context": 16, "configured_steps": 16}
    said = "Edits are made and pictures painted with 10 of the configuration's 16 sampler steps at guidance 6; edits "
    assert sampled_with(full) == f"{said}from 2 trajectories and up to 16 prompts that name the concept."
    assert sampled_with(few) == (
        f"{said}from 1 trajectory and up to 8 prompts that name the concept (the full evaluation and `attribute edit` "
        "take 2 and 16)."
    )
    assert sampled_with({}) == "" and sampled_with(few) in evaluation_table(few)
