"""Autoencoders that `gazetteer sae export` wrote for SAELens, read back by SAELens itself: the largest differences.

Runs the package in the environment that benchmarks/sae/step.py makes. sdxl-unbox is not an installable package; what is
written for it is held by tests/sae/model/test_export.py alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = ROOT / "tests" / "sae" / "formats" / "written"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--read", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read_back(Path(arguments.read))
        return
    sys.path.insert(0, str(ROOT))
    from benchmarks.sae.step import ENVIRONMENT, last_line, peer_environment

    python, failed = peer_environment(["sae-lens"])
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        command = [python, str(Path(__file__).resolve()), "--read", folder]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ENVIRONMENT, check=False)
        if done.returncode != 0:
            failed["sae-lens"] = last_line(done.stderr)
        exported = [] if failed else sorted(Path(folder).iterdir())
        differences = {place.name: compare(place) for place in exported}
    for name, row in differences.items():
        print(f"{name:32}{row['max_difference']:.1e} of {row['scale']:.0f}")
    for package, reason in failed.items():
        print(f"{package}: not run: {reason}")
    if arguments.json:
        print(json.dumps({"sae-lens": differences, "not_run": failed}))


def write(folder: Path) -> None:
    """Export ours and what other packages wrote, each with vectors and what it makes of them."""
    from gazetteer.data.core.errors import InputError
    from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
    from gazetteer.sae.model.checkpoint import load_pretrained
    from gazetteer.sae.model.export import export

    own = {"ours-topk": SAEConfig(8, 24, 3), "ours-batchtopk": SAEConfig(8, 24, 3, batch_topk=True, max_k=24)}
    for name, shape in own.items():
        sae = SparseAutoencoder(shape).initialise(0, torch.ones(8))
        if sae.threshold is not None:
            sae.threshold.fill_(0.3)
        sae.save_pretrained(folder / name / "own")
    foreign = {path.name: next(iter(path.glob("sae*"))) for path in sorted(WRITTEN.iterdir()) if path.is_dir()}
    for name, place in {**foreign, **{name: folder / name / "own" for name in own}}.items():
        try:
            export(place, folder / name / "lens", "sae-lens")
        except InputError as error:
            print(f"{name}: {error}")
            continue
        sae = load_pretrained(place)[0]
        x = torch.randn(32, sae.config.d, generator=torch.Generator().manual_seed(8)) * 3
        with torch.no_grad():
            save_file({"x": x, "x_hat": sae(x).contiguous()}, folder / name / "expected.safetensors")


def read_back(folder: Path) -> None:
    """In SAELens' own environment: load each export and write down what it makes of the same vectors."""
    from sae_lens import SAE

    for place in sorted(folder.iterdir()):
        sae = SAE.load_from_disk(place / "lens")
        x = load_file(place / "expected.safetensors")["x"]
        with torch.no_grad():
            save_file({"x_hat": sae.decode(sae.encode(x)).contiguous()}, place / "theirs.safetensors")


def compare(place: Path) -> dict[str, Any]:
    """How far the two are apart."""
    ours, theirs = (load_file(place / f"{name}.safetensors")["x_hat"] for name in ("expected", "theirs"))
    return {"max_difference": float((ours - theirs).abs().max()), "scale": float(ours.abs().max())}


if __name__ == "__main__":
    main()
