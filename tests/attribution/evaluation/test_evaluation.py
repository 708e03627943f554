"""Edits by every method, measured on pairs of pictures: operating points, controls, where the weights lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from gazetteer.attribution.attacks.words import Attack
from gazetteer.attribution.edits.delta import applied
from gazetteer.attribution.edits.method_names import AMPLIFY, ERASE, FEATURES, FOLLOWERS
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.evaluation.cache import ResultCache
from gazetteer.attribution.evaluation.cases import CHOOSE, REPORT, Case
from gazetteer.attribution.evaluation.checks import check_named
from gazetteer.attribution.evaluation.evaluate import EditEvaluation, EvaluationConfig
from gazetteer.attribution.evaluation.evaluators import Evaluators, Images, painter
from gazetteer.attribution.evaluation.located import everywhere, located
from gazetteer.attribution.objective.prompts import without
from gazetteer.attribution.scores.selection import count, jaccard, scope_weights
from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.jobs.experiments.attribute_report import print_evaluation, write_evaluation
from tests.support.models.dits import tiny_dit
from tests.support.models.tiny_pipeline import tiny_pipeline

CONCEPTS = ["dog", "house", "boats"]
PROMPTS = ["a dog", "a red house", "two boats", "a dog at night", "a house", "two boats on the sea"]
ERASING = ("cad_random", "steps", "steps_random", "cad", "steps_all", "esd", "ca_random", "wanda", "iterated")
AMPLIFYING = ("steps", "cad", "random", "cad_magnitude")


class Evaluated(NamedTuple):
    """A tiny model, its methods, and what evaluating them gave; `before`: its weights until then."""

    pipe: Any
    methods: Methods
    evaluation: EditEvaluation
    erased: dict[str, Any]
    raised: dict[str, Any]
    before: list[torch.Tensor]


@pytest.fixture(scope="module")
def evaluated() -> Evaluated:
    pipe = tiny_pipeline()
    cases = [
        Case(p, i, frozenset(c for c in CONCEPTS if c in p), CHOOSE if i < 3 else REPORT) for i, p in enumerate(PROMPTS)
    ]
    config = MethodConfig(steps=2, tune_steps=1, context=1, rounds=3)
    methods = Methods(pipe, config, CONCEPTS, {k.prompt: k.named for k in cases if k.half == CHOOSE}, without)

    def detect(images: Images) -> list[dict[str, float]]:  # any rule that looks at the pictures will do
        return [{c: 0.5 for i, c in enumerate(CONCEPTS) if image[..., i].mean() > 100} for image in images]

    def features(images: Images) -> list[list[np.ndarray]]:
        return [[image.astype(np.float32).transpose(2, 0, 1)] for image in images]

    before = [p.detach().clone() for p in pipe.unet.parameters()]
    protocol = EvaluationConfig(
        ERASING, AMPLIFYING, fractions=(0.02, 0.05), most=1, paraphrased=("steps",), attacked=("steps",),
        attack=Attack(words=1, rounds=1, tried=2), curved=("steps_random",),
    )  # fmt: skip
    evaluators = Evaluators(painter(pipe, GenerationConfig(steps=2)), detect, features=features)
    evaluation = EditEvaluation(methods, evaluators, cases, protocol, neighbours={"dog": ("house",)})
    assert set(evaluation.pairs.rates(CHOOSE)) == set(CONCEPTS)
    return Evaluated(
        pipe, methods, evaluation, evaluation.run("erase", ["dog"]), evaluation.run("amplify", ["dog"]), before
    )


def test_every_method_is_evaluated_on_pairs_and_the_model_stays_as_it_was(evaluated: Evaluated) -> None:
    erased, raised = evaluated.erased, evaluated.raised
    assert set(erased) == set(ERASING) and set(raised) == set(AMPLIFYING)
    for found in (*erased.values(), *raised.values(), evaluated.evaluation.blocked(["dog"])):
        assert all(len(found[key]) == 3 for key in ("target", "others", "change"))
    reference = erased[evaluated.methods.config.reference]
    for name in set(FOLLOWERS) & set(ERASING):
        assert erased[name]["fraction"] == reference["fraction"]
        assert bool(erased[name]["curve"]) == (name == "steps_random")
        assert erased[name]["weights"] == reference["weights"]
    for found, control in ((erased, "cad_random"), (raised, "cad_magnitude")):
        assert found[control]["fraction"] == found["cad"]["fraction"] and not found[control]["curve"]
        assert found[control]["weights"] == found["cad"]["weights"] and set(found["cad"]["minus"]) == {control}
        assert set(found["cad"]["minus"][control]) == {"target", "classifier", "area", "rise", "others"}
    assert set(erased["steps"]["minus"]) == {"steps_random", "wanda"} and "minus" not in erased["iterated"]
    assert set(evaluated.evaluation.run("erase", ["dog"], ["cad_random"])) == {"steps", "cad", "cad_random"}
    assert [point["fraction"] for point in erased["cad"]["curve"]] == [0.02, 0.05]
    assert len(erased["steps"]["paraphrased"]["target"]) == 3 and "paraphrased" not in erased["cad"]
    assert len(erased["steps"]["attacked"]["target"]) == 3 and erased["steps"]["attacked"]["words"]["dog"]
    assert all(torch.equal(a, b) for a, b in zip(evaluated.before, evaluated.pipe.unet.parameters(), strict=True))


def test_where_weights_lie_adds_up_and_the_report_is_written(evaluated: Evaluated, tmp_path: Path) -> None:
    methods, erased = evaluated.methods, evaluated.erased
    found = {"faithfulness_rows": [], "erase": erased, "amplify": evaluated.raised} | located(
        methods, ["cad", "steps"], {name: erased[name]["fraction"] for name in ("cad", "steps")}, ["dog"]
    )
    cache = ResultCache(tmp_path / "cache")
    everything = found["everywhere"] = everywhere(methods, ["dog", "house"], cache)
    assert everywhere(methods, ["dog", "house"], cache) == everything
    every, taken = scope_weights(evaluated.pipe.unet, "all"), everything["distribution"]["dog"]
    assert sum(row["weights"] for row in taken) == sum(w.numel() for w in every.values())
    assert sum(row["chosen"] for row in taken) == int(0.01 * sum(w.numel() for w in every.values()))
    assert len({row["fraction"] for row in taken}) > 3  # not as much of every layer
    convolution = sum(w.numel() for w in every.values() if w.ndim == 4) / sum(w.numel() for w in every.values())
    assert everything["weights"]["kind"]["conv"] == pytest.approx(convolution)
    for numbers in (*everything["kind"].values(), *everything["block"].values(), *everything["weights"].values()):
        assert sum(numbers.values()) == pytest.approx(1)
    assert len(everything["step"]["dog"]) == 2 and sum(everything["step"]["dog"]) == pytest.approx(1)
    assert 0 < everything["overlap"]["dog"]["house"] < 1
    rows = found["distribution"]["steps"]["dog"]
    chosen = count(methods.choose("erase", "steps", "dog", erased["steps"]["fraction"]))
    assert sum(row["chosen"] for row in rows) == chosen
    assert sum(row["of_all"] for row in rows) == pytest.approx(1) and {row["kind"] for row in rows} == {"cross"}
    files = [Path(file) for file in write_evaluation(found, str(tmp_path / "report"))]
    drawn = {"erase-interference-cad.svg", "distribution-steps.svg", "everywhere-step.svg"}
    assert {"evaluation.json", "evaluation.md", *drawn} <= {file.name for file in files}
    for file in files:
        if file.suffix != ".md":
            assert ElementTree.parse(file) if file.suffix == ".svg" else json.loads(file.read_text())
    page = (tmp_path / "report" / "evaluation.md").read_text()
    tables = [part.splitlines() for part in page.split("\n\n") if part.startswith("|")]
    assert all(len({row.count("|") for row in table}) == 1 for table in tables) and len(tables) >= 2
    assert {f"`{method}`" for method in erased} <= {row.split(" | ")[0].strip("| ") for row in tables[0]}
    print_evaluation(found)


def test_controls_take_as_many_weights_and_rankings_are_by_row_or_layer(evaluated: Evaluated) -> None:
    methods = evaluated.methods
    pairs = ((methods.config.reference, "magnitude"), ("cad", "cad_random"), ("cad", "cad_magnitude"))
    for leader, control in pairs:
        led, followed = (methods.choose("erase", m, "dog", 0.05) for m in (leader, control))
        assert {n: len(i) for n, i in led.items()} == {n: len(i) for n, i in followed.items()} and led
    per_row, per_layer = (methods.choose("erase", name, "dog", 0.07) for name in ("published", "cad"))
    assert {n: len(i) for n, i in per_row.items()} != {n: len(i) for n, i in per_layer.items()}
    for name, index in per_row.items():
        rows, width = methods.weights[name].shape
        assert (index // width).bincount(minlength=rows).max() == int(0.07 * width)
    matched, shifted = (methods.scores("erase", method, "dog") for method in ("cad", "published"))
    assert not any(torch.allclose(matched[name], shifted[name]) for name in matched)
    for name, index in followed.items():  # the largest of each layer
        sizes = methods.weights[name].detach().abs().reshape(-1)
        assert sizes[index].min() >= sizes.sort(descending=True).values[len(index) - 1]


def test_choices_of_controls_lie_in_the_scope_of_the_method_that_they_follow(evaluated: Evaluated) -> None:
    methods, names = evaluated.methods, ("cad", "cad_random", "published", "steps", "magnitude")
    found = located(methods, names, dict.fromkeys(names, 0.05), ["dog"])["distribution"]
    for name in names:
        rows, chosen = found[name]["dog"], methods.choose("erase", name, "dog", 0.05)
        assert sum(row["chosen"] for row in rows) == count(chosen) > 0
        assert sum(row["of_all"] for row in rows) == pytest.approx(1)


def test_a_concept_that_a_needed_half_does_not_name_is_refused_at_once() -> None:
    cases = [Case("a dog", 0, frozenset({"dog"}), CHOOSE), Case("a dog, a boat", 1, frozenset({"dog", "boat"}), REPORT)]

    def check(concept: str, *fractions: float) -> None:
        config = EvaluationConfig(("cad",), (), fractions=fractions)
        check_named(EditEvaluation(None, None, cases, config), [concept])  # type: ignore[arg-type]

    check("dog", 0.1, 0.2)
    check("boat", 0.1)  # no dose to choose
    with pytest.raises(InputError, match="No prompt of the half that doses are chosen on names 'boat'"):
        check("boat", 0.1, 0.2)
    with pytest.raises(InputError, match="No prompt of the half that is reported on names 'car'"):
        check("car", 0.1)


def test_random_weights_are_other_ones_for_every_concept_and_the_same_in_every_goal(evaluated: Evaluated) -> None:
    methods = evaluated.methods
    dog, house, again = (methods.choose("erase", "cad_random", c, 0.05) for c in ("dog", "house", "dog"))
    assert all(torch.equal(index, again[name]) for name, index in dog.items())
    assert jaccard(dog, house) < 0.1  # 5 % of a layer at random share 2.6 %; one draw for all concepts shares all
    raised = methods.choose("amplify", "cad_random", "dog", 0.05)
    assert all(torch.equal(index, raised[name]) for name, index in dog.items() if len(index) == len(raised[name]))


def test_every_other_method_makes_an_edit_and_an_applied_one_is_undone(evaluated: Evaluated) -> None:
    pipe, methods = evaluated.pipe, evaluated.methods
    for goal, names in (("erase", set(ERASE) - {*ERASING, *FEATURES}), ("amplify", set(AMPLIFY) - set(AMPLIFYING))):
        for name in sorted(names):
            assert len(methods.edit(goal, name, "dog", 0.05)), name
    with applied(pipe.unet, methods.edit("erase", "cad", "dog", 0.05)):
        assert any(not torch.equal(a, b) for a, b in zip(evaluated.before, pipe.unet.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(evaluated.before, pipe.unet.parameters(), strict=True))
    with pytest.raises(InputError, match="Unknown method"):
        methods.edit("amplify", "live", "dog", 0.1)


def test_a_transformer_paints_as_its_pipeline_does() -> None:
    pipe = tiny_dit("sd3")
    config = GenerationConfig(steps=2, guidance=3.0, blocks=("transformer_blocks.0",), branches=("cond",))
    (image,) = painter(pipe, config)(["a dog"], [3])
    again = painter(pipe, config)(["a boat", "a dog"], [3, 3])
    assert image.shape[2] == 3 and image.dtype == np.uint8
    assert np.array_equal(image, again[1]) and not np.array_equal(again[0], again[1])
