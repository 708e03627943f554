"""The arithmetic of an evaluation of attribution, by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from scipy.stats import binomtest

from gazetteer.attribution.evaluation import summaries
from gazetteer.attribution.evaluation.cache import ResultCache
from gazetteer.attribution.evaluation.cases import CHOOSE, REPORT, Case
from gazetteer.attribution.evaluation.evaluate import EditEvaluation, EvaluationConfig, together
from gazetteer.attribution.evaluation.evaluators import Evaluators, Images, Observation, classifying
from gazetteer.attribution.evaluation.outcomes import Outcome, compare, pack, unpack
from gazetteer.attribution.evaluation.summaries import difference, interference, interference_pictures, quality, summary
from gazetteer.attribution.faithfulness.study import pooled_correlations
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import LIST
from gazetteer.jobs.experiments.attribute_report import evaluation_plots, print_evaluation, write_evaluation
from gazetteer.jobs.plots.charts import GREY


def picture(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, dtype=np.uint8)


def seen(value: int, *found: str, area: float = 0.5) -> Observation:
    return Observation(picture(value), dict.fromkeys(found, area))


def wilson(found: int, trials: int) -> list[float]:
    """Wilson's interval by scipy."""
    return list(binomtest(found, trials).proportion_ci(method="wilson"))


def near(*interval: float) -> Any:
    return pytest.approx(list(interval), abs=1e-6)


@pytest.mark.parametrize("pictures", [1, 8, 22, 100])
def test_none_and_all_of_a_few_pictures_are_not_certain(pictures: int) -> None:
    """Two concepts; by Wilson 0 of 22 reaches 15 %, 0 of 21 does not; the bootstrap says 0 of 1 does."""
    cases = [Case("a dog and sky", i, frozenset({"dog", "sky"}), REPORT) for i in range(pictures)]
    outcome = compare("erase", "dog", cases, [seen(0, "dog", "sky")] * pictures, [seen(0, "sky")] * pictures)
    found = summary("erase", [outcome, outcome], 50, 0)
    none, all_ = wilson(0, 2 * pictures), wilson(2 * pictures, 2 * pictures)
    assert found["target"] == near(0.0, 0.0, none[1]) and found["others"] == near(1.0, all_[0], 1.0)
    assert found["rise"] == near(-1.0, -1.0, -all_[0]) and found["area"] == [0.0, 0.0, 0.0]  # an area is no count
    alone = summary("erase", [outcome], 50, 0)["target"][2]
    assert (alone is not None and alone <= 0.15) == (pictures >= 22)
    some = compare("erase", "dog", cases, [seen(0, "dog", "sky")] * pictures, [seen(0, "dog", "sky")] * pictures)
    mixed = summary("erase", [outcome, some], 200, 0)["target"]
    assert mixed == [0.5, 0.0, 1.0]  # what resamples show of themselves is left as it is


@pytest.mark.parametrize("goal", ["erase", "amplify"])
def test_pictures_that_are_drawn_together_are_one_to_the_interval(goal: str) -> None:
    """Every case said in two ways that come out alike: as sure as the cases, not as twice as many pictures."""
    cases = [Case("a dog and sky", i, frozenset({"dog", "sky"}), REPORT) for i in range(8)]
    intact = [seen(0, *(["dog", "sky"] if i % 3 else ["sky"])) for i in range(8)]
    edited = [seen(0, *(["dog", "sky"] if i % 2 else ["sky"])) for i in range(8)]
    once = compare(goal, "dog", cases, intact, edited)
    twice = compare(goal, "dog", *(list(np.repeat(np.array(s, dtype=object), 2)) for s in (cases, intact, edited)))
    seeds = [case.seed for case in cases for _ in range(2)]
    assert summary(goal, [twice] * 2, 300, 0, drawn=[seeds] * 2) == summary(goal, [once] * 2, 300, 0)
    assert summary(goal, [twice] * 2, 300, 0)["target"] != summary(goal, [once] * 2, 300, 0)["target"]
    ones = np.array([1.0, 0.0, 1.0])
    assert summaries.shown([ones.repeat(2)], 300, 0, drawn=[[5, 5, 2, 2, 7, 7]]) == summaries.shown(
        [ones[[1, 0, 2]]], 300, 0
    )


def test_what_counts_as_erased_kept_and_changed() -> None:
    cases = [
        Case("a dog and sky", 0, frozenset({"dog", "sky"}), REPORT),
        Case("two dogs", 1, frozenset({"dog"}), REPORT),
        Case("a tree and sky", 2, frozenset({"tree", "sky"}), REPORT),
    ]
    intact = [seen(0, "dog", "sky"), seen(0), seen(0, "tree", "sky", "car")]
    edited = [seen(9, "sky"), seen(9, "dog", area=0.1), seen(51, "sky")]
    erased = compare("erase", "dog", cases, intact, edited, neighbours={"tree"})
    assert erased.by_concept == {"sky": (2, 2), "tree": (1, 0)}
    found = summary("erase", [erased], 0, 0)
    assert found["target"][0] == 1.0  # one found before, one after, though not in the same picture
    assert found["area"][0] == pytest.approx(0.2)  # half a picture before, a tenth after
    assert found["others"][0] == pytest.approx(2 / 3) and found["change"][0] == pytest.approx(0.2)
    assert found["near"][0] == 0.0 and found["far"][0] == 1.0
    assert found["distance"] == [None] * 3 and quality([erased], 5, 0)["fid"] is None
    raised = summary("amplify", [compare("amplify", "dog", cases, intact, edited)], 200, 0)
    assert raised["target"] == near(1.0, wilson(1, 1)[0], 1.0)  # of the one dog that was missed
    nothing = compare("erase", "dog", cases[1:2], intact[1:2], edited[1:2])
    said = summary("erase", [nothing], 50, 0)
    assert said.pop("rise") == near(1.0, wilson(1, 1)[0], 1.0) and all(value == [None] * 3 for value in said.values())
    assert summary("erase", [erased], 0, 0)["rise"][0] == 0.0  # of two dogs one before, the other after
    low, mean, high = (summary("erase", [erased, erased], 400, 0)["others"][i] or 0 for i in (1, 0, 2))
    assert 0 < low < mean < high <= 1


def test_a_classifier_has_a_word_of_its_own_and_sought_cases_count_for_the_target_alone() -> None:
    def read(seen: Observation, *words: str) -> Observation:
        return dataclasses.replace(seen, read=frozenset(words))

    cases = [
        Case("a dog and sky", 0, frozenset({"dog", "sky"}), REPORT),
        Case("a dog and a tree", 1, frozenset({"dog", "tree"}), REPORT),
        Case("a dog and sky", 100, frozenset({"dog", "sky"}), REPORT, sought=True),
        Case("sky", 2, frozenset({"sky"}), REPORT),
    ]
    intact = [
        read(seen(0, "dog", "sky"), "dog", "sky"),
        read(seen(0), "dog"),
        read(seen(0, "sky")),
        read(seen(0, "dog")),
    ]
    edited = [read(seen(0, "sky"), "dog"), read(seen(0, "dog"), "tree"), read(seen(0, "dog"), "dog"), read(seen(0))]
    raised = compare("amplify", "dog", cases, intact, edited)
    assert raised.target.tolist() == [[0, 1], [0, 1]]  # missed in the second picture and in the one that was sought
    assert raised.named.tolist() == [[1, 0], [0, 1]] and raised.area.shape == (2, 2)
    assert raised.others.tolist() == [[1, 1], [0, 0], [0, 0]] and raised.by_concept == {"sky": (1, 1), "tree": (0, 0)}
    assert raised.read.tolist() == [[1, 1], [1, 0], [0, 1]] and raised.read_others.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert raised.unnamed.tolist() == [[1, 0]] and len(raised.change) == 1
    up = summary("amplify", [raised], 0, 0)
    assert up["target"][0] == up["classifier"][0] == 1.0  # of the one that the classifier missed
    assert up["rise"][0] == 0.0 and up["unnamed"][0] == -1.0 and up["others_classifier"][0] == 1.0
    down = summary("erase", [compare("erase", "dog", cases[:2], intact[:2], edited[:2])], 0, 0)
    assert down["target"][0] == 1.0 and down["classifier"][0] == 0.5
    alone = compare("erase", "dog", cases[:1], [seen(0, "dog")], [seen(0, "dog")])
    assert summary("erase", [alone], 0, 0)["classifier"] == [None] * 3
    again = unpack(pack(raised))
    assert again.read.tolist() == raised.read.tolist() and again.unnamed.tolist() == raised.unnamed.tolist()


def test_a_classifier_says_nothing_of_what_it_cannot_read() -> None:
    """A second witness that knows no looks: a look that came out is not one that it has missed."""
    cases = [Case("a dog at night", i, frozenset({"dog", "night"}), REPORT) for i in range(2)]

    def observed(*found: str) -> list[Observation]:
        evaluators = Evaluators(
            lambda prompts, _: [picture(0) for _ in prompts], lambda images: [dict.fromkeys(found, 1.0)] * len(images),
            lambda images: [frozenset({"dog"})] * len(images), readable=("dog", "house"),
        )  # fmt: skip
        return evaluators.observe(cases)

    raised = summary("amplify", [compare("amplify", "night", cases, observed("dog"), observed("dog", "night"))], 20, 0)
    assert raised["target"][0] == 1.0 and raised["classifier"] == [None] * 3
    assert observed()[0].reads("dog") is True and observed()[0].reads("house") is False
    assert observed()[0].reads("night") is None and seen(0).reads("dog") is None
    kept = summary("erase", [compare("erase", "dog", cases, observed("dog"), observed("dog"))], 20, 0)
    assert kept["classifier"][0] == 1.0


def test_what_the_intact_model_misses_is_sought_once_among_prompts_of_the_half(tmp_path: Path) -> None:
    """A painter that misses the dog under odd seeds."""
    cases = [Case(f"dog {i}", i, frozenset({"dog"}), REPORT if i % 2 == 0 else CHOOSE) for i in range(6)]
    painted: list[int] = []

    def paint(prompts: list[str], seeds: list[int]) -> Images:
        painted.extend(seeds)
        return [picture(0 if seed // 100_000 == 2 else 255) for seed in seeds]

    def detect(images: Images) -> list[dict[str, float]]:
        return [{"dog": 1.0} if image.any() else {} for image in images]

    def evaluation(seek: int) -> EditEvaluation:
        protocol, cache = EvaluationConfig((), (), most=2, seek=seek), ResultCache(tmp_path / f"{seek}")
        return EditEvaluation(None, Evaluators(paint, detect), cases, protocol, cache=cache)  # type: ignore[arg-type]

    found = evaluation(20).pairs.sought("dog", REPORT)
    assert [(one.prompt, one.seed) for one in found] == [("dog 0", 200_000), ("dog 2", 200_002)]
    assert all(one.sought and one.half == REPORT for one in found) and len(painted) == 8
    assert evaluation(20).pairs.sought("dog", REPORT) == found and len(painted) == 8
    assert evaluation(3).pairs.sought("dog", REPORT) == [] and len(painted) == 11
    assert evaluation(0).pairs.sought("dog", REPORT) == [] and len(painted) == 11


def test_a_classifier_takes_what_is_likelier_than_not_to_be_there() -> None:
    class Reader:
        labels = ("dog", "sky", "tree")

        def probabilities(self, pictures: np.ndarray) -> np.ndarray:
            return np.array([[0.5, 0.49, 0.9]] * len(pictures), np.float32)

    assert (
        classifying(Reader())([picture(0)] * 2) == [frozenset({"dog", "tree"})] * 2 and classifying(Reader())([]) == []
    )


def test_a_method_less_its_control_is_drawn_in_pairs() -> None:
    """Both vary from concept to concept, their difference does not: no resample shows one, only that there are few."""

    def outcome(found: list[int]) -> Outcome:
        cases = [Case("a dog and sky", i, frozenset({"dog", "sky"}), REPORT) for i in range(4)]
        edited = [seen(0, *["dog"] * (i < found[0]), *["sky"] * (i < found[1])) for i in range(4)]
        return compare("erase", "dog", cases, [seen(0, "dog", "sky")] * 4, edited)

    methods, controls = [outcome([0, 4]), outcome([2, 2])], [outcome([0, 4]), outcome([2, 2])]
    assert difference("erase", methods, controls, 200, 0)["target"] == near(0.0, -wilson(0, 8)[1], wilson(0, 8)[1])
    apart = difference("erase", [outcome([0, 4])] * 3, [outcome([4, 4])] * 3, 200, 0)
    assert apart["target"] == near(-1.0, -1.0, -wilson(12, 12)[0])
    assert apart["others"] == near(0.0, -wilson(0, 12)[1], wilson(0, 12)[1])
    found = difference("erase", [outcome([1, 4]), outcome([3, 3])], [outcome([3, 4]), outcome([3, 4])], 400, 0)
    assert found["target"][0] == pytest.approx(-0.25) and found["others"][0] == pytest.approx(-0.125)
    low, high = found["target"][1], found["target"][2]
    assert low is not None and high is not None and low < -0.25 < high <= 0
    bare = [dataclasses.replace(outcome([1, 4]), target=np.empty((0, 2)))]
    nothing = difference("erase", bare, bare, 10, 0)
    assert nothing["target"] == [None] * 3 and nothing["rise"][0] == 0.0


def test_outcomes_are_cached_and_an_evaluation_of_other_settings_is_refused(tmp_path: Path) -> None:
    cases = [Case("a dog and sky", 0, frozenset({"dog", "sky"}), REPORT), Case("sky", 1, frozenset({"sky"}), REPORT)]
    maps = [np.ones((2, 1, 1), np.float32)]
    both = [Observation(picture(v), {"dog": 0.25, "sky": 0.5}, maps) for v in (3, 4)]
    outcome = dataclasses.replace(compare("erase", "dog", cases, both, both[::-1], {"sky"}), weights=7)
    cache, made = ResultCache(tmp_path / "cache", {"steps": 2}), []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return pack(outcome)

    for _ in range(2):
        again = unpack(cache.arrays(("erase", "cad", "dog", 0.1), make))
    assert len(made) == 1 and again.weights == 7 and again.by_concept == {"sky": (2, 2)}
    assert summary("erase", [again], 20, 0) == summary("erase", [outcome], 20, 0)
    assert quality([again, again], 5, 0) == quality([outcome, outcome], 5, 0)
    assert cache.known(("rates", 0)) is None and not list((tmp_path / "cache").glob("rates*")), "looking writes nothing"
    assert cache.json(("rates", 0), lambda: [1, 0.5]) == ResultCache(tmp_path / "cache", {"steps": 2}).json(
        ("rates", 0), list
    )
    assert cache.known(("rates", 0)) == [1, 0.5]
    with pytest.raises(InputError, match=r"other settings \(steps\)"):
        ResultCache(tmp_path / "cache", {"steps": 3})
    (tmp_path / "cache" / LIST).unlink()  # as before commands claimed their folders
    assert ResultCache(tmp_path / "cache", {"steps": 2}).known(("rates", 0)) == [1, 0.5]
    (tmp_path / "settings.json").write_text("mine")
    with pytest.raises(InputError, match="neither empty nor one that this command wrote"):
        ResultCache(tmp_path, {"steps": 2})
    next((tmp_path / "cache").glob("erase-cad*")).write_bytes(b"PK")
    with pytest.raises(InputError, match="damaged"):
        cache.arrays(("erase", "cad", "dog", 0.1), make)


def test_objects_and_styles_together_are_the_union_of_their_outcomes_at_their_own_fractions() -> None:
    """Of 4 pictures each: the method leaves 1 dog and 2 nights, the control 4 and 3, and the word's absence none."""

    def outcome(concept: str, left: int) -> Outcome:
        cases = [Case(f"a {concept}", i, frozenset({concept}), REPORT) for i in range(4)]
        after = [seen(0, *[concept] * (i < left)) for i in range(4)]
        return compare("erase", concept, cases, [seen(0, concept)] * 4, after)

    cache = ResultCache()
    made = {
        ("steps", "dog", 0.1): 1, ("steps", "night", 0.01): 2, ("steps", "dog", 0.01): 4, ("cad", "dog", 0.05): 0,
        ("steps_random", "dog", 0.1): 4, ("steps_random", "night", 0.01): 3,
    }  # fmt: skip
    for (method, concept, fraction), left in made.items():
        cache.arrays(("erase", method, concept, fraction, "report"), lambda c=concept, n=left: pack(outcome(c, n)))  # type: ignore[misc]
    for concept in ("dog", "night"):
        cache.arrays(("erase", "blocking", concept, "report"), lambda c=concept: pack(outcome(c, 0)))  # type: ignore[misc]
    parts = [
        {m: {"fraction": fraction, "concepts": [concept]} for m in methods} | {"blocking": {"concepts": [concept]}}
        for concept, fraction, methods in (
            ("dog", 0.1, ("steps", "steps_random", "cad")), ("night", 0.01, ("steps", "steps_random")),
        )
    ]  # fmt: skip
    protocol = EvaluationConfig((), (), resamples=200)
    found = together(EditEvaluation(None, None, [], protocol, cache=cache), parts)  # type: ignore[arg-type]
    assert set(found) == {"steps", "steps_random", "blocking"}
    assert all(one["concepts"] == ["dog", "night"] for one in found.values())
    assert found["steps"] == {
        **summary("erase", [outcome("dog", 1), outcome("night", 2)], 200, 0),
        "concepts": ["dog", "night"], "minus": found["steps"]["minus"],
    }  # fmt: skip
    assert found["steps"]["target"][0] == pytest.approx((0.25 + 0.5) / 2)
    assert found["blocking"]["target"] == near(0.0, 0.0, wilson(0, 8)[1])
    assert found["steps"]["minus"]["steps_random"]["target"][0] == pytest.approx((-0.75 - 0.25) / 2)
    print_evaluation({"faithfulness_rows": [], "erase_together": found})


def test_both_correlations_are_pooled_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    about = {"estimator": "cad", "unit": "weight", "concept": "dog", "fraction": 0.01}
    rows = [
        {**about, "pearson": [0.5, 0.4, 0.6], "spearman": [0.3, 0.2, 0.5]},
        {**about, "pearson": [0.7, 0.7, 0.7], "spearman": [0.1, 0.1, 0.1]},
        {**about, "unit": "group", "pearson": [0.9, 0.9, 0.9], "spearman": [0.9, 0.9, 0.9]},
    ]
    pooled, ranks = pooled_correlations(rows), pooled_correlations(rows, "spearman")
    assert pooled == {"cad": pytest.approx([0.6, 0.55, 0.65])} and ranks == {"cad": pytest.approx([0.2, 0.15, 0.3])}
    print_evaluation({"faithfulness_rows": rows, "faithfulness": pooled, "faithfulness_spearman": ranks})
    said = capsys.readouterr().out.splitlines()
    assert said[2].split()[-6:] == ["0.50", "[0.40,", "0.60]", "0.30", "[0.20,", "0.50]"]
    assert said[-1].split()[-6:] == ["0.60", "[0.55,", "0.65]", "0.20", "[0.15,", "0.30]"]


def test_the_pictures_of_a_set_are_counted_once_each(capsys: pytest.CaptureFixture[str]) -> None:
    cases = [Case("sky", i, frozenset({"sky"}), REPORT) for i in range(3)]

    def outcome(shift: float) -> Outcome:
        before, after = ([Observation(picture(0), {}, [np.full((2, 1, 1), i + s, np.float32)]) for i in range(3)]
                        for s in (1.0, 1.0 + shift))  # fmt: skip
        return compare("erase", "dog", cases, before, after)

    found = quality([outcome(0.0), outcome(0.5)], 20, 0)
    assert (found["pictures"], found["distinct"]) == (6, 3) and found["fid"] > 0
    assert found["kid"][1] <= found["kid"][0] <= found["kid"][2] and found["kid"][0] > 0
    shown = {**dict.fromkeys(("target", "classifier", "others", "distance"), [None] * 3), "quality": found}
    print_evaluation({"faithfulness_rows": [], "erase": {"cad": shown}})
    assert capsys.readouterr().out.endswith(f"{found['kid'][2]:.4f}]         3\n")
    assert quality([outcome(0.0)], 20, 0) == {"fid": None, "kid": [None] * 3, "pictures": 0, "distinct": 0}


def test_a_cell_of_few_pictures_is_grey(tmp_path: Path) -> None:
    """Two of the three pictures that name the sky show it, all three the tree: 0 of 2 is not drawn, 1 of 3 is."""
    cases = [Case("a dog, a tree and sky", i, frozenset({"dog", "tree", "sky"}), REPORT) for i in range(3)]
    intact = [seen(0, "dog", "tree", *["sky"] * (i < 2)) for i in range(3)]
    outcomes = {"dog": compare("erase", "dog", cases, intact, [seen(0, *["tree"] * (i < 1)) for i in range(3)])}
    found = {"interference": interference(outcomes), "interference_pictures": interference_pictures(outcomes)}
    assert found == {
        "interference": {"dog": {"sky": 0.0, "tree": pytest.approx(1 / 3)}},
        "interference_pictures": {"dog": {"sky": 2, "tree": 3}},
    }
    files = write_evaluation({"erase": {"cad": found}}, str(tmp_path))
    assert [Path(file).name for file in files] == ["erase-interference-cad.svg", "evaluation.json", "evaluation.md"]
    (axes,) = evaluation_plots({"erase": {"cad": found}})["erase-interference-cad.svg"].axes
    fills = [to_hex(cell.get_facecolor()) for cell in axes.patches]
    assert [text.get_text() for text in axes.texts] == ["0.33"] and fills.count(GREY) == 1 and len(fills) == 2
