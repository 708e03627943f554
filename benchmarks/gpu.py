"""What an accelerator does with the paper's job: Stable Diffusion 1.4, Grounding DINO and SAM at full size, at random.

The models are built from their published configurations and written in the published formats; `gazetteer label` reads
them as `paper-sd14` does, on the device. Said are pictures a second, the share of the device's stated peak that each
stage reaches, how far the stages overlap (worker seconds of all stages over the clock), and one step of training an
autoencoder. Without an accelerator it says so and stops. Needs 7 GB of disk; minutes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CAPTIONS = ["a cat on the grass under a hot air balloon", "a dog beside a tree"]
CONCEPTS = ["sky", "grass", "hot air balloon", "cat", "dog", "tree"]


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--device", default="", help="its name among those of gazetteer plan, for the share of its peak"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        import gazetteer.jobs.operate.rates  # noqa: F401  # of this checkout, as all that is measured

        print("There is no accelerator here, and this measures nothing else.")
        if arguments.json:
            print(json.dumps({"accelerator": None}))
        return
    folder = Path(tempfile.mkdtemp(prefix="gazetteer-gpu-"))
    try:
        result = measured(folder, arguments)
    finally:
        shutil.rmtree(folder)
    print(f"{result['pictures_a_second']:.3f} pictures a second on {result['accelerator']}")
    if arguments.json:
        print(json.dumps(result))


def measured(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Label pictures of random models on the device, and train an autoencoder on it."""
    import torch

    from gazetteer.jobs.config.schema import load_config
    from gazetteer.jobs.operate.rates import PEAK_TFLOPS

    published = importlib.import_module("tests.support.models.published_models")
    paper = load_config("paper-sd14")
    words = sorted({word for concept in CONCEPTS for word in concept.split()})
    (folder / "prompts.txt").write_text("\n".join(CAPTIONS))
    settings = {
        "images": arguments.pictures, "prompts": f"{{path: {folder / 'prompts.txt'}}}",
        "generation.steps": arguments.steps, "shard_size": arguments.pictures, "batch_size": arguments.batch,
        "model.path": published.write_sd14(folder / "sd14", CAPTIONS), "model.safety_checker": "false",
        "saes": published.write_saes(folder / "saes", paper.generation.sites), "sae_check.pictures": 0,
        "vocabulary": f"{{concepts: [{', '.join(CONCEPTS)}]}}",
        "detector.path": published.write_grounding_dino(folder / "dino", words),
        "segmenter.path": published.write_sam(folder / "sam"),
        "executor": "serial", "labels.min_images": 1,
    }  # fmt: skip
    common = ["--config", "paper-sd14", "--json", "--set", *(f"{key}={value}" for key, value in settings.items())]
    planned = _said("plan", *common)
    start = time.monotonic()
    _said("label", "--out", str(folder / "run"), *common)
    wall = time.monotonic() - start
    manifest = json.loads((folder / "run" / "_meta" / "manifest.json").read_text())
    seconds = manifest["seconds"]
    peak = PEAK_TFLOPS.get(arguments.device)
    fractions = {
        stage: flops / seconds[stage] / (peak * 1e12)
        for stage, flops in planned["flops"].items()
        if peak and stage in seconds
    }
    working = sum(spent for stage, spent in seconds.items() if stage != "reduce")
    return {
        "accelerator": torch.cuda.get_device_name(),
        "pictures": arguments.pictures,
        "pictures_a_second": arguments.pictures / working,
        "seconds": seconds,
        "wall_seconds": wall,
        "share_of_peak": fractions or None,
        "overlap": working / wall,
        "sae_step_ms": sae_step(),
    }


def sae_step(
    d: int = 1280, n: int = 5120, k: int = 10, batch: int = 4096, rounds: int = 20, device: str = "cuda"
) -> list[float]:
    """Milliseconds of a training step at the paper's size: lowest, median and highest of `rounds`."""
    import torch

    from gazetteer.sae.training.config import TrainConfig
    from gazetteer.sae.training.trainer import Trainer

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    trainer = Trainer(d, TrainConfig(n=n, k=k, batch_size=batch, steps=rounds + 5), rounds + 5, device)
    x = torch.randn(batch, d, device=device)
    trainer.start(x)
    spent = []
    for turn in range(rounds + 5):
        wait()
        start = time.perf_counter()
        trainer.advance(x)
        wait()
        if turn >= 5:
            spent.append(1e3 * (time.perf_counter() - start))
    return [min(spent), statistics.median(spent), max(spent)]


def _said(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "gazetteer", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"gazetteer {arguments[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
