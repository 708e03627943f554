"""With what `gazetteer examine` measured a table, and what of the one that is there a later call leaves as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gazetteer.data.core.digests import digest_bytes
from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.storage.open import open_files
from gazetteer.data.tables.provenance import read_provenance
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.labeling.quality.examiners import KEYS

Settings = dict[str, dict[str, Any]]
"""By measure the settings that it was taken with; a measure that was not taken is not there."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "witness": ("witness_auroc", "witness_images"),
    "fresh": ("fresh_auroc", "fresh_images"),
    "truth": ("right", "truth_explained", "truth_other"),
}
"""The columns of every measure that takes a model or pictures; the others are taken from the run's tables each time."""

RECORD = "examined"
"""Where a table's provenance holds its `Settings`."""

_AMOUNTS = ("--fresh", "accuracy.images")
"""Settings of which more is better; another value of any other is another measurement."""


def settings_of(config: RunConfig, fresh: int) -> Settings:
    """What a call measures, and with what."""
    looks = "labels.style_classifier" if config.labels.style_classifier else "steer.classifier"
    witnesses = {
        "attribute.classifier": config.attribute.classifier,
        looks: config.labels.style_classifier or config.steer.classifier,
    }
    accuracy = config.accuracy
    truth = {"accuracy.truth": accuracy.truth, "accuracy.half": accuracy.half, "accuracy.images": accuracy.images}
    taken: Settings = {
        "witness": witnesses if any(witnesses.values()) else {},
        "fresh": {"--fresh": fresh} if fresh else {},
        "truth": truth if accuracy.truth else {},
    }
    return {measure: settings for measure, settings in taken.items() if settings}


@dataclass(frozen=True)
class Before:
    """The table of examiners that a run holds of its labels as they are.

    Attributes:
        digest: of its file; empty: none is there.
        settings: what it measured with; empty where it cannot be read or is of other labels, so that nothing of it
            can stay.
        table: its rows, in the order of the labels; None where nothing of it can stay.
    """

    digest: str = ""
    settings: Settings = field(default_factory=dict)
    table: pa.Table | None = None

    @classmethod
    def of(cls, store: RunFolder, rows: Sequence[Mapping[str, Any]]) -> Before:
        """That of a run; rows: the labels, in order, with `KEYS`."""
        if not store.has_final("examiners"):
            return cls()
        digest = digest_of(store)
        try:
            table, settings = store.read_final("examiners"), recorded(store)
        except InputError:  # damaged or of an older schema: a call makes it anew
            return cls(digest)
        place = {key: number for number, key in enumerate(_keys(table.to_pylist()))}
        wanted = _keys(rows)
        if len(place) != len(wanted) or any(key not in place for key in wanted):
            return cls(digest)
        return cls(digest, settings, table.take(pa.array([place[key] for key in wanted], pa.int64())))

    def refuse_less(self, store: RunFolder, asked: Settings) -> None:
        """InputError where what is asked for would take the place of more, or of what was measured otherwise."""
        differing = [
            f"{name}: was {known[name]}, now {settings[name]}"
            for measure, settings in asked.items()
            for known in [self.settings.get(measure, {})]
            for name in sorted(known.keys() & settings.keys())
            if _less(name, settings[name], known[name])
        ]
        if differing:
            raise InputError(
                f"{store.path.rstrip('/')}/examiners.parquet was measured otherwise ({'; '.join(differing)}), and this "
                "call would take its place. Go back to those settings, leave out what is not to be measured again "
                "(--fresh 0, or 'accuracy.truth=\"\"' after --set) and it stays as it is, or say --replace."
            )

    def kept(self, asked: Settings) -> Settings:
        """What a call leaves as it is, because it does not measure it."""
        return {measure: known for measure, known in self.settings.items() if measure not in asked}

    def columns(self, measures: Settings) -> dict[str, list[Any]]:
        """The columns of these measures."""
        table = self.table
        if table is None:
            return {}
        return {name: table[name].to_pylist() for measure in measures for name in COLUMNS[measure]}


def recorded(store: RunFolder) -> Settings:
    """With what the table of examiners that a run holds was measured.

    One that was written before that was recorded says how many fresh pictures there were; of its pictures with truth
    the run's own configuration does.
    """
    about = read_provenance(open_files(store.path).source("examiners.parquet"))
    written = about.get(RECORD)
    if isinstance(written, dict) and all(isinstance(settings, dict) for settings in written.values()):
        return {measure: settings for measure, settings in written.items() if measure in COLUMNS}
    table = store.read_final("examiners", ["fresh_images", "witness_images", "right"])
    most = {name: max(table[name].to_pylist(), default=0) for name in ("fresh_images", "witness_images")}
    own = (store.read_json("config.json") or {}).get("accuracy") or {}
    older: Settings = {"witness": {}} if most["witness_images"] else {}
    if most["fresh_images"]:
        older["fresh"] = {"--fresh": most["fresh_images"]}
    if table["right"].null_count < table.num_rows:
        older["truth"] = {f"accuracy.{name}": own[name] for name in ("truth", "half", "images") if name in own}
    return older


def digest_of(store: RunFolder) -> str:
    """Of the file of examiners that a run holds; empty: none is there."""
    return digest_bytes(open_files(store.path).read("examiners.parquet")) if store.has_final("examiners") else ""


def describe(settings: Settings) -> str:
    """Measures and their settings, as a person reads them."""
    each = (
        f"{measure} ({', '.join(f'{name}={value}' for name, value in known.items() if value != '')})"
        if known else measure
        for measure, known in sorted(settings.items())
    )  # fmt: skip
    return ", ".join(each)


def _less(name: str, now: Any, before: Any) -> bool:
    """Whether what is asked for is less than what was measured, or something else."""
    return bool(now < before) if name in _AMOUNTS and isinstance(before, int) else bool(now != before)


def _keys(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in KEYS) for row in rows]
