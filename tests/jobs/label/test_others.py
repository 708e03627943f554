"""Autoencoders and finders as others have them, labelled by the command: SAeUron's layout by a mapping, SAM 3 alone."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from gazetteer.data.core.digests import digest_folder
from gazetteer.data.runs.folder import RunFolder
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import load_pipeline
from gazetteer.jobs.config.schema import load_config
from gazetteer.labeling.vocabulary.synonyms import read_synonyms
from gazetteer.sae.model.files import read_config
from gazetteer.sae.model.sources import configs
from gazetteer.sae.model.threshold import LACKS
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
    config = {"expansion_factor": 16, "normalize_decoder": True, "num_latents": N, "k": K, "batch_topk": True}
    config |= {"sample_topk": False, "input_unit_norm": False, "multi_topk": False, "d_in": d}
    (place / "cfg.json").write_text(json.dumps(config))
    return place


def codes_of(rows: list[dict], t: float) -> np.ndarray:
    """The features of the first picture at t, [cells, K]."""
    (first, *_) = (row for row in rows if row["t"] == t)
    return np.sort(np.asarray(first["feature"]).reshape(-1, K), axis=1)


def by_hand(run: Path, sae: Path) -> np.ndarray:
    """The same from SAeUron's formula, on what a plain hook of the module sees when the picture is drawn again."""
    stored = load_file(sae / "sae.safetensors")
    (codes, *_) = (row for row in pq.read_table(run / "codes").to_pylist() if row["t"] == 1.0)
    (image, *_) = (row for row in pq.read_table(run / "images").to_pylist() if row["image_id"] == codes["image_id"])
    config = load_config(None, [*SMALL, "generation.signals=[output]"])
    generator = Generator(load_pipeline(config.model), config.generation)
    seen: list[torch.Tensor] = []
    block = generator.pipe.unet.get_submodule(MID)
    handle = block.register_forward_hook(lambda _, __, out: seen.append(out[0]))
    generator.sample([image["prompt"]], [image["seed"]], lambda *_: None, decode=False)
    handle.remove()
    x = seen[0][1].flatten(1).T.float()  # the guided half, at the first step
    a = (x - stored["b_dec"]) @ stored["encoder.weight"].T + stored["encoder.bias"]
    kept = a.relu().topk(K, dim=1)
    return np.sort(kept.indices.masked_fill(kept.values == 0, 0).numpy(), axis=1)


def test_one_autoencoder_of_saeuron_serves_every_site(tmp_path: Path) -> None:
    sae, run = write_saeuron(tmp_path / "hub"), tmp_path / "run"
    mapping = f'saes={{"*": "{sae}"}}'
    done = in_process("label", "--out", str(run), "--set", *SMALL, mapping)
    assert done.returncode == 2
    assert "reads a block's output" in done.stderr
    assert "gives its update" in done.stderr
    (tmp_path / "words.txt").write_text("boat, sailing vessel\nsky\n")
    listed = f"vocabulary.path={tmp_path / 'words.txt'}"
    done = in_process("label", "--out", str(run), "--set", *SMALL, mapping, "generation.signals=[output]", listed)
    assert done.returncode == 0, done.stderr
    assert read_synonyms(RunFolder(run)) == {"boat": ("sailing vessel",)}
    note = f"trained as BatchTopK, and its file has no threshold: the {K} strongest of every vector are taken"
    assert note in done.stderr
    said = json.loads((run / "_meta" / "manifest.json").read_text())["saes_read"]
    assert len(said) == 2 and all(one.startswith(note) for one in said.values())
    assert note in (run / "README.md").read_text()
    codes = pq.read_table(run / "codes").to_pylist()
    assert {(row["block"], row["signal"], row["t"], row["k"]) for row in codes} == {
        (MID, "output", 1.0, K), (MID, "output", 0.0, K),
    }  # fmt: skip
    assert max(max(row["feature"]) for row in codes) < N
    assert all((np.asarray(row["value"]) >= 0).all() for row in codes)
    fingerprint = json.loads((run / "_meta" / "run.json").read_text())
    assert fingerprint["saes"] == {"*": f"sha256:{digest_folder(sae)}"}
    assert np.array_equal(codes_of(codes, 1.0), by_hand(run, sae)), "TopK of what the block gives, output[0]"
    features = pq.read_table(run / "features.parquet")
    assert features.num_rows == 2 * N
    outputs = [*SMALL, mapping, "generation.signals=[output]"]
    done = in_process(
        "sae", "threshold", "--out", str(tmp_path / "own"), "--pictures", "2", "--json", "--set", *outputs
    )
    assert done.returncode == 0, done.stderr
    for row in json.loads(done.stdout.splitlines()[-1])["sites"]:
        assert 0 < row["l0"] != K, "of each picture by the other's threshold"
        stated = read_config(tmp_path / "own" / row["site"])
        assert (stated["batch_topk"], stated["signal"]) == (True, "output")
        assert stated["threshold_from"] == "estimated on 2 pictures"
    again = in_process("sae", "threshold", "--out", str(tmp_path / "x"), "--set", *outputs, f"saes={tmp_path / 'own'}")
    assert (again.returncode, "lacks a BatchTopK threshold" in again.stderr) == (2, True)
    require_advice_for_a_mixed_set(tmp_path, sae)
    named = in_process("label", "--out", str(tmp_path / "none"), "--set", *SMALL, f"saes={sae}")
    assert named.returncode == 2
    assert f"it is an SAE itself, of {MID}; for the sites of that block: " in named.stderr
    assert f"--set 'saes={{\"{MID}\": \"{sae}\"}}' 'generation.blocks=[{MID}]'" in named.stderr


def require_advice_for_a_mixed_set(tmp_path: Path, sae: Path) -> None:
    """Where one site has a threshold and the other lacks one, what is advised serves both."""
    one = [*SMALL, f'saes={{"*": "{sae}"}}', "generation.signals=[output]"]
    done = in_process("sae", "threshold", "--out", str(tmp_path / "one"), "--pictures", "1", "--json", "--set", *one)
    assert {row["l0"] for row in json.loads(done.stdout.splitlines()[-1])["sites"]} == {None}
    first, second = sorted(place.name for place in (tmp_path / "own").iterdir())
    had = {"*": str(sae), first: str(tmp_path / "own" / first)}
    mixed = [*SMALL, f"saes={json.dumps(had)}", "generation.signals=[output]"]
    rest = str(tmp_path / "rest")
    done = in_process("sae", "threshold", "--out", rest, "--threshold", "0.5", "--json", "--set", *mixed)
    assert done.returncode == 0, done.stderr
    assert [row["l0"] for row in json.loads(done.stdout.splitlines()[-1])["sites"]] == [None]
    assert "features a vector: not measured" in done.stderr
    saes = json.loads(done.stdout.splitlines()[-1])["saes"]
    assert saes == {**had, second: f"{rest}/{second}"}
    *_, setting = shlex.split(done.stderr.strip().splitlines()[-1])
    advised = load_config(None, [*SMALL, setting, "generation.signals=[output]"])
    assert advised.saes == saes
    stated = configs(advised.saes, advised.generation.sites)
    assert len(stated) == 2 and not any(about.get(LACKS) for about in stated.values())


def write_transcoder(folder: Path) -> Path:
    """As SAELens writes one, of random weights, that writes twice the width that it reads."""
    d = int(read_config(Path(str(load_config().saes)) / f"{MID}-cond-t1.00")["d"])
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (d, N), "W_dec": (N, 2 * d), "b_enc": (N,), "b_dec": (2 * d,)}
    folder.mkdir(parents=True)
    weights = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    save_file(weights, folder / "sae_weights.safetensors")
    config = {"architecture": "transcoder", "d_in": d, "d_sae": N, "d_out": 2 * d, "signal": "update"}
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def test_sam3_labels_the_features_of_a_transcoder_without_a_segmenter(tmp_path: Path) -> None:
    detector, run = tiny_sam3(tmp_path / "sam3"), tmp_path / "run"
    settings = [f"detector.path={detector}", "detector.box_threshold=0.1", 'segmenter.path=""', "sae_check.pictures=2"]
    transcoder = f'saes={{"*": "{write_transcoder(tmp_path / "transcoder")}"}}'
    done = in_process("label", "--out", str(run), "--set", *SMALL, *settings, transcoder)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(run / "features.parquet").num_rows == 2 * N
    assert max(max(row["feature"]) for row in pq.read_table(run / "codes").to_pylist()) < N
    segments = pq.read_table(run / "segments").to_pylist()
    assert segments
    assert all(abs(row["predicted_iou"] - row["score"]) < 1e-6 and row["area"] > 0 for row in segments)
    refused = in_process("label", "--out", str(tmp_path / "none"), "--set", *SMALL, 'segmenter.path=""')
    assert refused.returncode == 2
    assert "segmenter.path names no model, and the detector gives boxes only" in refused.stderr
