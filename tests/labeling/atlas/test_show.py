"""`gazetteer.show`: a feature as notebooks draw it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import gazetteer as gz
from gazetteer.data.runs.folder import RunFolder
from gazetteer.labeling.atlas.show import STOPS, heat_over, outline_over
from tests.support.runs.atlas_run import HOSTILE_CONCEPT, HOSTILE_PROMPT, Plan, make_run, sites
from tests.support.runs.runs import PROVENANCE

MID = {"block": "mid_block.attentions.0", "branch": "cond", "t": 1.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"), Plan(sites=sites(2, 2), images=8))


def test_a_card_shows_pictures_maps_and_masks(run: RunFolder) -> None:
    card = gz.show(run, 0, **MID)
    assert (card.name, card.feature, card.site) == ("sky", 0, gz.Site(**MID))
    assert len(card.plates) == 6
    html = card._repr_html_()
    assert len(re.findall(r'src="data:image/webp;base64,', html)) == 18
    assert "http" not in html
    best = gz.load_labels(run, feature=0, **MID).to_pylist()[0]
    assert f"Overlap (IoU) with “sky” {best['dataset_iou']:.2f}" in html
    assert repr(card) == "sky, feature 0 of mid_block.attentions.0-cond-t1.00, in 6 pictures"
    assert [len(gz.show(run, 0, **MID, top=n).plates) for n in (0, 2)] == [0, 2]


def test_text_from_outside_stays_text(run: RunFolder, tmp_path: Path) -> None:
    card = gz.show(run, 1, **MID, top=8)
    card.save(tmp_path / "card.html")
    text = (tmp_path / "card.html").read_text(encoding="utf-8")
    assert card.name == HOSTILE_CONCEPT and card.labels[1]["concept"] == "sky"
    assert "<script" not in text and "<b>bold" not in text and "<img src=x" not in text
    assert "&lt;b&gt;bold" in text
    assert HOSTILE_PROMPT not in text


def test_a_concept_and_a_row_name_a_feature_too(run: RunFolder) -> None:
    best = max(gz.load_labels(run, concept="sky").to_pylist(), key=lambda row: row["dataset_iou"] - row["null_iou"])
    card = gz.show(run, "sky")
    assert (card.feature, card.site.block, card.site.t) == (best["feature"], best["block"], best["t"])
    assert gz.show(run, best).site == card.site
    assert gz.show(run, "sky", block=MID["block"], t=0.5).site == gz.Site(**{**MID, "t": 0.5})


def test_unnamed_and_silent_features_say_so(run: RunFolder) -> None:
    assert "No name is given" in gz.show(run, 5, **MID)._repr_html_()
    silent = gz.show(run, 2, **MID)
    assert "never fired" in silent._repr_html_() and silent.plates == ()


def test_a_concept_in_capitals_and_the_plural_is_meant(run: RunFolder) -> None:
    assert repr(gz.show(run, "Skies")) == repr(gz.show(run, "sky"))


@pytest.mark.parametrize(
    ("feature", "where", "said"),
    [(0, {}, "There are 4 features 0"), (999, MID, "has no feature 999"), ("dog", {}, "never asked for 'dog'"),
     ("sky", {"block": "x"}, "has no block 'x'"), ("ground", {}, "is labelled 'ground' at any site")],
)  # fmt: skip
def test_what_cannot_be_shown_is_said(run: RunFolder, feature: Any, where: dict[str, Any], said: str) -> None:
    with pytest.raises(gz.InputError, match=said):
        gz.show(run, feature, **where)


BLOCK = "transformer_blocks.1"


def test_signals_of_a_block_are_told_apart(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run", Plan(sites=[gz.Site(BLOCK, "cond", 1.0, signal=name) for name in ("update", "output")])
    )
    where = {"block": BLOCK, "branch": "cond", "t": 1.0}
    with pytest.raises(gz.InputError, match=r"There are 2 features 0 \(\S+, \S+\); say signal\."):
        gz.show(run, 0, **where)
    assert gz.show(run, 0, **where, signal="output").site.signal == "output"
    assert gz.show(run, "sky", signal="output").site.signal == "output"
    with pytest.raises(gz.InputError, match="has no signal 'input'"):
        gz.show(run, 0, signal="input")


def test_of_both_streams_pictures_are_shown(tmp_path: Path) -> None:
    """Words overlap with what they are called more than anything in a picture does."""
    run = make_run(
        tmp_path / "run", Plan(sites=[gz.Site(BLOCK, "cond", 1.0, stream=name) for name in ("image", "text")])
    )
    table = gz.load_labels(run)
    words = np.array(table["stream"].to_pylist()) == "text"
    iou = np.where(words, 0.99, table["dataset_iou"].to_numpy())
    at = table.schema.get_field_index("dataset_iou")
    run.write_final("labels", table.set_column(at, table.schema.field(at), pa.array(iou)), PROVENANCE)
    assert gz.show(run, "sky").site.stream == gz.show(run, 0).site.stream == "image"
    for which in (0, "sky"):
        with pytest.raises(gz.InputError, match="listens to words"):
            gz.show(run, which, stream="text")


def test_a_look_has_no_overlap_and_no_masks(run: RunFolder) -> None:
    label = {"concept": "night", "kind": "style", "explained": 0.42, "heldout_explained": None, "dataset_iou": None}
    card = gz.show(run, 0, **MID)
    look = replace(card, labels=({**label, "heldout_dataset_iou": None},))
    assert "A style: “night” explains 0.42 of its activation, held out unknown." in look._repr_html_()


def test_heat_lies_in_its_cells_alone() -> None:
    picture = np.full((8, 8, 3), 100, np.uint8)
    out = heat_over(picture, np.array([[0.0, 2.0], [1.0, 0.0]], np.float32), 2.0)
    assert (out[:4, :4] == 50).all() and (out[4:, 4:] == 50).all()
    assert (out[:4, 4:] == STOPS[-1]).all()
    assert (out[4:, :4] == (STOPS[2] * 0.825 + 50 * 0.175).round()).all()


def test_an_outline_runs_along_the_mask() -> None:
    mask = np.zeros((32, 32), bool)
    mask[8:24, 8:24] = True
    out = outline_over(np.zeros((32, 32, 3), np.uint8), [mask])
    yellow = (out == (255, 243, 176)).all(axis=2)
    assert yellow[8, 8:24].all() and not yellow[16, 16] and not yellow[:7].any()
