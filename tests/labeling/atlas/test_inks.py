"""Colours of named things: their own, the same on every page, never two alike."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from gazetteer.labeling.atlas.inks import _APART, _OTHER, _OWN, _distance, inks


def test_things_have_their_own_colours() -> None:
    given_inks = inks(["dog", "grass", "sky", "sand", "blue sea", "evening sun"])
    red, green, blue = given_inks["grass"]
    assert green > red and green > blue
    red, green, blue = given_inks["sky"]
    assert blue > green > red
    assert given_inks["evening sun"] == inks(["sun"])["sun"] and given_inks["blue sea"] == inks(["sea"])["sea"]


def test_own_colours_differ_from_each_other() -> None:
    assert [pair for pair in combinations(_OWN, 2) if _distance(*pair) < _APART] == []


NAMES = ["sky", "sea", "lake", "river", "water", "grass", "dog", "猫", "cat", "car", "tree", "forest", "boat", "кошка"]


@given(st.permutations(NAMES), st.integers(1, len(NAMES)))
def test_no_two_are_alike_and_the_order_does_not_matter(names: list[str], many: int) -> None:
    found = inks(names[:many])
    assert all(_distance(one, other) >= _APART for one, other in combinations(found.values(), 2))
    assert found == inks(sorted(names[:many]))


@given(st.sampled_from(["dog", "cat", "猫", "car"]), st.sampled_from(["sky", "grass", "sun"]))
def test_a_thing_without_a_colour_keeps_its_own_beside_one_that_has(plain: str, coloured: str) -> None:
    together = inks([plain, coloured])
    assert together[coloured] == inks([coloured])[coloured]
    assert together[plain] in _OTHER


def test_more_things_than_inks_all_get_one() -> None:
    assert len(inks([f"thing {number}" for number in range(200)])) == 200
