"""Which concepts a detector can be asked for: those that its tokenizer can write, each unlike every other.

A detector sees no names, only tokens. A tokenizer of English writes "猫" as an unknown word and "café" as "cafe", so
that two concepts may be one to it; whatever it then found would stand under the wrong name, or under one of two.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.detect.phrases import require_unlike
from gazetteer.labeling.detect.protocol import Detector

log = logging.getLogger(__name__)


class Askable:
    """Leaves out of what is asked for a picture that which the detector cannot tell, with one warning a concept."""

    def __init__(self, detector: Detector, listed: Sequence[str]) -> None:
        """listed: concepts that no picture may do without.

        Raises:
            InputError: one of them cannot be asked, or two are the same to the detector.
        """
        self._detector = detector
        self._warned: set[str] = set()
        self._tokens = {concept: detector.tokens(concept) for concept in listed}
        require_unlike(listed, [self._tokens[concept] for concept in listed])
        self._listed = {tokens: concept for concept, tokens in self._tokens.items()}

    def among(self, concepts: Sequence[str]) -> tuple[str, ...]:
        """Those of some concepts that can be asked together, order kept; a listed one goes before its like."""
        askable = []
        taken: dict[tuple[int, ...], str] = dict(self._listed)
        for concept in concepts:
            try:
                tokens = self._tokens.get(concept) or self._detector.tokens(concept)
            except InputError as error:
                self._warn(concept, str(error))
                continue
            other = taken.setdefault(tokens, concept)
            if other == concept:
                askable.append(concept)
            else:
                self._warn(concept, f"To the detector {concept!r} and {other!r} are the same words.")
        return tuple(askable)

    def _warn(self, concept: str, reason: str) -> None:
        if concept not in self._warned:
            self._warned.add(concept)
            log.warning("%s No picture is asked for %r.", reason, concept)
