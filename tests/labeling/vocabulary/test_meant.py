"""A concept is taken as it is meant, and an unknown one is answered with what is near."""

from __future__ import annotations

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.vocabulary.meant import meant, nearest, stands_for

KNOWN = ("dog", "hot dog", "dogs of war", "sky", "t-shirt")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("dog", "dog"),
        ("Dogs", "dog"),
        ("SKY", "sky"),
        ("hot-dogs", "hot dog"),
        ("Hotdog", "hot dog"),
        ("T shirts", "t-shirt"),
        ("Dogs of war", "dogs of war"),
    ],
)
def test_capitals_hyphens_and_plurals_are_taken_as_meant(asked: str, found: str) -> None:
    assert meant([asked], KNOWN, "{!r} is unknown") == [found]


def test_several_keep_their_order_and_count_once() -> None:
    assert meant(["sky", "Dogs", "dog"], KNOWN, "{!r} is unknown") == ["sky", "dog"]
    assert meant([], KNOWN, "{!r} is unknown") == []


def test_an_unknown_one_is_refused_with_what_is_near() -> None:
    with pytest.raises(InputError, match=r"^Nobody knows 'dogg'; did you mean dog\? it has: dog, dogs of war, hot dog"):
        meant(["sky", "dogg"], KNOWN, "Nobody knows {!r}")
    with pytest.raises(InputError, match=r"^Nobody knows ''; it has: dog"):
        meant(["sky", ""], KNOWN, "Nobody knows {!r}")
    assert nearest("unicorn", ["b", "a"]) == "it has: a, b."
    assert nearest("x", map(str, range(30))).endswith("and 10 more.")
    assert nearest(0.4, [0.0, 0.5]) == "did you mean 0.5? it has: 0.0, 0.5."


def test_what_stands_for_no_known_concept_keeps_its_name() -> None:
    assert stands_for(["dog", "Dogs", "SKY", "cow"], KNOWN) == {"dog": "dog", "Dogs": "dog", "SKY": "sky", "cow": "cow"}


def test_other_names_of_a_concept_stand_for_it() -> None:
    others = {"dog": ("hound", "sky")}
    assert stands_for(["Hounds", "sky", "cow"], KNOWN, others) == {"Hounds": "dog", "sky": "sky", "cow": "cow"}
    assert stands_for(["hound"], KNOWN) == {"hound": "hound"}
