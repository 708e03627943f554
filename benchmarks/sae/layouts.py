"""Autoencoders that other packages wrote, read by ours: the largest difference of the reconstructions.

Runs the packages of benchmarks/sae/requirements.txt in the environment that benchmarks/sae/step.py makes. sdxl-unbox
is not an installable package; its layout is held by tests/sae/model/test_formats.py alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
D, N, K, COUNT = 24, 96, 5, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--write", nargs=2, metavar=("PACKAGE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        package, folder = arguments.write
        for name, writer in WRITERS[package].items():
            writer(Path(folder) / name)
        return
    sys.path.insert(0, str(ROOT))
    from benchmarks.sae.step import ENVIRONMENT, last_line, peer_environment

    python, failed = peer_environment(list(WRITERS))
    result: dict[str, dict[str, Any]] = {}
    for package, writers in WRITERS.items():
        with tempfile.TemporaryDirectory() as folder:
            command = [python, str(Path(__file__).resolve()), "--write", package, folder]
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ENVIRONMENT, check=False)
            if done.returncode != 0:
                failed[package] = last_line(done.stderr)
                continue
            result |= {name: compare(Path(folder) / name) for name in writers}
    for name, row in result.items():
        print(f"{name:26}{row['layout']:12}{row['max_difference']:.1e} of {row['scale']:.0f}")
    for package, reason in failed.items():
        print(f"{package:26}not run: {reason}")
    if arguments.json:
        print(json.dumps({"layouts": result, "not_run": failed}))


def compare(folder: Path) -> dict[str, Any]:
    """Read what was written to `folder` and reconstruct the same vectors."""
    from safetensors.torch import load_file

    from gazetteer.sae.model.checkpoint import load_pretrained

    sae, config = load_pretrained(folder / "sae")
    there = load_file(folder / "expected.safetensors")
    difference = float((sae(there["x"]) - there["x_hat"]).abs().max())
    return {"layout": config["layout"], "max_difference": difference, "scale": float(there["x_hat"].abs().max())}


def fill(tensors: dict[str, torch.Tensor]) -> None:
    """Random weights and biases, so that none is zero or of unit norm by chance."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))


def keep(folder: Path, reconstruct: Callable[[torch.Tensor], torch.Tensor]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    x = torch.randn(COUNT, D, generator=torch.Generator().manual_seed(8)) * 3
    with torch.no_grad():
        save_file({"x": x, "x_hat": reconstruct(x).contiguous()}, folder / "expected.safetensors")


def write_sparsify(folder: Path) -> None:
    from sparsify import SparseCoder, SparseCoderConfig

    sae = SparseCoder(D, SparseCoderConfig(num_latents=N, k=K))
    fill(dict(sae.named_parameters()))
    keep(folder, lambda x: sae(x).sae_out)
    sae.save_to_disk(folder / "sae")


def write_lens(folder: Path, **options: Any) -> None:
    from sae_lens import TopKSAE, TopKSAEConfig

    sae = TopKSAE(TopKSAEConfig(d_in=D, d_sae=N, k=K, **options))
    fill(dict(sae.named_parameters()))
    keep(folder, lambda x: sae.decode(sae.encode(x)))
    sae.save_model(folder / "sae")


def write_lens_training(folder: Path) -> None:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D, d_sae=N, k=K))
    fill(dict(sae.named_parameters()))
    keep(folder, lambda x: sae.decode(sae.encode(x)))
    sae.save_inference_model(folder / "sae")


WRITERS: dict[str, dict[str, Callable[[Path], None]]] = {
    "eai-sparsify": {"eai-sparsify": write_sparsify},
    "sae-lens": {
        "sae-lens": write_lens,
        "sae-lens, b not on input": lambda folder: write_lens(folder, apply_b_dec_to_input=False),
        "sae-lens, rescaled": lambda folder: write_lens(folder, rescale_acts_by_decoder_norm=True),
        "sae-lens, from training": write_lens_training,
    },
}


if __name__ == "__main__":
    main()
