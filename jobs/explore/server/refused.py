"""A request that is not carried out: one sentence, and the status of HTTP that says whose fault it is."""

from __future__ import annotations


class Refused(Exception):
    """Raised with a sentence; `status` is that of the answer."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
