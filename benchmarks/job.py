"""The whole job over its bare model calls: same pictures, boxes and batches, in turns, in one process.

Bare is what the models themselves take: the pipeline's own call, the detector's, the segmenter's with the boxes that
the whole job found. The whole job listens at every site, encodes, counts evidence, writes PNG and Parquet, hashes,
syncs and records. CPU seconds are compared, round by round; `whole_over_bare` is the median ratio with batched calls
(`exact: false`), `whole_over_bare_exact` with one picture a call. Without an accelerator both are of a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")

EXACT = ("generation.exact", "detector.exact", "segmenter.exact")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="YAML configuration (default: the embedded world)")
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=64, help="pictures of a round, one shard: 64 in a large run")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.pictures < 1:
        parser.error("--rounds and --pictures are at least 1")
    result: dict[str, Any] = {"pictures": arguments.pictures, "rounds": arguments.rounds}
    for name, exact in (("whole_over_bare", False), ("whole_over_bare_exact", True)):
        settings = ["threads=1", *arguments.settings, *(f"{key}={str(exact).lower()}" for key in EXACT)]
        ratios, bare = compared(arguments.config, settings, arguments.rounds, arguments.pictures)
        result[name] = statistics.median(ratios)
        result[f"{name}_spread"] = [min(ratios), max(ratios)]
        result[f"{name}_bare_cpu_s_a_picture"] = bare
    result["load_average"] = os.getloadavg()[0]
    print(
        f"whole job over bare calls: {result['whole_over_bare']:.3f} batched, {result['whole_over_bare_exact']:.3f} "
        "one picture a call"
    )
    if arguments.json:
        print(json.dumps(result))


def compared(config_path: str | None, settings: Sequence[str], rounds: int, count: int) -> tuple[list[float], float]:
    """Ratio of CPU seconds of every round, and the median CPU seconds of a bare picture."""
    from gazetteer.data.runs.folder import RunFolder
    from gazetteer.jobs.config.fingerprint import fingerprint_of, picture_digest
    from gazetteer.jobs.config.schema import load_config
    from gazetteer.jobs.label import shards as plan
    from gazetteer.jobs.label.results import publish_shard
    from gazetteer.labeling.pipeline.stages import Stages

    config = load_config(config_path, settings)
    fingerprint = fingerprint_of(config)
    items = plan.make_items(plan.read_pool(config)[:count], config.seed, picture_digest(fingerprint))
    stages: Any = Stages(config.stages)
    with tempfile.TemporaryDirectory(prefix="gazetteer-job-") as folder:
        store = RunFolder(folder).open_or_create(fingerprint)
        workshop = store.workshop({})
        number = 0

        def whole() -> None:
            nonlocal number
            number += 1
            finished = publish_shard(workshop, f"shard-{number}", stages.run(items))
            store.record_parts(finished.parts, dict(finished.counts))

        bare = Bare(stages, items)
        whole()  # everything is loaded and warm
        bare()
        spent = [(_cpu(whole), _cpu(bare)) if turn % 2 else (_cpu(bare), _cpu(whole))[::-1] for turn in range(rounds)]
    ratios = [all_of_it / models for all_of_it, models in spent]
    return ratios, statistics.median(models for _, models in spent) / len(items)


class Bare:
    """The calls of the models alone, batch by batch as the stages make them, on the boxes that the stages find."""

    def __init__(self, stages: Any, items: Sequence[Any]) -> None:
        self.stages = stages
        size = stages.config.batch_size
        self.batches = [_Batch(stages, items[start : start + size]) for start in range(0, len(items), size)]

    def __call__(self) -> None:
        from gazetteer.labeling.detect.captions import detect_in_captions

        for batch in self.batches:
            self._draw(batch.items)
            detect_in_captions(self.stages.detector, batch.images, batch.captions)
            self.stages.segmenter.segment(batch.images, batch.boxes)

    def _draw(self, items: Sequence[Any]) -> None:
        import torch

        generator = self.stages.generator
        group = 1 if generator.config.exact else len(items)
        with torch.inference_mode():
            for start in range(0, len(items), group):
                batch = items[start : start + group]
                own = [torch.Generator("cpu").manual_seed(item.seed) for item in batch]
                noise = [generator.noise(item.seed, own_noise) for item, own_noise in zip(batch, own, strict=True)]
                generator.pipe(
                    latents=generator.latents(noise), generator=own, output_type="np",
                    **generator.arguments([item.prompt for item in batch]),
                )  # fmt: skip


class _Batch:
    """What the models are asked for some pictures."""

    def __init__(self, stages: Any, items: Sequence[Any]) -> None:
        self.items = items
        detected = stages._detect(stages._tag(stages._generate(items)))
        self.images = [labelled.picture.image for labelled in detected]
        self.boxes = [[detection.box for detection in labelled.detections] for labelled in detected]
        self.captions = [stages.vocabulary.captions(labelled.asked) for labelled in detected]


def _cpu(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
