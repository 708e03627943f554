"""How well edits do what they say (P1 Tables 4 and 5), beside no edit, random features and random directions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data.edits import QUADRANTS, STAGES, Edit, Region, Target
from data.errors import InputError
from data.store import RunFolder
from labeling.steer_bench import Bench, Found, Picture
from labeling.steer_cases import Case, Cases, SteerConfig
from labeling.steer_scores import Interval, in_box, interval, lands_in, mask_iou, outside_change, structural_distance
from labeling.steering import resolve, sites_for
from labeling.vocabulary import Vocabulary

SPATIAL = ("gazetteer", "random_features", "random_direction", "none")
GLOBAL = ("gazetteer", "random_features")


class Judge(Protocol):
    """Reads the look of pictures."""

    labels: Sequence[str]

    def probabilities(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability of every label, [N, len(labels)], for uint8 pictures [N, H, W, 3]."""
        ...


class Evaluation:
    """All edits of one evaluation; `run` draws, judges and sums them up."""

    def __init__(
        self, bench: Bench, run: RunFolder, config: SteerConfig, vocabulary: Vocabulary, prompts: Sequence[str],
        judge: Judge | None = None, seed: int = 0, say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """`prompts`: held out from the labels; halves of them tune the strength and are reported on."""
        self.bench, self.folder, self.config, self.judge, self.seed, self.say = bench, run, config, judge, seed, say
        self.cases = Cases(config, vocabulary, prompts, seed)
        self.concepts = self.cases.concepts
        self.resolved: dict[tuple[str, str, bool], Edit | None] = {}

    def run(self) -> dict[str, Any]:
        """Both experiments as plain values; `print_evaluation` shows them."""
        begun = time.monotonic()
        result: dict[str, Any] = {"chance": 0.25, "unit": "update_norm", "strengths": list(self.config.strengths)}
        result |= self.spatial()
        if self.judge is not None and self.config.words:
            result |= self.globally(self.judge)
        return result | {"seconds": round(time.monotonic() - begun, 1)}

    def spatial(self) -> dict[str, Any]:
        """Every concept in turn into every quadrant, from prompts that name it; see docs/steering.md for the keys."""
        tuning = self.cases.spatial("discovery", self.config.tuning)
        cases = self.cases.spatial("heldout", self.config.cases)
        out: dict[str, Any] = {"spatial": {}, "present": {}, "spatial_strength": {}, "spatial_tuning": {}}
        out |= {"spatial_map": {}, "outside_change": {}, "spatial_cases": {}, "side_effects": {}, "unlabelled": {}}
        before = self.bench.base_found([case.start for case in cases])
        for stage in STAGES:
            known = {c: self._edit(c, stage, word=False) is not None for c in self.concepts}
            out["unlabelled"][stage] = [c for c, has in known.items() if not has]
            mine = [i for i, case in enumerate(cases) if known[case.name]]
            tried = [case for case in tuning if known[case.name]]
            sweep = {b: float(np.mean(self._success(tried, self._found(tried, stage, "gazetteer", b))))
                     for b in self.config.strengths} if tried else {}  # fmt: skip
            strength = max(sweep, key=lambda b: (sweep[b], -b)) if sweep else self.config.strengths[0]
            out["spatial_tuning"][stage] = {f"{b:g}": round(v, 4) for b, v in sweep.items()}
            out["spatial_strength"][stage], out["spatial_cases"][stage] = strength, len(mine)
            chosen, old = [cases[i] for i in mine], [before[i] for i in mine]
            self.say(f"spatial, {stage}: strength {strength:g}, {len(chosen)} pictures a method")
            rows = self._spatial_stage(chosen, old, stage, strength)
            for key, values in rows.items():
                out[key][stage] = values
        return out

    def _spatial_stage(
        self, cases: Sequence[Case], old: Sequence[Found], stage: str, strength: float
    ) -> dict[str, Any]:
        groups = [case.start.prompt for case in cases]
        plain = self.bench.base([case.start for case in cases])
        rows: dict[str, dict[str, Any]] = {"spatial": {}, "spatial_map": {}, "present": {}, "outside_change": {}}
        for method in SPATIAL:
            pictures = plain if method == "none" else self._draw(cases, stage, method, strength)
            found = list(old) if method == "none" else self.bench.look(pictures)
            rows["spatial"][method] = interval(self._success(cases, found), groups)
            by_map = [in_box(f.centres.get(c.name), QUADRANTS[c.quadrant]) for c, f in zip(cases, found, strict=True)]
            rows["spatial_map"][method] = interval(by_map, groups)
            rows["present"][method] = interval([c.name in f.masks for c, f in zip(cases, found, strict=True)], groups)
            outside = [outside_change(a, b, Region(box=QUADRANTS[c.quadrant]).grid(*a.shape[:2]))
                       for c, a, b in zip(cases, plain, pictures, strict=True)]  # fmt: skip
            rows["outside_change"][method] = interval(outside, groups)
            if method == "gazetteer":
                rows["side_effects"] = _side_effects(cases, old, found, self.bench.concepts)
        return rows

    def globally(self, judge: Judge) -> dict[str, Any]:
        """Every word in turn, from prompts that name none of them."""
        tuning = self.cases.globally("discovery", self.config.tuning)
        cases = self.cases.globally("heldout", self.config.cases)
        out: dict[str, Any] = {"global": {}, "global_random": {}, "global_strength": {}, "global_detail": {}}
        out["global_tuning"] = {}
        for stage in STAGES:
            sweep = {b: float(np.mean(self._rise(judge, tuning, self._draw(tuning, stage, "gazetteer", b))))
                     for b in self.config.strengths}  # fmt: skip
            strength = max(sweep, key=lambda b: (sweep[b], -b))
            self.say(f"global, {stage}: strength {strength:g}, {len(cases)} pictures a method")
            out["global_tuning"][stage] = {f"{b:g}": round(v, 4) for b, v in sweep.items()}
            out["global_strength"][stage], out["global_detail"][stage] = strength, {}
            for method, key in zip(GLOBAL, ("global", "global_random"), strict=True):
                detail = self._global_detail(judge, cases, self._draw(cases, stage, method, strength))
                out[key][stage], out["global_detail"][stage][method] = detail["success"], detail
        return out

    def _global_detail(self, judge: Judge, cases: Sequence[Case], pictures: Sequence[Picture]) -> dict[str, Interval]:
        groups = [case.start.prompt for case in cases]
        starts = [case.start for case in cases]
        plain, old, found = self.bench.base(starts), self.bench.base_found(starts), self.bench.look(pictures)
        rise = self._rise(judge, cases, pictures)
        read = judge.probabilities(np.stack(pictures)).argmax(axis=1)
        kept = [[mask_iou(mask, new.masks.get(c, np.zeros_like(mask))) for c, mask in was.masks.items()]
                for was, new in zip(old, found, strict=True)]  # fmt: skip
        seen = [i for i, values in enumerate(kept) if values]
        return {
            "success": interval([value > 0 for value in rise], groups),
            "similarity": interval(rise, groups),
            "read_as": interval([judge.labels[r] == c.name for c, r in zip(cases, read, strict=True)], groups),
            "distance": interval([structural_distance(a, b) for a, b in zip(plain, pictures, strict=True)], groups),
            "layout_kept": interval([float(np.mean(kept[i])) for i in seen], [groups[i] for i in seen]),
        }

    def _rise(self, judge: Judge, cases: Sequence[Case], pictures: Sequence[Picture]) -> list[float]:
        """By how much the judge's probability of the wanted look rises, per picture."""
        column = [list(judge.labels).index(case.name) for case in cases]
        rows = np.arange(len(cases))
        old = judge.probabilities(np.stack(self.bench.base([case.start for case in cases])))
        return [float(v) for v in judge.probabilities(np.stack(pictures))[rows, column] - old[rows, column]]

    def _found(self, cases: Sequence[Case], stage: str, method: str, strength: float) -> list[Found]:
        return self.bench.look(self._draw(cases, stage, method, strength))

    def _success(self, cases: Sequence[Case], found: Sequence[Found]) -> list[bool]:
        return [c.name in f.masks and lands_in(f.masks[c.name], QUADRANTS[c.quadrant])
                for c, f in zip(cases, found, strict=True)]  # fmt: skip

    def _draw(self, cases: Sequence[Case], stage: str, method: str, strength: float) -> list[Picture]:
        edits = []
        for number, case in enumerate(cases):
            edit = self._edit(case.name, stage, word=not case.quadrant)
            assert edit is not None
            region = Region(box=QUADRANTS[case.quadrant]) if case.quadrant else Region()
            targets = edit.targets if method == "gazetteer" else self._random(edit.targets, method, number)
            changed = {**vars(edit), "region": region, "targets": targets, "strength": strength}
            edits.append([Edit(**changed)])
        return self.bench.edited([case.start for case in cases], edits, stage)

    def _edit(self, name: str, stage: str, word: bool) -> Edit | None:
        """The edit of a concept or word at a stage; None where no feature carries it."""
        key = (name, stage, word)
        if key not in self.resolved:
            common: dict[str, Any] = {
                "window": STAGES[stage],
                "branch": self.config.branch,
                "blocks": self.config.blocks,
            }
            edit = Edit(word=name, **common) if word else Edit(concept=name, **common)
            if not sites_for(edit, self.folder):
                raise InputError(f"{self.folder.path} has no labels of the branch {self.config.branch}.")
            try:
                (self.resolved[key],) = resolve([edit], self.folder, self.config.top)
            except InputError:
                self.resolved[key] = None
                if word:
                    raise
        return self.resolved[key]

    def _random(self, targets: Sequence[Target], method: str, number: int) -> tuple[Target, ...]:
        """Another choice of as many features of the same sites, or a direction drawn at random."""
        made = []
        for target in targets:
            sae = self.bench.saes[target.site]
            rng = np.random.default_rng([self.seed, number, len(target.features)])
            if method == "random_direction":
                vector = rng.standard_normal(sae.config.d)
                made.append(Target(target.block, target.branch, target.t, vector=tuple(map(float, vector))))
            else:
                others = np.setdiff1d(np.arange(sae.config.n), target.features)
                some = rng.choice(others, min(len(target.features), len(others)), replace=False)
                made.append(Target(target.block, target.branch, target.t, tuple(map(int, some))))
        return tuple(made)


def _side_effects(
    cases: Sequence[Case], old: Sequence[Found], new: Sequence[Found], concepts: Sequence[str]
) -> dict[str, dict[str, float]]:
    """By steered concept and other concept: change in the share of pictures that hold the other one; zeros left out."""
    rows: Mapping[str, list[int]] = {name: [i for i, c in enumerate(cases) if c.name == name]
                                     for name in dict.fromkeys(c.name for c in cases)}  # fmt: skip
    matrix: dict[str, dict[str, float]] = {}
    for name, mine in rows.items():
        change = {c: float(np.mean([(c in new[i].masks) - (c in old[i].masks) for i in mine])) for c in concepts}
        matrix[name] = {c: round(v, 4) for c, v in change.items() if v}
    return matrix


def print_evaluation(result: Mapping[str, Any]) -> None:
    """The main numbers as text."""

    def shown(value: Interval) -> str:
        mean, low, high = value
        return "no picture" if mean is None else f"{mean:.2f} [{low:.2f}, {high:.2f}]"

    print("spatial success (chance 0.25): the asked thing is found, its mask's centre in the asked quadrant")
    for stage, methods in result["spatial"].items():
        print(f"  {stage:<8}" + "  ".join(f"{name} {shown(v)}" for name, v in methods.items()))
    if "global" in result:
        print("global success: the judge's probability of the asked look rises")
        for stage, value in result["global"].items():
            print(f"  {stage:<8}features {shown(value)}  random features {shown(result['global_random'][stage])}")
    print(f"{result['seconds']:.0f} s")
