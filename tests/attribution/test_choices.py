"""What an evaluation takes: halves, signs, factors, pairings; and how numbers are added up."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gazetteer.attribution.edits import problems as problems_module
from gazetteer.attribution.edits.defaults import KINDS, OUTCOMES, dose
from gazetteer.attribution.edits.delta import Delta, ablation
from gazetteer.attribution.edits.method_names import AMPLIFY, ERASE, leader
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.evaluation.cases import CHOOSE, REPORT, Case
from gazetteer.attribution.evaluation.evaluate import EditEvaluation, EvaluationConfig
from gazetteer.attribution.evaluation.evaluators import Evaluators, Images
from gazetteer.attribution.evaluation.pairs import PicturePairs
from gazetteer.attribution.evaluation.suite import full
from gazetteer.attribution.faithfulness.study import pooled_correlations
from gazetteer.attribution.objective.context import context_samples
from gazetteer.attribution.objective.objectives import user_objective
from gazetteer.attribution.objective.problem import Problem, Scores
from gazetteer.attribution.objective.prompts import without
from gazetteer.attribution.objective.samples import Samples
from gazetteer.attribution.objective.trajectory import trajectory
from gazetteer.attribution.scores import score
from gazetteer.attribution.scores.estimators import Options
from gazetteer.attribution.scores.score import ScoreConfig, _samples
from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.schema import load_config
from tests.support.models.tiny_pipeline import tiny_pipeline


@pytest.fixture(scope="module")
def pipe() -> object:
    return tiny_pipeline()


def test_the_dose_is_chosen_on_one_half_and_reported_on_the_other() -> None:
    """An edit that does nothing on the choosing half and all on the other: the curve shows 1, the report 0."""
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)

    def edit(*_: object) -> Delta:
        return ablation(dict(model.named_parameters()), {"weight": torch.tensor([0])}, {})

    def paint(prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        edited = model.weight.item() == 0
        return [np.full((2, 2, 3), 100 * seed + edited, np.uint8) for seed in seeds]

    def detect(images: Images) -> list[dict[str, float]]:
        return [{} if image[0, 0, 0] == 101 else {"dog": 0.5} for image in images]

    cases = [Case("a dog", seed, frozenset({"dog"}), half) for seed, half in ((0, CHOOSE), (1, REPORT))]
    stub = SimpleNamespace(config=SimpleNamespace(reference="steps"), denoiser=model, edit=edit)
    protocol = EvaluationConfig(("cad",), (), fractions=(0.01, 0.05), resamples=5)
    found = EditEvaluation(stub, Evaluators(paint, detect), cases, protocol).run("erase", ["dog"])["cad"]  # type: ignore[arg-type]
    assert [point["target"][0] for point in found["curve"]] == [1.0, 1.0] and found["target"][0] == 0.0
    assert found["fraction"] == 0.01


def test_prompts_whose_word_cannot_be_taken_out_say_nothing_of_taking_it_out() -> None:
    """A dog is there where the prompt says so, by its name or as a puppy; only its name can be taken out."""

    def paint(prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        return [np.full((2, 2, 3), 100 * ("dog" in p or "puppy" in p), np.uint8) for p in prompts]

    def detect(images: Images) -> list[dict[str, float]]:
        return [{"dog": 0.5} if image.any() else {} for image in images]

    prompts = ("a dog and sky", "a puppy and sky", "two dogs", "sky")
    cases = [Case(p, i, frozenset({"dog"} if i < 3 else {"sky"}), REPORT) for i, p in enumerate(prompts)]
    stub = SimpleNamespace(without=without)
    evaluation = EditEvaluation(stub, Evaluators(paint, detect), cases, EvaluationConfig((), (), resamples=5))  # type: ignore[arg-type]
    found = evaluation.blocked(["dog"])
    assert found["target"][0] == 0.0 and found["left_out"] == 1
    assert evaluation.pairs.blocking("dog").target.tolist() == [[1.0, 0.0]] * 2


PAGE = Path(__file__).parents[2] / "docs/results/attribution.md"


def rows_of(table: str) -> dict[str, tuple[str, float, float, float]]:
    """Of a table of the page by method its first cell, target, others and dose; the table is named by its first cell.

    That of a method for which there is no dose (a word deleted) is left out.
    """
    lines = iter(PAGE.read_text(encoding="utf-8").splitlines())
    head = next(line for line in lines if line.startswith(f"| {table} | `target` |"))
    columns = [cell.strip().strip("`") for cell in head.strip("|").split("|")]
    asked = "asked" if "asked" in columns else "fraction"
    rows = {}
    for line in itertools.takewhile(lambda line: line.startswith("|"), lines):
        cells = dict(zip(columns, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
        if (taken := cells[asked]) and (named := re.match(r"\**`(\w+)`", cells[table])):
            percent = 0.01 if "%" in taken else 1.0
            dosed = 1.0 if taken == "all" else float(re.sub("[^0-9.]", "", taken)) * percent
            found = (float(cells[name].split()[0]) for name in ("target", "others"))
            rows[named[1]] = (cells[table], *found, dosed)
    return rows


@pytest.mark.parametrize(
    ("goal", "kind", "table"),
    [
        ("erase", "objects", "ten objects"), ("erase", "styles", "six looks"), ("erase", "areas", "six areas"),
        ("amplify", "objects", "method"),
    ],
)  # fmt: skip
def test_what_was_evaluated_is_what_the_page_of_results_says(goal: str, kind: str, table: str) -> None:
    """No method more and none less, with the dose that was chosen, and what came of it."""
    rows = rows_of(table)
    assert {method: row[1:3] for method, row in rows.items()} == OUTCOMES[goal, kind][1]
    for method, (title, target, others, taken) in rows.items():
        own = dose(goal, method, kind)
        assert own.measured and own.taken == pytest.approx(taken) and own.too_strong == ("no dose keeps" in title)
        assert own.outcome and (own.outcome.target, own.outcome.others) == (target, others)


def test_a_method_that_was_not_evaluated_has_a_dose_and_no_outcome() -> None:
    assert set(OUTCOMES) == {("erase", kind) for kind in KINDS} | {("amplify", "objects")}
    for goal, method, kind in (
        ("erase", "esd", "objects"), ("erase", "ca_all", "objects"), ("erase", "magnitude", "objects"),
        ("erase", "cad_wanda", "objects"), ("erase", "cad_random", "styles"), ("erase", "steps_all", "styles"),
        ("amplify", "steps", "styles"), ("erase", "live", "styles"),
    ):  # fmt: skip
        own = dose(goal, method, kind)
        assert not own.measured and own.outcome is None and not own.too_strong
    assert not dose("erase", "random", "objects", reference="cad").measured  # as many as another method takes


def test_an_edit_takes_the_dose_that_its_method_was_evaluated_with() -> None:
    for goal, method, kind, wanted in (
        ("erase", "cad", "objects", 0.00033), ("erase", "cad_random", "objects", 0.00033),
        ("erase", "steps", "objects", 0.01), ("erase", "random", "objects", 0.01), ("erase", "uce", "objects", 1.0),
        ("amplify", "steps", "objects", 0.001), ("amplify", "steps_all", "objects", 1.0),
        ("erase", "cad", "styles", 0.00033), ("erase", "repaired", "styles", 0.00033),
        ("erase", "random", "styles", 0.003), ("erase", "esd", "objects", 0.01),
    ):  # fmt: skip
        assert dose(goal, method, kind).taken == wanted
    for goal, method, kind, words in (
        ("erase", "x", "objects", r"Unknown method 'x' to erase; accepted: steps, .*uce.*\."),
        ("amplify", "uce", "objects", "Unknown method 'uce' to amplify; accepted: steps"),
        ("forget", "cad", "objects", "Unknown goal 'forget'; accepted: erase, amplify"),
        ("erase", "cad", "moods", "Unknown kind of concept 'moods'; accepted: objects, styles, areas"),
    ):
        with pytest.raises(InputError, match=words):
            dose(goal, method, kind)


def test_every_method_has_a_dose_for_every_kind_and_the_evaluation_tries_it() -> None:
    config = full(10, 4.0, 0).evaluation
    for goal, methods in (("erase", ERASE), ("amplify", AMPLIFY)):
        for method in methods:
            for kind in KINDS:
                points = config.points(leader(method, "steps") or method)
                third = float(f"{min(points) / 3:.2g}")  # gentler ones are tried where none keeps the others
                assert dose(goal, method, kind).taken in (*points, third, float(f"{third / 3:.2g}"))


def test_amplifying_takes_what_holds_a_concept_down_and_asks_for_more_of_it(
    pipe: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def watched(pipe: object, context: object, factor: float, *rest: object, **named: object) -> Samples:
        seen["factor"] = factor
        return context_samples(pipe, context, factor, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(problems_module, "context_samples", watched)
    config = MethodConfig(steps=2, context=1, context_steps=1, amplify_factor=2.5, erase_factor=-0.5)
    prompts = {"a dog and a house": frozenset({"dog", "house"}), "a house": frozenset({"house"})}
    methods = Methods(pipe, config, ["dog", "house"], prompts, without)
    for goal, sign, factor in (("erase", 1, -0.5), ("amplify", -1, 2.5)):
        scores, chosen = methods.scores(goal, "cad", "dog"), methods.choose(goal, "cad", "dog", 0.02)
        assert chosen
        for name, index in chosen.items():
            assert (sign * scores[name].reshape(-1)[index] > 0).all()
        methods.problems.problem(goal, "dog", "context")
        assert seen["factor"] == factor


def test_the_preset_pairs_as_the_released_code_does(pipe: object) -> None:
    config = ScoreConfig("dog", steps=3)
    for preset, pairing in (("cad", "published"), ("", "matched")):
        samples = _samples(pipe, (load_config(None).saes, ""), replace(config, preset=preset))[1]
        assert torch.equal(samples.x, trajectory(pipe, ["dog"], [0], steps=3, pairing=pairing).x)


def test_iterated_scores_zero_the_fraction_that_is_taken(pipe: object, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def watched(name: str, problem: Problem, options: Options) -> Scores:
        asked.append(options.fraction)
        return {name: torch.rand(weight.shape) for name, weight in problem.weights.items()}

    monkeypatch.setattr(score, "estimate", watched)
    for estimator, wanted in (("iterated", 0.2), ("expected", Options().fraction)):
        score.score_weights(pipe, ScoreConfig("dog", estimator=estimator, fraction=0.2, steps=2))
        assert asked.pop() == wanted


def test_half_precision_gradients_are_summed_in_float32() -> None:
    """1 and 256 times 2^-11: in float16 the small ones are lost one by one, together they are an eighth."""
    model = nn.Linear(1, 1, bias=False).half()
    slopes = [1.0] + [2.0**-11] * 256
    parts = tuple(lambda slope=slope: (model.weight * slope).reshape(1) for slope in slopes)  # type: ignore[misc]
    found = Problem(model, {"weight": model.weight}, parts).gradient()["weight"]
    assert found.dtype == torch.float32 and float(found) * len(slopes) == pytest.approx(1.125)


def test_correlations_over_sizes_of_ablations_are_pooled_as_independent() -> None:
    """Half-widths add in squares: 0.3 and 0.4 below make 0.5 / 2, not the 0.35 of the mean of the lows."""
    rows = [
        {"estimator": "cad", "unit": "weight", "pearson": [0.4, 0.1, 0.5]},
        {"estimator": "cad", "unit": "weight", "pearson": [0.6, 0.2, 0.6]},
        {"estimator": "cad", "unit": "group", "pearson": [-1.0, -1.0, -1.0]},
        {"estimator": "coar", "unit": "group", "pearson": [0.8, 0.7, 0.9]},
    ]
    assert pooled_correlations(rows) == {
        "cad": pytest.approx([0.5, 0.25, 0.55]),
        "coar": pytest.approx([0.8, 0.7, 0.9]),
    }


def ones(unet: nn.Module, samples: Samples) -> Tensor:
    """An objective of one's own."""
    return torch.ones(len(samples))


def test_an_objective_of_one_s_own_is_found_by_its_name(pipe: object) -> None:
    found = user_objective("tests.attribution.test_choices:ones")
    assert found.__name__ == "ones"
    assert found(pipe.unet, trajectory(pipe, ["a dog"], [0], steps=2)).tolist() == [1.0, 1.0]  # type: ignore[attr-defined]
    for wrong, words in (
        ("tests.none:ones", "cannot be imported"),
        ("tests.attribution.test_choices:none", "cannot be imported"),
        ("tests.attribution.test_choices:__doc__", "not callable"),
        ("ones", "cannot be imported"),
    ):
        with pytest.raises(InputError, match=words):
            user_objective(wrong)


def test_pictures_that_do_not_name_a_concept_are_others_for_every_concept() -> None:
    """Else the same few stand for the others of all concepts, and intervals over concepts count them as new ones."""
    concepts = ("boat", "car", "dog", "sun")
    cases = [Case(f"a {c} {i}", i, frozenset({c}), half) for half in (0, 1) for i in range(6) for c in concepts]
    pairs = SimpleNamespace(cases=cases, most=4)
    others = {c: PicturePairs.relevant(pairs, c, REPORT)[4:] for c in concepts}  # type: ignore[arg-type]
    assert all(len(own) == 2 and c not in {n for case in own for n in case.named} for c, own in others.items())
    assert all(case.half == REPORT for own in others.values() for case in own)
    assert len({case.prompt for own in others.values() for case in own}) == 8
    few = SimpleNamespace(cases=[case for case in cases if case.named == {"dog"}][:9] + cases[-1:], most=4)
    assert [case.prompt for case in PicturePairs.relevant(few, "dog", REPORT)[3:]] == ["a sun 5"]  # type: ignore[arg-type]
