"""Word vectors for the published layout method; which embedding is the user's choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import require_file
from gazetteer.data.core.importing import import_named

Embedding = Callable[[str], Any]

ACCEPTED = "model (the text encoder's own token embeddings), a text file of vectors (.txt, .vec), or module:function"


def word_vectors(source: str, words: Sequence[str], pipe: Any = None) -> NDArray[np.float64]:
    """A vector for every word or phrase: float64 [words, d]; zeros for one the embedding lacks.

    A phrase has the mean of its words' vectors.

    Args:
        source: ``model``; a file in the text format of GloVe and word2vec (a word and its numbers a line); or
            ``module:function``, a callable from a word to its vector (or None).
        pipe: the pipeline, for ``model``.
    Raises:
        InputError: the source cannot be read, or knows none of the words.
    """
    parts = {part for word in words for part in word.split()}
    if source == "model":
        known = _from_model(pipe, parts)
    elif ":" in source and not Path(source).exists():
        known = _from_callable(source, parts)
    else:
        known = _from_file(require_file("The file of word vectors", source, ACCEPTED), parts)
    if not known:
        raise InputError(f"The word vectors {source!r} know none of the words: {', '.join(sorted(parts)[:5])}.")
    if len({len(vector) for vector in known.values()}) > 1:
        raise InputError(f"The word vectors {source!r} differ in length.")
    if wrong := [word for word in sorted(known) if not np.isfinite(known[word]).all()]:
        raise InputError(f"The word vectors {source!r} have numbers that are not finite, such as of {wrong[0]!r}.")
    zero = np.zeros(len(next(iter(known.values()))))
    rows = [[known[part] for part in word.split() if part in known] or [zero] for word in words]
    return np.stack([np.mean(row, axis=0) for row in rows])


def _from_model(pipe: Any, words: set[str]) -> dict[str, NDArray[np.float64]]:
    tokenizer, encoder = getattr(pipe, "tokenizer", None), getattr(pipe, "text_encoder", None)
    if tokenizer is None or encoder is None:
        raise InputError("Word vectors 'model' need a pipeline with a tokenizer and a text encoder.")
    table = encoder.get_input_embeddings().weight.detach().float().cpu().numpy()
    unknown = getattr(tokenizer, "unk_token_id", None)
    vectors = {}
    for word in sorted(words):
        ids = [i for i in tokenizer(word, add_special_tokens=False).input_ids if i != unknown]
        if ids:
            vectors[word] = table[ids].mean(axis=0).astype(np.float64)
    return vectors


def _from_file(path: Path, words: set[str]) -> dict[str, NDArray[np.float64]]:
    vectors: dict[str, NDArray[np.float64]] = {}
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                word, _, rest = line.rstrip().partition(" ")
                if word in words and rest.count(" ") > 0:
                    try:
                        vectors[word] = np.array([float(number) for number in rest.split()])
                    except ValueError as error:
                        raise InputError(f"{path}, line {number}: not a word and its numbers.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a text file of word vectors ({error}).") from error
    return vectors


def _from_callable(source: str, words: set[str]) -> dict[str, NDArray[np.float64]]:
    embed: Embedding = import_named(source, "Word vectors")
    vectors = {word: embed(word) for word in sorted(words)}
    try:
        return {word: np.asarray(vector, np.float64).ravel() for word, vector in vectors.items() if vector is not None}
    except (TypeError, ValueError) as error:
        raise InputError(f"The word vectors {source!r} give something else than numbers ({error}).") from error
