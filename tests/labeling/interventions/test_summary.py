"""What trials of edits come to, by hand: successes, side effects, which settings drop out."""

from __future__ import annotations

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.edits import STAGES
from gazetteer.data.inputs.regions import QUADRANTS
from gazetteer.labeling.interventions.evaluation.cases import Cases, EditCase, SteerConfig
from gazetteer.labeling.interventions.evaluation.experiments import rounds
from gazetteer.labeling.interventions.evaluation.summary import (
    global_summary,
    global_sweep,
    spatial_summary,
    spatial_sweep,
)
from gazetteer.labeling.vocabulary.concepts import Vocabulary, VocabularyConfig
from tests.labeling.interventions.test_steering import CONCEPTS, PROMPTS


def row(method: str, prompt: str, present: str, **values: object) -> dict:
    """A row of a trial on seed 0: a dog to the top left, early, unless told otherwise."""
    usual = {"stage": "" if method == "none" else "early", "name": "dog", "quadrant": "top left", "seed": 0,
             "landed": False, "map_landed": False, "outside_change": 0.0, "rise": 0.0, "read_as": "plain",
             "distance": 0.0, "layout_kept": None}  # fmt: skip
    return {**usual, "method": method, "prompt": prompt, "present": present.split(), **values}


def test_a_summary_of_four_pictures_by_hand() -> None:
    plain = [row("none", "a", "dog"), row("none", "b", "dog cow"), row("none", "c", ""),
             row("none", "d", "cow", name="house")]  # fmt: skip
    ours = [
        row("gazetteer", "a", "dog cow", landed=True, outside_change=0.1),
        row("gazetteer", "b", "dog", quadrant="top right", outside_change=0.3),  # the cow goes that came in a
        row("gazetteer", "c", "dog", quadrant="top right", landed=True, map_landed=True),
        row("gazetteer", "d", "cow", name="house", quadrant="top right"),
    ]
    others = [row("random_features", "a", ""), row("paper", "b", "dog cow", landed=True)]
    known = {"early": {"dog", "house"}, "middle": {"dog"}, "final": set()}
    found = spatial_summary([*plain, *ours, *others], known, ("boat", "cow", "dog", "house"))
    assert found["untried"] == ["boat", "cow"] and found["unlabelled"]["middle"] == ["boat", "cow", "house"]
    assert found["spatial"]["early"]["gazetteer"][0] == 0.5 and found["spatial"]["early"]["none"] == [0.0, 0.0, 0.4899]
    assert found["spatial_map"]["early"]["gazetteer"][0] == 0.25
    assert found["outside_change"]["early"]["gazetteer"][0] == 0.1
    assert found["present"]["early"]["gazetteer"][0] == 0.75 and found["present"]["early"]["none"][0] == 0.5
    assert found["spatial_found"]["early"]["gazetteer"][0] == round(2 / 3, 4)
    assert found["spatial_cases"] == {"early": 4, "middle": 0, "final": 0}
    pictures = {"none": 4, "gazetteer": 4, "random_features": 1, "paper": 1}
    assert found["spatial_pictures"]["early"] == pictures and found["spatial_pictures"]["middle"] == {"none": 3}
    assert found["not_tried"] == {
        "early": {"random_features": ["house"], "paper": ["house"]}, "middle": {}, "final": {},
    }  # fmt: skip
    # Of one picture, three, four (above) that all say the same, Wilson's intervals: z^2 / (n + z^2) into the open side.
    missed, hit = {"success": [0.0, 0.0, 0.7935], "n": 1}, {"success": [1.0, 0.2065, 1.0], "n": 1}
    unedited = {"dog": {"top left": {"success": [0.0, 0.0, 0.5615], "n": 3}}}
    assert found["spatial_grid"]["early"] == {
        "gazetteer": {"dog": {"top left": hit, "top right": {"success": [0.5, 0.0, 1.0], "n": 2}},
                      "house": {"top right": missed}},
        "paper": {"dog": {"top left": hit}},
        "none": {**unedited, "house": {"top left": missed}},
    }  # fmt: skip
    dog = found["spatial_concepts"]["early"]["gazetteer"]["dog"]
    assert (dog["success"][0], dog["n"]) == (round(2 / 3, 4), 3) and dog["success"][1] < dog["success"][2] == 1.0
    right = found["spatial_quadrants"]["early"]["gazetteer"]["top right"]
    assert (right["success"][0], right["n"]) == (round(1 / 3, 4), 3)
    effects = found["side_effects"]["early"]
    assert set(effects["gazetteer"]) == {"dog", "house"} and effects["gazetteer"]["house"] == {}
    fraction = round(1 / 3, 4)
    means = {other: {kind: v[0] for kind, v in both.items()} for other, both in effects["gazetteer"]["dog"].items()}
    assert means == {"cow": {"appears": fraction, "vanishes": fraction}, "dog": {"appears": fraction, "vanishes": 0.0}}
    assert effects["gazetteer"]["dog"]["cow"]["appears"][1:] == [0.0, 1.0]
    assert effects["random_features"] == {
        "dog": {"dog": {"appears": [0.0, 0.0, 0.7935], "vanishes": [1.0, 0.2065, 1.0]}}
    }
    assert found["side_effects"]["middle"] == found["spatial_grid"]["final"] == {}
    assert found["spatial_grid"]["middle"] == {"none": unedited}  # pictures without an edit are of every stage


def test_looks_are_summed_up_by_hand() -> None:
    def look(method: str, prompt: str, rise: float, **values: object) -> dict:
        return row(method, prompt, "", name="night", quadrant="", rise=rise, **values)

    rows = [
        look("gazetteer", "a", 0.4, read_as="night", distance=0.2, layout_kept=0.5),
        look("gazetteer", "b", -0.2, distance=0.4),
        {**look("gazetteer", "c", 0.1), "name": "fog"},
        look("random_features", "a", -0.1),
    ]
    found = global_summary(rows)
    assert found["global"]["early"][0] == round(2 / 3, 4) and found["global_random"]["early"] == [0.0, 0.0, 0.7935]
    detail = found["global_detail"]["early"]["gazetteer"]
    assert detail["similarity"][0] == 0.1 and detail["read_as"][0] == round(1 / 3, 4)
    assert detail["distance"][0] == 0.2 and detail["layout_kept"] == [0.5, None, None]  # where a layout was
    assert found["global_words"]["early"] == {
        "fog": {"success": [1.0, 0.2065, 1.0], "similarity": [0.1, None, None], "n": 1},
        "night": {"success": [0.5, 0.0, 1.0], "similarity": [0.1, -0.2, 0.4], "n": 2},
    }
    assert found["global"]["middle"] == [None] * 3


def test_side_effects_of_looks_by_hand() -> None:
    def look(method: str, prompt: str, present: str, name: str = "night", **values: object) -> dict:
        return row(method, prompt, present, name=name, quadrant="", **values)

    edited = [
        look("gazetteer", "a", "moon house"),  # the dog goes, the moon comes
        look("gazetteer", "b", "moon"),
        look("gazetteer", "c", "moon dog", name="fog"),
        look("gazetteer", "a", "moon", seed=1),  # another picture of the same prompt: not one of the unedited
        look("random_features", "b", ""),
        look("gazetteer", "b", "moon", stage="final"),
    ]
    plain = [look("none", "a", "dog house"), look("none", "b", "moon"), look("none", "c", "moon dog", name="fog")]
    found = global_summary([*plain, *edited])
    effects = found.pop("global_side_effects")
    means = {
        other: {kind: v[0] for kind, v in both.items()}
        for other, both in effects["early"]["gazetteer"]["night"].items()
    }
    assert means == {"dog": {"appears": 0.0, "vanishes": 0.5}, "moon": {"appears": 0.5, "vanishes": 0.0}}
    assert effects["early"]["gazetteer"]["night"]["moon"]["appears"] == [0.5, 0.0, 1.0]
    assert effects["early"]["gazetteer"]["fog"] == {} and effects["final"]["gazetteer"] == {"night": {}}
    assert effects["early"]["random_features"] == {
        "night": {"moon": {"appears": [0.0, 0.0, 0.7935], "vanishes": [1.0, 0.2065, 1.0]}}
    }
    old = global_summary(edited)  # recorded before unedited pictures were
    assert old.pop("global_side_effects") == {key: {"gazetteer": {}, "random_features": {}} for key in STAGES}
    assert found == old


def test_units_that_do_not_hear_weights_are_refused_with_contrast() -> None:
    for unit in ("feature_p99", "code"):
        with pytest.raises(InputError, match=r"take steer\.tops above 0"):
            SteerConfig(unit=unit, choices=("labels", "contrast"))
        assert SteerConfig(unit=unit, choices=("contrast",), tops=(4,)).unit == unit
    with pytest.raises(InputError, match="which the unit code cannot do"):
        SteerConfig(unit="code", outsides=("remove", "subtract"))


def test_settings_drop_out_round_by_round_and_looks_must_keep_the_layout() -> None:
    assert rounds(1, 80, 20) == [] and rounds(10, 80, 20) == [20, 40, 80] and rounds(2, 10, 10) == [10]
    one = {"landed": True, "rise": 0.5, "layout_kept": 0.2}
    both = [one, {**one, "landed": False}]
    assert spatial_sweep(both, 0.5, 2) == ((True, 0.5), {"landed": 0.5, "pictures": 2})
    # Of four cases two have no feature at this setting: nothing landed there.
    assert spatial_sweep(both, 0.5, 4) == ((True, 0.25), {"landed": 0.25, "pictures": 2})
    torn, weak = global_sweep([one], 0.5, 1)[0], global_sweep([{**one, "rise": 0.01, "layout_kept": 0.9}], 0.5, 1)[0]
    assert weak > torn > global_sweep([], 0.5, 1)[0]


def test_cells_are_even_and_prompts_that_say_a_place_are_left_out() -> None:
    def made(*avoid: str) -> list[EditCase]:
        config = SteerConfig(avoid=avoid)
        return Cases(config, Vocabulary(VocabularyConfig(CONCEPTS)), PROMPTS, 0).spatial("heldout", 24)

    cases = made()
    named = {case.name for case in cases}
    counts = {(n, q): sum((c.name, c.quadrant) == (n, q) for c in cases) for n in named for q in QUADRANTS}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert any("sea" in case.start.prompt for case in cases)
    assert not any("sea" in case.start.prompt for case in made("sea"))
