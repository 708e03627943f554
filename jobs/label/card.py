"""The README.md of a run: a Hugging Face data set card with the run's own figures.

`configs:` in its head lets ``datasets.load_dataset(RUN, "labels")`` and the hub's viewer open every table by name.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

from gazetteer.data.core.sites import Port
from gazetteer.data.inputs.given.config import given_setting
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.storage.open import open_files
from gazetteer.data.tables.provenance import read_provenance
from gazetteer.data.tables.schemas import KINDS
from gazetteer.jobs.label.summary import summarise
from gazetteer.jobs.label.tables import Table, tables_of

TAGS = ("gazetteer", "interpretability", "sparse-autoencoder", "diffusion", "text-to-image")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_SHOWN = 40
"""Concepts of a kind."""
NAME = "README.md"


@dataclass(frozen=True)
class Published:
    """What only the publisher knows.

    Attributes:
        title: of the card; the run's name where empty.
        license: an identifier of the hub (``mit``, ``cc-by-4.0``, …); left out where empty.
        where: what to give `load_dataset` and `load_labels`: the repository, or the run itself.
        model: address of the published SAEs, where they were published.
    """

    title: str = ""
    license: str = ""
    where: str = "FOLDER"
    model: str = ""


def write_card(run: str | os.PathLike[str] | RunFolder) -> None:
    """Put the card of a finished run at ``RUN/README.md``; a README of the user's own, without our mark, stays.

    Raises:
        InputError: the run is not finished.
    """
    path = run.path if isinstance(run, RunFolder) else os.fspath(run)
    files = open_files(path)
    try:
        if not is_card(files.read(NAME)):
            return
    except FileNotFoundError:
        pass
    files.replace(NAME, card(path, tables_of(_names(path)), Published()).encode())


MARK = "<!-- written by gazetteer -->"
"""Ends every card."""


def is_card(readme: bytes) -> bool:
    """Whether a README is a card of ours, which may be written anew; one without the mark is a person's."""
    return MARK.encode() in readme


def _names(path: str) -> list[str]:
    from gazetteer.data.tables.schemas import PART_TABLES

    files = open_files(path)
    return files.names("") + [f"{table}/{name}" for table in PART_TABLES for name in files.names(table)]


def card(run: str, tables: Sequence[Table], published: Published) -> str:
    """The card of a finished run as Markdown with a YAML head.

    Raises:
        InputError: the run is not finished.
    """
    summary = summarise(run)
    config = read_provenance(open_files(run).source("labels.parquet"), "config")["config"]
    title = published.title or f"Concepts of the features of {config['name']}"
    parts = [
        head(tables, summary, config, published, title),
        f"# {title}\n\n{_lead(summary, config)}",
        _tables(tables, published.where),
        _figures(summary, _named(RunFolder(run))),
        _made(config),
        _limits(summary, config),
    ]
    notes = (RunFolder(run).manifest() or {}).get("saes_read") or {}
    if notes:
        lines = "\n".join(f"- `{slug}`: {note}." for slug, note in notes.items())
        parts.append(f"## How autoencoders were read\n\n{lines}")
    if published.model:
        parts.append(f"## Autoencoders\n\nThe sparse autoencoders whose features these are: {published.model}.")
    return "\n\n".join([*parts, MARK]) + "\n"


def head(
    tables: Sequence[Table], summary: Mapping[str, Any], config: Mapping[str, Any], published: Published, title: str
) -> str:
    """The YAML head between its ``---`` lines."""
    values: dict[str, Any] = {"pretty_name": title}
    if published.license:
        values["license"] = published.license
    values |= {
        "language": ["en"],
        "tags": list(TAGS),
        "size_categories": [next((name for most, name in _SIZES if summary["images"] < most), "n>1M")],
        "configs": [
            {"config_name": table.name, "data_files": table.files, **({"default": True} if i == 0 else {})}
            for i, table in enumerate(tables)
        ],
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


def _lead(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    return (
        f"What {summary['labelled']:,} of the {summary['alive']:,} live features of sparse autoencoders on "
        f"{_model(config)} stand for: concepts given to features with evidence from {summary['images']:,} pictures and "
        f"{summary['segments']:,} objects found in them, by Gazetteer."
    )


def _model(config: Mapping[str, Any]) -> str:
    return f"`{config['model.path']}`" if config.get("model.path") else "a text-to-image model"


def _tables(tables: Sequence[Table], where: str) -> str:
    rows = "\n".join(f"| `{table.name}` | {table.meaning} | `{table.files}` |" for table in tables)
    return (
        f"## Tables\n\n| table | rows | files |\n|---|---|---|\n{rows}\n\n"
        "Plain Parquet with a typed schema; pandas, polars, DuckDB and `datasets` open it, and so does Gazetteer:\n\n"
        f'```python\nimport datasets\nimport gazetteer\n\nlabels = datasets.load_dataset("{_for_datasets(where)}", '
        f'"labels", split="train")\nlabels = gazetteer.load_labels("{where}", max_q=0.01).to_pandas()\n```'
    )


def _for_datasets(where: str) -> str:
    return where.removeprefix("hf:")


def _named(run: RunFolder) -> dict[str, Counter[str]]:
    """By kind, how many features each concept labels best, in the order of the kinds."""
    labels = run.read_final("labels", ["concept", "kind", "rank"])
    named: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for row in labels.filter(pa.compute.equal(labels["rank"], 1)).to_pylist():
        named.setdefault(row["kind"], Counter())[row["concept"]] += 1
    return {kind: counts for kind, counts in named.items() if counts}


def _of_kind(kind: str, counts: Counter[str]) -> str:
    best = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    more = f", and {len(best) - _SHOWN} more" if len(best) > _SHOWN else ""
    shown = ", ".join(f"{concept} ({features:,})" for concept, features in best[:_SHOWN])
    return f"| {kind} | {counts.total():,} | {shown}{more} |"


def _figures(summary: Mapping[str, Any], named: Mapping[str, Counter[str]]) -> str:
    sites = "\n".join(
        f"| `{Port(site['block'], site['stream'], site['signal'])}` | {site['branch']} | {site['t']:.2f} | "
        f"{site['features']:,} | {site['alive']:,} | {site['labelled']:,} |"
        for site in summary["sites"]
    )
    kinds = "\n".join(_of_kind(kind, counts) for kind, counts in named.items())
    concepts = f"\n\n| kind | features | concepts |\n|---|---|---|\n{kinds}" if named else " none."
    return (
        "## What it holds\n\n"
        f"| block | branch | t | features | alive | labelled |\n|---|---|---|---|---|---|\n{sites}\n\n"
        f"Features by the concept that labels them best:{concepts}\n\n"
        "t is where in the reverse process the features were read: 1.0 the first sampler step, 0.0 the last."
    )


def _made(config: Mapping[str, Any]) -> str:
    given = given_setting(config)
    made = {
        "detector": config.get("detector.path"), "segmenter": config.get("segmenter.path"),
        "prompts": config.get("prompts.path"), "guidance": config.get("generation.guidance"),
    }  # fmt: skip
    shown = {
        "model": config.get("model.path"), "autoencoders": config.get("saes"),
        **({"pictures": config[given]} if given else made),
        "sampler steps": config.get("generation.steps"), "seed": config.get("seed"),
    }  # fmt: skip
    rows = "\n".join(f"| {name} | `{value}` |" for name, value in shown.items() if value not in (None, ""))
    return (
        f"## How it was made\n\n| | |\n|---|---|\n{rows}\n\n"
        "Every file carries the whole configuration, the digests of all weights and the package versions in its "
        "Parquet metadata, under the key `gazetteer`."
    )


def _limits(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    failing = f" {summary['failing']:,} pictures failed and are in `failures`." if summary["failing"] else ""
    asked, drawn = "the concepts are those that the detector was asked for and found", "prompts"
    shown = "The pictures are generated by the model and show what it learned, biases included."
    if given := given_setting(config):
        asked, drawn = "the concepts are those whose masks came with the pictures", "pictures"
        shown = f"The pictures were not generated: they are those of `{config[given]}`, under their own terms of use."
    return (
        "## What to keep in mind\n\n"
        f"A label says that a feature's map goes with a concept beyond what its place in the picture explains "
        f"(q ≤ {config.get('labels.max_q')}, permutations of pictures); {asked}. `heldout_*` columns come from "
        f"{config.get('heldout', 0):.0%} of the {drawn}, which took no part in choosing the label. Features without a "
        f"trustworthy concept have no row in `labels`.{failing} {shown}"
    )
