"""Curves for TensorBoard: an extra, for those who watch their runs there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site


class TensorBoardWriter:
    """Writes the history of sites as scalars, one run a site, into ``FOLDER/<site.slug>``."""

    def __init__(self, folder: Path | str) -> None:
        """Nothing is written before the first `add`.

        Raises:
            InputError: the package ``tensorboard`` is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "sae.tensorboard needs the package tensorboard: pip install 'gazetteer[tensorboard]'."
            ) from error
        self._folder, self._open = Path(folder), SummaryWriter
        self._writers: dict[Site, Any] = {}

    def add(self, site: Site, entry: dict[str, float]) -> None:
        """One entry of a site's history: every number in it, at its step.

        A resumed run repeats some steps; what was written for them before is purged.
        """
        step = int(entry["step"])
        if site not in self._writers:
            self._writers[site] = self._open(log_dir=str(self._folder / site.slug), purge_step=step)
        for name, value in entry.items():
            if name != "step":
                self._writers[site].add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what is pending."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
