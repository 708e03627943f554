"""How well edits do what they say (P1 Tables 4 and 5), beside no edit, random features and random directions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.edits import WINDOWS, Edit, Target
from gazetteer.data.runs.folder import RunFolder
from gazetteer.labeling.interventions.evaluation.cases import DENSE_CHOICE, Cases, EditCase, EditSetting, SteerConfig
from gazetteer.labeling.interventions.evaluation.directions import Directions
from gazetteer.labeling.interventions.evaluation.summary import (
    Row,
    global_summary,
    global_sweep,
    spatial_summary,
    spatial_sweep,
)
from gazetteer.labeling.interventions.evaluation.trials import DENSE, GLOBAL, SPATIAL, Trial, left_out
from gazetteer.labeling.interventions.resolve import NotCarriedError, Resolver, sites_for
from gazetteer.labeling.vocabulary.concepts import Vocabulary
from gazetteer.labeling.vocabulary.meant import UnknownConceptError

KEEP = 3
"""Of so many settings one goes on into the next round."""

Groups = list[tuple[Trial | None, ...]]

CarryOut = Callable[[list[tuple[Trial, ...]]], pa.Table]
"""Does groups of trials, all of which are recorded together; returns the rows of all."""


class SteeringEvaluation:
    """Which trials are made, in which order, and what they come to; somebody else carries them out."""

    def __init__(
        self, run: RunFolder, config: SteerConfig, vocabulary: Vocabulary, prompts: Sequence[str],
        carry_out: CarryOut, seed: int = 0, say: Callable[[str], None] = lambda _: None,
        directions: Directions | str = "there are no directions",
    ) -> None:  # fmt: skip
        """`prompts`: held out from the labels; settings are chosen on one half of them, the other is reported on.

        `directions` of dense activations are tried as a method of their own; where they say why there are none, it is
        left out.
        """
        self.directions, self.undirected = ({}, directions) if isinstance(directions, str) else (directions, "")
        self.folder, self.config, self.carry_out, self.say = run, config, carry_out, say
        self.cases = Cases(config, vocabulary, prompts, seed)
        self.resolver = Resolver(run)
        self.resolved: dict[tuple[Any, ...], Edit | None] = {}

    def run(self) -> dict[str, Any]:
        """Both experiments as plain values; `steer_summary.print_evaluation` shows them."""
        begun = time.monotonic()
        result: dict[str, Any] = {"chance": 0.25, "unit": self.config.unit}
        result |= self.spatial()
        if self.config.classifier and self.config.words:
            result |= self.globally()
        return result | {"seconds": round(time.monotonic() - begun, 1)}

    def spatial(self) -> dict[str, Any]:
        """Every concept in turn into every quadrant; docs/reference/edits.md says what the keys mean."""
        tuning = self.cases.spatial("discovery", self.config.tuning)
        chosen, sweeps = self._choose("spatial", tuning, self.config.settings(spatial=True))
        paper, paper_sweeps = self._choose("spatial", tuning, self.config.paper_settings(), "paper")
        others, dense_sweeps = {"paper": paper}, None
        if not self.undirected:
            others[DENSE], dense_sweeps = self._choose("spatial", tuning, self.config.dense_settings(), DENSE)
        cases = self.cases.spatial("heldout", self.config.cases)
        untried = left_out(self.config.unit, self.undirected)
        methods = [method for method in SPATIAL if method not in untried]
        rows = self._measure(chosen, cases, methods, others)
        known = {
            stage: {c for c in self.cases.concepts if self._edit(c, stage, setting, word=False) is not None}
            for stage, setting in chosen.items()
        }
        return spatial_summary(rows, known, self.cases.concepts) | {
            "spatial_setting": {stage: setting.name for stage, setting in chosen.items()},
            "spatial_tuning": sweeps,
            "paper_setting": {stage: setting.name for stage, setting in paper.items()},
            "paper_tuning": paper_sweeps,
            f"{DENSE}_setting": {stage: setting.name for stage, setting in others.get(DENSE, {}).items()},
            f"{DENSE}_tuning": dense_sweeps or {}, "left_out": untried,
        }  # fmt: skip

    def globally(self) -> dict[str, Any]:
        """Every word in turn, from prompts that name none of them."""
        tuning = self.cases.globally("discovery", self.config.tuning)
        chosen, sweeps = self._choose("global", tuning, self.config.settings(spatial=False))
        cases = self.cases.globally("heldout", self.config.global_cases)
        return global_summary(self._measure(chosen, cases, GLOBAL, {}), self.config.windows) | {
            "global_setting": {stage: setting.name for stage, setting in chosen.items()},
            "global_tuning": sweeps,
        }

    def _choose(
        self, experiment: str, cases: Sequence[EditCase], settings: Sequence[EditSetting], method: str = "gazetteer"
    ) -> tuple[dict[str, EditSetting], dict[str, Any]]:
        """The best setting of each stage for a method.

        In every round the worse settings drop out, and the others are tried on more cases. Also returned, by stage and
        setting: the means of the last round the setting took part in.
        """
        sweep = spatial_sweep if experiment == "spatial" else global_sweep
        left = {stage: list(settings) for stage in self.config.windows}
        means: dict[str, Any] = {stage: {} for stage in self.config.windows}
        for count in rounds(len(settings), self.config.tuning, self.config.chunk):
            self.say(f"{experiment}, {method}: {len(next(iter(left.values())))} settings a stage on {count} pictures")
            groups: Groups = [
                tuple(self._trial(cases[i], i, "discovery", stage, method, setting) for i in part)
                for part in parts(min(count, len(cases)), self.config.chunk)
                for stage in self.config.windows
                for setting in left[stage]
            ]
            rows, tried = self._carried(groups), min(count, len(cases))
            for stage, trials in left.items():
                own = {s: [r for r in rows if r["stage"] == stage and r["setting"] == s.name] for s in trials}
                results = {s: sweep(own[s], self.config.keep, tried) for s in trials}
                means[stage] |= {s.name: value for s, (_, value) in results.items()}
                scores = [(*results[s][0], -s.strength) for s in trials]
                best = [trials[i] for i in sorted(range(len(trials)), key=scores.__getitem__, reverse=True)]
                left[stage] = best[: max(1, math.ceil(len(best) / KEEP))]
        return {stage: best[0] for stage, best in left.items()}, means

    def _measure(
        self, chosen: Mapping[str, EditSetting], cases: Sequence[EditCase], methods: Sequence[str],
        others: Mapping[str, Mapping[str, EditSetting]],
    ) -> list[Row]:  # fmt: skip
        """The rows of all methods, at the settings of `chosen` or, where a method has its own, of `others`."""
        self.say(f"{len(cases)} pictures a stage and method: " + ", ".join(f"{k} {s.name}" for k, s in chosen.items()))
        groups: Groups = []
        for part in parts(len(cases), self.config.chunk):
            if "none" in methods:
                groups.append(tuple(Trial(cases[i], "heldout", "none", i) for i in part))
            groups += [
                tuple(self._trial(cases[i], i, "heldout", stage, method, others.get(method, chosen)[stage])
                      for method in methods if method != "none" for i in part)
                for stage in self.config.windows
            ]  # fmt: skip
        return self._carried(groups)

    def _carried(self, groups: Groups) -> list[Row]:
        """The rows of all trials; cases without an edit, because no feature carries their concept, have none."""
        tried = [tuple(trial for trial in group if trial is not None) for group in groups]
        groups_left = [group for group in tried if group]
        return self.carry_out(groups_left).to_pylist() if groups_left else []

    def _trial(
        self, case: EditCase, number: int, half: str, stage: str, method: str, setting: EditSetting
    ) -> Trial | None:
        edit = self._edit(case.name, stage, setting, word=not case.quadrant)
        if edit is None:
            return None
        edit = replace(edit, region=setting.region(case.quadrant), outside=setting.outside, strength=setting.strength)
        return Trial(case, half, method, number, stage, setting.name, edit)

    def _edit(self, name: str, stage: str, setting: EditSetting, word: bool) -> Edit | None:
        """The edit of a concept or word at a stage; None where no feature carries the concept."""
        key = (name, stage, setting.branch, setting.top, setting.choice, setting.t, setting.unit, word)
        if key not in self.resolved:
            edit = Edit(
                concept="" if word else name, word=name if word else "", window=WINDOWS[stage], branch=setting.branch,
                blocks=self.config.blocks, unit=setting.unit, t=None if setting.t < 0 else setting.t,
                choice="" if setting.choice == DENSE_CHOICE else setting.choice,
            )  # fmt: skip
            if not sites_for(edit, self.folder):
                raise InputError(f"{self.folder.path} has no labels of the branch {setting.branch}.")
            try:
                dense = setting.choice == DENSE_CHOICE
                self.resolved[key] = self._dense(edit) if dense else self.resolver.resolve(edit, setting.top)
            except (NotCarriedError, UnknownConceptError):
                if word:
                    raise
                self.resolved[key] = None
        return self.resolved[key]

    def _dense(self, edit: Edit) -> Edit | None:
        """The edit with the direction of its concept in each block; None where no picture shows the concept."""
        vectors = [(site, self.directions.get(site, {}).get(edit.concept)) for site in sites_for(edit, self.folder)]
        targets = [Target(**site.columns(), vector=vector) for site, vector in vectors if vector]
        return edit.with_targets(targets) if targets else None


def rounds(settings: int, tuning: int, chunk: int) -> list[int]:
    """On how many cases each round of a choice among so many settings is made; none when there is one setting.

    The last round has `tuning` cases, each before it half of the next one's, in whole chunks; of rounds with the same
    cases one is made.
    """
    left, count = settings, 0
    while left > 1:
        left, count = math.ceil(left / KEEP), count + 1
    counts = [min(tuning, math.ceil(tuning / 2**back / chunk) * chunk) for back in reversed(range(count))]
    return sorted(set(counts))


def parts(count: int, size: int) -> list[range]:
    """0 … count − 1 in pieces of at most `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
