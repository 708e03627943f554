"""Pictures that failed: which of them still do, and whether a run can still come to its end."""

from __future__ import annotations

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.runs.folder import RunFolder

SAMPLE = 32
"""Pictures that are tried before a run is given up for its failures; smaller runs are tried whole."""


def open_failures(store: RunFolder) -> list[str]:
    """Image ids that failed and have no picture from a later try, sorted; where nothing failed no part is opened."""
    commits = store.committed()
    bad = [shard for shard, commit in commits.items() if commit.tables.get("failures", {}).get("rows")]
    if not bad:
        return []
    failed = set(store.read_table("failures", bad, columns=["item"])["item"].to_pylist())
    return sorted(failed - set(store.read_table("images", list(commits), columns=["image_id"])["image_id"].to_pylist()))


class Tally:
    """Counts what fails, so that a run ends as soon as it cannot but fail.

    Args:
        total: pictures of the whole run.
        allowed: share of them that may fail.
    """

    def __init__(self, store: RunFolder, total: int, allowed: float) -> None:
        self._store, self._total, self._allowed = store, total, allowed
        commits = store.committed().values()
        self._failed = len(open_failures(store)) if commits else 0
        self._tried = sum(commit.info["images"] for commit in commits) + self._failed

    def add(self, images: int, failures: int) -> None:
        """Count a shard's pictures and failures.

        Raises:
            GazetteerError: the run has no chance any more.
        """
        self._failed += failures
        self._tried += images + failures
        self.check()

    @property
    def hopeless(self) -> bool:
        """Whether more failed than may, or everything did, with enough tried to say so."""
        enough = self._tried >= min(SAMPLE, self._total)
        return enough and (self._failed > self._allowed * self._total or self._failed == self._tried > 0)

    def check(self) -> None:
        """GazetteerError, naming the first failure, when the run has no chance any more."""
        if self.hopeless and self._allowed < 1.0:
            self._refuse(min(self._tried, self._total))

    def settle(self) -> None:
        """The same when everything has been tried, of the pictures that still fail."""
        self._failed = len(open_failures(self._store))
        if self._failed > self._allowed * self._total:
            self._refuse(self._total)

    def _refuse(self, tried: int) -> None:
        failing = open_failures(self._store)
        rows = self._store.read_table("failures").to_pylist()
        first = next(row for row in rows if row["item"] == failing[0])
        stopped = "" if tried == self._total else f"the first {tried} of "
        raise GazetteerError(
            f"{self._failed} of {stopped}{self._total} pictures could not be processed, more than max_failed_fraction="
            f"{self._allowed} allows; the first, {failing[0]}, failed at {first['stage']}: {first['error']}: "
            f"{first['message']} (the others are in failures/; --retry-failed tries them again)."
        )
