"""A check on the whole procedure: give every image another image's concepts and count the labels that still pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gazetteer.data.core.sites import Site
from gazetteer.labeling.evidence.concept_maps import inputs_of_tables
from gazetteer.labeling.evidence.config import EvidenceConfig
from gazetteer.labeling.evidence.counts import build_evidence, sum_evidence
from gazetteer.labeling.evidence.site_codes import array_of, codes_by_site
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.null import seeded
from gazetteer.labeling.rules.reduce import reduce_tables

_CHUNK = 16  # images whose masks are unpacked at a time


def shuffle_concepts(segments: pa.Table, images: pa.Table, seed: int) -> pa.Table:
    """Move the segments of each concept to other images, all segments of an image together, masks unchanged.

    Each concept is shuffled on its own, among the images of equal split and size that were asked for it, by a
    random cycle: no image keeps its own unless it is alone in its group. How often a concept occurs, and where in
    the picture, stays; whether a feature fired for it is lost.

    Args:
        segments, images: schemas.SEGMENTS and schemas.IMAGES.
        seed: decides the cycles, with the concept.
    Returns:
        `segments` with another `image_id` column.
    """
    columns = ["image_id", "split", "height", "width", "asked"]
    groups: dict[tuple[object, ...], list[str]] = {}
    rows = {row["image_id"]: row for row in images.select(columns).to_pylist()}
    owners, concepts = segments["image_id"].to_pylist(), segments["concept"].to_pylist()
    asked = {image_id: set(row["asked"]) for image_id, row in rows.items()}
    for image_id, concept in zip(owners, concepts, strict=True):
        asked[image_id].add(concept)
    for image_id in sorted(rows):
        row = rows[image_id]
        for concept in sorted(asked[image_id]):
            groups.setdefault((concept, row["split"], row["height"], row["width"]), []).append(image_id)
    moved: dict[tuple[str, str], str] = {}
    for key, members in groups.items():
        order = seeded("shuffle", seed, *key).permutation(len(members))
        for here, following in zip(order, np.roll(order, 1), strict=True):
            moved[str(key[0]), members[here]] = members[following]
    new = [moved[concept, image_id] for image_id, concept in zip(owners, concepts, strict=True)]
    return segments.set_column(
        segments.schema.get_field_index("image_id"), segments.schema.field("image_id"), pa.array(new, pa.string())
    )


def evidence_of_tables(
    images: pa.Table,
    codes: pa.Table,
    segments: pa.Table,
    base: Sequence[str] = (),
    config: EvidenceConfig = EvidenceConfig(),
) -> pa.Table:
    """The evidence of a run's tables, as the shards would have counted it."""
    inputs = inputs_of_tables(images, segments, codes)
    chunks = iter(lambda: list(islice(inputs, _CHUNK)), [])
    return sum_evidence(build_evidence(chunk, base, config) for chunk in chunks)


def shuffled_label_counts(
    images: pa.Table,
    codes: pa.Table,
    segments: pa.Table,
    feature_counts: Mapping[Site, int],
    base: Sequence[str] = (),
    evidence_config: EvidenceConfig = EvidenceConfig(),
    label_config: LabelConfig = LabelConfig(),
    seed: int = 0,
    given: bool = False,
) -> dict[str, int]:
    """How many labels pass on the run itself and after its concepts were shuffled across images.

    Args:
        given: see `reduce_tables`.
    Returns:
        {"trusted", "q", "paper"} and the same with "_shuffled": pairs (site, feature, concept) by the trust rule, by
        its q-value alone (at most `label_config.max_q`) and by the published rule (at least one hit). What a given
        picture leaves undecided is so beside its own masks; beside those of others all that fires counts.
    """
    counts: dict[str, int] = {}
    flat = codes_by_site(codes)
    grids = {(cells.height, cells.width) for cells in flat.values()}
    moved, decided = shuffle_concepts(segments, images, seed), _decided(codes)
    for suffix, shown, fires in (("", segments, codes), ("_shuffled", moved, decided)):
        evidence = evidence_of_tables(images, fires, shown, base, evidence_config)
        sites = flat if fires is codes else {site: replace(own, ignored=None) for site, own in flat.items()}
        tables = reduce_tables(
            images, sites.items(), grids, shown, evidence, feature_counts, "", label_config, given=given
        )
        # Looks and places are found in the prompts and the frame, which nobody shuffled.
        candidates = tables["candidates"].filter(~pc.field("kind").isin(["style", "place"]))
        for name, column in (("trusted", "trusted"), ("paper", "paper_label")):
            counts[name + suffix] = int(candidates[column].to_numpy().sum())
        # Comparisons with NaN, which stands for pairs that were not tested, are false.
        counts["q" + suffix] = int((candidates["q_value"].to_numpy() <= label_config.max_q).sum())
    return counts


def _decided(codes: pa.Table) -> pa.Table:
    """schemas.CODES without the marks of cells that nobody decided on (`SparseMap.value`); itself where it has none."""
    column = array_of(codes["value"])
    values = column.flatten().to_numpy(zero_copy_only=False)
    if not (values < 0).any():
        return codes
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, pa.array(np.abs(values)))
    return codes.set_column(codes.schema.get_field_index("value"), codes.schema.field("value"), lists)
