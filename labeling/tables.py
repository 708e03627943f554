"""One-line access to a run's tables; every filter is pushed down to the Parquet reader.

The files are plain Parquet: pandas, polars, DuckDB, pyarrow and HF datasets open them with no Gazetteer
installed (docs/reference/tables.md). These functions add names for the usual questions and sentences for the usual
mistakes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from operator import and_

import pyarrow as pa
import pyarrow.compute as pc

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SITE_COLUMNS
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.reading import at_t
from gazetteer.labeling.questions import questioned

Run = str | os.PathLike[str] | RunFolder
OneOrMore = str | Sequence[str]
PAIR = (*SITE_COLUMNS, "feature", "concept")


@questioned
def load_labels(
    run: Run,
    *,
    block: str | None = None,
    stream: str | None = None,
    signal: str | None = None,
    branch: str | None = None,
    t: float | None = None,
    concept: OneOrMore | None = None,
    kind: OneOrMore | None = None,
    feature: int | None = None,
    max_q: float | None = None,
    min_iou: float | None = None,
    columns: Sequence[str] | None = None,
    causal: bool = False,
) -> pa.Table:
    """The trusted labels (labels.parquet), best first within a feature.

    Args:
        run: folder or URL of a finished run.
        block, stream, signal, branch, t: one site, or a slice over those left out.
        concept: one concept, or any of several; in capitals or the plural where that is no concept of its own.
        kind: one kind of label, or any of several: thing, stuff, part (`data.tables.schemas.SPATIAL_KINDS`), scene,
            style, place, word.
        feature: one feature index.
        max_q: only rows with q_value ≤ this.
        min_iou: only rows with dataset_iou ≥ this.
        columns: only these columns.
        causal: add the ``causal_*`` columns of causal.parquet (`load_causal`), null where a label was not tried,
            as those that do not say where are not.

    Raises:
        InputError: not a finished run, a damaged file, an unknown column, or no causal pass where one is asked for.
    """
    wanted = [
        *_pair(block, stream, signal, branch, t, feature, concept),
        *_is("kind", kind),
        *_evidence(max_q, min_iou),
    ]
    if not causal:
        return _finished(run).read_final("labels", columns, _all(wanted))
    return _with_causal(run, "labels", PAIR, columns, wanted, lambda table: table.filter(pc.field("labelled")))


@questioned
def load_candidates(
    run: Run,
    *,
    block: str | None = None,
    stream: str | None = None,
    signal: str | None = None,
    branch: str | None = None,
    t: float | None = None,
    concept: OneOrMore | None = None,
    feature: int | None = None,
    max_q: float | None = None,
    min_iou: float | None = None,
    kind: OneOrMore | None = None,
    trusted: bool | None = None,
    paper_label: bool | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Every pair that meets in a discovery picture, tested or not, and the best look and place of each feature
    (candidates.parquet), with both verdicts; arguments as in `load_labels`."""
    wanted = [
        *_pair(block, stream, signal, branch, t, feature, concept),
        *_is("kind", kind),
        *_evidence(max_q, min_iou),
    ]
    wanted += [*_is("trusted", trusted), *_is("paper_label", paper_label)]
    return _finished(run).read_final("candidates", columns, _all(wanted))


@questioned
def load_features(
    run: Run,
    *,
    block: str | None = None,
    stream: str | None = None,
    signal: str | None = None,
    branch: str | None = None,
    t: float | None = None,
    concept: OneOrMore | None = None,
    feature: int | None = None,
    max_q: float | None = None,
    labelled: bool | None = None,
    columns: Sequence[str] | None = None,
    causal: bool = False,
) -> pa.Table:
    """One row per feature (features.parquet).

    Args:
        run, block, stream, signal, branch, t, feature, columns: as in `load_labels`.
        concept: only features whose best_label is this, or any of several.
        max_q: only rows with best_q_value ≤ this, so none without a label.
        labelled: only features with (or without) a trusted label.
        causal: add the concept that the feature raises most surely (least `causal_q_value`, then largest
            `causal_area`) as ``causal_concept``, with the other ``causal_*`` columns of that pair; null for features
            that were not tried or raise none.

    Raises:
        InputError: as `load_labels`.
    """
    wanted = [
        *_pair(block, stream, signal, branch, t, feature),
        *_is("best_label", concept),
        *_at_most("best_q_value", max_q),
    ]
    if labelled is not None:
        wanted.append(pc.field("labels") > 0 if labelled else pc.field("labels") == 0)
    if not causal:
        return _finished(run).read_final("features", columns, _all(wanted))
    return _with_causal(run, "features", PAIR[:-1], columns, wanted, _strongest)


@questioned
def load_causal(
    run: Run,
    *,
    block: str | None = None,
    stream: str | None = None,
    signal: str | None = None,
    branch: str | None = None,
    t: float | None = None,
    concept: OneOrMore | None = None,
    feature: int | None = None,
    verdict: OneOrMore | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """What switching features on did, beside other features (causal.parquet, written by ``gazetteer causal``).

    Args:
        verdict: only these values of `causal_verdict`; the others as in `load_labels`.

    Raises:
        InputError: not a finished run, no causal pass was made, a damaged file, or an unknown column.
    """
    wanted = [*_pair(block, stream, signal, branch, t, feature, concept), *_is("causal_verdict", verdict)]
    folder = _finished(run)
    if not folder.has_final("causal"):
        raise InputError(f"{folder.path} has no causal.parquet; gazetteer causal writes it.")
    return folder.read_final("causal", columns, _all(wanted))


@questioned
def load_segments(
    run: Run,
    *,
    concept: OneOrMore | None = None,
    image_id: OneOrMore | None = None,
    min_score: float | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """The segments of the committed shards (segments/), with masks as COCO run lengths (data/tables/masks.py)."""
    wanted = [*_is("concept", concept), *_is("image_id", image_id)]
    if min_score is not None:
        wanted.append(pc.field("score") >= pa.scalar(min_score, pa.float32()))
    return _started(run).read_table("segments", columns=columns, filter=_all(wanted))


@questioned
def load_images(
    run: Run,
    *,
    split: str | None = None,
    image_id: OneOrMore | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """The images of the committed shards (images/); `data.tables.images.decode_image` reads ``image["bytes"]``."""
    wanted = [*_is("split", split), *_is("image_id", image_id)]
    return _started(run).read_table("images", columns=columns, filter=_all(wanted))


def _with_causal(
    run: Run,
    name: str,
    keys: Sequence[str],
    columns: Sequence[str] | None,
    wanted: list[pc.Expression],
    chosen: Callable[[pa.Table], pa.Table],
) -> pa.Table:
    """The wanted rows of a final table with what the causal pass says of their keys: `chosen` of its rows."""
    folder = _finished(run)
    wanted_columns = None if columns is None else list(dict.fromkeys([*keys, *columns]))
    table = _joined(folder.read_final(name, wanted_columns, _all(wanted)), chosen(load_causal(folder)), keys)
    if columns is None:
        return table
    return table.select([*columns, *(column for column in table.column_names if column.startswith("causal_"))])


def _strongest(causal: pa.Table) -> pa.Table:
    """Of every feature the pair that rises most surely; `concept` becomes `causal_concept`."""
    rising = causal.filter((pc.field("causal_q_value") <= 0.05) & (pc.field("causal_area") > 0))
    rising = rising.sort_by([("causal_q_value", "ascending"), ("causal_area", "descending"), ("concept", "ascending")])
    seen: set[tuple[object, ...]] = set()
    first = []
    for i, row in enumerate(rising.select(PAIR[:-1]).to_pylist()):
        if tuple(row.values()) not in seen:
            seen.add(tuple(row.values()))
            first.append(i)
    names = {"concept": "causal_concept"}
    chosen = rising.take(pa.array(first, pa.int64()))
    return chosen.rename_columns([names.get(name, name) for name in chosen.column_names])


def _joined(table: pa.Table, causal: pa.Table, keys: Sequence[str]) -> pa.Table:
    """`table` with the ``causal_*`` columns, in its own order."""
    extra = [name for name in causal.column_names if name.startswith("causal_")]
    numbered = table.append_column("_row", pa.array(range(table.num_rows), pa.int64()))
    joined = numbered.select([*keys, "_row"]).join(causal.select([*keys, *extra]), keys, join_type="left outer")
    joined = joined.sort_by("_row")
    for name in extra:
        table = table.append_column(name, joined[name])
    return table


def _opened(run: Run) -> RunFolder:
    return run if isinstance(run, RunFolder) else RunFolder(run)


def _finished(run: Run) -> RunFolder:
    """The run, unless it is under way: then its tables are of what it was before, or of two settings."""
    folder = _opened(run)
    if folder.exists() and not folder.is_complete():
        raise InputError(f"{folder.path} is not a finished run; {folder.how_to_finish()}.")
    return folder


def _started(run: Run) -> RunFolder:
    folder = _opened(run)
    if not folder.exists():
        raise InputError(f"{folder.path} is not a run folder: _meta/run.json is missing; run gazetteer label.")
    return folder


def _pair(
    block: str | None, stream: str | None, signal: str | None, branch: str | None, t: float | None,
    feature: int | None, concept: OneOrMore | None = None,
) -> list[pc.Expression]:  # fmt: skip
    """Conditions on the keys of a (site, feature, concept); None leaves one free."""
    wanted = [*_is("block", block), *_is("stream", stream), *_is("signal", signal), *_is("branch", branch)]
    if t is not None:
        wanted.append(at_t(t))
    return [*wanted, *_is("feature", feature), *_is("concept", concept)]


def _evidence(max_q: float | None, min_iou: float | None) -> list[pc.Expression]:
    wanted = _at_most("q_value", max_q)
    if min_iou is not None:
        wanted.append(pc.field("dataset_iou") >= min_iou)
    return wanted


def _at_most(column: str, value: float | None) -> list[pc.Expression]:
    return [] if value is None else [pc.field(column) <= value]


def _is(column: str, value: OneOrMore | int | None) -> list[pc.Expression]:
    if value is None:
        return []
    if isinstance(value, str | int):
        return [pc.field(column) == value]
    return [pc.field(column).isin(pa.array(value, pa.string()))]


def _all(wanted: list[pc.Expression]) -> pc.Expression | None:
    return functools.reduce(and_, wanted) if wanted else None
