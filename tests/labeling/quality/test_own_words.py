"""What a person's own words name of a run's labels."""

from __future__ import annotations

import pytest

from gazetteer.labeling.quality.own_words import OwnWords, places_named
from gazetteer.labeling.rules.kinds.places import PLACES

LOOKS = ("pencil sketch", "watercolour", "oil painting", "sand painting", "cartoon style", "neon light")
NAMES = (*PLACES, *LOOKS, "car", "grey wolf", "dog", "traffic light")
OWN = OwnWords(NAMES, LOOKS, {"car": ("automobile", "motor car")})


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ("automobiles", {"car"}), ("a gray wolf", {"grey wolf"}), ("Watercolor!", {"watercolour"}),
        ("a sketch", {"pencil sketch"}), ("sketches of a dog", {"pencil sketch", "dog"}),
        ("a painting", set()), ("some style", set()), ("light", set()), ("pencil", set()),
    ],
)  # fmt: skip
def test_synonyms_spellings_and_heads_of_looks(answer: str, names: set[str]) -> None:
    assert OWN.named(answer) == names


@pytest.mark.parametrize(
    ("answer", "places"),
    [
        ("the bottom", {"bottom edge", "bottom half"}), ("lower edge", {"bottom edge"}), ("Upper half", {"top half"}),
        ("at the very top of the picture", {"top edge", "top half"}), ("right-hand side", {"right edge", "right half"}),
        ("sky, at the left", {"left edge", "left half"}), ("the upper-left corner", {"top left"}),
        ("lower right", {"bottom right"}), ("center", {"centre"}), ("the middle", {"centre"}),
        ("left or right edge", {"left edge", "left half", "right edge"}), ("picture top", {"top edge", "top half"}),
        ("the top of a tree", set()), ("top hat", set()), ("mountain top", set()), ("a left hand", set()),
        ("the right corner", set()), ("top center", set()), ("an edge", set()), ("", set()), ("top left half", set()),
    ],
)  # fmt: skip
def test_everyday_words_of_places(answer: str, places: set[str]) -> None:
    assert places_named(answer) == places


@pytest.mark.parametrize("place", PLACES)
def test_every_place_has_everyday_words(place: str) -> None:
    assert places_named(f"the {place}") == {place}


def test_only_what_the_run_names_is_named() -> None:
    assert OwnWords(["bottom edge", "gray", "grey"]).named("the bottom, grey") == {"bottom edge", "gray", "grey"}
