"""Questions to a run's tables: what is asked for has to exist, for no rows must mean that there are none."""

from __future__ import annotations

import functools
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import pyarrow as pa
import pyarrow.compute as pc

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import KINDS, SPLITS, VERDICTS
from gazetteer.labeling.vocabulary.meant import meant, nearest

Load = TypeVar("Load", bound=Callable[..., pa.Table])

_SITE = ("block", "stream", "signal", "branch", "t", "feature")
_NUMBERS = frozenset({"t", "max_q", "min_iou", "min_score"})
_FLAGS = frozenset({"trusted", "paper_label", "labelled", "causal"})
_SEVERAL = frozenset({"concept", "kind", "image_id", "verdict"})
_ACCEPTED = {"kind": ("kind of label", KINDS), "verdict": ("verdict", VERDICTS), "split": ("split", SPLITS)}


def questioned(load: Load) -> Load:
    """A loader of a table that refuses, in a sentence, what cannot be asked and what the run does not have.

    The loader takes the run first and its conditions by name; a condition of None asks for nothing.
    """

    @functools.wraps(load)
    def ask(run: Any, **conditions: Any) -> pa.Table:
        if not isinstance(run, str | os.PathLike | RunFolder):
            raise InputError(f"A run is a folder or a URL, not {run!r}.")
        asked = {name: value for name, value in conditions.items() if value is not None}
        for name, value in asked.items():
            _require_possible(name, value)
        if "feature" in asked:  # of whatever library, as an analyst's own table holds it
            conditions["feature"] = int(asked["feature"])
        table = load(run, **conditions)
        folder = run if isinstance(run, RunFolder) else RunFolder(run)
        concepts = _several(asked.get("concept", ()))
        if concepts and (len(concepts) > 1 or table.num_rows == 0):
            known = meant_of_run(folder, concepts)
            if known != concepts:
                table = load(run, **{**conditions, "concept": known})
        if table.num_rows == 0:
            _require_pictures(folder, set(_several(asked.get("image_id", ()))))
            _require_there(folder, asked)
        return table

    return cast(Load, ask)


def _require_possible(name: str, value: Any) -> None:
    """InputError unless a condition is of its kind."""
    if name == "columns":
        if isinstance(value, str) or not isinstance(value, Sequence) or not value or not _texts(value):
            raise InputError(f"columns must be a list with at least one name of a column, not {value!r}.")
    elif name in _FLAGS:
        if not isinstance(value, bool):
            raise InputError(f"{name} must be True or False, not {value!r}.")
    elif name in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise InputError(f"{name} must be a finite number, not {value!r}.")
    elif name == "feature":
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
            raise InputError(f"feature must be a whole number from 0 on, not {value!r}.")
    elif name in _SEVERAL:
        if not isinstance(value, str) and not (isinstance(value, Iterable) and _texts(value)):
            raise InputError(f"{name} must be text or a list of texts, not {value!r}.")
        if name not in _ACCEPTED and (not (texts := _several(value)) or not all(texts)):
            raise InputError(f"{name} must name something, not {value!r}; without it every {name} is meant.")
    elif not isinstance(value, str):
        raise InputError(f"{name} must be text, not {value!r}.")
    if name in _ACCEPTED:
        what, accepted = _ACCEPTED[name]
        if not (named := _several(value)) or not set(named) <= set(accepted):
            raise InputError(f"There is no {what} {value!r}; accepted: {', '.join(accepted)}.")


def meant_of_run(run: RunFolder, concepts: Sequence[str]) -> list[str]:
    """The concepts of the run that are meant ("Dogs" is dog).

    Raises:
        InputError: a concept that was asked of no picture.
    """
    known = set((run.read_json("run.json") or {}).get("vocabulary.concepts") or ())
    if not set(concepts) <= known:
        asked = run.read_table("images", columns=["asked"])["asked"]
        known |= set(pc.unique(pc.list_flatten(asked)).to_pylist())
        for table in ("candidates", "labels"):
            if run.has_final(table):
                known |= set(pc.unique(run.read_final(table, ["concept"])["concept"]).to_pylist())
    return meant(concepts, known, f"{run.path} was never asked for {{!r}}")


def _require_pictures(run: RunFolder, wanted: set[str]) -> None:
    """InputError for an image id that no picture of the run has."""
    if not wanted:
        return
    unknown = wanted - set(run.read_table("images", columns=["image_id"])["image_id"].to_pylist())
    if unknown:
        raise InputError(f"{run.path} has no picture {min(unknown)!r}; its images table names those that it has.")


def _require_there(run: RunFolder, asked: Mapping[str, Any]) -> None:
    """InputError for a part of a site, or a feature, that no row of the run has."""
    names = [name for name in _SITE if name in asked]
    if not names or not run.has_final("features"):
        return
    features = run.read_final("features", names)
    for name in names:
        values = [round(value, 2) if name == "t" else value for value in pc.unique(features[name]).to_pylist()]
        value = round(float(asked[name]), 2) if name == "t" else asked[name]
        if values and value not in values:
            if name == "feature":
                raise InputError(f"{run.path} has no feature {value}; its features are 0 to {max(values)}.")
            raise InputError(f"{run.path} has no {name} {value!r}; {nearest(value, values)}")


def _several(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)


def _texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
