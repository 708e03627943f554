"""Labels against pictures of which everything is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.exact import ExactPicture
from gazetteer.data.scenes.truth import pictures
from gazetteer.data.tables.schemas import LABELS
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments import accuracy as accuracy_job
from gazetteer.jobs.experiments.accuracy import judged_exactly, truth_pictures
from gazetteer.labeling.evidence.site_codes import flat_codes
from gazetteer.labeling.quality.accuracy import (
    accuracy_of,
    exact_looks,
    exact_maps,
    few_pictures,
    judged,
    print_accuracy,
)
from gazetteer.labeling.rules.kinds.explained import PLACE, REGION, SCENE, STYLE, Explained
from tests.support.runs.runs import blank

SITE, OTHER = Site("mid", "cond", 0.5), Site("mid", "cond", 0.0)


def label(feature: int, concept: str, kind: str, ahead: float, rank: int = 1, site: Site = SITE) -> dict[str, Any]:
    return blank(
        LABELS, **site.columns(), feature=feature, concept=concept, kind=kind, rank=rank, explained=0.5,
        runner_up_explained=0.5 - ahead, specificity=ahead / 0.5,
    )  # fmt: skip


TRUTH = Explained(
    np.array([1, 2, 3, 4]),
    ("sea", "sea", "night", "top half"), (REGION, SCENE, STYLE, PLACE),
    np.array([[0.4, 0.1, 0.0, 0.2], [0.3, 0.35, 0.0, 0.1], [0.1, 0.0, 0.3, 0.0], [0.2, 0.1, 0.1, 0.3]]),
    np.zeros((4, 4)), 10,
)  # fmt: skip


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=LABELS)


def test_a_label_is_right_when_what_it_names_explains_most() -> None:
    found = judged(
        table(
            label(1, "sea", "stuff", 0.4), label(1, "boat", "thing", 0.1, rank=2), label(2, "sea", "part", 0.1),
            label(3, "night", "style", 0.3), label(4, "top half", "place", 0.2), label(9, "sea", "thing", 0.05),
            label(1, "sea", "stuff", 0.4, site=OTHER),
        ),
        {SITE: TRUTH},
    )  # fmt: skip
    rows = {(row["feature"], row["concept"]): row for row in found.to_pylist()}
    assert {key: row["right"] for key, row in rows.items()} == {
        (1, "sea"): True,
        (2, "sea"): False,  # the whole pictures explain more than the region
        (3, "night"): True,
        (4, "top half"): True,
        (9, "sea"): False,  # silent there
    }
    assert (rows[2, "sea"]["truth_explained"], rows[2, "sea"]["truth_other"]) == (0.3, 0.35)
    result = accuracy_of(found)
    assert (result["labels"], result["silent"]) == (3, 1)
    assert result["right"][0] == pytest.approx(1 / 3, abs=1e-4)
    assert result["right"][1] <= result["right"][0] <= result["right"][2]
    assert result["curve"] == [[3, pytest.approx(1 / 3, abs=1e-4)]]
    assert result["by_kind"]["style"]["labels"] == 1


def test_the_curve_takes_the_most_certain_first(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [label(1, "sea", "stuff", 0.3 + n / 1000, site=Site(f"b{n}", "cond", 0.5)) for n in range(30)]
    rows += [label(2, "sea", "stuff", 0.1, site=Site(f"b{n}", "cond", 0.5)) for n in range(30)]
    found = accuracy_of(judged(table(*rows), {Site(f"b{n}", "cond", 0.5): TRUTH for n in range(30)}))
    assert found["curve"] == [[25, 1.0], [50, 0.6], [60, 0.5]]
    print_accuracy({**found, "images": 7})
    said = capsys.readouterr().out
    assert "50.0%" in said and "of 60 labels" in said and "100.0% of 25" in said


def test_certain_is_what_is_many_times_ahead_not_what_is_far_ahead() -> None:
    weak = label(1, "sea", "stuff", 0.0) | {"explained": 0.1, "runner_up_explained": 0.01, "specificity": 0.9}
    strong = label(2, "sea", "stuff", 0.0) | {"explained": 0.5, "runner_up_explained": 0.3, "specificity": 0.4}
    alone = label(2, "sea", "part", 0.0) | {"explained": 0.01, "runner_up_explained": None, "specificity": 1.0}
    sites = [Site(f"b{n}", "cond", 0.5) for n in range(14)]
    rows = [row | site.columns() for site in sites for row in (strong, weak)]
    rows += [alone | Site(f"c{n}", "cond", 0.5).columns() for n in range(11)]
    found = accuracy_of(
        judged(table(*rows), dict.fromkeys([*sites, *(Site(f"c{n}", "cond", 0.5) for n in range(11))], TRUTH))
    )
    assert found["curve"] == [[25, 0.56], [39, round(14 / 39, 4)]]  # eleven without a runner-up, all wrong, come first


def test_no_labels_are_no_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    found = accuracy_of(judged(table(), {SITE: TRUTH}))
    assert (found["labels"], found["right"], found["curve"]) == (0, [None] * 3, [])
    print_accuracy({**found, "images": 7})
    assert "none is judged" in capsys.readouterr().out


def test_exact_pictures_as_maps() -> None:
    top = np.zeros((8, 8), bool)
    top[:4] = True
    blank_picture = np.zeros((8, 8, 3), np.uint8)
    made = [
        ExactPicture("b", "", blank_picture, {"sky": top}, ("night",)), ExactPicture("a", "", blank_picture, {}),
    ]  # fmt: skip
    maps = exact_maps(made, ["sea"], [(2, 2)])
    assert (maps.image_ids, maps.concepts) == (("a", "b"), ("sea", "sky"))
    assert maps.pixels[2, 2].tolist() == [[16, 16, 0, 0]]
    assert (maps.union_image.tolist(), maps.union_concept.tolist()) == ([1], [1])
    assert exact_looks(made, ["night", "neon"]).tolist() == [[False, False], [True, False]]


@pytest.mark.parametrize("name", ["dog", "Dog", "dogs", "hounds"])
def test_masks_and_looks_are_named_as_they_are_meant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Feature 7 fires where a dog is; of cats and neon lights no picture says anything."""
    rng, made, features = np.random.default_rng(0), [], []
    for i in range(30):
        mask = np.zeros((32, 32), bool)
        y, x = 8 * rng.integers(0, 3, 2)
        mask[y : y + 8, x : x + 8] = i % 2
        masks = {name: mask} | ({"DOG": mask, "cow": ~mask} if i == 1 else {})
        made.append(ExactPicture(f"p{i:02d}", "", np.zeros((32, 32, 3), np.uint8), masks, ("Night",) if i % 3 else ()))
        features.append(np.where(mask[::8, ::8], 7, 0).ravel())
    fired = np.concatenate(features)
    codes = flat_codes(SITE, [one.name for one in made], (4, 4), fired, (fired > 0).astype(float), np.full(30, 16))
    monkeypatch.setattr(accuracy_job, "exact_codes", lambda *_: [(SITE, codes)])
    labels = table(
        label(7, "dog", "thing", 0.4), label(8, "cat", "thing", 0.1), label(9, "neon", "style", 0.1),
        label(6, "night", "style", 0.1), label(5, "top half", "place", 0.1),
    )  # fmt: skip
    store = SimpleNamespace(
        read_final=lambda *_: labels.select(["concept", "kind"]), read_json=lambda _: {"dog": ["hound"]}
    )
    found = judged_exactly(load_config(None, []), store, labels, made)  # type: ignore[arg-type]
    assert {row["concept"]: row["right"] for row in found.to_pylist()} == {
        "dog": True,
        "night": False,
        "top half": False,
    }
    assert found["truth_explained"].to_pylist()[0] == pytest.approx(1.0) and accuracy_of(found)["silent"] == 0


def test_labels_of_what_no_picture_shows_are_counted_apart(capsys: pytest.CaptureFixture[str]) -> None:
    none = accuracy_of(judged(table(label(1, "sea", "stuff", 0.4)), {SITE: TRUTH}, (frozenset({"boat"}), frozenset())))
    assert none["labels"] == 0
    print_accuracy({**none, "images": 7, "unshown": 1})
    said = capsys.readouterr().out
    assert "1 labels are not judged: no picture shows what they name" in said and "of what the pictures show" in said


def test_rendered_scenes_have_disjoint_halves() -> None:
    tuning, report = list(pictures(3, "tuning")), list(pictures(3, "report"))
    assert not np.array_equal(tuning[0].image, report[0].image)
    assert len({one.name for one in [*tuning, *report]}) == 6
    assert any(one.masks for one in tuning) and all(mask.dtype == bool for one in tuning for mask in one.masks.values())


def test_pictures_that_are_not_there_are_said() -> None:
    with pytest.raises(InputError, match="names no pictures"):
        truth_pictures(load_config(None, ['accuracy.truth=""']))
    with pytest.raises(InputError, match="failed"):
        truth_pictures(load_config(None, ["accuracy.truth=builtins:zip"]))
    with pytest.raises(InputError, match="half"):
        load_config(None, ["accuracy.half=all"])
    assert len(truth_pictures(load_config(None, ["accuracy.images=2"]))) == 2


BLACK, ALL = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.bool_)
WRONG_TRUTH = {
    "floats": (
        [ExactPicture("a", "", BLACK / 255.0, {"sky": ALL})],
        r"image of a is float64 \[8, 8, 3\]; accepted: uint8",
    ),
    "grey": ([ExactPicture("a", "", BLACK[..., 0], {"sky": ALL})], r"image of a is uint8 \[8, 8\]"),
    "numbers": ([ExactPicture("a", "", BLACK, {"sky": ALL.astype(np.uint8) * 255})], "mask of 'sky' in a is uint8"),
    "small": ([ExactPicture("a", "", BLACK, {"sky": ALL[::2, ::2]})], "not of its picture's size"),
    "twice": ([ExactPicture("a", "", BLACK, {"sky": ALL})] * 2, "two pictures the name 'a'"),
}
_given: list[ExactPicture] = []


def given(images: int, half: str) -> list[ExactPicture]:
    return _given


@pytest.mark.parametrize("wrong", sorted(WRONG_TRUTH))
def test_exact_pictures_are_bytes_with_yes_or_no_masks(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, says = WRONG_TRUTH[wrong]
    monkeypatch.setitem(globals(), "_given", made)
    with pytest.raises(InputError, match=says):
        truth_pictures(load_config(None, [f"accuracy.truth={__name__}:given"]))


def test_the_labels_of_a_concept_are_right_or_wrong_together() -> None:
    """Forty labels each of two concepts, all of one right and none of the other: two draws, not eighty."""
    rows = pa.table({
        "kind": ["thing"] * 80, "concept": ["sea"] * 40 + ["boat"] * 40, "right": [True] * 40 + [False] * 40,
        "specificity": [0.8] * 80, "truth_explained": [0.5] * 80, "truth_other": [0.1] * 80,
    })  # fmt: skip
    assert accuracy_of(rows)["right"] == [0.5, 0.0, 1.0]


def test_what_carries_a_label_and_what_is_judged_are_counted_apart(capsys: pytest.CaptureFixture[str]) -> None:
    rows = judged(
        table(label(1, "sea", "stuff", 0.4), label(2, "boat", "thing", 0.1), label(3, "night", "style", 0.3)),
        {SITE: TRUTH}, (frozenset({"sea"}), frozenset({"night"})),
    )  # fmt: skip
    result = accuracy_of(rows, {"stuff": 1, "thing": 1, "style": 1})
    assert (result["labels"], result["judged"], result["right"]) == (2, 1, [1.0, 0.2065, 1.0])
    assert result["by_kind"]["thing"] == {"labels": 1, "judged": 0, "right": [None] * 3}
    print_accuracy({**result, "images": 7, "unshown": 1})
    said = capsys.readouterr().out
    assert (
        "of the 1 judged of 2 labels" in said
        and "not over pictures" in said
        and "thing" not in said.split("by kind")[1]
    )


def test_labels_of_what_few_pictures_show_are_counted_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    rows = judged(table(label(1, "sea", "stuff", 0.4), label(4, "top half", "place", 0.2)), {SITE: TRUTH})
    picture = ExactPicture("a", "", np.zeros((2, 2, 3), np.uint8), {"sea": np.ones((2, 2), bool)}, ())
    assert few_pictures(rows, [picture] * 19) == 1 and few_pictures(rows, [picture] * 20) == 0
    print_accuracy({**accuracy_of(rows), "images": 19, "few": 1})
    assert "1 of these name what fewer than 20 of the pictures show" in capsys.readouterr().out
