"""Autoencoders and finders as others have them, labelled by the command: SAeUron's layout by a mapping, SAM 3 alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from gazetteer.data.core.digests import digest_folder
from gazetteer.jobs.config.schema import load_config
from gazetteer.sae.model.files import read_config
from tests.support.models.finders import tiny_sam3
from tests.support.system.running import in_process

MID, N, K = "mid_block.attentions.0", 64, 4
SMALL = [
    "images=4", "shard_size=2", "generation.steps=2", f"generation.blocks=[{MID}]", "generation.branches=[cond]",
    "generation.t=[1.0, 0.0]", "coverage.wanted=0", "labels.min_images=1", "labels.permutations=20", "labels.refine=40",
    "executor=serial", "sae_check.pictures=0",
]  # fmt: skip


def write_saeuron(folder: Path) -> Path:
    """As SAeUron's `Sae.save_to_disk` writes one, of random weights, in a folder named after its module."""
    d = int(read_config(Path(str(load_config().saes)) / f"{MID}-cond-t1.00")["d"])
    generator = torch.Generator().manual_seed(0)
    weights = {
        "encoder.weight": torch.randn(N, d, generator=generator), "encoder.bias": torch.zeros(N),
        "W_dec": torch.randn(N, d, generator=generator), "b_dec": torch.randn(d, generator=generator),
    }  # fmt: skip
    place = folder / f"unet.{MID}"
    place.mkdir(parents=True)
    save_file(weights, place / "sae.safetensors")
    config = {"expansion_factor": 16, "normalize_decoder": True, "num_latents": N, "k": K, "batch_topk": False}
    config |= {"sample_topk": False, "input_unit_norm": False, "multi_topk": False, "d_in": d}
    (place / "cfg.json").write_text(json.dumps(config))
    return place


def test_one_autoencoder_of_saeuron_serves_every_site(tmp_path: Path) -> None:
    sae, run = write_saeuron(tmp_path / "hub"), tmp_path / "run"
    mapping = f'saes={{"*": "{sae}"}}'
    done = in_process("label", "--out", str(run), "--set", *SMALL, mapping)
    assert done.returncode == 2
    assert "reads a block's output" in done.stderr
    assert "gives its update" in done.stderr
    config = json.loads((sae / "cfg.json").read_text())
    (sae / "cfg.json").write_text(json.dumps(config | {"signal": "update"}))
    done = in_process("label", "--out", str(run), "--set", *SMALL, mapping)
    assert done.returncode == 0, done.stderr
    codes = pq.read_table(run / "codes").to_pylist()
    assert {(row["block"], row["signal"], row["t"], row["k"]) for row in codes} == {
        (MID, "update", 1.0, K), (MID, "update", 0.0, K),
    }  # fmt: skip
    assert max(max(row["feature"]) for row in codes) < N
    assert all((np.asarray(row["value"]) >= 0).all() for row in codes)
    marks = json.loads((run / "_meta" / "run.json").read_text())
    assert marks["saes"] == {"*": f"sha256:{digest_folder(sae)}"}
    features = pq.read_table(run / "features.parquet")
    assert features.num_rows == 2 * N
    named = in_process("label", "--out", str(tmp_path / "none"), "--set", *SMALL, f"saes={sae}")
    assert named.returncode == 2
    assert f'it is an SAE itself; for every site: --set \'saes={{"*": "{sae}"}}\'' in named.stderr


def test_sam3_labels_without_a_segmenter(tmp_path: Path) -> None:
    detector, run = tiny_sam3(tmp_path / "sam3"), tmp_path / "run"
    settings = [f"detector.path={detector}", "detector.box_threshold=0.1", 'segmenter.path=""']
    done = in_process("label", "--out", str(run), "--set", *SMALL, *settings)
    assert done.returncode == 0, done.stderr
    segments = pq.read_table(run / "segments").to_pylist()
    assert segments
    assert all(abs(row["predicted_iou"] - row["score"]) < 1e-6 and row["area"] > 0 for row in segments)
    refused = in_process("label", "--out", str(tmp_path / "none"), "--set", *SMALL, 'segmenter.path=""')
    assert refused.returncode == 2
    assert "segmenter.path names no model, and the detector gives boxes only" in refused.stderr
