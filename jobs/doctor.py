"""What is installed and what is missing; which blocks a model offers to listen at."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import Any

PACKAGES = {
    "torch": "models", "torchvision": "box suppression", "diffusers": "text-to-image models",
    "transformers": "detector, segmenter, text encoder", "ray": "executor=ray", "pyarrow": "tables",
    "groundingdino-py": "original Grounding DINO checkpoints (optional)",
    "segment-anything": "original SAM checkpoints (optional)",
}  # fmt: skip


def examine(model: str | None = None) -> dict[str, Any]:
    """Package versions (None: missing), devices, and, with a model, its attention blocks.

    Raises:
        InputError: the model cannot be loaded.
    """
    import torch

    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    report: dict[str, Any] = {"packages": versions, "devices": devices}
    if model:
        report["blocks"] = _blocks(model)
    return report


def print_report(report: dict[str, Any]) -> None:
    """The report as text."""
    for package, version in report["packages"].items():
        print(f"{package:<18}{version or 'missing':<14}{PACKAGES[package]}")
    print(f"devices: {', '.join(report['devices'])}")
    for block in report.get("blocks", ()):
        print(f"{block['block']:<34}{block['height']:>4} x {block['width']:<4}{block['channels']:>6} channels")


def _blocks(model: str) -> list[dict[str, Any]]:
    """Path, grid and width of each attention block, found by one sampler step."""
    load = importlib.import_module("diffusion.load")
    generate = importlib.import_module("diffusion.generate")
    capture = importlib.import_module("diffusion.capture")
    pipe = load.load_pipeline(load.ModelConfig(path=model))
    paths = capture.attention_blocks(pipe.unet)
    generator = generate.Generator(
        pipe, generate.GenerationConfig(steps=1, guidance=1.0, blocks=tuple(paths), branches=("cond",), t=(1.0,))
    )
    found: list[dict[str, Any]] = []
    generator.sample(
        ["a picture"],
        [0],
        lambda site, x, height, width: found.append(
            {"block": site.block, "height": height, "width": width, "channels": x.shape[-1]}
        ),
        decode=False,
    )
    return sorted(found, key=lambda row: paths.index(row["block"]))
