"""Edits are data: they survive a file, equal ones are equal, and wrong ones are answered with a sentence."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.edit_files import read_edit, read_edits
from gazetteer.data.inputs.edits import STAGES, UNITS, Edit, Target
from gazetteer.data.inputs.regions import QUADRANTS, Region
from gazetteer.data.tables.images import encode_image

numbers = st.floats(-100, 100, allow_nan=False)
targets = st.builds(
    Target, block=st.just("mid_block.attentions.0"), branch=st.sampled_from(["cond", "uncond"]),
    t=st.floats(0, 1), features=st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True).map(tuple),
)  # fmt: skip
regions = st.sampled_from([Region(), *(Region(box=b) for b in QUADRANTS.values()), Region.of_mask(np.eye(3) > 0)])
corners = st.tuples(*[st.floats(0, 1)] * 4).filter(lambda v: v[0] != v[2] and v[1] != v[3])
boxes = corners.map(lambda v: Region(box=(min(v[0::2]), min(v[1::2]), max(v[0::2]), max(v[1::2]))))


def made_of(region: Region, outside: str, strength: float, **more: object) -> Edit:
    """An edit that takes nothing away both inside and outside, which is refused."""
    refused = strength < 0.0 and outside == "remove" and not region.everywhere
    return Edit(region=region, outside="" if refused else outside, strength=strength, **more)  # type: ignore[arg-type]


edits = st.builds(
    made_of, concept=st.just("dog"), targets=st.lists(targets, max_size=2).map(tuple), region=regions,
    outside=st.sampled_from(["", "remove", "keep"]), window=st.sampled_from([*STAGES.values(), (0.0, 1.0)]),
    branch=st.sampled_from(["cond", "uncond", "both"]), strength=numbers,
    unit=st.sampled_from([u for u in UNITS if u != "feature_p99"]), images=st.lists(st.integers(0, 9)).map(tuple),
)  # fmt: skip


@settings(deadline=None)
@given(edits)
def test_an_edit_survives_json_and_yaml(edit: Edit) -> None:
    for back in (json.loads(json.dumps(edit.as_dict())), yaml.safe_load(yaml.safe_dump(edit.as_dict()))):
        assert read_edit(back) == edit
        assert hash(read_edit(back)) == hash(edit) and read_edit(back).digest == edit.digest


def test_different_edits_have_different_digests() -> None:
    made = [Edit(concept="dog"), Edit(word="dog"), Edit(concept="dog", strength=2.0), Edit(concept="dog", images=(1,))]
    assert len({edit.digest for edit in made}) == len(made)


def test_equal_edits_have_equal_digests_however_their_numbers_are_written() -> None:
    def made(kind: type) -> Edit:
        target = Target("mid", t=kind(1), features=(3,), scales=(kind(2),))
        where = Region(box=tuple(kind(v) for v in (0, 0, 1, 1)))
        steps = (kind(0), kind(1))
        return Edit("dog", "", (target,), where, window=steps, t=kind(0), choice="labels", strength=kind(2))

    assert made(int) == made(float) and made(int).digest == made(float).digest
    vectors = [Edit(targets=(Target("mid", vector=v),), strength=s) for v, s in (((1, -0.0), -0.0), ((1.0, 0.0), 0.0))]
    assert vectors[0] == vectors[1] and vectors[0].digest == vectors[1].digest
    # What is recorded under a digest stays there.
    night = Edit(word="night", window=(0.2, 0.6), t=None, strength=1.0)
    assert (made(float).digest, night.digest) == ("10b8f9e78739da6b", "a8b32939dd199dab")


def test_what_fires_in_a_cell_itself_is_not_subtracted_elsewhere() -> None:
    where = Region(box=QUADRANTS["top left"])
    for outside in ("remove", "keep"):
        assert Edit("dog", region=where, unit="code", outside=outside).outside == outside
    assert Edit("dog", unit="code", outside="subtract").region.everywhere  # there is nothing outside
    with pytest.raises(InputError, match="nothing to subtract elsewhere"):
        Edit("dog", region=where, unit="code", outside="subtract")


def test_taking_away_keeps_what_is_outside_of_its_region() -> None:
    where = Region(box=QUADRANTS["top left"])
    assert [Edit("dog", region=where, strength=s).outside for s in (-1.0, -0.0, 1.0)] == ["keep", "remove", "remove"]
    raw = {"targets": [{"block": "mid", "features": [3]}], "unit": "code", "strength": -1, "region": "top left"}
    switched = read_edit(raw)
    assert switched.outside == "keep" == switched.as_dict()["outside"] and read_edit(switched.as_dict()) == switched
    with pytest.raises(InputError, match="say outside: keep, or leave the region out"):
        read_edit(raw | {"outside": "remove"})
    for said in ("keep", "subtract"):
        assert Edit("dog", region=where, strength=-1.0, outside=said).outside == said
    # Where there is nothing outside, nothing is said of it, and what is recorded under a digest stays there.
    whole = Edit("dog", strength=-1.0)
    assert "outside" not in whole.as_dict() and read_edit(whole.as_dict()) == whole
    assert whole.digest == Edit("dog", strength=-1.0, outside="remove").digest == "7b578c2381bdfcd1"
    assert replace(whole, region=where).outside == "keep"


def test_defaults_are_those_that_were_measured_best() -> None:
    dog, night = Edit("dog"), Edit(word="night")
    assert (dog.choice, dog.t, dog.window, dog.outside, dog.strength) == ("contrast", 0.5, (0.6, 1.0), "remove", 0.2)
    assert (night.choice, night.t, night.strength) == ("labels", 0.5, 0.2)
    usual = {unit: 0.2 if unit == "update_norm" else 1.0 for unit in UNITS}
    assert {unit: Edit("dog", unit=unit).strength for unit in UNITS} == usual
    assert replace(dog, unit="code").strength == 0.2  # said by then
    nearest = Edit("dog", choice="labels", t=None)
    assert read_edit(nearest.as_dict()) == nearest
    # What is written down says how features are found, and means the same when other defaults are best.
    assert dog.as_dict() == {"concept": "dog", "t": 0.5, "choice": "contrast", "strength": 0.2}
    assert night.as_dict() == {"word": "night", "t": 0.5, "choice": "labels", "strength": 0.2}
    assert "choice" not in Edit(targets=(Target("mid", features=(3,)),)).as_dict()


def test_with_its_features_an_edit_is_the_same_however_they_were_found() -> None:
    features = (Target("mid", features=(3, 7)),)
    now = Edit("dog", targets=features, strength=1.0)
    before = Edit("dog", targets=features, choice="labels", t=None, blocks=("mid",), strength=1.0)
    assert now.digest == before.digest == "99eb2cd08331a490"
    assert Edit("dog").digest != Edit("dog", choice="labels").digest != Edit("dog", choice="labels", t=None).digest
    # As it is recorded: how its features were found is left out.
    recorded = {"concept": "dog", "targets": [{"block": "mid", "features": [3, 7]}], "strength": 1.0}
    assert read_edit(recorded).digest == "99eb2cd08331a490"


def test_short_forms(tmp_path) -> None:
    mask = np.zeros((4, 6, 3), np.uint8)
    mask[:2, :3] = 255
    (tmp_path / "mask.png").write_bytes(encode_image(mask))
    (tmp_path / "edits.yaml").write_text(
        "edits:\n"
        "- {concept: dog, region: top left, window: early, strength: 2}\n"
        "- {word: night, window: middle, region: everywhere}\n"
        "- {concept: sun, region: {mask: mask.png}}\n"
    )
    dog, night, sun = read_edits(tmp_path / "edits.yaml")
    assert dog == Edit(concept="dog", region=Region(box=(0.0, 0.0, 0.5, 0.5)), window=(0.6, 1.0), strength=2.0)
    assert night.window == (0.2, 0.6) and night.region.everywhere
    assert sun.region.grid(2, 2).tolist() == [[True, False], [False, False]]


def test_regions_on_grids() -> None:
    quarters = [Region(box=box).grid(4, 6) for box in QUADRANTS.values()]
    assert (np.sum(quarters, axis=0) == 1).all() and {q.sum() for q in quarters} == {6}
    assert Region().grid(2, 3).all()
    # 3 pixels on 2 cells: the middle pixel is shared, so a cell is half of it and all of its neighbour.
    assert Region.of_mask(np.array([[True, False, False]])).grid(1, 2).tolist() == [[True, False]]
    assert Region.of_mask(np.array([[False, True, True]])).grid(1, 2).tolist() == [[False, True]]


def test_a_place_that_holds_no_cell_is_the_nearest_one() -> None:
    """Each grid has its own: a place may hold cells of a fine one and none of a coarse one."""
    box, mask = Region(box=(0.3, 0.55, 0.45, 0.7)), np.zeros((80, 40), bool)
    mask[48, 12:18] = mask[50, 12:18] = True
    for region in (box, Region.of_mask(mask)):
        for side, cell in ((1, (0, 0)), (2, (1, 0)), (4, (2, 1))):
            assert np.argwhere(region.grid(side, side)).tolist() == [list(cell)]
            assert not region.holds_cell(side, side) or (region, side) == (box, 4)
    assert box.grid(16, 16).sum() == 4 and box.holds_cell(16, 16) and Region().holds_cell(1, 1)
    for corner in (Region(box=(0.99, 0.99, 1.0, 1.0)), Region(box=(1.0 - 2**-53, 1.0 - 2**-53, 1.0, 1.0))):
        assert np.argwhere(corner.grid(4, 6)).tolist() == [[3, 5]]
    dot = np.zeros((4, 4), bool)
    dot[3, 3] = True
    assert np.argwhere(Region.of_mask(dot).grid(1, 2)).tolist() == [[0, 1]]


@settings(deadline=None)
@given(boxes, st.integers(1, 9), st.integers(1, 9))
def test_every_place_holds_a_cell(region: Region, height: int, width: int) -> None:
    assert region.grid(height, width).any()


def test_an_empty_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "black.png").write_bytes(encode_image(np.zeros((4, 4, 3), np.uint8)))
    with pytest.raises(InputError, match="A region's mask is empty"):
        Region.of_mask(np.zeros((4, 4), bool))
    with pytest.raises(InputError, match="A region's mask is empty"):
        read_edit({"concept": "dog", "region": {"mask": "black.png"}}, tmp_path)


@pytest.mark.parametrize(
    ("raw", "fragment"),
    [
        ({}, "needs a concept"),
        ({"concept": "dog", "word": "night"}, "needs a concept"),
        ({"concept": "dog", "strenght": 1}, "Unknown key strenght"),
        ({"concept": "dog", "strength": "much"}, "strength must be a number"),
        ({"concept": "dog", "strength": float("inf")}, "finite"),
        ({"concept": "dog", "strength": float("nan")}, "finite"),
        ({"concept": "dog", "unit": "beta"}, "code_norm"),
        ({"concept": "dog", "window": "late"}, "early, middle, final"),
        ({"concept": "dog", "window": [0.6, 0.2]}, "low < high"),
        ({"concept": "dog", "region": "centre"}, "top left"),
        ({"concept": "dog", "region": {"box": [0, 0, 2, 1]}}, "0 … 1"),
        ({"concept": "dog", "region": {"mask": {"size": [1, 1], "counts": "1"}}}, "empty"),
        ({"concept": "dog", "images": [True]}, "whole numbers"),
        ({"concept": "dog", "strength": 10**400}, "strength is a number that is too large"),
        ({"concept": "dog", "window": [0, 10**400]}, "window is a number that is too large"),
        (
            {"concept": "dog", "region": {"mask": "m.png", "box": [0, 0, 1, 1]}},
            "one of box, mask, or .* not mask and box",
        ),
        ({"concept": "dog", "region": {"box": [0, 0, 1, 1], "mask_size": [2, 2]}}, "not box and mask_size"),
        ({"concept": "dog", "region": {"mask_size": [8, 8]}}, "mask_size with mask_counts, not mask_size"),
        ({"concept": "dog", "region": {"mask_counts": "1"}}, "not mask_counts"),
        ({"concept": "dog", "region": {"mask_size": [], "mask_counts": ""}}, "mask_size is empty; write everywhere"),
        ({"concept": "dog", "region": {"mask_size": [8, 8], "mask_counts": ""}}, "needs both its mask_size and"),
        ({"concept": "dog", "region": {"box": []}}, "box is empty; write everywhere"),
        ({"concept": "dog", "region": {}}, "everywhere where there is none"),
        ({"targets": [{"block": "b"}]}, "either features or a vector"),
        ({"targets": [{"features": [1]}]}, "needs a block"),
        ({"targets": [{"block": "b", "vector": [1.0]}], "unit": "code_norm"}, "needs features"),
        ({"targets": [{"block": "b", "features": [1]}], "unit": "feature_p99"}, "needs scales"),
        (
            {"targets": [{"block": "b", "stream": "text", "features": [1]}], "region": "top left"},
            "the text stream of b holds words, which lie nowhere",
        ),
        ("dog", "mapping"),
    ],
)
def test_wrong_edits_get_a_sentence(raw: object, fragment: str, tmp_path) -> None:
    with pytest.raises(InputError, match=fragment):
        read_edit(raw)


def test_a_region_in_python_is_whole_and_of_numbers() -> None:
    with pytest.raises(InputError, match="needs both its mask_size and its mask_counts"):
        Region(mask_size=(8, 8))
    with pytest.raises(InputError, match="strength is a number that is too large"):
        Edit("dog", strength=10**400)


def test_a_mask_is_what_is_not_black(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0], pixels[1, :, 2] = 100, 1
    (tmp_path / "mask.png").write_bytes(encode_image(pixels))
    mask = read_edit({"concept": "dog", "region": {"mask": "mask.png"}}, tmp_path).region.grid(4, 4)
    assert mask.any(axis=1).tolist() == mask.all(axis=1).tolist() == [True, True, False, False]


def test_a_mask_is_what_was_painted_not_what_a_format_left_beside(tmp_path: Path) -> None:
    """White under full transparency is no paint, and a JPEG's black is not black."""
    painted = np.full((4, 4, 4), 255, np.uint8)
    painted[2:, :, 3] = 0
    Image.fromarray(painted).save(tmp_path / "mask.png")
    mask = read_edit({"concept": "dog", "region": {"mask": "mask.png"}}, tmp_path).region.grid(4, 4)
    assert mask.all(axis=1).tolist() == [True, True, False, False]
    Image.fromarray((np.arange(256).reshape(16, 16) * 257).astype(np.uint16)).save(tmp_path / "deep.png")
    assert read_edit({"concept": "dog", "region": {"mask": "deep.png"}}, tmp_path).region.grid(16, 16).sum() == 255
    for name in ("mask.jpg", "mask.webp"):
        Image.fromarray(painted[:, :, :3]).save(tmp_path / name)
        with pytest.raises(InputError, match="which changes colours; save it as PNG"):
            read_edit({"concept": "dog", "region": {"mask": name}}, tmp_path)


def test_what_would_not_be_heard_in_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "edits.yaml").write_text("edits:\n- {concept: dog}\nstrength: 5\n")
    with pytest.raises(InputError, match="the key strength beside edits"):
        read_edits(tmp_path / "edits.yaml")
    for twice in ('[{"concept": "dog", "strength": 1, "strength": 9}]', '{"edits": [], "edits": [{"concept": "dog"}]}'):
        (tmp_path / "edits.json").write_text(twice)
        with pytest.raises(InputError, match="is there twice"):
            read_edits(tmp_path / "edits.json")
    (tmp_path / "edits.json").write_text('[{"concept": "dog", "strength": 1' + "0" * 400 + "}]")
    with pytest.raises(InputError, match="edit 1: strength is a number that is too large"):
        read_edits(tmp_path / "edits.json")
    (tmp_path / "edits.json").write_text('{"prompt": "a house", "seed": 3, "edits": [{"concept": "dog"}]}')
    assert read_edits(tmp_path / "edits.json") == (Edit("dog"),), "as a picture that was drawn records them"


def test_wrong_files_name_the_edit(tmp_path) -> None:
    (tmp_path / "edits.json").write_text(json.dumps([{"concept": "dog"}, {"concept": "dog", "unit": "x"}]))
    with pytest.raises(InputError, match=r"edits\.json, edit 2: .*unit"):
        read_edits(tmp_path / "edits.json")
    (tmp_path / "none.yaml").write_text("edits: []")
    with pytest.raises(InputError, match="holds no edit; write at least one"):
        read_edits(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["edits.json", "edits.yaml"])
def test_half_a_character_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('[{"concept": "a \\ud83d dog"}]')
    with pytest.raises(InputError, match="not valid YAML"):
        read_edits(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "edits.json")
    with pytest.raises(InputError, match="not a regular file"):
        read_edits(tmp_path / "edits.json")
