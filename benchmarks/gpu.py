"""What an accelerator does with the paper's job: Stable Diffusion 1.4, Grounding DINO and SAM at full size, at random.

The models are built from their published configurations and written in the published formats; `gazetteer label` reads
them as `paper-sd14` does, on the device, in the number types that it chooses there. Said are pictures a second, the
share of the device's stated peak that each stage reaches, how far the stages overlap (worker seconds of all stages over
the clock), how busy the device says it was, what is warned of meanwhile, and one step of training an autoencoder;
`--also` labels again with other settings. Pictures are labelled in two shards, of which the first warms the device up
and only the second counts. Needs 7 GB of disk and, with the default sizes, some minutes.

Without an accelerator it says so, prints ``{"accelerator": null}`` and ends with 0. `--device cpu --tiny` goes the same
way with the embedded world's small models, to try this program itself: its numbers are of nothing else.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CAPTIONS = ["a cat on the grass under a hot air balloon", "a dog beside a tree"]
CONCEPTS = ["sky", "grass", "hot air balloon", "cat", "dog", "tree"]


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=48, help="at least 2")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--also", nargs="+", default=[], metavar="KEY=VALUE", help="label again, once with each of these"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="the embedded world's models; the only ones on --device cpu"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if arguments.pictures < 2:
        parser.error("--pictures is at least 2: the first half warms up")
    if arguments.device == "cpu" and not arguments.tiny:
        parser.error("--device cpu takes hours with models of full size; add --tiny")
    if arguments.device == "cuda" and not torch.cuda.is_available():
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

    from gazetteer.jobs.operate.rates import PEAK_TFLOPS, card_of

    on_gpu = arguments.device == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else "cpu"
    common = _tiny(arguments) if arguments.tiny else _full_size(folder, arguments)
    planned = _said("plan", *common)
    card = card_of(name)
    result = {"accelerator": name, "card": card, "tiny": arguments.tiny, "pictures": arguments.pictures}
    result |= _labelled(folder / "run", common, planned["flops"], PEAK_TFLOPS.get(card or ""))
    result["also"] = {
        setting: _labelled(folder / f"run-{n}", [*common, setting], planned["flops"], PEAK_TFLOPS.get(card or ""))
        for n, setting in enumerate(arguments.also)
    }
    sizes = {"d": 64, "n": 256, "k": 4, "batch": 256} if arguments.tiny else {}
    return {**result, "sae_step_ms": sae_step(**sizes, device=arguments.device)}


def _full_size(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Settings by which `paper-sd14` labels with models of full size that are written to `folder`."""
    from gazetteer.jobs.config.schema import load_config

    published = importlib.import_module("tests.support.models.published_models")
    paper = load_config("paper-sd14")
    words = sorted({word for concept in CONCEPTS for word in concept.split()})
    (folder / "prompts.txt").write_text("\n".join(CAPTIONS))
    settings = {
        **_shared(arguments), "prompts": f"{{path: {folder / 'prompts.txt'}}}",
        "model.path": published.write_sd14(folder / "sd14", CAPTIONS), "model.safety_checker": "false",
        "saes": published.write_saes(folder / "saes", paper.generation.sites),
        "vocabulary": f"{{concepts: [{', '.join(CONCEPTS)}]}}",
        "detector.path": published.write_grounding_dino(folder / "dino", words),
        "segmenter.path": published.write_sam(folder / "sam"),
    }  # fmt: skip
    return ["--config", "paper-sd14", "--json", "--set", *(f"{key}={value}" for key, value in settings.items())]


def _tiny(arguments: argparse.Namespace) -> list[str]:
    """Settings by which the embedded world labels on the device as `paper-sd14` does."""
    settings = _shared(arguments)
    for role in ("model", "detector", "segmenter"):
        settings[f"{role}.device"] = arguments.device
    for role in ("generation", "detector", "segmenter"):
        settings[f"{role}.exact"] = "false"
    return ["--json", "--set", *(f"{key}={value}" for key, value in settings.items())]


def _shared(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "images": arguments.pictures, "generation.steps": arguments.steps, "shard_size": -(-arguments.pictures // 2),
        "batch_size": arguments.batch, "executor": "serial", "coverage.first": 1.0, "labels.min_images": 1,
        "sae_check.pictures": 0,
    }  # fmt: skip


def _labelled(
    run: Path, common: Sequence[str], flops: dict[str, int], peak: float | None
) -> dict[str, Any]:  # fmt: skip
    """Pictures a second and shares of the device's peak of one labelling run once warm, and its overlap."""
    from gazetteer.data.runs.folder import RunFolder
    from gazetteer.jobs.label.shards import PASSES, read_pass

    start = time.monotonic()
    with _busy() as samples:
        _said("label", "--out", str(run), *common)
    wall = time.monotonic() - start
    manifest = json.loads((run / "_meta" / "manifest.json").read_text())
    store = RunFolder(str(run))
    shards = read_pass(store, PASSES[0]) or []
    info = store.committed()[shards[-1].id].info  # the first shard warmed up
    log = [json.loads(line) for line in (run / "_meta" / "log.jsonl").read_text().splitlines()]
    warm: dict[str, float] = info["seconds"]
    share = info["images"] / manifest["images"]
    fractions = {
        stage: count * share / warm[stage] / (peak * 1e12) for stage, count in flops.items() if peak and warm[stage]
    }
    return {
        "pictures_a_second": info["images"] / sum(warm.values()),
        "pictures_counted": info["images"],
        "seconds": manifest["seconds"],
        "seconds_counted": warm,
        "wall_seconds": wall,
        "share_of_peak": fractions or None,
        "overlap": sum(spent for stage, spent in manifest["seconds"].items() if stage != "reduce") / wall,
        "device_busy": statistics.mean(samples) / 100 if samples else None,
        "dtypes": {key: value for key, value in manifest["fingerprint"].items() if key.endswith(".dtype")},
        "warnings": [line["message"] for line in log if line["level"] == "warning"],
    }


@contextmanager
def _busy() -> Iterator[list[float]]:
    """While open, collect how busy the driver says the first device that is seen here is, in per cent, twice a second;
    none without a driver.

    Loading the models counts as idle.
    """
    samples: list[float] = []
    if shutil.which("nvidia-smi") is None:
        yield samples
        return
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()  # a number or a UUID
    query = ["nvidia-smi", "-i", device, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "500"]
    watcher = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield samples
    finally:
        watcher.terminate()
        said = watcher.communicate()[0]
        samples += [float(line) for line in said.split() if line.strip().isdigit()]


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
