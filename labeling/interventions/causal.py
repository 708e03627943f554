"""Switch single features on and see what appears and vanishes: what they cause, beside where they fire.

A picture's sampling is begun at the first step of the window's stage, from latents kept there, and carried on in
coarse steps; the picture without the edit is drawn in the same way, so that nothing but the edit differs. *On* adds the
feature, in multiples of its own 99th percentile, in every cell or in a box; *random* adds another feature of the same
site, drawn anew for every picture, at the same dose (as much is added, however long the vectors of the two are), in
the same cells and at the same steps. What is the feature's own is the difference of the two.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.sites import Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.edits import WINDOWS, Edit, Target, stage_of
from gazetteer.data.inputs.regions import Region
from gazetteer.data.tables.schemas import EFFECTS
from gazetteer.diffusion.edit_sampler import EditSampler, Picture, Start
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import load_pipeline
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import Detector
from gazetteer.labeling.interventions.causal_config import CausalConfig
from gazetteer.labeling.pipeline.config import StageConfig
from gazetteer.labeling.segment.finder import cut_out
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import Segmenter
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_site_saes
from gazetteer.sae.model.chunks import lengths_of

Areas = dict[str, float]
STATES = ("on", "random")


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
    """A feature to try.

    Attributes:
        scale: its 99th percentile over the cells where it fires.
        pictures: on which of the shared pictures, by place; empty: all of them.
        centres: x, y of cells in which it fires in the run, in 0 … 1; needed where features are switched in cells.
    """

    site: Site
    feature: int
    scale: float
    pictures: tuple[int, ...] = ()
    centres: tuple[tuple[float, float], ...] = ()

    def edit(self, config: CausalConfig, picture: int, other: tuple[int, float] | None = None) -> Edit:
        """The edit that switches it on in the picture at this place.

        other: a feature to switch on in its stead, and how long this one's vector is beside that one's; so much is
            added, as of this one.
        """
        feature, ratio = (self.feature, 1.0) if other is None else other
        target = Target(
            self.site.block, self.site.branch, self.site.t, (feature,), (self.scale * ratio,),
            stream=self.site.stream, signal=self.site.signal,
        )  # fmt: skip
        return Edit(
            targets=(target,), unit="feature_p99", strength=config.strength, window=WINDOWS[config.window],
            branch=self.site.branch, region=self._region(config, picture), outside="keep",
        )  # fmt: skip

    def random_feature(self, picture: int, lengths: NDArray[np.floating]) -> tuple[int, float]:
        """Another feature, drawn anew for every picture, and how long this one's vector is beside its own.

        lengths: of the site's vectors [features]; one of length 0 adds nothing, and is not drawn.
        """
        rng = np.random.default_rng([zlib.crc32(self.site.slug.encode()), self.feature, picture])
        others = np.setdiff1d(np.flatnonzero(lengths), self.feature)
        drawn = int(others[rng.integers(0, len(others))])
        return drawn, float(lengths[self.feature] / lengths[drawn])

    def _region(self, config: CausalConfig, picture: int) -> Region:
        if config.place == "everywhere" or not self.centres:
            return Region()
        half = config.box / 2
        x, y = (min(max(v, half), 1 - half) for v in self.centres[picture % len(self.centres)])
        return Region(box=(max(x - half, 0.0), max(y - half, 0.0), min(x + half, 1.0), min(y + half, 1.0)))


@dataclass
class _Plain:
    """What a start gives without an edit, by stage."""

    picture: dict[str, Picture] = field(default_factory=dict)
    areas: dict[str, Areas] = field(default_factory=dict)


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
        self._lengths: dict[Site, NDArray[np.floating]] = {}

    def measure(self, switches: Sequence[Switch]) -> pa.Table:
        """Rows of `schemas.EFFECTS` for every feature, state and picture of its own, and for the plain pictures."""
        rows: list[dict[str, Any]] = []
        stage = stage_of(self.config.window)
        for site in dict.fromkeys(switch.site for switch in switches):
            own = [switch for switch in switches if switch.site == site]
            places = sorted({i for switch in own for i in self.pictures_of(switch)})
            self.prepare(places)
            rows += [self._row(site, None, "plain", i, None) for i in places]
            todo = [(i, switch, state) for switch in own for state in STATES for i in self.pictures_of(switch)]
            made = self._draw([(i, self.edit(switch, state, i)) for i, switch, state in todo], stage)
            for (i, switch, state), judged in zip(todo, self._judged(todo, made, stage), strict=True):
                rows.append(self._row(site, switch.feature, state, i, judged))
        return pa.Table.from_pylist(rows, schema=EFFECTS)

    def use(self, config: CausalConfig) -> None:
        """Switch in another way from now on; plain pictures are kept where they are the same."""
        if config.stride != self.config.stride:
            raise ValueError("a test keeps its stride")
        self.config = config

    def pictures_of(self, switch: Switch) -> Sequence[int]:
        """The places of the pictures that a feature is tried on."""
        return switch.pictures or range(len(self.shared))

    def edit(self, switch: Switch, state: str, picture: int) -> Edit:
        """What is done to a picture in a state."""
        if state == "on":
            return switch.edit(self.config, picture)
        if switch.site not in self._lengths:
            self._lengths[switch.site] = lengths_of(self.saes[switch.site].decoder).double().cpu().numpy()
        return switch.edit(self.config, picture, switch.random_feature(picture, self._lengths[switch.site]))

    def _judged(
        self, todo: Sequence[tuple[int, Switch, str]], made: Sequence[Picture], stage: str
    ) -> list[tuple[Picture, Areas]]:
        """Every picture with what is found in it; one that came out as without the edit need not be looked at."""
        plain = [self._plain[i] for i, _, _ in todo]
        new = [n for n, own in enumerate(plain) if not np.array_equal(made[n], own.picture[stage])]
        areas_of = dict(zip(new, self._areas([made[n] for n in new]), strict=True))
        return [(picture, areas_of.get(n, plain[n].areas[stage])) for n, picture in enumerate(made)]

    def draw_and_judge(self, switch: Switch, state: str) -> list[Areas]:
        """What is found in every picture of a feature in a state; ``plain`` leaves it alone."""
        stage, every = stage_of(self.config.window), self.pictures_of(switch)
        edits = [None if state == "plain" else self.edit(switch, state, i) for i in every]
        return self._areas(self._draw(list(zip(every, edits, strict=True)), stage))

    def _row(
        self, site: Site, feature: int | None, state: str, i: int, judged: tuple[Picture, Areas] | None
    ) -> dict[str, Any]:
        stage = stage_of(self.config.window)
        plain = self._plain[i].picture[stage]
        picture, areas = judged or (plain, self._plain[i].areas[stage])
        change = float(np.abs(picture.astype(np.int16) - plain.astype(np.int16)).mean() / 255.0)
        return {
            **site.columns(), "feature": feature, "state": state, "image_id": self.shared[i].image_id,
            "change": change, "concept": list(areas), "area": list(areas.values()),
        }  # fmt: skip

    def prepare(self, places: Sequence[int]) -> None:
        """Draw those of the shared pictures that are not drawn yet without an edit, as the edited ones are."""
        stage = stage_of(self.config.window)
        missing = [i for i in places if stage not in self._plain[i].picture]
        for start in range(0, len(missing), self.batch_size):
            batch = missing[start : start + self.batch_size]
            pictures = self._draw([(i, None) for i in batch], stage)
            for i, picture, areas in zip(batch, pictures, self._areas(pictures), strict=True):
                self._plain[i].picture[stage], self._plain[i].areas[stage] = picture, areas

    def _draw(self, work: Sequence[tuple[int, Edit | None]], stage: str) -> list[Picture]:
        """One picture for each shared one and its edit, or none, many to a batch."""
        starts = [self.shared[i].start for i, _ in work]
        return self.sampler.edited(starts, [() if edit is None else (edit,) for _, edit in work], stage)

    def _areas(self, pictures: Sequence[Picture]) -> list[Areas]:
        """Per picture the share of it that every concept that is found covers."""
        areas: list[Areas] = []
        for begin in range(0, len(pictures), self.batch_size):
            batch = pictures[begin : begin + self.batch_size]
            detected = self.detector.detect(batch, [self.concepts] * len(batch))
            masks = cut_out(self.segmenter, batch, detected)
            for own, segments in zip(detected, masks, strict=True):
                unions: dict[str, NDArray[np.bool_]] = {}
                for detection, segment in zip(own, segments, strict=True):
                    before = unions.get(detection.concept)
                    unions[detection.concept] = segment.mask if before is None else before | segment.mask
                areas.append({c: float(unions[c].mean()) for c in sorted(unions) if unions[c].any()})
        return areas


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
