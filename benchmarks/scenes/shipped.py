"""Let a build go on from the models that ship: `python -m benchmarks.scenes.shipped --build build/world`.

Autoencoder, detector, segmenter and classifiers lie in the build as if they had been trained there, and are done; the
text-to-image model lies there as averages, from which `benchmarks.scenes.chain` trains on, with the steps and hours
that it took so far.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel

from benchmarks.scenes.autoencoder.model import encoder_digest
from benchmarks.scenes.kept import PARTS, VAE
from benchmarks.scenes.steps import mark
from gazetteer.data.core.errors import InputError
from gazetteer.data.scenes.weights import MODELS, WORLD, read_world

JUDGES = ("detector", "segmenter", "style_classifier", "concept_classifier")


def go_on(build: Path, models: Path = MODELS) -> None:
    """Fill an empty or missing folder `build` with what ships in `models`.

    Raises:
        InputError: the build holds something already.
    """
    if build.exists() and any(build.iterdir()):
        raise InputError(f"{build} holds a build already; name another folder with --build, or remove it.")
    shutil.copytree(models / "text_to_image" / "vae", build / VAE.parent)
    for name in JUDGES:
        shutil.copytree(models / name, build / "models" / name)
    shutil.copyfile(models / WORLD, build / "models" / WORLD)
    world = read_world(models)
    training = world["training"].get("text_to_image", {})
    said = {
        "step": str(training.get("steps", 0)),
        "seconds": str(3600 * training.get("hours", 0.0)),
        "about": json.dumps({"vae": encoder_digest(build / VAE.parent), "views": world["views"]}),
    }
    averages = build / PARTS["text_to_image"][0]
    averages.parent.mkdir()
    save_file(_averages(models / "text_to_image"), averages, said)
    for name in ("autoencoder", *JUDGES):  # in an order in which none is older than one it needs
        mark(build, name).touch()


def _averages(pipeline: Path) -> dict[str, torch.Tensor]:
    """The parameters that are trained, numbered in the order of `text_to_image.train`."""
    unet = UNet2DConditionModel.from_pretrained(pipeline / "unet", torch_dtype=torch.float16)
    encoder = CLIPTextModel.from_pretrained(pipeline / "text_encoder", dtype=torch.float16)
    parameters = [*unet.parameters(), *encoder.parameters()]
    return {str(number): parameter.detach() for number, parameter in enumerate(parameters)}


def main(argv: Sequence[str] | None = None) -> int:
    """Begin a build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path("build/world"))
    parser.add_argument("--models", type=Path, default=MODELS, help="other models than those that ship")
    options = parser.parse_args(argv)
    try:
        go_on(options.build, options.models)
    except InputError as error:
        parser.error(str(error))
    print(f"{options.build} goes on from {options.models}; python -m benchmarks.scenes.chain --plan says with what")
    return 0


if __name__ == "__main__":
    sys.exit(main())
