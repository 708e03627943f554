"""A Croissant description of a published run (JSON-LD, mlcommons.org/croissant/1.0): files, digests, columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from gazetteer.jobs.label.tables import Table

NAME = "croissant.json"
_CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field",
    "fileObject": "cr:fileObject", "fileProperty": "cr:fileProperty", "fileSet": "cr:fileSet", "format": "cr:format",
    "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key",
    "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path", "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated",
    "replace": "cr:replace", "sc": "https://schema.org/", "separator": "cr:separator", "source": "cr:source",
    "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
_KEYS = frozenset(
    {"@context", "@type", "conformsTo", "name", "description", "license", "url", "distribution", "recordSet"}
)
_PARQUET = "application/x-parquet"


def croissant(
    tables: Sequence[Table], digests: Mapping[str, str], *, name: str, description: str, license: str, url: str
) -> dict[str, Any]:
    """The description as JSON-ready values.

    Args:
        tables: what is published.
        digests: sha256, hexadecimal, of every file at the top.
        name, description, license, url: of the data set; empty ones are left out.
    """
    about = {"name": name, "description": description, "license": license, "url": url}
    repository = {
        "@type": "cr:FileObject", "@id": "repository", "name": "repository", "description": "The repository itself.",
        "contentUrl": url or ".", "encodingFormat": "git+https", "sha256": "https://github.com/mlcommons/croissant/issues/80",
    }  # fmt: skip
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        **{key: value for key, value in about.items() if value},
        "distribution": [repository, *(_file(table, digests) for table in tables)],
        "recordSet": [_records(table) for table in tables],
    }


def is_ours(content: bytes) -> bool:
    """Whether a description is one that `croissant` gave, with nothing of a person's beside it."""
    try:
        said = json.loads(content)
        ids = {part["@id"] for part in said["distribution"]}
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return {"repository", "labels-files"} <= ids and said.keys() <= _KEYS


def _file(table: Table, digests: Mapping[str, str]) -> dict[str, Any]:
    about = {"@id": f"{table.name}-files", "name": f"{table.name}-files", "description": f"{table.meaning}."}
    if "*" in table.files:
        return {
            "@type": "cr:FileSet", **about, "containedIn": {"@id": "repository"}, "encodingFormat": _PARQUET,
            "includes": table.files,
        }  # fmt: skip
    return {
        "@type": "cr:FileObject", **about, "containedIn": {"@id": "repository"}, "contentUrl": table.files,
        "encodingFormat": _PARQUET, "sha256": digests[table.files],
    }  # fmt: skip


def _records(table: Table) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": table.name,
        "name": table.name,
        "description": f"{table.meaning}.",
        "field": [_field(table, column) for column in table.schema],
    }


def _field(table: Table, column: pa.Field) -> dict[str, Any]:
    kind, repeated = column.type, False
    while pa.types.is_list(kind):
        kind, repeated = kind.value_type, True
    source: dict[str, Any] = {
        ("fileSet" if "*" in table.files else "fileObject"): {"@id": f"{table.name}-files"},
        "extract": {"column": column.name},
    }
    field: dict[str, Any] = {
        "@type": "cr:Field", "@id": f"{table.name}/{column.name}", "name": column.name, "dataType": _type(column, kind),
        "source": source,
    }  # fmt: skip
    if field["dataType"] == "sc:ImageObject":
        source["transform"] = {"jsonPath": "bytes"}
    elif pa.types.is_struct(kind):
        del field["dataType"], field["source"]
        field["subField"] = [_inner(table, column, inner, source) for inner in kind]
    if repeated:
        field["repeated"] = True
    return field


def _inner(table: Table, column: pa.Field, inner: pa.Field, source: Mapping[str, Any]) -> dict[str, Any]:
    kind = inner.type.value_type if pa.types.is_list(inner.type) else inner.type
    field = {
        "@type": "cr:Field", "@id": f"{table.name}/{column.name}/{inner.name}", "name": inner.name,
        "dataType": _type(inner, kind), "source": {**source, "transform": {"jsonPath": inner.name}},
    }  # fmt: skip
    return field | ({"repeated": True} if pa.types.is_list(inner.type) else {})


def _type(column: pa.Field, kind: pa.DataType) -> str:
    if column.name == "image" and pa.types.is_struct(kind):
        return "sc:ImageObject"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"
