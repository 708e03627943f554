"""What a person's own words name of a run's labels."""

from __future__ import annotations

import pytest

from gazetteer.labeling.quality.own_words import OwnWords, credit, places_named
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


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ("certainly not a dog", set()), ("no dog", set()), ("this isn't a dog", set()), ("never a dog or car", set()),
        ("not a dog but a car", {"car"}), ("a car, not a dog", {"car"}), ("car without dog", {"car"}),
        ("anything but a dog", set()), ("dog rather than car", {"dog"}), ("not only a dog", {"dog"}),
        ("not the top half", set()), ("a dog", {"dog"}), ("knot dog", {"dog"}),
    ],
)  # fmt: skip
def test_what_an_answer_denies_it_does_not_name(answer: str, names: set[str]) -> None:
    assert OWN.named(OWN.affirmed(answer)) == names


def test_a_label_may_be_called_by_a_word_of_denial() -> None:
    own = OwnWords(["no entry sign", "forget-me-not", "dog"])
    assert own.named(own.affirmed("a no entry sign")) == {"no entry sign"}
    assert own.named(own.affirmed("forget-me-not")) == {"forget-me-not"}
    assert own.named(own.affirmed("no entry sign, not a dog")) == {"no entry sign"}


@pytest.mark.parametrize(
    ("answer", "concept", "share"),
    [
        ("dog", "dog", 1.0), ("a dog, a grey wolf", "dog", 0.5), ("dog car watercolour", "dog", 1 / 3),
        ("the bottom", "bottom half", 1.0), ("the bottom and the top", "bottom half", 0.5), ("car", "dog", 0),
        (", ".join(NAMES), "dog", 1 / len(NAMES)),
    ],
)  # fmt: skip
def test_several_names_share_one_agreement(answer: str, concept: str, share: float) -> None:
    assert credit(concept, OWN.mentions(answer)) == pytest.approx(share)
