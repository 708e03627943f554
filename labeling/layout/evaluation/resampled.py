"""Baselines that need what the model shows while it samples again: attention, directions, a probe, raw neurons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.sites import Site
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.layout.calibration import LayoutFit, inputs_of
from gazetteer.labeling.layout.evaluation.baselines import (
    Directions,
    Neurons,
    Probe,
    attention_scores,
    dense_inputs,
    fit_probe,
    out_of_fold,
    table_of_codes,
)
from gazetteer.labeling.layout.evaluation.methods import ScoreMaps, calibrated
from gazetteer.labeling.layout.evaluation.reading import Place, Reading, at
from gazetteer.labeling.layout.metrics import fit_thresholds
from gazetteer.labeling.layout.own_counts import own_counts
from gazetteer.labeling.layout.score_maps import evidence_maps
from gazetteer.labeling.layout.site_table import SiteTable

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class AttentionMethod:
    """Cross-attention to the words of the prompt, thresholded as it is (DAAM, arXiv 2210.04885)."""

    thresholds: Floats

    @classmethod
    def fitted(cls, reading: Reading) -> AttentionMethod:
        """On training pictures."""
        return cls(fit_thresholds(_attention(reading), reading.truth))

    def predict(self, reading: Reading) -> ScoreMaps:
        """See `Method.predict`."""
        peaks = reading.seen.attention[reading.step.t].max(axis=1)
        return ScoreMaps(_attention(reading), peaks, self.thresholds, reading.step.grid)


@dataclass(frozen=True)
class CalibratedAttentionMethod:
    """Cross-attention with the calibration and the layout prior that Gazetteer's evidence gets."""

    fit: LayoutFit

    @classmethod
    def fitted(cls, reading: Reading) -> CalibratedAttentionMethod:
        """On training pictures; attention knows nothing of masks, so that nothing has to be taken out."""
        return cls(LayoutFit.of(_attention_inputs(reading), reading.truth))

    def predict(self, reading: Reading) -> ScoreMaps:
        """See `Method.predict`."""
        return calibrated(self.fit, _attention_inputs(reading), reading.step.grid)


@dataclass(frozen=True)
class DirectionsMethod:
    """Mean-difference directions of the dense activations of all blocks, without an SAE, calibrated as the evidence."""

    directions: Directions
    fit: LayoutFit

    @classmethod
    def fitted(cls, reading: Reading) -> DirectionsMethod:
        """On training pictures; the calibration sees each of them by directions that did not."""
        dense, grid = _dense(reading), reading.step.grid
        inputs = inputs_of([(out_of_fold(Directions.of, dense, reading.truth), grid)], reading.prior, grid)
        return cls(Directions.of(dense, reading.truth), LayoutFit.of(inputs, reading.truth))

    def predict(self, reading: Reading) -> ScoreMaps:
        """See `Method.predict`."""
        grid = reading.step.grid
        return calibrated(self.fit, inputs_of([(self.directions(_dense(reading)), grid)], reading.prior, grid), grid)


@dataclass(frozen=True)
class ProbeMethod:
    """A linear probe on the dense activations of all blocks, calibrated as Gazetteer's evidence is."""

    probe: Probe
    fit: LayoutFit

    @classmethod
    def fitted(cls, reading: Reading) -> ProbeMethod:
        """On training pictures; the calibration sees each of them by a probe that did not."""
        dense, grid = _dense(reading), reading.step.grid
        inputs = inputs_of([(out_of_fold(fit_probe, dense, reading.truth), grid)], reading.prior, grid)
        return cls(fit_probe(dense, reading.truth), LayoutFit.of(inputs, reading.truth))

    def predict(self, reading: Reading) -> ScoreMaps:
        """See `Method.predict`."""
        grid = reading.step.grid
        return calibrated(self.fit, inputs_of([(self.probe(_dense(reading)), grid)], reading.prior, grid), grid)


@dataclass(frozen=True)
class NeuronsMethod:
    """Raw channels in the place of features, read as Gazetteer reads features.

    Attributes:
        neurons: per place the channels' scale, and the table that they are read with.
    """

    neurons: Mapping[Place, tuple[Neurons, SiteTable]]
    fit: LayoutFit

    @classmethod
    def fitted(cls, reading: Reading) -> NeuronsMethod:
        """On training pictures."""
        step, neurons, parts = reading.step, {}, []
        for place in step.cond:
            site, grid = step.site(place), reading.seen.grids[place[0]]
            channels = Neurons.of(reading.seen.updates[at(place, step.t)], step.saes[site].config.k)
            codes, truth = _codes(channels, reading, place, site), reading.pictures.truth(grid)
            table = table_of_codes(codes, truth, step.run.concepts)
            neurons[place] = channels, table
            parts.append((evidence_maps(table, codes, own_counts(table, codes, truth)), grid))
        return cls(neurons, LayoutFit.of(inputs_of(parts, reading.prior, step.grid), reading.truth))

    def predict(self, reading: Reading) -> ScoreMaps:
        """See `Method.predict`."""
        parts: list[tuple[Floats, Grid]] = []
        for place, (channels, table) in self.neurons.items():
            parts.append((evidence_maps(table, _codes(channels, reading, place, table.site)), table.grid))
        return calibrated(self.fit, inputs_of(parts, reading.prior, reading.step.grid), reading.step.grid)


def _attention(reading: Reading) -> Floats:
    return attention_scores(reading.seen.attention[reading.step.t], reading.seen.attention_grid, reading.step.grid)


def _attention_inputs(reading: Reading) -> Floats:
    maps = _attention(reading)
    return inputs_of([(maps, reading.step.grid)], reading.prior, reading.step.grid)


def _dense(reading: Reading) -> Floats:
    """Activations of all blocks on the step's grid; not kept, they are the largest thing of all."""
    seen, t = reading.seen, reading.step.t
    return dense_inputs([(seen.updates[at(p, t)], seen.grids[p[0]]) for p in reading.step.cond], reading.step.grid)


def _codes(channels: Neurons, reading: Reading, place: Place, site: Site) -> SiteCodes:
    seen = reading.seen
    return channels.codes(site, seen.image_ids, seen.updates[at(place, reading.step.t)], seen.grids[place[0]])
