"""All methods of layout prediction at one sampler step, fitted on discovery pictures and applied to any others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.layout.data import LayoutRun, nearest_site
from gazetteer.labeling.layout.evaluation.baselines import (
    Neurons,
    attention_scores,
    dense_inputs,
    fit_probe,
    probe_out_of_fold,
    table_of_codes,
)
from gazetteer.labeling.layout.evaluation.group import Group, pictures_at_once
from gazetteer.labeling.layout.evaluation.model_pass import Seen
from gazetteer.labeling.layout.fit import LayoutFit, inputs_of
from gazetteer.labeling.layout.metrics import (
    Truth,
    average_precision,
    concept_means,
    fit_thresholds,
    macro_mean,
    pair_ious,
    pair_pointing,
)
from gazetteer.labeling.layout.model import finest
from gazetteer.labeling.layout.scores import SiteTable, evidence_maps, own_counts, paper_maps
from gazetteer.labeling.quality.intervals import sample_weights
from gazetteer.sae.model.autoencoder import SparseAutoencoder

Floats = NDArray[np.float32]

NEAREST, SHARED = "gazetteer_nearest", "gazetteer_shared"

MIN_PAIRS = 5
"""Held-out pairs a concept needs to count in the means."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What is measured, and at what cost.

    Attributes:
        train_images, heldout_images: pictures sampled again for everything that needs more than the stored codes;
            0 takes all of the run. With stored codes all discovery pictures are used for fitting in any case.
        every_step: all sampler steps; otherwise only those the run stored.
        baselines: whether to sample again at all; without, only what needs no more than the stored codes is measured.
        resamples: bootstrap samples of the pictures.
        top: features a cell gives to the published method.
        batch_size: pictures sampled together.
        memory_mb: what the maps of all methods may take. Held-out pictures are measured in parts that fit; everything
            is fitted on at most as many discovery pictures as fit.
    """

    train_images: int = 0
    heldout_images: int = 0
    every_step: bool = True
    baselines: bool = True
    resamples: int = 1000
    top: int = 5
    batch_size: int = 8
    memory_mb: int = 2000

    def __post_init__(self) -> None:
        for name, low in (("train_images", 0), ("heldout_images", 0), ("resamples", 1), ("top", 1), ("batch_size", 1),
                          ("memory_mb", 1)):  # fmt: skip
            if getattr(self, name) < low:
                raise InputError(f"{name} must be at least {low}, not {getattr(self, name)}.")
        if self.every_step and not self.baselines:
            raise InputError("Steps that the run did not store have to be sampled again; keep the baselines.")


class StepEvaluation:
    """All methods at one sampler step: fitted on `train`, then applied to any group of pictures.

    Given a fit of another step as ``fits["live"]``, that one is applied to this step's codes beside them. At a step
    that the run did not store, ``gazetteer`` is one of two, whichever is better on the pictures it is fitted on: with
    the autoencoders of the nearest t (``gazetteer_nearest``) or with those of the middle t (``gazetteer_shared``).
    """

    def __init__(
        self, run: LayoutRun, saes: Mapping[Site, SparseAutoencoder], vectors: NDArray[np.floating],
        config: EvaluateConfig, t: float,
    ) -> None:  # fmt: skip
        self.run, self.saes, self.vectors, self.config, self.t = run, saes, vectors, config, t
        self.places = sorted({(site.block, site.branch) for site in run.grids})
        self.cond = [place for place in self.places if place[1] == "cond"]
        self.grid = finest([run.grids[site] for site in run.grids])
        self.at_once = at_once(run, saes, config)
        self.on_grid = next(table for site, table in run.tables.items() if table.grid == self.grid)
        self.thresholds: dict[str, Floats] = {}
        self.fits: dict[str, LayoutFit] = {}
        self.probe: Any = None
        self.neurons: dict[str, tuple[Neurons, SiteTable]] = {}
        self.best_paper = self.cond[0]
        self._shared_t = sorted({site.t for site in run.grids})[len({site.t for site in run.grids}) // 2]
        self.stored_t = any(abs(site.t - t) < 1e-4 for site in run.grids)
        self.nearest_t = self.site(self.cond[0]).t
        self.taken = "gazetteer" if self.stored_t else NEAREST

    # What is read

    @property
    def autoencoder_t(self) -> float:
        """The t of the autoencoders that ``gazetteer`` reads this step with."""
        return self._shared_t if self.taken == SHARED else self.nearest_t

    def site(self, place: tuple[str, str], t: float | None = None) -> Site:
        """The run's site nearest to this step at a (block, branch)."""
        return nearest_site(list(self.run.grids), *place, self.t if t is None else t)

    def codes(self, group: Group, place: tuple[str, str], site: Site) -> SiteCodes:
        """The codes of a group at this step by the autoencoder of `site`: stored ones where there are."""
        if group.stored and abs(site.t - self.t) < 1e-4:
            return self.run.codes(site, group.rows)
        if group.seen is None:
            raise InputError(f"The run stores no codes at t={self.t:.2f}.")
        return group.seen.codes(Site(*place, self.t), site, self.saes[site])

    def own(self, group: Group, site: Site) -> Any:
        """What a group of discovery pictures added to the table of `site`."""
        truth = self.run.truth(self.run.grids[site], group.rows)
        return own_counts(self.run.tables[site], self.run.codes(site, group.rows), truth.pixels)

    def parts(self, group: Group, training: bool, t: float | None = None) -> dict[tuple[str, str], tuple[Floats, Grid]]:
        """Evidence maps of every (block, branch); with `training` each picture's own counts are taken out."""
        found = {}
        for place in self.places if t is None else self.cond:
            site = self.site(place, t)
            own = self.own(group, site) if training else None
            codes = self.codes(group, place, site)
            found[place] = (evidence_maps(self.run.tables[site], codes, own), self.run.grids[site])
        return found

    # Fitting, on discovery pictures

    def fit(self, train: Group, seen_train: Group | None) -> None:
        """Fit every method. `seen_train`: the pictures of `train` that were sampled again, None without baselines."""
        truth = train.truth(self.grid)
        prior = self.on_grid.prior(truth.pixels)
        self.thresholds["prior"] = fit_thresholds(np.ascontiguousarray(prior), truth)
        parts = self.parts(train, training=True)
        cond = [parts[place] for place in self.cond]
        self._fit(self.taken, cond, prior, truth)
        self._fit("features_only", cond, None, truth)
        for place, part in parts.items():
            self._fit("/".join(place), [part], prior, truth)
        uncond = [parts[place] for place in self.places if place not in self.cond]
        if uncond:
            self._fit("uncond", uncond, prior, truth)
        self._fit_paper(train)
        if seen_train is not None and seen_train.seen is not None:
            self._fit_seen(seen_train, seen_train.seen)
        if not self.stored_t:
            self._fit_either(train, cond, prior, truth)

    def _fit(self, name: str, parts: list[tuple[Floats, Grid]], prior: Floats | None, truth: Truth) -> None:
        self.fits[name] = LayoutFit.of(inputs_of(parts, prior, self.grid), truth)

    def _fit_paper(self, train: Group) -> None:
        """The published method at the site that is best on training pictures."""
        best = -1.0
        for place in self.cond:
            site = self.site(place)
            truth = train.truth(self.run.grids[site])
            table, codes = self.run.tables[site], self.codes(train, place, site)
            scores = paper_maps(table, codes, self.vectors, self.config.top)
            thresholds = fit_thresholds(scores, truth)
            miou = macro_mean(pair_ious(scores, truth, thresholds), np.ones((1, len(scores))))[0]
            if miou > best:
                best, self.best_paper, self.thresholds["paper"] = miou, place, thresholds

    def _fit_seen(self, train: Group, seen: Seen) -> None:
        truth = train.truth(self.grid)
        prior = self.on_grid.prior(truth.pixels)
        if self.t in seen.attention:
            maps = attention_scores(seen.attention[self.t], seen.attention_grid, self.grid)
            self.thresholds["attention"] = fit_thresholds(maps, truth)
        dense = self._dense(seen)
        self.probe = fit_probe(dense, truth)
        self._fit("probe", [(probe_out_of_fold(dense, truth), self.grid)], prior, truth)
        del dense
        parts = []
        for place in self.cond:
            site = self.site(place)
            updates, grid = seen.updates[Site(*place, self.t)], seen.grids[place[0]]
            neurons = Neurons.of(updates, self.saes[site].config.k)
            codes = neurons.codes(site, seen.image_ids, updates, grid)
            table = table_of_codes(codes, train.truth(grid), self.run.concepts)
            self.neurons[place[0]] = (neurons, table)
            own = own_counts(table, codes, train.truth(grid).pixels)
            parts.append((evidence_maps(table, codes, own), grid))
        self._fit("neurons", parts, prior, truth)

    def _fit_either(self, train: Group, near: list[tuple[Floats, Grid]], prior: Floats, truth: Truth) -> None:
        """Read with the autoencoders of the nearest t or of the middle one, whichever has the higher training mIoU."""
        reached = {}
        shared = list(self.parts(train, training=True, t=self._shared_t).values())
        for name, parts in ((NEAREST, near), (SHARED, shared)):
            inputs = inputs_of(parts, prior, self.grid)
            fit = self.fits[name] = self.fits.get(name) or LayoutFit.of(inputs, truth)
            ious = pair_ious(fit.where.probabilities(inputs), truth, fit.where.thresholds)
            reached[name] = macro_mean(ious, np.ones((1, len(ious))))[0]
        self.taken = max(reached, key=lambda name: reached[name])  # of two alike the nearest
        self.fits["gazetteer"] = self.fits[self.taken]

    def _dense(self, seen: Seen) -> Floats:
        return dense_inputs([(seen.updates[Site(*p, self.t)], seen.grids[p[0]]) for p in self.cond], self.grid)

    # Applying, on any pictures

    def scores(self, group: Group) -> dict[str, tuple[Floats, Floats, Floats, Grid]]:
        """Per method: maps [N, cells, C], presence scores [N, C], thresholds [C] and the grid."""
        prior = self.on_grid.prior()
        count = len(group.image_ids)
        parts = self.parts(group, training=False)
        cond = [parts[place] for place in self.cond]
        near = inputs_of(cond, prior, self.grid)
        inputs = {"gazetteer" if self.stored_t else NEAREST: near, "features_only": inputs_of(cond, None, self.grid)}
        inputs |= {"/".join(place): inputs_of([part], prior, self.grid) for place, part in parts.items()}
        if "live" in self.fits:
            inputs["live"] = near
        if "uncond" in self.fits:
            others = [parts[place] for place in self.places if place not in self.cond]
            inputs["uncond"] = inputs_of(others, prior, self.grid)
        if not self.stored_t:
            shared = list(self.parts(group, training=False, t=self._shared_t).values())
            inputs[SHARED] = inputs_of(shared, prior, self.grid)
            inputs["gazetteer"] = inputs[self.taken]
        maps: dict[str, Floats] = {"prior": np.repeat(prior, count, axis=0)}
        maps["chance"] = np.zeros_like(maps["prior"])
        grids = {}
        if group.seen is not None and self.probe is not None:
            inputs |= self._seen_inputs(group, group.seen, prior)
            if "attention" in self.thresholds:
                seen = group.seen
                maps["attention"] = attention_scores(seen.attention[self.t], seen.attention_grid, self.grid)
        site = self.site(self.best_paper)
        table = self.run.tables[site]
        maps["paper"] = paper_maps(table, self.codes(group, self.best_paper, site), self.vectors, self.config.top)
        grids["paper"] = table.grid
        found = {}
        for name, some in maps.items():
            thresholds = self.thresholds.get(name, np.zeros(some.shape[2], np.float32))
            peaks = some.max(axis=1)
            if name == "attention" and group.seen is not None:
                peaks = group.seen.attention[self.t].max(axis=1)
            found[name] = (some, peaks, thresholds, grids.get(name, self.grid))
        for name, given in inputs.items():
            fit = self.fits[name]
            found[name] = (fit.where.probabilities(given), fit.peaks(given), fit.where.thresholds, self.grid)
        return found

    def _seen_inputs(self, group: Group, seen: Seen, prior: Floats) -> dict[str, Floats]:
        inputs = {"probe": inputs_of([(self.probe(self._dense(seen)), self.grid)], prior, self.grid)}
        parts = []
        for place in self.cond:
            neurons, table = self.neurons[place[0]]
            updates = seen.updates[Site(*place, self.t)]
            codes = neurons.codes(table.site, seen.image_ids, updates, seen.grids[place[0]])
            parts.append((evidence_maps(table, codes), table.grid))
        inputs["neurons"] = inputs_of(parts, prior, self.grid)
        return inputs

    def measure(self, group: Group) -> dict[str, Any]:
        """Every measurement of every method on a group of pictures."""
        ious: dict[str, list[NDArray[np.float64]]] = {}
        pointing: dict[str, list[NDArray[np.float64]]] = {}
        peaks: dict[str, list[Floats]] = {}
        truths: list[Truth] = []
        for part in group.parts(self.at_once):
            truths.append(_shown(part.truth(self.grid)))
            for name, (maps, peak, thresholds, grid) in self.scores(part).items():
                truth = part.truth(grid)
                ious.setdefault(name, []).append(pair_ious(maps, truth, thresholds))
                pointing.setdefault(name, []).append(pair_pointing(maps, truth))
                peaks.setdefault(name, []).append(peak)
        names = ("pixels", "wanted", "asked")
        pixels, wanted, asked = (np.concatenate([getattr(one, name) for one in truths]) for name in names)
        counted = wanted.sum(axis=0) >= MIN_PAIRS
        if not counted.any():
            counted[:] = True
        return self._summed(
            {name: np.where(counted, np.concatenate(parts), np.nan) for name, parts in ious.items()},
            {name: np.where(counted, np.concatenate(parts), np.nan) for name, parts in pointing.items()},
            {name: np.concatenate(parts) for name, parts in peaks.items()},
            Truth(pixels, truths[0].areas, wanted, asked),
        )

    def _summed(
        self, ious: Mapping[str, NDArray[np.float64]], pointing: Mapping[str, NDArray[np.float64]],
        peaks: Mapping[str, Floats], truth: Truth,
    ) -> dict[str, Any]:  # fmt: skip
        """Means and intervals from the values of every picture and concept, [N, C] each."""
        weights = sample_weights(len(truth.wanted), self.config.resamples)
        result: dict[str, Any] = {
            "miou": {name: list(macro_mean(values, weights)) for name, values in ious.items()},
            "pointing": {name: list(macro_mean(values, weights)) for name, values in pointing.items()},
            "presence_ap": {name: list(average_precision(values, truth, weights)) for name, values in peaks.items()},
            "by_concept": {name: self._by_concept(values, weights) for name, values in ious.items()},
            "paper_site": "/".join(self.best_paper),
        }
        result["margin"] = {
            name: list(macro_mean(ious["gazetteer"] - other, weights))
            for name, other in ious.items()
            if name != "gazetteer"
        }
        return result

    def _by_concept(self, ious: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, list[float]]:
        """The mIoU of every concept that has a pair."""
        found = zip(self.run.concepts, concept_means(ious, weights), strict=True)
        return {concept: [round(v, 4) for v in values] for concept, values in found if not np.isnan(values[0])}


def _shown(truth: Truth) -> Truth:
    """What presence needs of the masks: as if there were one cell, with a pixel where the concept is shown."""
    return Truth(truth.present[:, :, None].astype(np.int32), truth.areas[:1], truth.wanted, truth.asked)


def at_once(run: LayoutRun, saes: Mapping[Site, SparseAutoencoder], config: EvaluateConfig) -> int:
    """Pictures whose maps fit into the memory that `config` allows."""
    grid = finest(list(run.grids.values()))
    width = sum({site.block: sae.config.d for site, sae in saes.items()}.values()) if config.baselines else 0
    places = len({(site.block, site.branch) for site in run.grids})
    return pictures_at_once(config.memory_mb, grid[0] * grid[1], len(run.concepts), places, width)
