"""Small tables and a small finished run for the tests of everything that reads one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gazetteer.data.core.digests import digest_bytes
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.sealed import seal, unseal
from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.masks import mask_to_struct
from gazetteer.data.tables.schemas import FINAL_TABLES, PART_TABLES

PROVENANCE = {"config": {"steps": 25}}
COUNTS = ("images", "images_asked", "hits", "iou_micro", "intersection", "area")
SITE = {"block": "mid_block.attentions.0", "stream": "image", "signal": "update", "branch": "cond"}


def failures(*items, attempts=1):
    rows = [{"stage": "s", "item": i, "error": "E", "message": "m", "attempts": attempts} for i in items]
    return pa.Table.from_pylist(rows, schema=PART_TABLES["failures"])


def evidence(count):
    row = {**SITE, "t": 0.5, "split": "discovery", "feature": None, "concept": None}
    rows = [{**row, **dict.fromkeys(COUNTS, count), "cells": [count] * 4}]
    return pa.Table.from_pylist(rows, schema=PART_TABLES["evidence"])


def commit(run, shard, count=1):
    """Commit a shard of two tables whose every number is `count`."""
    tables = {"failures": failures(shard, attempts=count), "evidence": evidence(count)}
    return run.commit_shard(shard, tables, {"seen": count}, PROVENANCE)


def picture(number):
    """uint8[8, 12, 3], its top left pixel naming it."""
    pixels = np.full((8, 12, 3), 7, np.uint8)
    pixels[0, 0] = number
    return pixels


def parts(number):
    """One shard's tables: image i<number> with a dog in its top left corner and a code of two features a cell."""
    name, box = f"i{number}", np.zeros((8, 12), bool)
    box[:4, :3] = True
    image = {
        "image_id": name, "prompt": "a dog", "seed": number, "split": "heldout" if number % 2 else "discovery",
        "image": {"bytes": encode_image(picture(number)), "path": f"{name}.png"},
        "width": 12, "height": 8, "asked": ["dog", "cat"],
    }  # fmt: skip
    code = {
        "image_id": name, **SITE, "t": 0.3, "step": 17, "timestep": 301, "height": 1, "width": 2, "k": 2,
        "feature": [3, 1, 2, 0], "value": [1.5, 0.25, 0.5, 0.0],
    }  # fmt: skip
    segment = {
        "image_id": name, "concept": "dog", "score": 0.25 * (number + 1), "box": [0.0, 0.0, 3.0, 4.0], "area": 12,
        "predicted_iou": 0.5, "mask": mask_to_struct(box),
    }  # fmt: skip
    rows = {"images": image, "codes": code, "segments": segment}
    return {table: pa.Table.from_pylist([row], schema=PART_TABLES[table]) for table, row in rows.items()}


def blank(schema, **values):
    """A row of `schema`: `values`, and zeros or empty lists where a value must be."""
    zeros = {"string": "", "bool": False, "list": [], "float": 0.0, "double": 0.0}
    row = {field.name: None if field.nullable else zeros.get(str(field.type).split("<")[0], 0) for field in schema}
    usual = {"kind": "thing", "stream": "image", "signal": "update"}
    return {**row, **{name: value for name, value in usual.items() if row.get(name) == ""}, **values}


def candidates():
    rows = [
        {"t": t, "feature": feature, "concept": concept, "dataset_iou": iou, "q_value": q, "trusted": q < 0.05}
        for t, feature, concept, iou, q in [
            (0.3, 1, "dog", 0.6, 0.001),
            (0.3, 1, "cat", 0.2, 0.04),
            (0.3, 2, "dog", 0.1, 0.5),
            (1.0, 1, "sky", 0.4, 0.01),
        ]
    ]
    schema = FINAL_TABLES["candidates"]
    rows = [blank(schema, model="tiny", **SITE, rank=1 if row["trusted"] else None, **row) for row in rows]
    return pa.Table.from_pylist(rows, schema=schema)


def features():
    schema = FINAL_TABLES["features"]
    top = [{"image_id": "i0", "value": 1.5, "row": 0, "column": 1}]
    best = {"best_label": "dog", "best_dataset_iou": 0.6, "best_q_value": 0.001}
    rows = [
        blank(schema, model="tiny", **SITE, t=0.3, feature=n, labels=labels, top_images=top, **some)
        for n, labels, some in ((1, 2, best), (2, 0, {}))
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def finished_run(path):
    """A finished run of two shards, two images, four tested pairs and two features."""
    run = RunFolder(path).open_or_create({"config": "abc"})
    for number in range(2):
        run.commit_shard(f"s{number}", parts(number), {}, PROVENANCE)
    tested = candidates()
    run.write_final("candidates", tested, PROVENANCE)
    run.write_final("labels", tested.filter(tested["trusted"]).drop_columns(["trusted"]), PROVENANCE)
    run.write_final("features", features(), PROVENANCE)
    run.finish({"shards": ["s0", "s1"]})
    return run


def rewrite(part, change):
    """Replace a part of a run on disk by another, with a record that vouches for it; its name in the run."""
    pq.write_table(change(pq.read_table(part, partitioning=None)), part)
    path = part.parent.parent / "_meta" / "commits" / f"{part.stem.removeprefix('part-')}.json"
    record, content = unseal(path.read_bytes()), part.read_bytes()
    record["tables"][part.parent.name].update(bytes=len(content), sha256=digest_bytes(content))
    path.write_bytes(seal(record))
    return f"{part.parent.name}/{part.name}"
