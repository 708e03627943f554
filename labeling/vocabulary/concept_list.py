"""Lists of concepts with their synonyms: those that come with the package, and a user's own."""

from __future__ import annotations

from pathlib import Path

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import read_text
from gazetteer.labeling.vocabulary.concept_index import require_distinct
from gazetteer.labeling.vocabulary.words import tidy

FOLDER = Path(__file__).parent / "lists"
BUILT_IN = ("coco", "lvis")


def read_list(path: str) -> dict[str, tuple[str, ...]]:
    """Concept -> its synonyms, in the order of the file.

    Args:
        path: one of BUILT_IN, or a text file: a line a concept, synonyms after commas, ``#`` begins a comment.

    Raises:
        InputError: no such list, not UTF-8, a concept twice, or one without a letter or digit.
    """
    file = FOLDER / f"{path}.txt" if path in BUILT_IN else Path(path)
    accepted = f"{', '.join(BUILT_IN)}, or a text file with a concept a line and its synonyms after commas"
    lines = read_text("The list of concepts", file, accepted).splitlines()
    concepts: list[tuple[str, tuple[str, ...]]] = []
    for line in lines:
        name, *synonyms = [tidy(part) for part in line.partition("#")[0].split(",")]
        if name:
            concepts.append((name, tuple(part for part in dict.fromkeys(synonyms) if part and part != name)))
    if not concepts:
        raise InputError(f"The list of concepts {path} is empty.")
    require_distinct([name for name, _ in concepts], f"The list of concepts {path}")
    return dict(concepts)
