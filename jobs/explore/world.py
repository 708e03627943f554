"""All that the page knows: the run, the model once it is loaded, the notes, and how the run's drawing is configured."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.inputs.edits import STAGES, Edit
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.explore.notes import Notes
from gazetteer.jobs.explore.places import read_known
from gazetteer.jobs.explore.server.refused import Refused
from gazetteer.jobs.explore.shelf import PATIENCE
from gazetteer.jobs.explore.studio import Studio
from gazetteer.labeling.atlas.inks import Ink, inks
from gazetteer.labeling.evidence.run_codes import picture_grids
from gazetteer.labeling.evidence.site_codes import same_site
from gazetteer.labeling.interventions.resolve import idle_blocks
from gazetteer.labeling.tables import load_images, load_labels, load_segments
from gazetteer.labeling.vocabulary.synonyms import read_synonyms

FINEST = 128
"""Cells a side of a painted mask at most."""
EXAMPLES = 24
PAINT: dict[str, Any] = {
    "strength": 0.1, "window": [0.2, 1.0], "branch": "cond", "outside": "keep", "choice": "contrast",
}  # fmt: skip
"""An edit that was just begun. A stroke is small and should be seen: early and middle steps, a tenth of each
block's own update, every feature by how much more it fires in the concept's cells; what is not painted stays."""


@dataclass(frozen=True)
class Recipe:
    """How a reader names the run and its configuration: the run's path, ``--config``, and ``--set`` values."""

    run: str
    config: str | None
    overrides: tuple[str, ...]

    @property
    def options(self) -> list[str]:
        """Of a command."""
        return [*(["--config", self.config] if self.config else []),
                *(["--set", *self.overrides] if self.overrides else [])]  # fmt: skip


class World:
    """A finished run and its model, which is loaded in a thread of its own, once.

    Attributes:
        known: names and peaks of the features of every site.
        synonyms: other names of the run's concepts.
    """

    def __init__(self, config: RunConfig, run: RunFolder, recipe: Recipe) -> None:
        """Raises InputError when the run's tables or notes cannot be read."""
        self.config, self.run, self.recipe = config, run, recipe
        self.notes, self.synonyms = Notes(run), read_synonyms(run)
        self.known = {same_site(site): known for site, known in read_known(run).items()}
        self.grids = picture_grids(run)
        self._studio: Studio | None = None
        self._problem: Exception | None = None
        self._loaded, self._closed = threading.Event(), False
        self._loader = threading.Thread(target=self._load, name="load", daemon=True)

    def load(self) -> None:
        """Load the model in the background; `studio` waits for it."""
        self._loader.start()

    def _load(self) -> None:
        try:
            self._studio = Studio(self.config, self.run)
        except Exception as error:
            self._problem = error
        self._loaded.set()
        try:
            self._warm()
        finally:
            if self._studio is not None and not self._closed:
                self._studio.fit()

    def _warm(self) -> None:
        """Read beforehand what the first stroke of any concept needs."""
        concept = next(iter(self.concepts), None)
        if self._studio is None or concept is None or self._closed:
            return
        edit = Edit(concept=concept, choice=PAINT["choice"], window=tuple(PAINT["window"]))
        try:
            self._studio.resolver.resolve(edit)
        except GazetteerError:
            return  # said where somebody asks for it

    def studio(self) -> Studio:
        """The studio, once it is loaded; raises what loading it raised."""
        while not self._loaded.wait(0.2):
            if self._closed:
                raise Refused(503, "The server is stopping.")
        if self._problem is not None:
            raise self._problem
        assert self._studio is not None
        return self._studio

    def close(self) -> None:
        """Draw no more.

        A model that is being loaded is waited for: a process that ends meanwhile is aborted instead of stopped.
        """
        self._closed = True
        if self._studio is not None:
            self._studio.close()
        if self._loader.is_alive():
            self._loader.join(PATIENCE)

    @cached_property
    def concepts(self) -> dict[str, bool]:
        """Every concept that was found in a picture or labels a feature, sorted; whether it labels one."""
        spatial = load_labels(self.run, kind=SPATIAL_KINDS, columns=["concept"])
        labels = set(spatial["concept"].unique().to_pylist())
        concepts = set(load_segments(self.run, columns=["concept"])["concept"].unique().to_pylist())
        ordered = sorted(labels | concepts, key=lambda name: (name.casefold(), name))
        return {name: name in labels for name in ordered}

    @cached_property
    def looks(self) -> list[str]:
        """Every look that labels a feature, sorted: words of prompts."""
        return sorted(load_labels(self.run, kind="style", columns=["concept"])["concept"].unique().to_pylist())

    @cached_property
    def inks(self) -> dict[str, Ink]:
        """A colour for each of them."""
        return inks(self.concepts)

    def about(self) -> dict[str, Any]:
        """What the page needs to know before anything is drawn."""
        finest = max(self.grids.values(), default=(FINEST // 4, FINEST // 4))
        prompts = load_images(self.run, columns=["prompt", "seed"]).slice(0, EXAMPLES).to_pylist()
        return {
            "run": self.recipe.run, "model": self.config.name, "steps": self.config.generation.steps,
            "guided": self.config.generation.guidance > 1.0,
            "concepts": self.concepts,
            "looks": self.looks, "colours": self.inks,
            "sites": [
                {"slug": site.slug, **site.columns(),
                 "grid": grid, "features": len(self.known[site].names) if site in self.known else 0}
                for site, grid in self.grids.items()
            ],
            "stages": {name: list(window) for name, window in STAGES.items()},
            "mask": [min(FINEST, 4 * side) for side in finest],
            "usual": PAINT,
            "prompts": [{"prompt": row["prompt"], "seed": str(row["seed"])} for row in prompts],
            "ready": self._loaded.is_set(),
        }  # fmt: skip

    def doubts(self, edits: Sequence[Edit], resolved: Sequence[Edit]) -> list[str]:
        """What of the edits does nothing, or more than was painted: windows without a step, places below a cell."""
        schedule = self.studio().generator.schedule
        times = [schedule.t(schedule.first_call(step)) for step in range(schedule.count)]
        said = []
        for number, (edit, whole) in enumerate(zip(edits, resolved, strict=True), start=1):
            name = f"Edit {number} ({edit.name})"
            if not any(edit.active(t) for t in times):
                said.append(f"{name} does nothing: no sampler step lies in its window.")
            if idle := idle_blocks(whole):
                said.append(f"{name} does nothing in {', '.join(idle)}: no feature there carries it.")
            coarse = [f"{target.block} ({_said(grid)})" for target in whole.targets
                      if (grid := self._grid(target.block)) and not edit.region.holds_cell(*grid)]  # fmt: skip
            if coarse:
                every = len(coarse) == len(whole.targets)
                where = "every block" if every else ", ".join(dict.fromkeys(coarse))
                said.append(f"{name} changes one whole cell at {where}, the nearest: its place holds none there.")
        return said

    def _grid(self, block: str) -> tuple[int, int] | None:
        return next((grid for site, grid in self.grids.items() if site.block == block), None)


def _said(grid: tuple[int, int]) -> str:
    return f"{grid[0]} × {grid[1]}"
