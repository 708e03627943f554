"""A classifier of pictures that a configuration names as ``module:function``, held to what it promises.

What it answers is believed picture by picture: by the likeliest label, or by the labels of 0.5 or more. NaN would be
believed too (its argmax is the first label, and it reaches no 0.5), so every answer is looked at before it counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.importing import import_named

_ROUNDING = 1e-3
"""By how much half precision may leave 0..1."""
_BATCH = 32
"""Pictures that a classifier is asked about at once."""


class NamedClassifier:
    """What ``module:function`` made: ``labels``, and `probabilities` that are probabilities or an InputError."""

    def __init__(self, made: Any, name: str, key: str) -> None:
        """Raises InputError where `made`, by the code `name` of the setting `key`, is no classifier."""
        self._made, self._said = made, f"{key} {name!r}"
        labels = getattr(made, "labels", ())
        try:
            self.labels: Sequence[str] = () if isinstance(labels, str) else tuple(labels)
        except TypeError:
            self.labels = ()
        named = self.labels and all(isinstance(label, str) for label in self.labels)
        if not named or not callable(getattr(made, "probabilities", None)):
            raise InputError(
                f"{self._said} makes no classifier of pictures: it makes a {type(made).__name__}, and a classifier has "
                "labels (texts) and probabilities (uint8 [N, H, W, 3] -> [N, labels])."
            )

    def probabilities(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability of every label, [N, len(labels)], for uint8 pictures [N, H, W, 3], as the classifier gives it.

        Raises:
            InputError: the classifier fails, or answers something else.
        """
        try:
            answer = np.asarray(self._made.probabilities(pictures))
        except Exception as error:  # a user's function may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"{self._said} fails on pictures {list(pictures.shape)}: {reason}.") from error
        wanted = (len(pictures), len(self.labels))
        if answer.shape != wanted or answer.dtype.kind not in "fiub":
            raise InputError(
                f"{self._said} answers {answer.dtype} {list(answer.shape)} for pictures {list(pictures.shape)}; "
                f"accepted: numbers {list(wanted)}, a probability a label."
            )
        within = (answer >= -_ROUNDING) & (answer <= 1 + _ROUNDING)  # NaN is not
        if not within.all():
            raise InputError(f"{self._said} answers {answer[~within][0]}, which is no probability (0..1).")
        return answer

    def of_each(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """`probabilities`, [labels], of one picture [H, W, 3] after another, asked in batches of one size."""
        for _, same_size in groupby(pictures, key=np.shape):
            while batch := list(islice(same_size, _BATCH)):
                yield from self.probabilities(np.stack(batch))


def load_classifier(name: str, words: Collection[str], key: str = "steer.classifier") -> NamedClassifier:
    """What ``module:function``, named at a key, makes.

    Args:
        words: labels that it has to have.

    Raises:
        InputError: it cannot be imported, makes no classifier, or lacks a word.
    """
    make = import_named(name, key)
    try:
        made = make()
    except Exception as error:  # a user's function may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{key} {name!r} makes no classifier of pictures: {reason}.") from error
    classifier = NamedClassifier(made, name, key)
    missing = sorted(set(words) - set(classifier.labels))
    if missing:
        raise InputError(f"{key} does not know {missing[0]!r}; it knows {', '.join(classifier.labels)}.")
    return classifier
