"""What a feature is called: explanations compared, looks and places tested, and the verdict."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.tables.schemas import CANDIDATES
from gazetteer.labeling.evidence.concept_maps import ConceptMaps
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.rules.config import LabelConfig, NullConfig
from gazetteer.labeling.rules.kinds.beyond import beyond_tests, join_beyond, place_rows, style_rows
from gazetteer.labeling.rules.kinds.decide import Rivals, decide
from gazetteer.labeling.rules.kinds.explained import PLACE, REGION, SCENE, STYLE, Explained, explain
from gazetteer.labeling.rules.kinds.places import PLACES, place_maps
from gazetteer.labeling.rules.kinds.styles import looks_of, read_looks, style_tests
from gazetteer.labeling.rules.significance import q_values

GRID, CELLS = 4, 16
SITE = Site("mid", "cond", 0.5)


def arrays(values: np.ndarray, masks: np.ndarray, heldout: int = 0) -> tuple[SiteCodes, ConceptMaps]:
    """Codes of float [N, F, 16] and maps of int [N, C, 16] pixels, cells of 4 pixels; the last pictures held out."""
    count = len(values)
    ids = tuple(f"i{n:03d}" for n in range(count))
    image, feature, cell = (part.astype(np.int32) for part in np.nonzero(values))
    codes = SiteCodes(SITE, ids, GRID, GRID, image, feature, cell, values[image, feature, cell].astype(np.float32))
    of, which = np.nonzero(masks.any(axis=2))
    splits = np.where(np.arange(count) < count - heldout, "discovery", "heldout")
    names = tuple(f"c{n}" for n in range(masks.shape[1]))
    maps = ConceptMaps(
        ids, names, splits, np.full((count, 2), 8), np.ones(masks.shape[:2], np.bool_), of, which,
        {(GRID, GRID): masks[of, which].astype(np.int32)},
    )  # fmt: skip
    return codes, maps


def test_the_share_explained_is_the_squared_correlation() -> None:
    rng = np.random.default_rng(0)
    values = np.where(rng.random((9, 2, CELLS)) < 0.4, rng.random((9, 2, CELLS)), 0)
    masks = rng.integers(0, 5, (9, 2, CELLS)) * (rng.random((9, 2, 1)) < 0.6)
    looks = rng.random((9, 1)) < 0.5
    found = explain(*arrays(values, masks, heldout=2), ["night"], looks)
    maps = {
        ("c1", REGION): masks[:7, 1] / 4, ("c1", SCENE): np.repeat(masks[:7, 1].any(axis=1)[:, None], CELLS, axis=1),
        ("night", STYLE): np.repeat(looks[:7], CELLS, axis=1),
        ("bottom left", PLACE): np.tile(place_maps((GRID, GRID))[list(PLACES).index("bottom left")], (7, 1)),
    }  # fmt: skip
    place = {pair: i for i, pair in enumerate(zip(found.names, found.forms, strict=True))}
    stored = values.astype(np.float32)[:7]
    for pair, h in maps.items():
        for feature in range(2):
            r = np.corrcoef(stored[:, feature].ravel(), h.ravel().astype(float))[0, 1]
            assert found.fraction[feature, place[pair]] == pytest.approx(max(r, 0) ** 2)
            inside = (stored[:, feature] * h).sum() / stored[:, feature].sum()
            assert found.inside[feature, place[pair]] == pytest.approx(inside)
    assert explain(*arrays(values, masks, heldout=2), split="heldout").images == 2


def test_what_never_varies_explains_nothing() -> None:
    found = explain(*arrays(np.ones((3, 1, CELLS)), np.full((3, 1, CELLS), 4)))
    assert (found.fraction == 0).all()


def test_places_cover_what_their_names_say_on_any_grid() -> None:
    four, eight = (dict(zip(PLACES, place_maps((n, n)).reshape(-1, n, n), strict=True)) for n in (4, 8))
    assert four["top half"].tolist() == [[1] * 4] * 2 + [[0] * 4] * 2
    assert eight["right edge"].sum(axis=0).tolist() == [0] * 7 + [8]
    assert four["top edge"][0].tolist() == [0.5] * 4  # half of a cell of a coarse grid
    assert four["centre"].sum() == 4
    assert all(four[name].mean() == pytest.approx(eight[name].mean()) for name in PLACES)


def test_looks_are_words_of_the_prompt() -> None:
    found = looks_of(["A Pencil-Sketch of a boat", "two boats at night", "the knights"], ["night", "pencil sketch"])
    assert found.tolist() == [[False, True], [True, False], [False, False]]
    assert looks_of([], ["night"]).shape == (0, 1)


def test_auc_and_p_of_a_look_by_all_ways_to_give_it() -> None:
    """Seven pictures, three with the look: p against all 35 choices of three, ties counted half."""
    scores = np.array([3.0, 1, 2, 1, 0, 0, 2])
    values = np.zeros((7, 1, CELLS))
    values[:, 0, 0] = scores
    codes, maps = arrays(values, np.zeros((7, 1, CELLS), int))
    looks = np.array([[True], [False], [True], [True], [False], [False], [False]])
    tests = style_tests(codes, maps, looks, np.array([0]), config=NullConfig(permutations=4000))
    wins = [(a > b) + (a == b) / 2 for a in scores[looks[:, 0]] for b in scores[~looks[:, 0]]]
    assert tests.auc[0, 0] == pytest.approx(np.mean(wins))
    assert tests.low[0, 0] < tests.auc[0, 0] <= tests.high[0, 0]
    ranks = np.array([7, 3.5, 5.5, 3.5, 1.5, 1.5, 5.5])
    exact = np.mean([ranks[list(some)].sum() >= 16 for some in combinations(range(7), 3)])
    assert tests.p[0, 0] == pytest.approx(exact, abs=0.02)


def test_a_look_that_no_picture_or_every_picture_has_is_not_judged() -> None:
    codes, maps = arrays(np.ones((6, 1, CELLS)), np.zeros((6, 1, CELLS), int))
    looks = np.stack([np.zeros(6, bool), np.ones(6, bool)], axis=1)
    tests = style_tests(codes, maps, looks, np.array([0]), config=NullConfig(permutations=50))
    assert np.isnan(tests.auc).all()
    assert (tests.p == 1).all()


def test_rows_of_looks_and_places_by_hand() -> None:
    rng = np.random.default_rng(1)
    looks = np.arange(40)[:, None] < 12
    values = np.zeros((40, 2, CELLS))
    values[:12, 0] = rng.random((12, CELLS)) < 0.5
    values[:, 1, 12:] = rng.random((40, 4)) + 0.1  # always in the lowest row of cells
    config = LabelConfig(styles=("night",), permutations=200)
    codes, maps = arrays(values, np.zeros((40, 1, CELLS), int))
    found = explain(codes, maps, ("night",), looks)
    beyond = join_beyond([beyond_tests(codes.among(at, at + 1), maps, looks, config) for at in range(2)])
    style, place = style_rows(found, beyond, config), place_rows(found, beyond, (4, 4), config)
    at = list(style["feature"]).index(0)
    assert (style["concept"][at], style["images_both"][at], style["images_concept"][at]) == ("night", 12, 12)
    assert (style["precision"][at], style["recall"][at], style["lift"][at]) == (1.0, 1.0, pytest.approx(40 / 12))
    assert style["q_value"][at] < 1e-4
    assert bool(style["passes"][at])
    at = list(place["feature"]).index(1)
    # The lowest row of a grid of four is two edges high, so half of every cell lies in the edge.
    assert (place["concept"][at], place["precision"][at]) == ("bottom edge", pytest.approx(0.5))
    assert place["lift"][at] == pytest.approx(4.0)
    assert bool(place["passes"][at])


@pytest.mark.parametrize("beside", [0.0, 0.02])
def test_a_few_pictures_that_happen_to_be_alike_are_not_certain(beside: float) -> None:
    """Features that fire in one random cell of five pictures (and weakly in a second): p is as even as they are few."""
    rng = np.random.default_rng(0)
    values = np.zeros((5, 600, CELLS))
    for strength in (beside, 1.0):
        picture, feature = np.indices((5, 600))
        values[picture, feature, rng.integers(0, CELLS, (5, 600))] = strength
    codes, maps = arrays(values, np.zeros((5, 1, CELLS), int))
    beyond = beyond_tests(codes, maps, np.zeros((5, 0), np.bool_), LabelConfig())
    for place in ("top half", "top left", "centre"):
        p = beyond.place_p[:, list(PLACES).index(place)]
        assert p.min() >= 0.2**5 and (p <= 0.01).mean() < 0.02


def explained(fractions: dict[tuple[str, str], float], inside: float = 0.6) -> Explained:
    names, forms = zip(*fractions, strict=True)
    row = np.array([list(fractions.values())])
    return Explained(np.array([7]), tuple(names), tuple(forms), row, np.full(row.shape, inside), 10)


PAIR: dict[str, Any] = {
    "feature": 7, "concept": "sea", "q_value": 0.01, "lift": 3.0, "images_both": 9, "where_q_value": 0.01,
    "recall": 0.5, "dataset_iou": 0.3,
}  # fmt: skip
SHARES = {
    ("boat", REGION): 0.1, ("sea", REGION): 0.3, ("boat", SCENE): 0.02, ("sea", SCENE): 0.05, ("night", STYLE): 0.04,
    ("top half", PLACE): 0.01,
}  # fmt: skip


def verdicts(
    *pairs: dict[str, Any], fractions: dict[tuple[str, str], float] | None = None, inside: float = 0.6,
    others: tuple[tuple[str, str, bool], ...] = (), only: dict[tuple[str, str], float] | None = None, **settings: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """What is decided of pairs of feature 7, PAIR where nothing else is said."""
    rows = [PAIR | pair for pair in pairs]
    regions = {name: np.array([row[name] for row in rows]) for name in PAIR}
    other = {
        "feature": np.full(len(others), 7), "concept": np.array([o[0] for o in others], object),
        "kind": np.array([o[1] for o in others], object), "passes": np.array([o[2] for o in others], bool),
    }  # fmt: skip
    found = explained(only or SHARES | (fractions or {}), inside)
    decided = decide(regions, other, Rivals.of(found), found, LabelConfig(stuff=("Seas",), **settings))
    return [{name: values[i] for name, values in decided.items()} for i in range(len(rows) + len(others))]


def test_the_explanation_that_is_ahead_names_the_feature() -> None:
    sea, boat = verdicts({}, {"concept": "boat"})
    assert (sea["kind"], sea["trusted"], sea["rank"], sea["explained"]) == ("stuff", True, 1, 0.3)
    assert (sea["runner_up"], sea["runner_up_kind"], sea["specificity"]) == ("boat", "thing", pytest.approx(2 / 3))
    assert (boat["trusted"], boat["runner_up"], boat["specificity"]) == (False, "sea", -1.0)
    assert np.isnan(boat["rank"])


@pytest.mark.parametrize(
    "change", [{"q_value": 0.06}, {"q_value": np.nan}, {"lift": 1.1}, {"images_both": 4}, {"dataset_iou": 0.03}]
)
def test_every_threshold_takes_a_label_away(change: dict[str, float]) -> None:
    assert not verdicts(change)[0]["trusted"]


def test_too_little_inside_explained_or_ahead_takes_a_label_away() -> None:
    assert not verdicts({}, inside=0.1)[0]["trusted"]
    assert not verdicts({}, fractions={("boat", REGION): 0.29})[0]["trusted"]
    assert not verdicts({}, min_explained=0.4)[0]["trusted"]


def test_company_alone_is_a_scene() -> None:
    (sea,) = verdicts({"where_q_value": 0.5}, fractions={("sea", SCENE): 0.2})
    assert (sea["kind"], sea["trusted"], sea["explained"], sea["runner_up"]) == ("scene", True, 0.2, "boat")
    (sea,) = verdicts({}, fractions={("sea", SCENE): 0.4})
    assert sea["kind"] == "scene", "the whole pictures explain more than the region"
    (boat, *_) = verdicts({}, fractions={("boat", SCENE): 0.15})
    assert (boat["runner_up"], boat["runner_up_kind"]) == ("boat", "scene")


def test_little_of_a_concept_is_a_part_when_it_is_precise() -> None:
    thin = {"recall": 0.02, "dataset_iou": 0.01}
    (part,) = verdicts(thin)
    assert (part["kind"], part["trusted"]) == ("part", True)
    for spoiled in (verdicts(thin | {"lift": 2.0}), verdicts(thin, inside=0.4)):
        assert (spoiled[0]["kind"], spoiled[0]["trusted"]) == ("stuff", False)


def test_looks_and_places_win_when_they_explain_more() -> None:
    sea, night, top = verdicts(
        {}, fractions={("night", STYLE): 0.6}, others=(("night", "style", True), ("top half", "place", True))
    )
    assert (night["kind"], night["trusted"], night["rank"], night["runner_up"]) == ("style", True, 1, "sea")
    assert not sea["trusted"] and not top["trusted"]
    _, night = verdicts({}, fractions={("night", STYLE): 0.6}, others=(("night", "style", False),))
    assert not night["trusted"]


def test_a_concept_a_look_and_a_place_of_one_name_are_three_explanations() -> None:
    """On a text stream the words of the looks are words, and a tagger may find a "centre"."""
    shares = {
        ("boat", REGION): 0.1, ("night", REGION): 0.3, ("boat", SCENE): 0.02, ("night", SCENE): 0.05,
        ("night", STYLE): 0.04, ("centre", PLACE): 0.01,
    }  # fmt: skip
    night, look = verdicts({"concept": "night"}, only=shares, others=(("night", "style", True),))
    assert (night["kind"], night["trusted"], night["explained"]) == ("thing", True, 0.3)
    assert (night["runner_up"], night["runner_up_kind"]) == ("boat", "thing")
    assert (look["kind"], look["trusted"], look["explained"], look["runner_up_kind"]) == ("style", False, 0.04, "thing")
    centred = {("centre" if form != STYLE and name == "night" else name, form): s for (name, form), s in shares.items()}
    centre, _ = verdicts({"concept": "centre"}, only=centred, others=(("centre", "place", True),))
    assert (centre["kind"], centre["trusted"], centre["explained"]) == ("thing", True, 0.3)


def test_a_second_region_is_kept_when_it_explains_nearly_as_much() -> None:
    sea, boat = verdicts({}, {"concept": "boat"}, fractions={("boat", REGION): 0.2})
    assert [(row["trusted"], row["rank"]) for row in (sea, boat)] == [(True, 1), (True, 2)]
    sea, boat = verdicts({}, {"concept": "boat"}, fractions={("boat", REGION): 0.2}, min_second=0.8)
    assert [row["trusted"] for row in (sea, boat)] == [True, False]


def test_tests_that_never_meet_count_as_tests() -> None:
    p = np.array([0.001, 0.02])
    assert q_values(p, 2) == pytest.approx([0.002, 0.02])
    assert q_values(p, 100) == pytest.approx([0.1, 1.0])
    assert len(q_values(np.zeros(0), 10)) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"max_q": 1.1}, {"min_lift": -1.0}, {"min_images": 0}, {"permutations": 0}, {"min_specificity": 1.0},
     {"styles": ("night", "Night")}, {"styles": ("top half",)}, {"stuff": ("sea", "sea")},
     {"style_classifier": "a.b:c"}],
)  # fmt: skip
def test_bad_thresholds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        LabelConfig(**wrong)


def test_a_classifier_tells_looks_by_the_picture() -> None:
    from gazetteer.data.scenes.render import render
    from gazetteer.data.tables.images import encode_image

    scenes = [render(seed) for seed in range(2_000, 2_020)]
    images = pa.table({
        "image_id": [f"i{number:02d}" for number in range(20)],
        "image": [{"bytes": encode_image(scene.image)} for scene in scenes],
    })  # fmt: skip
    styles = ("night", "pencil sketch", "watercolour")
    found = read_looks(images, styles, "gazetteer.data.scenes.style_classifier:load")
    truth = np.array([[scene.style == style for style in styles] for scene in scenes])
    assert (found == truth).mean() > 0.95
    assert found.any()
    with pytest.raises(InputError, match="knows"):
        read_looks(images, ("cubist",), "gazetteer.data.scenes.style_classifier:load")


def test_defaults_can_be_read_back() -> None:
    assert dataclasses.asdict(LabelConfig())["min_specificity"] == 0.2
    assert {"kind", "runner_up", "explained", "auc"} <= set(CANDIDATES.names)
