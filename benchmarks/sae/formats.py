"""Autoencoders that other packages wrote, read by ours: the largest difference of the reconstructions.

Runs the packages of benchmarks/sae/requirements.txt in the environment that benchmarks/sae/step.py makes. sdxl-unbox
is not an installable package; its layout is held by tests/sae/formats/test_topk_formats.py alone.
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
D, N, K, COUNT = 8, 24, 3, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--write", nargs=2, metavar=("PACKAGE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        package, folder = arguments.write
        for name, writer in WRITERS[package].items():
            writer(Path(folder) / name.replace(", ", "-").replace(" ", "-"))
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
            result |= {name: compare(Path(folder) / name.replace(", ", "-").replace(" ", "-")) for name in writers}
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

    sae, config = load_pretrained(folder / "sae.pt" if (folder / "sae.pt").exists() else folder / "sae")
    expected = load_file(folder / "expected.safetensors")
    difference = float((sae(expected["x"]) - expected["x_hat"]).abs().max())
    return {"layout": config["layout"], "max_difference": difference, "scale": float(expected["x_hat"].abs().max())}


def fill(tensors: dict[str, torch.Tensor]) -> None:
    """Random weights and biases, so that none is zero or of unit norm by chance."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))


def keep(folder: Path, reconstruct: Callable[[torch.Tensor], torch.Tensor]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
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


def write_lens_as(kind: str, folder: Path, **options: Any) -> None:
    """One of the other architectures of SAELens, as it is after training."""
    import sae_lens

    sae = getattr(sae_lens, f"{kind}SAE")(getattr(sae_lens, f"{kind}SAEConfig")(d_in=D, d_sae=N, **options))
    fill(dict(sae.named_parameters()))
    keep(folder, lambda x: sae.decode(sae.encode(x)))
    sae.save_model(folder / "sae")


def write_lens_batchtopk(kind: str, folder: Path, **options: Any) -> None:
    """A BatchTopK or Matryoshka autoencoder in training, saved for inference, and its inference model's answer."""
    import sae_lens

    config = getattr(sae_lens, f"{kind}TrainingSAEConfig")(d_in=D, d_sae=N, k=K, **options)
    sae = getattr(sae_lens, f"{kind}TrainingSAE")(config)
    fill(dict(sae.named_parameters()))
    sae.topk_threshold.fill_(4.0)
    sae.save_inference_model(folder / "sae")
    loaded = sae_lens.SAE.load_from_disk(folder / "sae")
    keep(folder, lambda x: loaded.decode(loaded.encode(x)))


def write_dictionary(name: str, folder: Path, *arguments: Any, **trainer: Any) -> None:
    from dictionary_learning import dictionary
    from dictionary_learning.trainers import batch_top_k, matryoshka_batch_top_k, top_k
    from dictionary_learning.utils import load_dictionary

    homes = (dictionary, top_k, batch_top_k, matryoshka_batch_top_k)
    sae = next(getattr(home, name) for home in homes if hasattr(home, name))(D, N, *arguments)
    fill(dict(sae.named_parameters()))
    if hasattr(sae, "threshold") and sae.threshold.ndim == 0:
        sae.threshold.fill_(4.0)
    (folder / "sae").mkdir(parents=True)
    torch.save(sae.state_dict(), folder / "sae" / "ae.pt")
    about = {"trainer": {"dict_class": name, "activation_dim": D, "dict_size": N, **trainer}}
    (folder / "sae" / "config.json").write_text(json.dumps(about))
    loaded, _ = load_dictionary(str(folder / "sae"), "cpu")
    keep(folder, loaded)


def write_overcomplete(name: str, folder: Path, tie: Callable[[Any], Any] = lambda sae: sae, **options: Any) -> None:
    import matplotlib as mpl
    from matplotlib import cm

    vars(cm)["get_cmap"] = mpl.colormaps.get_cmap  # which the package's drawing asks for and newer versions have not
    from overcomplete import sae as models

    sae = tie(getattr(models, name)(D, N, **options))
    fill(dict(sae.named_parameters()))
    for buffer, value in (("running_mean", 0.5), ("running_var", 2.0)):
        for module in sae.modules():
            if hasattr(module, buffer):
                getattr(module, buffer).fill_(value)
    if name == "BatchTopKSAE":
        sae.running_threshold = torch.tensor(4.0)
    sae.eval()
    keep(folder, lambda x: sae(x)[2])
    torch.save(sae, folder / "sae.pt")


WRITERS: dict[str, dict[str, Callable[[Path], None]]] = {
    "eai-sparsify": {"eai-sparsify": write_sparsify},
    "sae-lens": {
        "sae-lens": write_lens,
        "sae-lens, b not on input": lambda folder: write_lens(folder, apply_b_dec_to_input=False),
        "sae-lens, rescaled": lambda folder: write_lens(folder, rescale_acts_by_decoder_norm=True),
        "sae-lens, from training": write_lens_training,
        "sae-lens, standard": lambda folder: write_lens_as("Standard", folder),
        "sae-lens, layer norm": lambda folder: write_lens_as("Standard", folder, normalize_activations="layer_norm"),
        "sae-lens, norm": lambda folder: write_lens_as(
            "TopK", folder, k=K, normalize_activations="constant_norm_rescale"
        ),
        "sae-lens, jumprelu": lambda folder: write_lens_as("JumpReLU", folder),
        "sae-lens, gated": lambda folder: write_lens_as("Gated", folder, apply_b_dec_to_input=False),
        "sae-lens, batchtopk": lambda folder: write_lens_batchtopk("BatchTopK", folder),
        "sae-lens, matryoshka": lambda folder: write_lens_batchtopk(
            "MatryoshkaBatchTopK", folder, matryoshka_widths=[N // 2, N]
        ),
    },
    "dictionary-learning": {
        "AutoEncoder": lambda folder: write_dictionary("AutoEncoder", folder),
        "AutoEncoderNew": lambda folder: write_dictionary("AutoEncoderNew", folder),
        "GatedAutoEncoder": lambda folder: write_dictionary("GatedAutoEncoder", folder),
        "JumpReluAutoEncoder": lambda folder: write_dictionary("JumpReluAutoEncoder", folder),
        "AutoEncoderTopK": lambda folder: write_dictionary("AutoEncoderTopK", folder, K, k=K),
        "BatchTopKSAE": lambda folder: write_dictionary("BatchTopKSAE", folder, K, k=K),
        "MatryoshkaBatchTopKSAE": lambda folder: write_dictionary(
            "MatryoshkaBatchTopKSAE", folder, K, [N // 2, N // 2], k=K
        ),
    },
    "overcomplete": {
        "TopKSAE": lambda folder: write_overcomplete("TopKSAE", folder, top_k=K),
        "TopKSAE, batch norm": lambda folder: write_overcomplete("TopKSAE", folder, top_k=K, encoder_module="mlp_bn_1"),
        "TopKSAE, tied": lambda folder: write_overcomplete(
            "TopKSAE", folder, lambda sae: sae.tied(bias=True), top_k=K, dictionary_params={"use_multiplier": True}
        ),
        "TopKSAE, untied": lambda folder: write_overcomplete("TopKSAE", folder, lambda sae: sae.untied(), top_k=K),
        "JumpSAE": lambda folder: write_overcomplete("JumpSAE", folder),
        "BatchTopKSAE of overcomplete": lambda folder: write_overcomplete("BatchTopKSAE", folder, top_k=K),
    },
}


if __name__ == "__main__":
    main()
