"""What a stage makes of pictures that do not show what the model drew."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gazetteer.data.inputs.prompts import make_item
from gazetteer.data.tables.schemas import FAILURES
from gazetteer.diffusion.generate import Picture
from gazetteer.labeling.pipeline.shard import LabelledPicture, drawn


def test_blacked_out_pictures_become_failures_of_their_own_kind() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    items = [make_item("a dog", seed, "settings") for seed in range(3)]
    batch = [LabelledPicture(item, Picture(image, blacked_out=n == 1)) for n, item in enumerate(items)]
    failures: list[dict] = []
    assert [one.item for one in drawn(batch, failures)] == [items[0], items[2]]
    (row,) = pa.Table.from_pylist(failures, schema=FAILURES).to_pylist()
    assert (row["stage"], row["item"], row["error"]) == ("generate", items[1].image_id, "BlackedOut")
    assert "model.safety_checker=false" in row["message"]
