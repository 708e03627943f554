"""Switch single features on and off and see what appears and vanishes: what they cause, beside where they fire.

A picture's sampling is begun at the first step of the feature's stage, from latents kept there, and carried on in
coarse steps; the picture without the edit is drawn in the same way, so that nothing but the edit differs. *On* adds
the feature in every cell, in multiples of its own 99th percentile; *off* takes its activation out wherever it fires.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.data.core.sites import Port, Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.edits import STAGES, Edit, Target
from gazetteer.data.tables.schemas import EFFECTS
from gazetteer.diffusion.capture import capture, cells, split_branches
from gazetteer.diffusion.edit_sampler import EditSampler, Picture, Start
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import load_pipeline
from gazetteer.diffusion.watch import Call
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import Detector
from gazetteer.labeling.interventions.causal_config import CausalConfig
from gazetteer.labeling.pipeline.config import StageConfig
from gazetteer.labeling.segment.finder import cut_out
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import Segmenter
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_site_saes

Areas = dict[str, float]
STATES = ("on", "off")


@dataclass(frozen=True)
class SharedPicture:
    """A picture of the run on which features are tried: its id, its prompt and the seed of its noise."""

    image_id: str
    prompt: str
    seed: int

    @property
    def start(self) -> Start:
        """Where it comes from."""
        return Start(self.prompt, self.seed)


@dataclass(frozen=True)
class Switch:
    """A feature to try. scale: its 99th percentile over the cells where it fires."""

    site: Site
    feature: int
    scale: float

    def edit(self, state: str, strength: float) -> Edit:
        """The edit that switches it on or off, everywhere, at those steps of its stage that are taken."""
        common: dict[str, Any] = {"window": STAGES[stage_of(self.site)], "branch": self.site.branch}
        site, features = self.site, (self.feature,)
        if state == "on":
            target = Target(**site.columns(), features=features, scales=(self.scale,))
            return Edit(targets=(target,), unit="feature_p99", strength=strength, **common)
        target = Target(**site.columns(), features=features)
        return Edit(targets=(target,), unit="code", strength=-1.0, **common)


def stage_of(site: Site) -> str:
    """The stage in whose window the site listens."""
    return next(name for name, window in STAGES.items() if Edit(concept="-", window=window).active(site.t))


@dataclass
class _Plain:
    """What a start gives without an edit, by stage; `fired`: by site the features that fire at an edited step."""

    picture: dict[str, Picture] = field(default_factory=dict)
    areas: dict[str, Areas] = field(default_factory=dict)
    fired: dict[Site, set[int]] = field(default_factory=dict)


class CausalTest:
    """The models, and the shared pictures without edits, drawn once for all features."""

    def __init__(
        self, generator: Generator, saes: Mapping[Site, SparseAutoencoder], detector: Detector,
        segmenter: Segmenter | None,
        concepts: Sequence[str], shared: Sequence[SharedPicture], config: CausalConfig, batch_size: int = 8,
    ) -> None:  # fmt: skip
        """`concepts` are asked of every picture."""
        self.generator, self.pipe, self.saes = generator, generator.pipe, saes
        self.detector, self.segmenter, self.concepts = detector, segmenter, tuple(concepts)
        self.shared, self.config, self.batch_size = tuple(shared), config, batch_size
        self.sampler = EditSampler(generator, saes, batch_size=batch_size, stride=config.stride, cache=len(self.shared))
        self._plain = [_Plain() for _ in self.shared]
        self._ready: set[str] = set()

    def measure(self, switches: Sequence[Switch]) -> pa.Table:
        """Rows of `schemas.EFFECTS` for every feature, state and shared picture, and for the plain pictures.

        A feature that fires nowhere in a picture changes nothing when it is switched off: nothing is drawn then, and
        the row says so.
        """
        rows: list[dict[str, Any]] = []
        for site in dict.fromkeys(switch.site for switch in switches):
            stage = stage_of(site)
            self.prepare(site)
            mine = [switch for switch in switches if switch.site == site]
            rows += [self._row(site, None, "plain", i, None) for i in range(len(self.shared))]
            todo = [(i, switch, state) for switch in mine for state in STATES for i in range(len(self.shared))
                    if state == "on" or switch.feature in self._plain[i].fired[site]]  # fmt: skip
            made = self._draw([(i, s.edit(state, self.config.strength)) for i, s, state in todo], stage)
            judged = dict(zip(todo, self._judged(todo, made, stage), strict=True))
            for switch in mine:
                for state in STATES:
                    for i in range(len(self.shared)):
                        rows.append(self._row(site, switch.feature, state, i, judged.get((i, switch, state))))
        return pa.Table.from_pylist(rows, schema=EFFECTS)

    def _judged(
        self, todo: Sequence[tuple[int, Switch, str]], made: Sequence[Picture], stage: str
    ) -> list[tuple[Picture, Areas]]:
        """Every picture with what is found in it; one that came out as without the edit need not be looked at."""
        plain = [self._plain[i] for i, _, _ in todo]
        new = [n for n, own in enumerate(plain) if not np.array_equal(made[n], own.picture[stage])]
        found = dict(zip(new, self._areas([made[n] for n in new]), strict=True))
        return [(picture, found.get(n, plain[n].areas[stage])) for n, picture in enumerate(made)]

    def draw_and_judge(self, switch: Switch, state: str) -> list[Areas]:
        """What is found in every shared picture with the feature on or off; ``plain`` leaves it alone."""
        stage, every = stage_of(switch.site), range(len(self.shared))
        if state in STATES:
            edit = switch.edit(state, self.config.strength)
            return self._areas(self._draw([(i, edit) for i in every], stage))
        return self._areas(self._draw([(i, None) for i in every], stage))

    def _row(
        self, site: Site, feature: int | None, state: str, i: int, found: tuple[Picture, Areas] | None
    ) -> dict[str, Any]:
        stage = stage_of(site)
        plain = self._plain[i].picture[stage]
        picture, areas = found or (plain, self._plain[i].areas[stage])
        change = float(np.abs(picture.astype(np.int16) - plain.astype(np.int16)).mean() / 255.0)
        return {
            **site.columns(), "feature": feature, "state": state,
            "image_id": self.shared[i].image_id, "drawn": found is not None, "change": change,
            "concept": list(areas), "area": list(areas.values()),
        }  # fmt: skip

    def prepare(self, site: Site) -> None:
        """Draw the shared pictures as far as the stage of `site` needs them; once, for all its features."""
        stage = stage_of(site)
        if stage in self._ready:
            return
        probe = Edit(concept="-", window=STAGES[stage])

        def acting(call: Call) -> bool:
            return probe.active(call.t)

        self.sampler.prepare([shared.start for shared in self.shared])
        sites = [site for site in self.saes if stage_of(site) == stage]
        ports = sorted({site.port for site in sites})
        for start in range(0, len(self.shared), self.batch_size):
            batch = range(start, min(start + self.batch_size, len(self.shared)))

            def listen(port: Port, call: Call, values: Tensor, batch: range = batch) -> None:
                halves = split_branches(values, len(batch), call.branches)
                for site in (one for one in sites if one.port == port and one.branch in halves):
                    for i, x in zip(batch, cells(halves[site.branch]), strict=True):
                        self._plain[i].fired.setdefault(site, set()).update(_firing(self.saes[site], x))

            with capture(self.pipe, ports, listen, acting, self.sampler.schedule):
                pictures = self._draw([(i, None) for i in batch], stage)
            for i, picture, areas in zip(batch, pictures, self._areas(pictures), strict=True):
                self._plain[i].picture[stage], self._plain[i].areas[stage] = picture, areas
                for site in sites:
                    self._plain[i].fired.setdefault(site, set())
        self._ready.add(stage)

    def _draw(self, work: Sequence[tuple[int, Edit | None]], stage: str) -> list[Picture]:
        """One picture for each shared one and its edit, or none, many to a batch."""
        starts = [self.shared[i].start for i, _ in work]
        return self.sampler.edited(starts, [() if edit is None else (edit,) for _, edit in work], stage)

    def _areas(self, pictures: Sequence[Picture]) -> list[Areas]:
        """Per picture the share of it that every concept that is found covers."""
        found: list[Areas] = []
        for begin in range(0, len(pictures), self.batch_size):
            some = pictures[begin : begin + self.batch_size]
            detected = self.detector.detect(some, [self.concepts] * len(some))
            masks = cut_out(self.segmenter, some, detected)
            for own, segments in zip(detected, masks, strict=True):
                unions: dict[str, NDArray[np.bool_]] = {}
                for one, segment in zip(own, segments, strict=True):
                    before = unions.get(one.concept)
                    unions[one.concept] = segment.mask if before is None else before | segment.mask
                found.append({c: float(unions[c].mean()) for c in sorted(unions) if unions[c].any()})
        return found


def load_causal_test(
    stages: StageConfig, concepts: Sequence[str], shared: Sequence[SharedPicture], config: CausalConfig
) -> CausalTest:
    """A test with the models of a run, loaded here.

    Raises:
        InputError: a model or an autoencoder that cannot be loaded.
    """
    use_threads(stages.threads)
    saes = load_site_saes(stages.saes, stages.generation.sites, stages.model.device, signal=stages.sae_check.signal)
    # Many pictures to a call: the features of a group always share theirs, so that a group's rows repeat.
    detector, segmenter = replace(stages.detector, exact=False), replace(stages.segmenter, exact=False)
    return CausalTest(
        Generator(load_pipeline(stages.model), stages.generation), saes, load_detector(detector),
        load_segmenter(segmenter), concepts, shared, config, stages.batch_size,
    )  # fmt: skip


@torch.no_grad()
def _firing(sae: SparseAutoencoder, x: Tensor) -> set[int]:
    codes = sae.encode(x.to(sae.encoder.device, sae.encoder.dtype))
    return set(codes.indices[codes.values > 0].tolist())
