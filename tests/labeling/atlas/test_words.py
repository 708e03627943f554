"""The atlas of a text stream: prompts with the words that fire, and no ring or heat map over a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from gazetteer.data.core.sites import Site
from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.schemas import IMAGES, SEGMENTS
from gazetteer.labeling.atlas.catalog import read_catalog
from gazetteer.labeling.atlas.payload import atlas_payload
from gazetteer.labeling.atlas.pictures import IMAGE_COLUMNS, SEGMENT_COLUMNS, image_records
from tests.support.runs.atlas_run import Plan, make_run


def test_the_words_of_a_prompt_stand_in_the_record_of_its_picture(tmp_path: Path) -> None:
    picture = {"bytes": encode_image(np.zeros((8, 8, 3), np.uint8)), "path": "a.png"}
    row = {"prompt": "a dog", "seed": 1, "split": "discovery", "image": picture, "width": 8, "height": 8, "asked": []}
    words = [{"word": None, "first": 0, "last": 0}, {"word": "dog", "first": 2, "last": 3}]
    rows = [{**row, "image_id": "a", "words": words}, {**row, "image_id": "b", "words": None}]
    images = pa.Table.from_pylist(rows, schema=IMAGES).select(list(IMAGE_COLUMNS))
    found = image_records(images, SEGMENTS.empty_table().select(list(SEGMENT_COLUMNS)), {}, tmp_path)
    assert json.loads(json.dumps(found["a"]["words"])) == [[None, 0, 0], ["dog", 2, 3]] and found["b"]["words"] is None


def test_streams_and_signals_of_a_block_are_blocks_of_the_pages(tmp_path: Path) -> None:
    places = [Site("transformer_blocks.0", "cond", 1.0, *port) for port in (("image", "update"), ("text", "update"))]
    run = make_run(tmp_path / "run", Plan(sites=places, images=4))
    catalog = read_catalog(run, 2)
    assert catalog.blocks == ["transformer_blocks.0", "transformer_blocks.0-text"]
    told = atlas_payload(catalog, [], 4, {})["sites"]
    assert [(site["port"], site["stream"], site["tint"]) for site in told] == [
        ("transformer_blocks.0", "image", 0), ("transformer_blocks.0-text", "text", 1),
    ]  # fmt: skip
