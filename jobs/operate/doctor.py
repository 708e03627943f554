"""What is installed and what is missing; which blocks a model offers to listen at; whether autoencoders can be read."""

from __future__ import annotations

import dataclasses
import importlib
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gazetteer.data.core.terminal import print_table

if TYPE_CHECKING:
    from gazetteer.diffusion.load import ModelConfig
    from gazetteer.jobs.config.schema import RunConfig

PACKAGES = {
    "torch": "models", "torchvision": "box suppression", "diffusers": "text-to-image models",
    "transformers": "detector, segmenter, text encoder", "ray": "executor=ray", "pyarrow": "tables",
    "groundingdino-py": "original Grounding DINO checkpoints (optional)",
    "segment-anything": "original SAM checkpoints (optional)",
}  # fmt: skip


def examine(
    model: ModelConfig | None = None, size: tuple[int, int] = (0, 0), blocks: Sequence[str] = ()
) -> dict[str, Any]:
    """Package versions (None: missing), devices, memory and free space, and, with a model, its attention blocks.

    Args:
        size: (height, width) in px of the pictures that the grids are of, 0 for the model's own.
        blocks: which a configuration names; their channels are ``named``, None where the model has no such block.

    Raises:
        InputError: the model cannot be loaded, or not draw pictures of that size.
    """
    import torch

    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    hub = _existing(Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")))
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": versions,
        "devices": _devices(torch),
        "cuda": torch.version.cuda,
        "cpus": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "hub_cache": {"folder": str(hub), "free_gb": round(shutil.disk_usage(hub).free / 1e9, 1)},
    }
    if model is not None:
        report["model"] = model.path
        report |= _offer(model, size, blocks)
    return report


def read_saes(config: RunConfig, widths: Mapping[str, int]) -> dict[str, int]:
    """How many sites a configuration names, and how many have an autoencoder on this machine that `label` would take.

    Args:
        widths: channels of the model's blocks, by their paths.

    Raises:
        InputError: one is damaged or belongs elsewhere, a pattern of ``saes`` cannot be read, or two sites are one.
    """
    check_moments = importlib.import_module("gazetteer.diffusion.config.generation").check_moments
    check_present = importlib.import_module("gazetteer.labeling.pipeline.checks").check_present
    sites = config.generation.sites
    check_moments(config.generation)
    return {"sites": len(sites), "read": check_present(config.saes, sites, config.sae_check.signal, widths)}


def _devices(torch: Any) -> list[dict[str, Any]]:
    """What `device:` may name here: name and memory in GB, None where unknown."""
    devices: list[dict[str, Any]] = [{"device": "cpu", "name": platform.machine(), "memory_gb": None}]
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        devices.append({"device": f"cuda:{index}", "name": about.name, "memory_gb": round(about.total_memory / 1e9, 1)})
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": "Apple GPU", "memory_gb": None})
    return devices


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def print_report(report: dict[str, Any]) -> None:
    """The report as text."""
    print_table(
        {"package": "", "version": "", "needed for": ""},
        ((package, version or "missing", PACKAGES[package]) for package, version in report["packages"].items()),
    )
    print(f"\npython {report['python']}, CUDA of this torch: {report['cuda'] or 'none'}")
    for device in report["devices"]:
        memory = f", {device['memory_gb']} GB" if device["memory_gb"] else ""
        print(f"device {device['device']}: {device['name']}{memory}")
    print(f"{report['cpus']} CPUs, {report['memory_gb']} GB of memory")
    print(f"free space: {report['disk_free_gb']} GB here, {report['hub_cache']['free_gb']} GB for downloaded models")
    if "blocks" in report:
        print(
            f"\n{report['pipeline']} ({report['denoiser']}): {report['steps']} steps and a guidance of "
            f"{report['guidance']:g} by default; branches that it can run: {', '.join(report['branches'])}"
        )
        print(f"blocks of {report['model']}, which a setting may name as generation.blocks:")
        print_table(
            {"block": "", "grid": ">", "channels": "d", "streams": ""},
            (
                (of["block"], f"{of['height']} x {of['width']}", of["channels"], ", ".join(of["streams"]))
                for of in report["blocks"]
            ),
        )
        absent = [block for block, channels in report["named"].items() if channels is None]
        if absent:
            print(f"not in this model, though generation.blocks names them: {', '.join(absent)}")


def print_saes(read: dict[str, int]) -> None:
    """What `read_saes` gives as text."""
    count, sites = read["read"], read["sites"]
    sound = ", whole and fitting" if count else ""
    print(f"\nautoencoders: those of {count} of {sites} sites are on this machine{sound}")


def _offer(model: ModelConfig, size: tuple[int, int], blocks: Sequence[str]) -> dict[str, Any]:
    """Blocks with grid, width and streams, and how the pipeline draws, from the model's configuration alone."""
    offer = importlib.import_module("gazetteer.diffusion.blocks").offer_of(model, size, blocks)
    drawn = {"steps": offer.usual.steps, "guidance": offer.usual.guidance, "branches": list(offer.branches)}
    about = {"pipeline": offer.pipeline, "denoiser": offer.kind, **drawn, "named": offer.named}
    return {**about, "blocks": [dataclasses.asdict(block) for block in offer.blocks]}
