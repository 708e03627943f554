"""A build that goes on from the models that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from benchmarks.scenes import chain, shipped, steps
from benchmarks.scenes.text_to_image.latents import write
from benchmarks.scenes.text_to_image.train import averaged_pipeline, prepare
from benchmarks.scenes.training.loop import Budget
from gazetteer.data.core.errors import InputError
from gazetteer.data.scenes.weights import MODELS, read_world, world_views


def test_a_build_goes_on_where_what_ships_was_left(tmp_path: Path) -> None:
    build = tmp_path / "build"
    shipped.go_on(build)
    done = ["autoencoder", "detector", "segmenter", "style_classifier", "concept_classifier"]
    assert [step.name for step in chain.STEPS if steps.is_done(build, step.name)] == done
    write(build / "vae", build / "latents", 4, world_views())
    training = prepare(build / "latents", Budget(None, 10**6), seed=3)
    checkpoint = training.checkpoint(build / "text_to_image" / "checkpoint.pt")
    checkpoint.start(resume=True)
    said = read_world(MODELS)["training"]["text_to_image"]
    assert (training.budget.step, round(training.budget.seconds / 3600, 2)) == (said["steps"], said["hours"])
    pipe = StableDiffusionPipeline.from_pretrained(MODELS / "text_to_image")
    mine = averaged_pipeline(training, pipe.vae)
    for ours, theirs in ((mine.unet, pipe.unet), (mine.text_encoder, pipe.text_encoder)):
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b), name


def test_it_is_of_the_views_and_the_autoencoder_of_what_ships(tmp_path: Path) -> None:
    shipped.go_on(tmp_path / "build")
    write(tmp_path / "build" / "vae", tmp_path / "latents", 2, ("sky",))
    checkpoint = prepare(tmp_path / "latents", Budget(None, 1), seed=0).checkpoint(
        tmp_path / "build" / "text_to_image" / "checkpoint.pt"
    )
    with pytest.raises(InputError, match="was trained with views"):
        checkpoint.start(resume=True)


def test_what_a_folder_holds_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.json").write_text(json.dumps("own"))
    with pytest.raises(SystemExit):
        shipped.main(["--build", str(tmp_path)])
    assert "holds a build already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["own.json"]
