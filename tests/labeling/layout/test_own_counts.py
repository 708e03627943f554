"""What a picture added to the tables is taken out again before thresholds are fitted on it: labels and dictionaries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logit

from gazetteer.labeling.evidence.counts import build_evidence
from gazetteer.labeling.evidence.site_codes import SiteCodes, codes_by_site, flat_codes
from gazetteer.labeling.layout.label_layout import NEIGHBOURS, label_maps
from gazetteer.labeling.layout.label_weights import SHARE, LabelWeights
from gazetteer.labeling.layout.metrics import Truth
from gazetteer.labeling.layout.own_counts import label_shift, own_counts, words_without
from gazetteer.labeling.layout.run import take_images
from gazetteer.labeling.layout.score_maps import paper_maps
from gazetteer.labeling.layout.site_table import SiteTable, site_tables
from tests.support.runs.small_world import MID, World, sky_world

COUNT = 12


@pytest.fixture(scope="module")
def world() -> World:
    return sky_world()


@pytest.fixture(scope="module")
def pictures(world: World) -> tuple[SiteTable, SiteCodes, Truth, World]:
    """The table of twelve pictures, their codes and their masks."""
    inputs = [one for one in world.inputs if one.split == "discovery"][:COUNT]
    some = World(inputs, world.base)
    pixels = np.zeros((COUNT, 2, 64), np.int32)
    for i, one in enumerate(inputs):
        for concept, mask in one.segments:
            pixels[i, world.base.index(concept)] += mask.reshape(8, 4, 8, 4).sum(axis=(1, 3)).ravel()
    truth = Truth(pixels, np.full(64, 16.0), pixels.any(axis=2), np.ones((COUNT, 2), bool))
    table = site_tables(build_evidence(inputs, world.base), {MID: (8, 8)}, 1024)[MID]
    return table, codes_by_site(some.codes)[MID], truth, some


def weights_of(table: SiteTable, labelled: np.ndarray) -> LabelWeights:
    """Labels as a table of these counts states them, of some features and concepts."""
    precision, expected = table.intersection / np.maximum(table.area, 1), np.clip(table.expected, *SHARE)
    weights = np.where(labelled, logit(np.clip(precision, *SHARE)) - logit(expected), 0.0)
    chosen = labelled.any(axis=1)
    return LabelWeights(table.features[chosen], weights[chosen], np.full(2, 0.2), 1.0)


def test_labels_scored_on_their_own_pictures_say_what_labels_made_without_each_would(pictures) -> None:
    table, codes, truth, some = pictures
    labelled = np.zeros(table.hits.shape, bool)
    labelled[: len(labelled) - 1, 1] = True  # the last feature and the other concept carry no label
    weights = weights_of(table, labelled)
    shift = label_shift(weights, table, codes, own_counts(table, codes, truth))
    assert not shift[..., 0].any() and np.abs(shift[..., 1]).max() > 0.05
    maps = label_maps(weights, codes, shift)
    for i in (0, 7):
        inputs = some.inputs[:i] + some.inputs[i + 1 :]
        rest = site_tables(build_evidence(inputs, some.base), {MID: (8, 8)}, 1024)[MID]
        assert rest.features.tolist() == table.features.tolist()
        alone = weights_of(replace(rest, expected=table.expected), labelled)
        found = label_maps(alone, take_images(codes, [some.inputs[i].image_id]))
        np.testing.assert_allclose(maps[i], found[0], rtol=1e-5, atol=1e-5)


def test_a_shift_goes_to_a_cell_and_its_neighbours_as_every_weight_does() -> None:
    weights = LabelWeights(np.array([3]), np.array([[2.0]]), np.array([0.2]), 0.5)
    codes = flat_codes(MID, ["a"], (1, 3), np.array([3, 0, 0]), np.array([1.0, 0, 0]), np.array([3]))
    shift = np.array([-0.5, 0.0, 0.0])[None, :, None]
    by_hand = np.array([1.5, 0, 0]) + NEIGHBOURS * 1.5 * np.array([2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(label_maps(weights, codes, shift)[0, :, 0], by_hand, rtol=1e-6)


def test_no_label_and_no_code_have_no_shift(pictures) -> None:
    table, codes, truth, _ = pictures
    none = LabelWeights(np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(2), 0.0)
    assert not label_shift(none, table, codes, own_counts(table, codes, truth)).any()
    silent = replace(codes, **{name: getattr(codes, name)[:0] for name in ("image", "feature", "cell", "value")})
    weights = weights_of(table, np.ones(table.hits.shape, bool))
    assert not label_shift(weights, table, silent, own_counts(table, silent, truth)).any()


def test_a_word_that_only_the_picture_itself_can_have_given_leaves_its_dictionary(pictures) -> None:
    table, codes, truth, _ = pictures
    own = own_counts(table, codes, truth)
    feature, image = (int(v) for v in np.divmod(own.keys[own.intersection[:, 1] > 0][0], len(table.features))[::-1])
    pair = np.array([image * len(table.features) + feature])
    for hits, kept in ((0, False), (1, False), (2, True)):
        changed = np.full_like(table.hits, hits)
        assert words_without(replace(table, hits=changed), own, pair)[0, 1] == kept
    # A picture that the pair does not meet in cannot have given the word.
    other = replace(own, keys=own.keys[:0], intersection=own.intersection[:0], area=own.area[:0])
    assert words_without(replace(table, hits=np.ones_like(table.hits)), other, pair).all()


def test_published_maps_of_own_pictures_are_those_of_the_words_that_others_gave(pictures) -> None:
    table, codes, truth, _ = pictures
    own = own_counts(table, codes, truth)
    once = replace(table, hits=np.minimum(table.hits, 1))
    twice = replace(table, hits=np.minimum(table.hits, 1) * 2)
    np.testing.assert_array_equal(paper_maps(twice, codes, np.eye(2), 2, own), paper_maps(table, codes, np.eye(2), 2))
    # Where every word was hit once, only pictures without the concept keep it.
    maps = paper_maps(once, codes, np.eye(2), 2, own)
    shown = truth.present[:, 1]
    assert not maps[shown, :, 1].any() or (once.hits[:, 1] == 0).all()
    np.testing.assert_array_equal(maps[~shown][..., 1], paper_maps(once, codes, np.eye(2), 2)[~shown][..., 1])
