"""Which window, dose and place of switching features on does most, tried on pictures that the pass does not use."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gazetteer.data.core.terminal import print_table
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.experiments.causal.choose import (
    asked_concepts,
    best_of_concepts,
    finished_run,
    starts_of,
    switch_of,
)
from gazetteer.jobs.experiments.steer import windows_with_steps
from gazetteer.labeling.evidence.run_codes import site_codes
from gazetteer.labeling.interventions.causal import CausalConfig, load_causal_test

IMAGES = 8
"""Pictures of a sweep whose configuration names no number."""


def sweep_causes(config: RunConfig, run: str, features: int = 8) -> dict[str, Any]:
    """Compare windows, doses and places on tuning features and on discovery pictures, which the pass does not use.

    They are the tuning features that overlap each concept best, at most `features` (0: all of them), which the pass
    tries last, on as many pictures as ``causal.images`` says, `IMAGES` where that is 0. Returned, for every setting:
    the mean rise of the label's area over that of random features, in standard errors over features (0 of a single
    one), and how many of them rise; and the ``best`` (`best_setting`). Windows without a sampler step are left out and
    said.
    Nothing is written.
    """
    begun = time.monotonic()
    folder = finished_run(config, run)
    concepts = asked_concepts(config, folder)
    shared = starts_of(folder, "discovery")[: config.causal.images or IMAGES]
    chosen = best_of_concepts(folder, features)
    windows = windows_with_steps(config.causal.windows, config.generation.steps, "causal.windows")
    settings = [replace(config.causal, window=w, strength=d, place=p) for w in windows
                for d in config.causal.strengths for p in config.causal.places]  # fmt: skip
    rows, codes = [], {site: site_codes(folder, site) for site in {site for site, _, _ in chosen}}
    test = load_causal_test(config.stages, concepts, shared, config.causal)
    for setting in settings:
        test.use(setting)
        means = []
        for site, feature, concept in chosen:
            switch = switch_of(codes[site], feature)
            on, random = (test.draw_and_judge(switch, state) for state in ("on", "random"))
            means.append(np.mean([a.get(concept, 0.0) - b.get(concept, 0.0) for a, b in zip(on, random, strict=True)]))
        rise = float(np.mean(means))
        spread = float(np.std(means, ddof=1) / len(means) ** 0.5) if len(means) > 1 else 0.0
        rows.append({
            **setting_of(setting), "rise": round(rise, 4), "errors": round(rise / spread, 2) if spread else 0.0,
            "up": int(sum(m > 0.01 for m in means)), "down": int(sum(m < -0.01 for m in means)),
        })  # fmt: skip
        print(f"causal: {rows[-1]}", file=sys.stderr, flush=True)
    return {"run": run, "features": len(chosen), "images": len(shared), "sweep": rows, "best": best_setting(rows),
            "seconds": round(time.monotonic() - begun, 1)}  # fmt: skip


def best_setting(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """That with the most standard errors, of equals (a single feature has none) that with the highest rise."""
    return max(rows, key=lambda row: (row["errors"], row["rise"]))


def print_sweep(result: dict[str, Any]) -> None:
    """What every setting came to, and the best one as settings."""
    print(f"{result['features']} tuning features on {result['images']} discovery pictures: rise over random features")
    print_table(
        {"window": "", "strength": "g", "place": "", "rise": "+.4f", "standard errors": "+.2f", "up": "d", "down": "d"},
        (
            [row[name] for name in ("window", "strength", "place", "rise", "errors", "up", "down")]
            for row in sorted(result["sweep"], key=lambda row: -row["errors"])
        ),
    )
    best = result["best"]
    window, strength = f"'causal.window={best['window']}'", f"causal.strength={best['strength']:g}"
    print(f"best: --set {window} {strength} causal.place={best['place']}")


def setting_of(config: CausalConfig) -> dict[str, Any]:
    """What a sweep varies."""
    return {"window": config.window, "strength": config.strength, "place": config.place}
