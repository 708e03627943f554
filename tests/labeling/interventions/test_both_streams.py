"""A run that hears pictures and words: what says where takes the image stream alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import Edit, Target
from gazetteer.data.inputs.regions import QUADRANTS, Region
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.codes import Moment, codes_table
from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.masks import mask_to_struct
from gazetteer.data.tables.schemas import FEATURES, IMAGES, LABELS, SEGMENTS
from gazetteer.data.tables.words import PromptWord, rows_of_words
from gazetteer.jobs.experiments.causal.choose import named_sites
from gazetteer.labeling.evidence.counts import ImageEvidenceInput, build_evidence
from gazetteer.labeling.interventions.resolve import resolve, sites_for
from gazetteer.labeling.layout.prior import layout_prior
from tests.support.runs.layout_runs import PROVENANCE, write_run
from tests.support.runs.runs import blank
from tests.support.runs.small_world import map_code

SEEN, READ = Site("b", "cond", 0.5), Site("b", "cond", 0.5, "text")
DOG, NIGHT = 0, 1


def heard_run(path: Path, sites: tuple[Site, ...]) -> RunFolder:
    """Twenty pictures: a dog on top, or below in every third, where `DOG` fires; every other is at night."""
    rows, segments, inputs = [], [], []
    for i in range(20):
        top = (np.arange(8) < 4) == (i % 3 > 0)
        dog = np.repeat(top[:, None], 8, axis=1)
        name, split, dark = f"i{i:02}", "heldout" if i % 4 == 0 else "discovery", i % 2 == 1
        words = (PromptWord(None, 0, 0), PromptWord("dog", 1, 2), PromptWord("night" if dark else "day", 3, 3))
        seen = {DOG: dog[::4, ::4].astype(float), NIGHT: np.full((2, 2), float(dark))}
        read = {DOG: np.eye(1, 64, 1), NIGHT: np.eye(1, 64, 3) * dark}  # far more places than the picture has cells
        codes = {site: map_code(seen if site.stream == SEEN.stream else read) for site in sites}
        inputs.append(ImageEvidenceInput(name, split, (8, 8), ("dog",), [("dog", dog)], codes, words))
        picture = {"bytes": encode_image(np.zeros((8, 8, 3), np.uint8)), "path": ""}
        rows.append(
            {"image_id": name, "prompt": f"dog {words[-1].word}", "seed": i, "split": split, "width": 8, "height": 8,
             "image": picture, "asked": ["dog"], "words": rows_of_words(words)}
        )  # fmt: skip
        segments.append(
            {"image_id": name, "concept": "dog", "score": 1.0, "box": [0.0, 0.0, 8.0, 4.0], "area": 32,
             "predicted_iou": 1.0, "mask": mask_to_struct(dog)}
        )  # fmt: skip
    names, moments = [row["image_id"] for row in rows], dict.fromkeys(sites, Moment(12, 500.0))
    tables = {
        "images": pa.Table.from_pylist(rows, schema=IMAGES),
        "segments": pa.Table.from_pylist(segments, schema=SEGMENTS),
        "codes": codes_table(names, [one.codes for one in inputs], moments),
        "evidence": build_evidence(inputs, ("dog",)),
    }
    run = write_run(path, tables)
    features = [blank(FEATURES, model="m", **site.columns(), feature=n) for site in sites for n in (DOG, NIGHT)]
    run.write_final("features", pa.Table.from_pylist(features, schema=FEATURES), PROVENANCE)
    label = {"feature": DOG, "concept": "dog", "rank": 1, "dataset_iou": 0.9, "null_iou": 0.1}
    labels = [blank(LABELS, model="m", **SEEN.columns(), **label)] if SEEN in sites else []
    run.write_final("labels", pa.Table.from_pylist(labels, schema=LABELS), PROVENANCE)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return heard_run(tmp_path_factory.mktemp("both") / "run", (SEEN, READ))


@pytest.mark.parametrize("choice", ["contrast", "labels"])
def test_a_concept_is_added_where_pictures_are_heard(run: RunFolder, choice: str) -> None:
    (edit,) = resolve([Edit("dog", choice=choice, region=Region(box=QUADRANTS["top left"]))], run)
    assert [(target.site, target.features) for target in edit.targets] == [(SEEN, (DOG,))]


def test_a_word_is_added_to_both_streams_unless_it_has_a_place(run: RunFolder) -> None:
    (everywhere,) = resolve([Edit(word="night")], run)
    assert {target.site for target in everywhere.targets} == {SEEN, READ}
    (placed,) = resolve([Edit(word="night", region=Region(box=QUADRANTS["top left"]))], run)
    assert [target.site for target in placed.targets] == [SEEN]


def test_an_edit_of_both_branches_leaves_words_alone(run: RunFolder, tmp_path: Path) -> None:
    (edit,) = resolve([Edit(word="night", branch="both")], run)
    assert [target.site for target in edit.targets] == [SEEN]
    with pytest.raises(InputError, match="no image stream, where 'night' could act on both branches"):
        resolve([Edit(word="night", branch="both")], heard_run(tmp_path / "run", (READ,)))
    with pytest.raises(InputError, match=r"the text stream of b holds other words in each; say branch: cond"):
        Edit(targets=(Target("b", vector=(1.0,), stream="text"),), branch="both")


def test_a_block_is_edited_once_a_stream_whatever_is_heard_of_it(tmp_path: Path) -> None:
    def heard(*signals: str) -> list[Site]:
        sites = tuple(replace(site, t=t, signal=s) for site in (SEEN, READ) for t in (1.0, 0.5) for s in signals)
        return sites_for(Edit(word="night"), heard_run(tmp_path / "-".join(signals), sites))

    assert heard("output", "update") == [SEEN, READ]  # both signals are of one change
    assert heard("input", "output") == [replace(site, signal="output") for site in (SEEN, READ)]
    with pytest.raises(InputError, match=r"input hears what blocks are given; edits act on .*update, output"):
        heard("input")


def test_causes_are_measured_of_what_blocks_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = replace(SEEN, signal="input")
    run = heard_run(tmp_path / "run", (SEEN, given, READ))
    assert named_sites(run, []) == [SEEN]
    said = capsys.readouterr().err
    assert "1 sites of what a block is given are left out" in said and "1 sites of the text stream" in said
    with pytest.raises(InputError, match=r"b-input-cond-t0.50 is of what a block is given; .*update, output"):
        named_sites(run, [given.slug])


def test_where_things_usually_are_is_a_map_of_the_picture(run: RunFolder) -> None:
    concepts, prior, grid = layout_prior(run)
    assert (concepts, grid) == (("dog",), (2, 2))
    np.testing.assert_allclose(prior[:, 0], [2 / 3, 2 / 3, 1 / 3, 1 / 3], rtol=1e-6)


def test_a_run_of_words_alone_has_no_places(tmp_path: Path) -> None:
    words = heard_run(tmp_path / "run", (READ,))
    with pytest.raises(InputError, match="listens to no image stream, where 'dog' could be placed"):
        resolve([Edit("dog")], words)
    with pytest.raises(InputError, match="no discovery pictures of an image stream"):
        layout_prior(words)
