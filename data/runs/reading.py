"""Rows of Parquet files of a run, with a sentence for whatever is wrong with the file or the question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gazetteer.data.core.digests import digest_bytes
from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.core.files.regular import NotRegularError
from gazetteer.data.core.sites import called_alike
from gazetteer.data.runs.identity import Identity
from gazetteer.data.runs.shards.commits import Commits
from gazetteer.data.runs.shards.records import Commit, part_name
from gazetteer.data.storage.files import Files
from gazetteer.data.tables.schemas import BEFORE_STREAMS, PART_TABLES

_WRITER = {"causal": "causal", "examiners": "examine"}  # final tables that another command than label writes


@dataclass(frozen=True)
class SiteRows:
    """The rows of one site, as a filter by which row groups that hold nothing of it are not even opened.

    Attributes:
        site: its columns (`gazetteer.data.core.sites.SITE_COLUMNS`) by name.
        low, high: of these features alone, and rows of no feature; of a table with a column ``feature`` of numbers.
    """

    site: Mapping[str, Any]
    low: int = 0
    high: int | None = None

    @property
    def expression(self) -> pc.Expression:
        """The same for whoever looks at every row."""
        wanted = reduce(and_, (_is(name, value) for name, value in self.site.items()))
        if self.high is None:
            return wanted
        feature = pc.field("feature")
        return wanted & (feature.is_null() | ((feature >= self.low) & (feature < self.high)))

    def fits(self, schema: pa.Schema) -> bool:
        """Whether a table of this schema has what the rows are told by."""
        numbered = "feature" in schema.names and pa.types.is_integer(schema.field("feature").type)
        return set(self.site) <= set(schema.names) and (self.high is None or numbered)

    def groups(self, file: pq.FileMetaData) -> list[int] | None:
        """The row groups with rows of the site, where every one holds rows of a single site; None where some do not."""
        place = {file.schema.column(i).path: i for i in range(file.num_columns)}
        wanted = []
        for number in range(file.num_row_groups):
            group = file.row_group(number)
            told = {name: group.column(place[name]).statistics for name in self.site}
            if any(stats is None or not stats.has_min_max or stats.min != stats.max for stats in told.values()):
                return None
            if all(_same(name, told[name].min, value) for name, value in self.site.items()) and (
                self.high is None or self._may_hold(group.column(place["feature"]).statistics)
            ):
                wanted.append(number)
        return wanted

    def _may_hold(self, stats: Any) -> bool:
        if stats is None or not stats.has_null_count or stats.null_count:
            return True
        assert self.high is not None
        return not stats.has_min_max or bool(stats.max >= self.low and stats.min < self.high)

    def of_site(self, table: pa.Table) -> pa.Table:
        """Of rows of the site those of the wanted features."""
        if self.high is None:
            return table
        feature = table["feature"]
        inside = pc.and_(pc.greater_equal(feature, self.low), pc.less(feature, self.high))
        return table.filter(pc.fill_null(inside, True))


def _same(name: str, stored: Any, value: Any) -> bool:
    if name != "t":
        return bool(stored == value)
    low, high = called_alike(value)
    return bool(low <= stored <= high)


def _is(name: str, value: Any) -> pc.Expression:
    return at_t(value) if name == "t" else pc.field(name) == value


def at_t(t: float) -> pc.Expression:
    """Rows of the sites that are called by this t (`gazetteer.data.core.sites.called_alike`)."""
    low, high = called_alike(t)
    return (pc.field("t") >= low) & (pc.field("t") <= high)


def rows(
    source: Any, schema: pa.Schema | None, columns: Sequence[str] | None, filter: Any, encoded: Sequence[str] = ()
) -> pa.Table:
    """What is asked for of one Parquet file; OSError or ArrowException when it is damaged (None: known to be).

    Columns of `schema` that older files lack hold what such a file was about
    (`gazetteer.data.tables.schemas.BEFORE_STREAMS`), for the filter too.
    """
    if source is None:
        raise OSError("not what its commit record says")
    if isinstance(filter, SiteRows):
        if (table := _rows_of_site(source, schema, columns, filter, encoded)) is not None:
            return table
        filter = filter.expression
    absent = () if schema is None else older_columns(source, schema)
    if absent:
        return _rows_of_older(source, schema, absent, columns, filter)
    if filter is None:  # no data set for one whole file: it would load pandas, where that is installed
        with pq.ParquetFile(source, read_dictionary=list(encoded), page_checksum_verification=True) as file:
            table = file.read(None if columns is None else list(columns), use_threads=False)
        return table.select(columns or table.column_names).replace_schema_metadata(None)
    return pq.read_table(
        source,
        columns=None if columns is None else list(columns),
        filters=filter,
        partitioning=None,
        use_threads=False,
        page_checksum_verification=True,
        read_dictionary=list(encoded),
    ).replace_schema_metadata(None)


def _rows_of_site(
    source: Any, schema: pa.Schema | None, columns: Sequence[str] | None, wanted: SiteRows, encoded: Sequence[str]
) -> Any:
    """The rows of one site from its row groups; None where some mixes sites, or the file is of an older kind."""
    with pq.ParquetFile(source, read_dictionary=list(encoded), page_checksum_verification=True) as file:
        if schema is not None and _absent(file.schema_arrow.names, schema):
            return None
        groups = wanted.groups(file.metadata)
        if groups is None:
            return None
        names = None if columns is None else list(columns)
        read = names if names is None or wanted.high is None or "feature" in names else [*names, "feature"]
        table = wanted.of_site(file.read_row_groups(groups, columns=read, use_threads=False))
    return table.select(names or table.column_names).replace_schema_metadata(None)


def read_parts(
    files: Files, identity: Identity, commits: Commits, name: str, shards: Sequence[str] | None,
    columns: Sequence[str] | None, filter: Any, encoded: bool,
) -> pa.Table:  # fmt: skip
    """Rows of the committed parts of table `name` (see `gazetteer.data.runs.folder.RunFolder.read_table`)."""
    if name not in PART_TABLES:
        raise InputError(f"There is no table {name!r} in parts; there are {', '.join(PART_TABLES)}.")
    schema = checked_query(name, PART_TABLES[name], columns, filter)
    words = [field.name for field in schema if field.type == pa.string()] if encoded else []
    schema = with_dictionaries(schema) if encoded else schema
    wanted, run = [], identity.digest()
    for shard_id in commits.ids() if shards is None else sorted(set(shards)):
        commit = commits.record(shard_id)
        if commit is None:
            raise InputError(f"Shard {shard_id} of {files.root} is not committed; run gazetteer label again.")
        commits.refuse_foreign(commit, run)
        wanted.append(commit)
    if shards is None:
        commits.groups.refuse_unplanned(wanted)
    pieces = []
    for commit in wanted:
        if name in commit.tables:
            with readable(files.root, part_name(name, commit.shard)):
                source = _part_source(files, name, commit, whole=columns is None)
                piece = rows(source, PART_TABLES[name], columns, filter, words)
            pieces.append(piece.cast(schema))
    return pa.concat_tables(pieces) if pieces else schema.empty_table()


def _part_source(files: Files, name: str, commit: Commit, whole: bool) -> Any:
    """A committed part, its digest checked when it is read whole, else its size; None when it is damaged."""
    path, recorded = part_name(name, commit.shard), commit.tables[name]
    if not whole:  # page checksums cover what will be read of it
        return files.source(path) if files.size(path) == recorded["bytes"] else None
    try:
        content = files.read(path)
    except (FileNotFoundError, NotRegularError):
        return None
    return pa.BufferReader(content) if digest_bytes(content) == recorded["sha256"] else None


def with_dictionaries(schema: pa.Schema) -> pa.Schema:
    """The schema with its strings as numbers into a dictionary: a fraction of the memory where few words repeat."""
    coded = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([field.with_type(coded) if field.type == pa.string() else field for field in schema])


def plain(table: pa.Table) -> pa.Table:
    """The table with words instead of numbers into a dictionary."""
    fields = [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in table.schema]
    return table.cast(pa.schema(fields))


def older_columns(source: Any, schema: pa.Schema) -> list[str]:
    """The columns of `schema` that a file lacks because it was written before there were any."""
    known = [name for name in schema.names if name in BEFORE_STREAMS]
    return _absent(pq.read_schema(source).names, schema) if known else []


def _absent(stored: Sequence[str], schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if name in BEFORE_STREAMS and name not in stored]


def _rows_of_older(
    source: Any, schema: pa.Schema, absent: Sequence[str], columns: Sequence[str] | None, filter: Any
) -> pa.Table:
    """The columns that are absent are told to Arrow as those of a partition are: by an expression that holds.

    One that no expression speaks of is null in every row.
    """
    import pyarrow.dataset as ds

    known = (ds.field(name) == BEFORE_STREAMS[name] for name in absent if BEFORE_STREAMS[name] is not None)
    holds = reduce(and_, known, ds.scalar(True))
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
    stored = pq.read_schema(source).remove_metadata()
    full = pa.schema([schema.field(name) for name in schema.names if name in absent or name in stored.names])
    if isinstance(filter, list | tuple):
        filter = pq.filters_to_expression(filter)
    file = pa.OSFile(source) if isinstance(source, str) else source
    fragment = parquet.make_fragment(file, partition_expression=holds)
    dataset = ds.FileSystemDataset([fragment], full, parquet)
    names = full.names if columns is None else list(columns)
    return dataset.to_table(columns=names, filter=filter, use_threads=False)


def checked_query(name: str, schema: pa.Schema, columns: Sequence[str] | None, filter: Any) -> pa.Schema:
    """The schema of the answer; InputError for a column or filter that does not fit table `name`."""
    for column in columns or ():
        if column not in schema.names:
            raise InputError(f"The table {name} has no column {column!r}; it has {', '.join(schema.names)}.")
    # Rows of a site fit every table that has sites: trying it out would cost more than reading a small shard.
    if filter is not None and not (isinstance(filter, SiteRows) and filter.fits(schema)):
        try:
            expression = pq.filters_to_expression(filter) if isinstance(filter, list | tuple) else filter
            expression = expression.expression if isinstance(expression, SiteRows) else expression
            schema.empty_table().filter(expression)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InputError(f"The filter does not fit the table {name} ({error}).") from error
    return schema if columns is None else pa.schema([schema.field(column) for column in columns])


@contextmanager
def readable(root: str, path: str) -> Iterator[None]:
    """Turn what pyarrow says of a damaged file of the run at `root` into a sentence with what helps (InputError)."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        anew = f"run gazetteer {writer_of(path.removesuffix('.parquet'))} again, which makes it anew"
        drop = f"run gazetteer verify {root} --drop, then run gazetteer label again"
        raise InputError(
            f"{root}/{path} is missing or corrupt ({first_line(error)}); {drop if '/' in path else anew}."
        ) from error


def writer_of(name: str) -> str:
    """The command that writes a final table."""
    return _WRITER.get(name, "label")
