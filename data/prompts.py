"""Prompts, the images they stand for, and the shards those are cut into: all named by content alone."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.errors import InputError

ACCEPTED = "a .txt (one prompt a line), .csv, .jsonl or .parquet file (text ones also as .gz)"


@dataclass(frozen=True, order=True)
class Item:
    """One image to make.

    Attributes:
        prompt: the text.
        seed: of the noise; 0 to 2**63 - 1.
        image_id: 16 hex digits of prompt, seed and the models' digest.
    """

    prompt: str
    seed: int
    image_id: str


@dataclass(frozen=True)
class Shard:
    """Items that are computed and committed together, sorted by image id; the id follows from them."""

    id: str
    items: tuple[Item, ...]


def make_item(prompt: str, seed: int, fingerprint: str) -> Item:
    """The item of `prompt` and `seed` under a digest of everything else that shapes the image."""
    if not 0 <= seed < 2**63:
        raise InputError(f"A seed lies between 0 and 2**63 - 1, not {seed}.")
    return Item(prompt, seed, _digest("image", prompt, str(seed), fingerprint)[:16])


def shards_of(items: Iterable[Item], size: int) -> list[Shard]:
    """Cut items into shards of at most `size`, the same whatever their order; repeated items count once."""
    if size < 1:
        raise InputError(f"A shard holds at least one image, not {size}.")
    ordered = sorted({item.image_id: item for item in items}.values(), key=lambda item: item.image_id)
    cut = [tuple(ordered[start : start + size]) for start in range(0, len(ordered), size)]
    return [Shard(_digest("shard", *(item.image_id for item in part))[:16], part) for part in cut]


def split_of(prompt: str, heldout_share: float) -> str:
    """``discovery`` or ``heldout``, by a hash of the prompt: all images of one prompt are on one side."""
    if not 0.0 <= heldout_share <= 1.0:
        raise InputError(f"The held-out share lies between 0 and 1, not {heldout_share}.")
    place = int(_digest("split", prompt)[:13], 16) / 16**13  # 52 bits: exact in a double, below 1
    return "heldout" if place < heldout_share else "discovery"


def read_prompts(path: str | os.PathLike[str], column: str = "prompt") -> list[str]:
    """The prompts of a file, stripped, empty ones left out, each once, in order.

    Args:
        path: .txt (one a line), .csv with a header, .jsonl (an object a line) or .parquet; text also as .gz.
        column: which column or key holds the prompt; .txt has none.

    Raises:
        InputError: no such file, another format, no such column, bytes that are not UTF-8, or no prompts.
    """
    path = Path(path)
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    zipped = path.name.lower().endswith(".gz")
    if kind not in ("txt", "csv", "jsonl", "parquet") or (zipped and kind == "parquet"):
        raise InputError(f"Prompts cannot be read from {path}; accepted: {ACCEPTED}.")
    if not path.is_file():
        raise InputError(f"There is no prompts file {path}; accepted: {ACCEPTED}.")
    if kind == "parquet":
        found: Iterable[str | None] = _from_parquet(path, column)
    else:
        text = _text(path, zipped)
        found = {"txt": _from_txt, "csv": _from_csv, "jsonl": _from_jsonl}[kind](path, text, column)
    prompts = list(dict.fromkeys(stripped for prompt in found if prompt and (stripped := prompt.strip())))
    if not prompts:
        raise InputError(f"{path} holds no prompts; accepted: {ACCEPTED}.")
    return prompts


def _digest(*parts: str) -> str:
    # Lengths keep ("a", "bc") apart from ("ab", "c").
    running = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        running.update(len(raw).to_bytes(8, "little") + raw)
    return running.hexdigest()


def _text(path: Path, zipped: bool) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if zipped else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); accepted: {ACCEPTED}.") from error


def _from_txt(path: Path, text: str, column: str) -> Iterator[str]:
    yield from text.split("\n")


def _from_csv(path: Path, text: str, column: str) -> Iterator[str | None]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in rows.fieldnames or []]
        rows.fieldnames = names
        if column not in names:
            raise _unknown_column(path, column, names)
        for row in rows:
            yield row[column]
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: not CSV ({error}).") from error


def _from_jsonl(path: Path, text: str, column: str) -> Iterator[str | None]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not a JSON object with the key {column!r}.")
        if column not in row:
            raise _unknown_column(path, column, list(row), f", line {number}")
        if not isinstance(row[column], str | None):
            raise InputError(f"{path}, line {number}: {column!r} is not text.")
        yield row[column]


def _from_parquet(path: Path, column: str) -> list[str | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if column not in file.schema_arrow.names:
            raise _unknown_column(path, column, file.schema_arrow.names)
        return list(file.read([column]).column(column).cast(pa.string()).to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet with text in {column!r} ({error}).") from error


def _unknown_column(path: Path, column: str, names: list[str], where: str = "") -> InputError:
    return InputError(f"{path}{where} has no column {column!r}; it has: {', '.join(map(str, names)) or 'none'}.")
