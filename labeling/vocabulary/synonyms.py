"""The other names of a run's concepts, kept in the run: its tables know concepts by one name each."""

from __future__ import annotations

from collections.abc import Mapping

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.labeling.vocabulary.concept_list import read_list

RECORD = "synonyms.json"

Synonyms = Mapping[str, tuple[str, ...]]
"""By concept its other names; concepts without any are absent."""


def keep_synonyms(store: RunFolder, path: str) -> None:
    """Write down the other names of a list of concepts (config key ``vocabulary.path``), where it gives some.

    Raises:
        InputError: the list cannot be read (`read_list`).
    """
    synonyms = {name: others for name, others in read_list(path).items() if others} if path else {}
    if synonyms:
        store.write_json(RECORD, synonyms)


def read_synonyms(store: RunFolder) -> Synonyms:
    """What a run kept; nothing of runs whose concepts have one name each, or of before this was kept.

    Raises:
        InputError: it is not what a run keeps.
    """
    kept = store.read_json(RECORD) or {}
    if not all(isinstance(others, list) and all(isinstance(o, str) for o in others) for others in kept.values()):
        raise InputError(
            f"{store.path}/_meta/{RECORD} gives no lists of names; bring it back from a copy, or move it away, and "
            "every concept has one name."
        )
    return {name: tuple(others) for name, others in kept.items()}
