"""The atlas of a text stream: prompts with the words that fire, and no ring or heat map over a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.schemas import IMAGES, SEGMENTS
from gazetteer.labeling.atlas.pictures import IMAGE_COLUMNS, SEGMENT_COLUMNS, image_records


def test_the_words_of_a_prompt_stand_in_the_record_of_its_picture(tmp_path: Path) -> None:
    picture = {"bytes": encode_image(np.zeros((8, 8, 3), np.uint8)), "path": "a.png"}
    row = {"prompt": "a dog", "seed": 1, "split": "discovery", "image": picture, "width": 8, "height": 8, "asked": []}
    words = [{"word": None, "first": 0, "last": 0}, {"word": "dog", "first": 2, "last": 3}]
    rows = [{**row, "image_id": "a", "words": words}, {**row, "image_id": "b", "words": None}]
    images = pa.Table.from_pylist(rows, schema=IMAGES).select(list(IMAGE_COLUMNS))
    found = image_records(images, SEGMENTS.empty_table().select(list(SEGMENT_COLUMNS)), {}, tmp_path)
    assert json.loads(json.dumps(found["a"]["words"])) == [[None, 0, 0], ["dog", 2, 3]] and found["b"]["words"] is None
