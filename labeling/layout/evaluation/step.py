"""All methods of layout prediction at one sampler step, fitted on discovery pictures and measured on any others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.sites import Site
from gazetteer.labeling.layout.evaluation.config import LayoutEvaluationConfig
from gazetteer.labeling.layout.evaluation.group import Group, pictures_at_once
from gazetteer.labeling.layout.evaluation.measure import PairValues
from gazetteer.labeling.layout.evaluation.methods import (
    ChanceMethod,
    EvidenceMethod,
    LabelsMethod,
    Method,
    PaperMethod,
    PriorMethod,
    ScoreMaps,
)
from gazetteer.labeling.layout.evaluation.reading import Place, Reading, SamplerStep
from gazetteer.labeling.layout.evaluation.resampled import (
    AttentionMethod,
    CalibratedAttentionMethod,
    DirectionsMethod,
    NeuronsMethod,
    ProbeMethod,
)
from gazetteer.labeling.layout.label_layout import UNFITTED, UNFITTED_PRIOR, UNFITTED_WINNERS, UNFITTED_WINNERS_PRIOR
from gazetteer.labeling.layout.label_weights import MAX_Q
from gazetteer.labeling.layout.model import finest
from gazetteer.labeling.layout.run import LayoutRun
from gazetteer.sae.model.autoencoder import SparseAutoencoder

GAZETTEER, NEAREST, SHARED = "gazetteer", "gazetteer_nearest", "gazetteer_shared"
OF_THE_MODEL = (AttentionMethod, CalibratedAttentionMethod, DirectionsMethod, ProbeMethod, NeuronsMethod)
"""Methods that can read only pictures which were sampled again."""


class StepEvaluation:
    """Every method at one sampler step: fitted on discovery pictures, then measured on any group of pictures.

    At a step that the run did not store, ``gazetteer`` is one of two, whichever is better on the pictures it is fitted
    on: with the autoencoders of the nearest t (``gazetteer_nearest``) or of the middle t (``gazetteer_shared``).
    """

    def __init__(
        self, run: LayoutRun, saes: Mapping[Site, SparseAutoencoder], vectors: NDArray[np.floating],
        config: LayoutEvaluationConfig, t: float,
    ) -> None:  # fmt: skip
        """vectors: word vectors [C, d] of the run's concepts, for the published method."""
        self.step, self.vectors, self.config = SamplerStep(run, saes, t), vectors, config
        self.at_once = at_once(run, saes, config)
        self.methods: dict[str, Method] = {}

    @property
    def gazetteer(self) -> EvidenceMethod:
        """Gazetteer's method, fitted."""
        method = self.methods[GAZETTEER]
        assert isinstance(method, EvidenceMethod)
        return method

    @property
    def left_out(self) -> dict[str, str]:
        """Methods that the run's tables give nothing for, and why."""
        why = {
            method: f"{name}.parquet has labels of {layout.ports[0]}, the block they are read at, at other t alone"
            for method, name, layout in (
                ("labels", "candidates", self.step.labels), ("labels_winners", "labels", self.step.winners)
            )
            if layout is not None and not self.step.readable(layout)
        }  # fmt: skip
        if self.step.labels is None:
            why["labels"] = (
                "in candidates.parquet no thing, stuff or part goes with a feature of the cond branch beyond chance "
                f"(q of at most {MAX_Q:g} and a lift above 1, whatever labels.max_q lets into labels.parquet)"
            )
        if self.step.winners is None:
            why["labels_winners"] = "labels.parquet names no thing, stuff or part on the cond branch"
        return why

    @property
    def autoencoder_t(self) -> float:
        """The t of the autoencoders that ``gazetteer`` reads this step with."""
        return self.step.nearest_t if self.gazetteer.t is None else self.gazetteer.t

    def fit(self, train: Group, again: Group | None, live: EvidenceMethod | None = None) -> None:
        """Fit every method.

        Args:
            train: discovery pictures.
            again: those of them that were sampled again, None to leave out what needs that.
            live: as fitted at a stored step: measured at this one as ``live``, as a running pipeline would use it.
        """
        reading, step = Reading(self.step, train, training=True), self.step
        self.methods = {
            **_of_labels(reading),
            "prior": PriorMethod.fitted(reading),
            "chance": ChanceMethod(),
            "paper": PaperMethod.fitted(reading, self.vectors, self.config.top),
            **self._gazetteer(reading),
            "features_only": EvidenceMethod.fitted(reading, step.cond, with_prior=False),
            **{"/".join(place): EvidenceMethod.fitted(reading, [place]) for place in step.places},
        }
        uncond = [place for place in step.places if place not in step.cond]
        if uncond:
            self.methods["uncond"] = EvidenceMethod.fitted(reading, uncond)
        if live is not None:
            self.methods["live"] = EvidenceMethod(step.cond, live.fit)
        if again is not None and again.seen is not None:
            self.methods |= _of_the_model(Reading(step, again, training=True))

    def _gazetteer(self, reading: Reading) -> dict[str, Method]:
        near = EvidenceMethod.fitted(reading, self.step.cond)
        if self.step.stored:
            return {GAZETTEER: near}
        shared = EvidenceMethod.fitted(reading, self.step.cond, t=self.step.middle_t)
        best = max(near, shared, key=lambda method: method.predict(reading).miou(reading.truth))
        return {NEAREST: near, SHARED: shared, GAZETTEER: best}

    def scores(self, pictures: Group) -> Iterator[tuple[str, ScoreMaps]]:
        """What every method says of the pictures that it can read, by name."""
        reading = Reading(self.step, pictures)
        best: ScoreMaps | None = None  # of NEAREST or SHARED, under whose names gazetteer's are made first
        for name, method in self.methods.items():
            if pictures.seen is None and isinstance(method, OF_THE_MODEL):
                continue
            maps = best if name == GAZETTEER and best is not None else method.predict(reading)
            if method is self.gazetteer:
                best = maps
            yield name, maps

    def measure(self, pictures: Group) -> dict[str, Any]:
        """Every measurement of every method on a group of pictures."""
        values = PairValues()
        for part in pictures.parts(self.at_once):
            values.add_truth(part.truth(self.step.grid))
            for name, maps in self.scores(part):
                values.add(name, maps, part.truth(maps.grid))
        measured = values.summary(self.step.run.concepts, self.config.resamples, pictures.prompts)
        return measured | {"paper_site": "/".join(self.paper_place)}

    @property
    def paper_place(self) -> Place:
        """Where the published method reads."""
        method = self.methods["paper"]
        assert isinstance(method, PaperMethod)
        return method.place


def _of_labels(reading: Reading) -> dict[str, Method]:
    """The tables alone, where they label anything: candidates.parquet, and labels.parquet without what else was tested.

    First as `layout predict` does it, with nothing fitted, without and with the prior; then with thresholds as the
    other methods'.
    """
    step, methods = reading.step, dict[str, Method]()
    layout, winners = (
        known if known is not None and step.readable(known) else None for known in (step.labels, step.winners)
    )
    if layout is not None:
        methods |= {
            UNFITTED: LabelsMethod(layout),
            UNFITTED_PRIOR: LabelsMethod(layout, with_prior=True),
            "labels": LabelsMethod.fitted(reading, layout),
            "labels_prior": LabelsMethod.fitted(reading, layout, with_prior=True),
        }
    if winners is not None:
        methods |= {
            UNFITTED_WINNERS: LabelsMethod(winners),
            UNFITTED_WINNERS_PRIOR: LabelsMethod(winners, with_prior=True),
            "labels_winners": LabelsMethod.fitted(reading, winners),
        }
    return methods


def _of_the_model(reading: Reading) -> dict[str, Method]:
    """The baselines that read what the model shows."""
    methods: dict[str, Method] = {}
    if reading.step.t in reading.seen.attention:
        methods["attention"] = CalibratedAttentionMethod.fitted(reading)
        methods["attention_daam"] = AttentionMethod.fitted(reading)
    methods["directions"] = DirectionsMethod.fitted(reading)
    return methods | {"probe": ProbeMethod.fitted(reading), "neurons": NeuronsMethod.fitted(reading)}


def at_once(run: LayoutRun, saes: Mapping[Site, SparseAutoencoder], config: LayoutEvaluationConfig) -> int:
    """Pictures whose maps fit into the memory that `config` allows."""
    grid = finest(list(run.grids.values()))
    width = sum({site.block: sae.config.d for site, sae in saes.items()}.values()) if config.baselines else 0
    places = len({site.place for site in run.grids})
    return pictures_at_once(config.memory_mb, grid[0] * grid[1], len(run.concepts), places, width)
