"""Pictures of one prompt are one witness: a test takes one of them, everything that is only counted takes all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.sites import Site
from gazetteer.data.tables.schemas import SEGMENTS
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, join_concepts, prompt_numbers, read_concepts
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.kinds.beyond import Beyond, beyond_tests
from gazetteer.labeling.rules.significance import PairTests, pair_tests
from tests.support.runs.small_world import MID, reduced, sky_world

GRID, CELLS = 4, 16
SITE = Site("mid", "cond", 0.5)
PROMPTS, SEEDS, FEATURES, CONCEPTS = 40, 8, 12, 8
QUICK = LabelConfig(permutations=300, refine=0)
SKY = sky_world()


def with_prompts(images: pa.Table, prompts: list[str]) -> pa.Table:
    return images.set_column(images.schema.get_field_index("prompt"), images.schema.field("prompt"), [prompts])


def drawn(seed: int, pictures_of_one: bool) -> tuple[SiteCodes, ConceptMaps, np.ndarray]:
    """Prompts decide which features fire, in which half, and what is shown, each by itself; and a look. The pictures
    add noise alone. `pictures_of_one`: tell the maps which are of one prompt."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(PROMPTS), SEEDS)
    fires, shown, look = (rng.random((PROMPTS, n)) < 0.5 for n in (FEATURES, CONCEPTS, 1))
    top = rng.random((PROMPTS, FEATURES)) < 0.5
    inside = np.where(top[of][:, :, None], np.arange(CELLS) < CELLS // 2, np.arange(CELLS) >= CELLS // 2)
    values = fires[of][:, :, None] & inside & (rng.random((len(of), FEATURES, CELLS)) < 0.5)
    masks = 4 * (shown[of][:, :, None] & (rng.random((len(of), CONCEPTS, CELLS)) < 0.5))
    image, feature, cell = (part.astype(np.int32) for part in np.nonzero(values))
    ids = tuple(f"i{n:04d}" for n in range(len(of)))
    codes = SiteCodes(SITE, ids, GRID, GRID, image, feature, cell, np.ones(len(image), np.float32))
    owner, which = np.nonzero(masks.any(axis=2))
    maps = ConceptMaps(
        ids, tuple(f"c{n}" for n in range(CONCEPTS)), np.full(len(of), "discovery"), np.full((len(of), 2), 8),
        np.ones(masks.shape[:2], np.bool_), owner, which, {(GRID, GRID): masks[owner, which].astype(np.int32)},
        prompts=of if pictures_of_one else None,
    )  # fmt: skip
    return codes, maps, look[of]


def judged(seed: int, pictures_of_one: bool) -> tuple[PairTests, Beyond]:
    codes, maps, looks = drawn(seed, pictures_of_one)
    return pair_tests(codes, maps, QUICK), beyond_tests(codes, maps, looks, QUICK)


@pytest.mark.parametrize("pictures_of_one", [True, False])
def test_p_is_even_only_where_the_pictures_of_a_prompt_count_once(pictures_of_one: bool) -> None:
    pairs, looks, halves = [], [], []
    for seed in range(6):
        tests, beyond = judged(seed, pictures_of_one)
        pairs.append(np.concatenate([tests.p, np.ones(tests.count - len(tests.p))]))
        looks.append(beyond.looks.p.ravel())
        halves.append(beyond.place_p[:, 4:6].ravel())
    shares = [np.mean(np.concatenate(p) <= 0.05) for p in (pairs, looks, halves)]
    if pictures_of_one:
        assert max(shares) <= 0.09
    else:
        assert min(shares) >= 0.12, "the world is one in which it matters"


def test_what_is_counted_is_counted_in_every_picture() -> None:
    once, every = judged(0, True)[1], judged(0, False)[1]
    for name in ("features", "fired", "images", "shown", "both", "mean", "touched"):
        np.testing.assert_array_equal(getattr(once, name), getattr(every, name))
    assert once.images == PROMPTS * SEEDS


def test_prompts_that_occur_once_change_nothing() -> None:
    codes, maps, _ = drawn(3, False)
    apart = replace(maps, prompts=prompt_numbers(maps.image_ids))
    assert apart.one_a_prompt() is apart
    for name in ("feature", "concept", "p", "lift", "where_p"):
        np.testing.assert_array_equal(
            getattr(pair_tests(codes, maps, QUICK), name), getattr(pair_tests(codes, apart, QUICK), name)
        )


def test_one_picture_of_each_prompt_and_split_stays_in_it() -> None:
    maps = replace(
        drawn(0, False)[1], image_ids=("a", "b", "c", "d"), prompts=prompt_numbers(["x", "y", "x", "x"]),
        splits=np.array(["discovery", "heldout", "heldout", "discovery"]),
    )  # fmt: skip
    assert maps.one_a_prompt().splits.tolist() == ["discovery", "heldout", "heldout", ""]


def test_prompts_are_told_in_any_order_and_over_shards() -> None:
    images = SKY.images.slice(0, 4)
    images = with_prompts(images, ["y", "x", "x", ""]).take([1, 0, 3, 2])
    segments = SEGMENTS.empty_table()
    whole = read_concepts(images, segments, [(GRID, GRID)], by_prompt=True)
    assert whole.prompts is not None
    assert whole.prompts.tolist() == prompt_numbers(["y", "x", "x", ""]).tolist()
    parts = [read_concepts(images.take([i]), segments, [(GRID, GRID)], by_prompt=True) for i in (3, 0, 2, 1)]
    np.testing.assert_array_equal(join_concepts(parts).prompts, whole.prompts)
    assert whole.one_a_prompt().splits.tolist().count("") == 1
    assert read_concepts(images, segments, [(GRID, GRID)]).prompts is None


def test_labels_need_several_prompts_unless_the_pictures_were_given() -> None:
    prompts = ["a sky"] * SKY.images.num_rows
    tables = SKY.images, SKY.codes, SKY.segments, SKY.evidence, {MID: 4}
    apart = reduced(*tables)
    alike = with_prompts(tables[0], prompts), *tables[1:]
    assert apart["labels"].num_rows
    assert reduced(*alike, given=True)["labels"].equals(apart["labels"])
    assert not reduced(*alike)["labels"].num_rows
