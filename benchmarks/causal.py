"""What a feature costs a causal pass, in CPU seconds, beside running the pipeline again for it, on the same pictures.

Ours: `labeling.interventions.causal`, restarted from kept latents in coarse steps, with many features to a batch; the
pictures without edits are drawn once for all and counted apart. Running again: every picture whole, from its noise,
without the feature switched (plain), with it on and with a random one on, each detected and segmented. ``ratio`` leaves
the plain picture out, which one could also keep; ``ratio_with_plain`` counts it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import _checkout  # noqa: F401
import numpy as np
import pyarrow as pa
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.schema import RunConfig, load_config
from gazetteer.jobs.experiments.causal.choose import asked_concepts, features_to_try, starts_of
from gazetteer.jobs.label.job import label
from gazetteer.labeling.evidence.run_codes import site_codes
from gazetteer.labeling.interventions.causal import (
    STATES,
    CausalConfig,
    CausalTest,
    SharedPicture,
    Switch,
    load_causal_test,
)
from gazetteer.labeling.interventions.resolve import percentiles, run_sites

SMALL = ["images=48", "executor=serial", "coverage.wanted=4", "labels.min_images=3"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="a finished run folder (default: a small one, made for this)")
    parser.add_argument("--config", help="YAML configuration (default: the embedded world)")
    parser.add_argument("--features", type=int, default=4, help="at each site (default: 4)")
    parser.add_argument("--images", type=int, default=8, help="shared pictures (default: 8)")
    parser.add_argument("--again", type=int, default=1, help="features a site for which the pipeline is run again")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gazetteer-causal-") as folder:
        config = load_config(arguments.config, [] if arguments.run else SMALL)
        if not arguments.run:
            label(config, folder)
        result = measure(config, RunFolder(arguments.run or folder), arguments)
    for key in ("ours_s", "shared_s", "again_s", "again_with_plain_s", "ratio", "ratio_with_plain", "correlation"):
        print(f"{key:<20}{result[key]}")
    if arguments.json:
        print(json.dumps(result))


def measure(config: RunConfig, folder: RunFolder, arguments: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds per feature of both ways, by stage and over all, and how far their effects agree."""
    torch.set_num_threads(1)
    starts, concepts = starts_of(folder, "heldout")[: arguments.images], asked_concepts(config, folder)
    if len(starts) < arguments.images:
        raise InputError(f"{folder.path} has {len(starts)} held-out pictures, not {arguments.images}.")
    settings = CausalConfig(images=arguments.images)
    tested = load_causal_test(config.stages, concepts, starts, settings)
    whole = CausalTest(
        tested.generator, tested.saes, tested.detector, tested.segmenter, concepts, starts,
        CausalConfig(images=arguments.images, stride=1), config.batch_size,
    )  # fmt: skip
    whole.sampler.first = dict.fromkeys(
        whole.sampler.first, 0
    )  # from the noise on; the edits' windows stay the stages'
    spent: dict[str, list[float]] = {"ours": [], "again": [], "plain": []}
    shared, pairs = 0.0, list[tuple[float, float]]()
    block = sorted(site.block for site in tested.saes)[len(tested.saes) // 2]
    for site in (
        candidate for candidate in run_sites(folder) if candidate.block == block and candidate.branch == "cond"
    ):
        numbers = features_to_try(folder, site, settings.unlabelled)[: arguments.features]
        scales = percentiles(site_codes(folder, site), numbers)
        switches = [Switch(site, f, scale) for f, scale in zip(numbers, scales, strict=True)]
        shared += timed_shared(tested)
        seconds, table = timed(tested, switches)
        spent["ours"] += [seconds / len(switches)] * len(switches)
        for switch in switches[: arguments.again]:
            plain, again, areas = run_again(whole, switch)
            spent["plain"].append(plain)
            spent["again"].append(again)
            pairs += list(zip(effects(table, switch, concepts, starts), areas, strict=True))
    ours, again, plain = (float(np.mean(spent[name])) for name in ("ours", "again", "plain"))
    x, y = np.array(pairs).T
    return {
        "images": arguments.images, "features": len(spent["ours"]), "run_again": len(spent["again"]),
        "stride": tested.sampler.stride, "ours_s": round(ours, 3), "shared_s": round(shared, 3),
        "again_s": round(again, 3), "again_with_plain_s": round(again + plain, 3),
        "ratio": round(again / ours, 2), "ratio_with_plain": round((again + plain) / ours, 2),
        "correlation": round(float(np.corrcoef(x, y)[0, 1]), 3) if x.std() and y.std() else None,
    }  # fmt: skip


def timed(tested: CausalTest, switches: Sequence[Switch]) -> tuple[float, pa.Table]:
    """CPU seconds of measuring these features, and what came out."""
    start = time.process_time()
    table = tested.measure(switches)
    return time.process_time() - start, table


def timed_shared(tested: CausalTest) -> float:
    """CPU seconds for the pictures without edits that all features share."""
    start = time.process_time()
    tested.prepare(range(len(tested.shared)))
    return time.process_time() - start


def run_again(tested: CausalTest, switch: Switch) -> tuple[float, float, list[float]]:
    """CPU seconds for the plain pictures and for both edited ones, and area(on) - area(random), flat over concepts."""
    tested.prepare(range(len(tested.shared)))
    spent, areas = [], {}
    for state in ("plain", *STATES):
        start = time.process_time()
        areas[state] = tested.draw_and_judge(switch, state)
        spent.append(time.process_time() - start)
    difference = [on.get(c, 0.0) - other.get(c, 0.0) for on, other in zip(areas["on"], areas["random"], strict=True)
                  for c in tested.concepts]  # fmt: skip
    return spent[0], spent[1] + spent[2], difference


def effects(table: pa.Table, switch: Switch, concepts: Sequence[str], starts: Sequence[SharedPicture]) -> list[float]:
    """area(on) - area(random) of one feature, flat over pictures and concepts."""
    result: dict[tuple[str, str], dict[str, float]] = {}
    for row in table.to_pylist():
        if row["feature"] == switch.feature:
            result[row["state"], row["image_id"]] = dict(zip(row["concept"], row["area"], strict=True))
    return [result["on", s.image_id].get(c, 0.0) - result["random", s.image_id].get(c, 0.0)
            for s in starts for c in concepts]  # fmt: skip


if __name__ == "__main__":
    main()
