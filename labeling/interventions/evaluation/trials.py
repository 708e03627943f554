"""One edit on one picture, drawn and measured: a row of `gazetteer.data.tables.schemas.TRIALS` each."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import SAE_UNITS, Edit, Target, stage_of
from gazetteer.data.inputs.regions import QUADRANTS, Region
from gazetteer.data.tables.schemas import TRIALS
from gazetteer.diffusion.edit_sampler import Picture
from gazetteer.labeling.interventions.evaluation.cases import EditCase
from gazetteer.labeling.interventions.evaluation.observer import EditObserver, ObservedPicture
from gazetteer.labeling.interventions.evaluation.scores import (
    in_box,
    lands_in,
    mask_iou,
    outside_change,
    structural_distance,
)
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.chunks import lengths_of

DENSE = "mean_difference"
"""The direction of dense activations (`directions.mean_directions`), without an autoencoder."""
SPATIAL = ("gazetteer", "paper", DENSE, "random_features", "random_direction", "none")
OURS = ("gazetteer", "paper", DENSE)
"""Methods that add what stands for the concept; the random ones change what `gazetteer` would add."""
GLOBAL = ("gazetteer", "random_features", "none")


class Classifier(Protocol):
    """Reads the style of pictures, or what they show.

    A function ``digest() -> str`` of its module may name its weights: trials by others are not gone on with.
    """

    labels: Sequence[str]

    def probabilities(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability of every label, [N, len(labels)], for uint8 pictures [N, H, W, 3]."""
        ...


@dataclass(frozen=True)
class Trial:
    """One thing to try.

    Attributes:
        case: the picture, what is asked of it and where.
        half: of the prompts, as `steer_cases.Cases` names them.
        stage: in whose window the edit lies; empty for the method ``none``.
        method: one of SPATIAL, or of GLOBAL when the case has no quadrant.
        setting: the name of the edit's setting; empty for ``none``.
        edit: with targets; None for ``none``.
        number: of the case, from which random choices are drawn.
    """

    case: EditCase
    half: str
    method: str
    number: int
    stage: str = ""
    setting: str = ""
    edit: Edit | None = None


class Trials:
    """The models of an evaluation, in the process that uses them."""

    def __init__(self, observer: EditObserver, classifier: Classifier | None = None, seed: int = 0) -> None:
        """`classifier` is needed for cases without a quadrant."""
        self.observer, self.classifier, self.seed = observer, classifier, seed

    def run(self, items: Sequence[Trial]) -> pa.Table:
        """A row per trial, in the order given."""
        self.observer.base([trial.case.start for trial in items])
        rows: list[dict[str, Any]] = [{} for _ in items]
        groups: dict[tuple[str, bool], list[int]] = {}
        for i, trial in enumerate(items):
            groups.setdefault((trial.stage, bool(trial.case.quadrant)), []).append(i)
        for (stage, spatial), members in groups.items():
            own = [items[i] for i in members]
            made = self._spatial(own, stage) if spatial else self._global(own, stage)
            for i, row in zip(members, made, strict=True):
                rows[i] = row
        return pa.Table.from_pylist(rows, schema=TRIALS)

    def _spatial(self, trials: Sequence[Trial], stage: str) -> list[dict[str, Any]]:
        starts = [trial.case.start for trial in trials]
        plain = self.observer.base(starts)
        pictures = self._draw(trials, stage) if stage else plain
        observed = self.observer.look(pictures, [(trial.case.name,) for trial in trials])
        rows = []
        for trial, before, after, seen in zip(trials, plain, pictures, observed, strict=True):
            name, box = trial.case.name, QUADRANTS[trial.case.quadrant]
            outside = Region(box=box).grid(*before.shape[:2])
            rows.append(
                _row(trial, "spatial", seen)
                | {
                    "landed": name in seen.masks and lands_in(seen.masks[name], box),
                    "map_landed": in_box(seen.centres.get(name), box),
                    "outside_change": outside_change(before, after, outside),
                }
            )
        return rows

    def _global(self, trials: Sequence[Trial], stage: str) -> list[dict[str, Any]]:
        assert self.classifier is not None
        starts = [trial.case.start for trial in trials]
        plain, old = self.observer.base(starts), self.observer.base_found(starts)
        pictures = self._draw(trials, stage) if stage else plain
        labels = list(self.classifier.labels)
        was = self.classifier.probabilities(np.stack(plain))
        now = self.classifier.probabilities(np.stack(pictures))
        rows = []
        for i, (trial, seen) in enumerate(zip(trials, self.observer.look(pictures) if stage else old, strict=True)):
            column = labels.index(trial.case.name)
            ious = [mask_iou(mask, seen.masks.get(c, np.zeros_like(mask))) for c, mask in old[i].masks.items()]
            rows.append(
                _row(trial, "global", seen)
                | {
                    "rise": float(now[i, column] - was[i, column]),
                    "read_as": labels[int(now[i].argmax())],
                    "distance": structural_distance(plain[i], pictures[i]),
                    "layout_kept": float(np.mean(ious)) if ious else None,
                }
            )
        return rows

    def _draw(self, trials: Sequence[Trial], stage: str) -> list[Picture]:
        edits = []
        for trial in trials:
            assert trial.edit is not None
            targets = trial.edit.targets
            if trial.method not in OURS:
                seed = (self.seed, trial.number)
                targets = random_targets(targets, trial.method, trial.edit.unit, self.observer.saes, seed)
            edits.append([replace(trial.edit, targets=targets)])
        return self.observer.edited([trial.case.start for trial in trials], edits, stage_of(stage))


def random_targets(
    targets: Sequence[Target], method: str, unit: str, saes: Mapping[Site, SparseAutoencoder], seed: Sequence[int]
) -> tuple[Target, ...]:
    """Another choice of as many features of the same sites, or a direction drawn at random, as long as theirs.

    A random feature adds as much as the one whose place it takes, however long the vectors of the two are; but by the
    unit ``code``, which adds what fires, as much as fires of it.

    Args:
        unit: of the edit's strength; by most of them a direction's own length does not count.
    """
    made = []
    for target in targets:
        sae = saes[target.site]
        port = zlib.crc32(str(target.site.port).encode())  # blocks of equal width must not share their direction
        rng = np.random.default_rng([*seed, port])
        if method == "random_direction":
            vector = rng.standard_normal(sae.config.d)
            if unit == "absolute":
                own = sae.decoder.detach()[list(target.features)].float().cpu().numpy()
                if target.scales:
                    own = own * np.array(target.scales)[:, None]
                vector *= np.linalg.norm(own.sum(axis=0)) / np.linalg.norm(vector)
            made.append(Target(**target.site.columns(), vector=tuple(map(float, vector))))
        else:
            lengths = lengths_of(sae.decoder).double().cpu().numpy()
            others = np.setdiff1d(np.flatnonzero(lengths), target.features)
            if len(others) < len(target.features):  # too few are left over: any will do
                others = np.arange(sae.config.n)
            features = rng.choice(others, len(target.features), replace=False)
            alike = lengths[list(target.features)] / np.maximum(lengths[features], 1e-12)
            scales = target.scales if unit == "code" else _at_doses(target.scales, alike, unit)
            made.append(replace(target, features=tuple(map(int, features)), scales=scales))
    return tuple(made)


def _at_doses(scales: Sequence[float], ratios: NDArray[np.floating], unit: str) -> tuple[float, ...]:
    """Scales of features that are so much shorter than those of `scales`; none where all count alike as they are."""
    if not scales and (unit == "update_norm" or (ratios == 1.0).all()):
        return ()
    return tuple(map(float, (np.array(scales) if scales else 1.0) * ratios))


def left_out(unit: str, undirected: str) -> dict[str, str]:
    """Which of SPATIAL are not tried, and why.

    Args:
        unit: of the strengths.
        undirected: why there are no directions of dense activations; empty where there are.
    """
    why = {DENSE: undirected} if undirected else {}
    if unit in SAE_UNITS:
        why["random_direction"] = f"the unit {unit} needs features; a direction has none"
    return why


def _row(trial: Trial, experiment: str, seen: ObservedPicture) -> dict[str, Any]:
    case = trial.case
    return {
        "experiment": experiment, "half": trial.half, "stage": trial.stage, "method": trial.method,
        "setting": trial.setting, "name": case.name, "quadrant": case.quadrant, "prompt": case.start.prompt,
        "seed": case.start.seed, "present": list(seen.present), "landed": None, "map_landed": None,
        "outside_change": None, "rise": None, "read_as": None, "distance": None, "layout_kept": None,
    }  # fmt: skip
