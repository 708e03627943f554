"""A finished run becomes a folder of static pages (`write_atlas`)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gazetteer.data.core.digests import digest_bytes, digest_json
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import write_errors
from gazetteer.data.core.files.regular import require_local
from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder, open_finished
from gazetteer.data.storage.open import open_files
from gazetteer.data.storage.place import holds
from gazetteer.labeling.atlas import payload
from gazetteer.labeling.atlas.activity import activity_of
from gazetteer.labeling.atlas.catalog import Catalog, read_catalog
from gazetteer.labeling.atlas.maps import CODE_COLUMNS, FoundMaps, collect_maps, wanted_maps
from gazetteer.labeling.atlas.pages import write_pages
from gazetteer.labeling.atlas.pictures import IMAGE_COLUMNS, SEGMENT_COLUMNS, concept_images, image_records
from gazetteer.labeling.atlas.script import safe_ids, write_script
from gazetteer.labeling.atlas.sheets import Paths, write_edits, write_layouts
from gazetteer.labeling.evidence.run_codes import all_codes

Progress = Callable[[str, int, int], None]
DecoderOf = Callable[[Site], NDArray[Any]]
EXAMPLES = 8


@dataclass(frozen=True)
class AtlasSummary:
    """What was written.

    Attributes:
        index: the page to open.
        sites, features, labelled, concepts, images: how many the atlas shows.
        files, bytes: what it takes on disk.
        seconds: how long it took.
    """

    index: Path
    sites: int
    features: int
    labelled: int
    concepts: int
    images: int
    files: int
    bytes: int
    seconds: float


def write_atlas(
    run: RunFolder | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    top: int = 6,
    layouts: Paths = (),
    edits: Paths = (),
    decoder_of: DecoderOf | None = None,
) -> AtlasSummary:
    """Write the pages of a finished run to the folder `out`, which appears whole or not at all.

    The same run gives the same pages, byte for byte.

    Args:
        run: a run folder or its path; it is only read.
        out: a folder that does not exist, is empty, or holds an earlier atlas, which is then replaced.
        progress: called with a stage's name, how many of its parts are done, and of how many.
        top: plates a feature, at most what the features table kept.
        layouts: folders of `gazetteer layout predict`, for the page of layouts.
        decoder_of: gives a site's decoder vectors, float [features, d], for the features that are alike; None leaves
            those out.
        edits: folders of `gazetteer steer` and `gazetteer attribute sheet`, for the page of steering sheets.

    Raises:
        InputError: the run is not finished, an image id cannot name a file, a picture or mask is corrupt, or `out`
            holds something else.
        GazetteerError: `out` cannot be written.
    """
    started = time.monotonic()
    folder = open_finished(run)
    target = require_local(out)
    if top < 1:
        raise InputError(f"top is the number of plates a feature, at least 1, not {top}.")
    check_target(target)
    for source in (folder.path, *layouts, *edits):
        if holds(target, source):  # it would go with the earlier pages
            raise InputError(f"The atlas's folder {target} holds {os.fspath(source)}; choose another folder.")
    staging = target.absolute().parent / f".{target.absolute().name}.{os.getpid()}"
    with write_errors(str(target)):
        try:
            staging.mkdir(parents=True)
            counts = _build(folder, staging, progress or _silent, top, layouts, edits, decoder_of)
            if target.exists():
                shutil.rmtree(target)
            os.replace(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    sizes = [path.stat().st_size for path in target.rglob("*") if path.is_file()]
    spent = time.monotonic() - started
    return AtlasSummary(target / "index.html", **counts, files=len(sizes), bytes=sum(sizes), seconds=spent)


def run_digest(run: RunFolder) -> str:
    """What an atlas was made of: a digest of what the run finished with, of the causal table that may have come since,
    and of how its pages are written."""
    made = {"manifest": run.read_json("manifest.json"), "pages": payload.VERSION}
    if run.has_final("causal"):
        made["causal"] = digest_bytes(open_files(run.path).read("causal.parquet"))
    return digest_json(made)


def check_target(target: Path) -> None:
    """InputError unless `target` is free, empty or an earlier atlas, and no link."""
    if target.is_symlink():
        raise InputError(f"{target} is a link, and an atlas takes the place of its folder; give the folder itself.")
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"{target} is a file; an atlas needs a folder.")
    if any(target.iterdir()) and not (target / "data" / "atlas.js").is_file():
        raise InputError(f"{target} is not empty and holds no atlas; choose another folder, so that nothing is lost.")


def _silent(stage: str, done: int, total: int) -> None:
    return None


def _build(
    run: RunFolder, out: Path, progress: Progress, top: int, layouts: Paths, edits: Paths,
    decoder_of: DecoderOf | None,
) -> dict[str, int]:  # fmt: skip
    """Write everything below `out`; how many sites, features, … there are."""
    progress("tables", 0, 1)
    catalog = read_catalog(run, top)
    known = set(run.read_table("images", columns=["image_id"])["image_id"].to_pylist())
    pairs = _plates(catalog, known)
    segments = run.read_table("segments", columns=["image_id", "concept", "area"])
    examples, counts = concept_images(segments, known, EXAMPLES)
    used = {image_id for wanted in pairs.values() for image_id, _ in wanted}
    used |= {image_id for images in examples.values() for image_id in images}
    numbers = {image_id: number for number, image_id in enumerate(safe_ids(sorted(used)))}
    _attach_activity(run, catalog, used, pairs, decoder_of, progress)
    concepts = sorted(catalog.label_concepts() | set(counts), key=lambda name: (name.casefold(), name))
    concept_numbers = {concept: number for number, concept in enumerate(concepts)}
    progress("tables", 1, 1)
    maps, records = _read_shards(run, out, catalog, pairs, numbers, concept_numbers, progress)

    write_pages(out)
    extras = {"layouts": write_layouts(layouts, out), "edits": write_edits(edits, out)}
    write_script(out, "atlas", {"run": run_digest(run), **payload.atlas_payload(catalog, concepts, len(known), extras)})
    write_script(out, "features", payload.index_payload(catalog, numbers, concept_numbers))
    _write_chunks(out, "images", _image_chunks(records, list(numbers)))
    _write_chunks(out, "concepts", payload.concept_chunks(catalog, concepts, numbers, examples, counts))
    for done, part in enumerate(catalog.parts, start=1):
        _write_chunks(out, part.folder, payload.feature_chunks(part, numbers, concept_numbers, maps))
        progress("pages", done, len(catalog.parts))
    return {
        "sites": len(catalog.parts),
        "features": sum(len(part.features) for part in catalog.parts),
        "labelled": sum(len(part.labels) for part in catalog.parts),
        "concepts": len(concepts),
        "images": len(numbers),
    }


def _plates(catalog: Catalog, known: set[str]) -> dict[Site, list[tuple[str, int]]]:
    """Every (image, feature) of a plate, by site; images that the run no longer has are struck from the catalog."""
    pairs: dict[Site, list[tuple[str, int]]] = {}
    for part in catalog.parts:
        pairs[part.site] = []
        for row in part.features:
            row["top_images"] = [place for place in row["top_images"] if place["image_id"] in known]
            pairs[part.site] += [(place["image_id"], row["feature"]) for place in row["top_images"]]
    return pairs


def _attach_activity(
    run: RunFolder,
    catalog: Catalog,
    shown: set[str],
    pairs: dict[Site, list[tuple[str, int]]],
    decoder_of: DecoderOf | None,
    progress: Progress,
) -> None:
    """Read every site's codes once: how its features fire; examples by quantile join the plates in `pairs`."""
    parts = {part.site: part for part in catalog.parts}
    for done, (site, codes) in enumerate(all_codes(run), start=1):
        part = parts.get(site)
        if part is None:
            continue
        decoder = None if decoder_of is None else decoder_of(site)
        top = {row["feature"]: [place["image_id"] for place in row["top_images"]] for row in part.features}
        part.activity = activity_of(codes, shown, top, decoder)
        pairs[site] += [(example[1], number) for number, rows in part.activity.examples.items() for example in rows]
        progress("activity", done, len(parts))


def _read_shards(
    run: RunFolder,
    out: Path,
    catalog: Catalog,
    pairs: dict[Site, list[tuple[str, int]]],
    numbers: dict[str, int],
    concepts: dict[str, int],
    progress: Progress,
) -> tuple[FoundMaps, dict[str, dict[str, Any]]]:
    """One pass over the parts: heat maps, thumbnails and image records."""
    wanted = wanted_maps(pairs)
    maps: FoundMaps = {}
    grids: dict[Site, tuple[int, int]] = {}
    records: dict[str, dict[str, Any]] = {}
    pictures = out / "images"
    pictures.mkdir()
    shown = pc.is_in(pc.field("image_id"), value_set=pa.array(list(numbers), pa.string()))
    manifest = run.read_json("manifest.json") or {}
    # Shard by shard where the run says which there are, so that memory does not grow with it.
    shards: list[list[str] | None] = [[shard] for shard in manifest.get("shards", [])] or [None]
    for done, shard in enumerate(shards, start=1):
        images = run.read_table("images", shard, list(IMAGE_COLUMNS), shown)
        segments = run.read_table("segments", shard, list(SEGMENT_COLUMNS), shown)
        records.update(image_records(images, segments, concepts, pictures))
        collect_maps(run.read_table("codes", shard, list(CODE_COLUMNS), shown), wanted, maps, grids)
        progress("pictures", done, len(shards))
    for part in catalog.parts:
        part.grid = grids.get(part.site)
    return maps, records


def _image_chunks(records: dict[str, dict[str, Any]], order: list[str]) -> list[list[dict[str, Any]]]:
    rows = [records[image_id] for image_id in order]
    return [rows[start : start + payload.IMAGE_CHUNK] for start in range(0, len(rows), payload.IMAGE_CHUNK)]


def _write_chunks(out: Path, name: str, chunks: list[list[dict[str, Any]]]) -> None:
    for number, chunk in enumerate(chunks):
        write_script(out, f"{name}/{number}", chunk)
