"""What a table was made from, carried in the Parquet file's metadata under the key `gazetteer`.

No time stamps, host names or paths: two runs of one config on one set of packages write the same bytes.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gazetteer.data.core.digests import canonical_json
from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.core.plain_json import json_object
from gazetteer.data.tables.schemas import SCHEMA_VERSION

KEY = b"gazetteer"
PACKAGES = ("gazetteer", "torch", "diffusers", "transformers", "ray", "pyarrow")


def package_versions() -> dict[str, str]:
    """Version of every package that shapes a run's numbers; absent ones are left out."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def provenance(fingerprint: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The provenance of a run.

    Args:
        fingerprint: digests of the config, the models' weights and the SAEs (`RunFolder.open_or_create`).
        config: the configuration as JSON-ready values, without anything that names a machine.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint,
        "config": config,
        "packages": package_versions(),
    }


def with_provenance(table: pa.Table, value: dict[str, Any]) -> pa.Table:
    """The table with `value` as its only Gazetteer metadata; other keys stay."""
    others = {key: text for key, text in (table.schema.metadata or {}).items() if key != KEY}
    return table.replace_schema_metadata({**others, KEY: canonical_json(value).encode("utf-8", "surrogatepass")})


def read_provenance(source: Any, *parts: str) -> dict[str, Any]:
    """The provenance of a Parquet file (path or file object).

    Args:
        parts: keys that must be there and hold objects.

    Raises:
        InputError: it has none, or one of another shape.
    """
    try:
        content = (pq.read_schema(source).metadata or {}).get(KEY)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{source} cannot be read as Parquet ({first_line(error)}).") from error
    if content is None:
        raise InputError(f"{source} was not written by gazetteer: its metadata has no key 'gazetteer'.")
    try:
        said = json_object(content)
    except ValueError as error:
        raise InputError(f"{source} carries provenance that is no JSON object; make the file again.") from error
    for part in parts:
        if not isinstance(said.get(part), dict):
            raise InputError(f"{source} carries provenance whose {part} is no JSON object; make the file again.")
    return said
