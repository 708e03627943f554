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

from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import STAGES, Edit, Target
from gazetteer.data.tables.schemas import EFFECTS
from gazetteer.diffusion.capture import capture_updates, cells, split_branches
from gazetteer.diffusion.draw import pictures_of
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import load_pipeline
from gazetteer.diffusion.resume import can_resume, coarse_stride, keep_latents, resumed_at
from gazetteer.diffusion.steer import steer
from gazetteer.diffusion.watch import Call
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import Detector
from gazetteer.labeling.interventions.causal_config import CausalConfig
from gazetteer.labeling.pipeline.stages import StageConfig
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import Segmenter
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_site_saes

Picture = NDArray[np.uint8]
Areas = dict[str, float]
STATES = ("on", "off")


@dataclass(frozen=True)
class Start:
    """A picture of the run: its id, its prompt and the seed of its noise."""

    image_id: str
    prompt: str
    seed: int


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
            target = Target(site.block, site.branch, site.t, features, (self.scale,))
            return Edit(targets=(target,), unit="feature_p99", strength=strength, **common)
        target = Target(site.block, site.branch, site.t, features)
        return Edit(targets=(target,), unit="code", strength=-1.0, **common)


def stage_of(site: Site) -> str:
    """The stage in whose window the site listens."""
    return next(name for name, window in STAGES.items() if Edit(concept="-", window=window).active(site.t))


@dataclass
class _Plain:
    """What a start gives without an edit, by stage; `fired`: by site the features that fire at an edited step."""

    latents: dict[str, Tensor] = field(default_factory=dict)
    picture: dict[str, Picture] = field(default_factory=dict)
    areas: dict[str, Areas] = field(default_factory=dict)
    fired: dict[Site, set[int]] = field(default_factory=dict)


class Switchboard:
    """The models, and the shared pictures without edits, drawn once for all features."""

    def __init__(
        self, generator: Generator, saes: Mapping[Site, SparseAutoencoder], detector: Detector, segmenter: Segmenter,
        concepts: Sequence[str], starts: Sequence[Start], config: CausalConfig, batch_size: int = 8,
    ) -> None:  # fmt: skip
        """`concepts` are asked of every picture."""
        self.generator, self.pipe, self.saes = generator, generator.pipe, saes
        self.detector, self.segmenter, self.concepts = detector, segmenter, tuple(concepts)
        self.starts, self.config, self.batch_size = tuple(starts), config, batch_size
        steps = generator.config.steps
        self.schedule = generator.schedule
        self.resumes = can_resume(self.pipe)
        self.stride = coarse_stride(self.pipe, steps, config.stride) if self.resumes else 1
        self.first = {stage: self._first_step(window) for stage, window in STAGES.items()}
        self._plain: list[_Plain] = []
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
            rows += [self._row(site, None, "plain", i, None) for i in range(len(self.starts))]
            todo = [(i, switch, state) for switch in mine for state in STATES for i in range(len(self.starts))
                    if state == "on" or switch.feature in self._plain[i].fired[site]]  # fmt: skip
            made = self._draw([(i, s.edit(state, self.config.strength)) for i, s, state in todo], stage)
            judged = dict(zip(todo, self._judged(todo, made, stage), strict=True))
            for switch in mine:
                for state in STATES:
                    for i in range(len(self.starts)):
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
        stage, every = stage_of(switch.site), range(len(self.starts))
        if state in STATES:
            edit = switch.edit(state, self.config.strength)
            return self._areas(self._draw([(i, edit) for i in every], stage))
        batches = [every[i : i + self.batch_size] for i in range(0, len(every), self.batch_size)]
        return self._areas([picture for batch in batches for picture in self._call(batch, stage)])

    def _row(
        self, site: Site, feature: int | None, state: str, i: int, found: tuple[Picture, Areas] | None
    ) -> dict[str, Any]:
        stage = stage_of(site)
        plain = self._plain[i].picture[stage]
        picture, areas = found or (plain, self._plain[i].areas[stage])
        change = float(np.abs(picture.astype(np.int16) - plain.astype(np.int16)).mean() / 255.0)
        return {
            "block": site.block, "branch": site.branch, "t": site.t, "feature": feature, "state": state,
            "image_id": self.starts[i].image_id, "drawn": found is not None, "change": change,
            "concept": list(areas), "area": list(areas.values()),
        }  # fmt: skip

    def _first_step(self, window: tuple[float, float]) -> int:
        return self.schedule.first_step(window) if self.resumes else 0

    def prepare(self, site: Site) -> None:
        """Draw the shared pictures as far as the stage of `site` needs them; once, for all its features."""
        stage = stage_of(site)
        if stage in self._ready:
            return
        if not self._plain:
            self._keep_latents()
        probe = Edit(concept="-", window=STAGES[stage])
        sites = [site for site in self.saes if stage_of(site) == stage]
        blocks = sorted({site.block for site in sites})
        for start in range(0, len(self.starts), self.batch_size):
            batch = range(start, min(start + self.batch_size, len(self.starts)))

            def listen(block: str, _: Call, update: Tensor, batch: range = batch) -> None:
                halves = split_branches(update, len(batch))
                for site in (one for one in sites if one.block == block and one.branch in halves):
                    for i, x in zip(batch, cells(halves[site.branch]), strict=True):
                        self._plain[i].fired.setdefault(site, set()).update(_firing(self.saes[site], x))

            with capture_updates(self.pipe, blocks, listen, lambda call: probe.active(call.t), self.schedule):
                pictures = self._call(batch, stage)
            for i, picture, areas in zip(batch, pictures, self._areas(pictures), strict=True):
                self._plain[i].picture[stage], self._plain[i].areas[stage] = picture, areas
                for site in sites:
                    self._plain[i].fired.setdefault(site, set())
        self._ready.add(stage)

    @torch.inference_mode()
    def _keep_latents(self) -> None:
        """One whole sampling of every shared picture, for the latents at each stage's first step."""
        unet, config = self.pipe.unet, self.generator.config
        last = max(self.first.values())
        for start in range(0, len(self.starts), self.batch_size):
            batch = self.starts[start : start + self.batch_size]
            noise = torch.cat([self.generator.noise(one.seed) for one in batch]).to(unet.device, unet.dtype)
            kept: dict[int, Tensor] = {}
            if last:
                with keep_latents(self.pipe, set(self.first.values()), len(batch)) as kept:
                    self.pipe(
                        prompt=[one.prompt for one in batch], latents=noise, num_inference_steps=config.steps,
                        guidance_scale=config.guidance, output_type="latent", **self._size,
                    )  # fmt: skip
            for i in range(len(batch)):
                # Step 0 starts from the noise itself, which the pipeline may scale before the U-Net sees it.
                own = {stage: noise[i : i + 1] if step == 0 else kept[step][i : i + 1]
                       for stage, step in self.first.items()}  # fmt: skip
                self._plain.append(_Plain(own))

    def _draw(self, work: Sequence[tuple[int, Edit]], stage: str) -> list[Picture]:
        """One picture a (start, edit), many edits to a batch."""
        done: list[Picture] = []
        for begin in range(0, len(work), self.batch_size):
            some = work[begin : begin + self.batch_size]
            edits = [_at_place(edit, place) for place, (_, edit) in enumerate(some)]
            with steer(self.pipe, edits, self.saes, schedule=self.schedule):
                done += self._call([i for i, _ in some], stage)
        return done

    @torch.inference_mode()
    def _call(self, numbers: Sequence[int], stage: str) -> list[Picture]:
        config = self.generator.config
        with resumed_at(self.pipe, self.first[stage], self.stride):
            made = self.pipe(
                prompt=[self.starts[i].prompt for i in numbers],
                latents=torch.cat([self._plain[i].latents[stage] for i in numbers]),
                num_inference_steps=config.steps, guidance_scale=config.guidance, output_type="np", **self._size,
            )  # fmt: skip
        return list(pictures_of(made))

    @property
    def _size(self) -> dict[str, int]:
        return {name: value for name in ("height", "width") if (value := getattr(self.generator.config, name))}

    def _areas(self, pictures: Sequence[Picture]) -> list[Areas]:
        """Per picture the share of it that every concept that is found covers."""
        found: list[Areas] = []
        for begin in range(0, len(pictures), self.batch_size):
            some = pictures[begin : begin + self.batch_size]
            detected = self.detector.detect(some, [self.concepts] * len(some))
            masks = self.segmenter.segment(some, [[one.box for one in own] for own in detected])
            for own, segments in zip(detected, masks, strict=True):
                unions: dict[str, NDArray[np.bool_]] = {}
                for one, segment in zip(own, segments, strict=True):
                    before = unions.get(one.concept)
                    unions[one.concept] = segment.mask if before is None else before | segment.mask
                found.append({c: float(unions[c].mean()) for c in sorted(unions) if unions[c].any()})
        return found


def load_switchboard(
    stages: StageConfig, concepts: Sequence[str], starts: Sequence[Start], config: CausalConfig
) -> Switchboard:
    """A switchboard with the models of a run, loaded here.

    Raises:
        InputError: a model or an autoencoder that cannot be loaded.
    """
    if stages.threads:
        torch.set_num_threads(stages.threads)
    saes = load_site_saes(stages.saes, stages.generation.sites, stages.model.device, signal=stages.sae_check.signal)
    # Many pictures to a call: the features of a group always share theirs, so that a group's rows repeat.
    detector, segmenter = replace(stages.detector, exact=False), replace(stages.segmenter, exact=False)
    return Switchboard(
        Generator(load_pipeline(stages.model), stages.generation), saes, load_detector(detector),
        load_segmenter(segmenter), concepts, starts, config, stages.batch_size,
    )  # fmt: skip


def _at_place(edit: Edit, place: int) -> Edit:
    return Edit(**{**vars(edit), "images": (place,)})


@torch.no_grad()
def _firing(sae: SparseAutoencoder, x: Tensor) -> set[int]:
    codes = sae.encode(x.to(sae.encoder.device, sae.encoder.dtype))
    return set(codes.indices[codes.values > 0].tolist())
