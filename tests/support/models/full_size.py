"""A shard of the paper's job at full size on random weights: `python -m tests.support.models.full_size --json`.

Stable Diffusion 1.4, Grounding DINO Swin-T and SAM ViT-B are built from their published configurations, written in
the published formats, and read back by `gazetteer label --config paper-sd14` on a CPU: fewer pictures and sampler
steps, and nothing else but paths and devices, differ from the paper's job. Needs 7 GB of disk and 10 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gazetteer.jobs.config.schema import load_config
from tests.support.models import published_models as published
from tests.support.system.running import ROOT

CAPTIONS = ["a cat on the grass under a hot air balloon", "a dog beside a tree"]
CONCEPTS = ["sky", "grass", "hot air balloon", "cat", "dog", "tree"]
WORDS = sorted({word for concept in CONCEPTS for word in concept.split()})
ON_CPU_TIME = """
import sys, time, types
import gazetteer.jobs.label.run, gazetteer.labeling.pipeline.stages
from gazetteer.jobs.cli.main import main
clock = types.SimpleNamespace(monotonic=time.process_time, perf_counter=time.process_time)
gazetteer.jobs.label.run.time = gazetteer.labeling.pipeline.stages.time = clock
sys.exit(main())
"""
"""The command line with CPU seconds in the place of wall seconds, which say nothing on a machine that others use."""


def rehearse(folder: Path, pictures: int, steps: int, threads: int) -> dict[str, Any]:
    """Build and write the models, plan and label `pictures` pictures; what it took, in CPU seconds and GB."""
    start = time.process_time()
    paper = load_config("paper-sd14")
    transformers = published.write_grounding_dino(folder / "grounding-dino-tiny", WORDS)
    detector = published.write_original_grounding_dino(transformers, folder / "original")
    segmenter = published.write_original_sam(published.write_sam(folder / "sam-vit-base"), folder / "original")
    text = published.write_bert(folder / "bert-base-uncased", WORDS)
    saes = published.write_saes(folder / "saes", paper.generation.sites)
    model = published.write_sd14(folder / "stable-diffusion-v1-4", CAPTIONS)
    (folder / "prompts.txt").write_text("\n".join(CAPTIONS))
    built = time.process_time() - start
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    settings = {
        "images": pictures, "prompts": f"{{path: {folder / 'prompts.txt'}}}", "generation.steps": steps,
        "model.path": model, "model.dtype": "float32", "model.device": "cpu", "generation.exact": "true",
        "saes": saes, "sae_check.pictures": 0, "vocabulary": f"{{concepts: [{', '.join(CONCEPTS)}]}}",
        "detector": f"{{library: groundingdino, path: {detector}, config: {folder / 'original'}/"
        f"GroundingDINO_SwinT_OGC.py, text_encoder: {text}, box_threshold: 0.25, nms_iou: 0.5}}",
        "segmenter": f"{{library: segment_anything, model_type: vit_b, path: {segmenter}}}",
        "executor": "serial", "threads": threads, "batch_size": pictures, "labels.min_images": 1,
    }  # fmt: skip
    common = ["--config", "paper-sd14", "--json", "--set", *(f"{key}={value}" for key, value in settings.items())]
    planned = run("plan", *common)
    start = time.monotonic()
    summary = run("label", "--out", str(folder / "run"), *common)
    manifest = json.loads((folder / "run" / "_meta" / "manifest.json").read_text())
    return {
        "pictures": pictures,
        "steps": steps,
        "threads": threads,
        "disk_gb": round(size / 1e9, 2),
        "build_cpu_seconds": round(built, 1),
        "wall_seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": manifest["seconds"],
        "planned_tflop": {stage: round(flops / 1e12, 3) for stage, flops in planned["flops"].items()},
        "planned": planned,
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9, 2),
        "segments": manifest["segments"],
        "summary": summary,
    }


def run(*arguments: str) -> dict[str, Any]:
    """What the command line prints with --json, its clocks on CPU time."""
    command = [sys.executable, "-c", ON_CPU_TIME, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"gazetteer {arguments[0]} ended with {done.returncode}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="sampler steps; three is the fewest that tell t apart")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", metavar="FOLDER", help="work here and leave everything behind")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    folder = Path(arguments.keep or tempfile.mkdtemp(prefix="gazetteer-full-size-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = rehearse(folder, arguments.pictures, arguments.steps, arguments.threads)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    print(f"{found['pictures']} pictures, {found['steps']} steps, {found['threads']} threads")
    print(f"models on disk {found['disk_gb']} GB, peak memory {found['peak_memory_gb']} GB")
    for stage, seconds in found["cpu_seconds"].items():
        counted = found["planned_tflop"].get(stage)
        print(f"{stage:<12}{seconds:>8.1f} CPU s" + ("" if counted is None else f"{counted:>10.2f} TFLOP planned"))
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
