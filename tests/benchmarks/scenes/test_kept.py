"""What is kept of an unfinished world, and a build that goes on from the models that ship."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from benchmarks.scenes import chain, kept, shipped, steps
from benchmarks.scenes.text_to_image.latents import write
from benchmarks.scenes.text_to_image.train import averaged_pipeline, prepare
from benchmarks.scenes.training.loop import Average, Budget, Resumable, cosine_rate
from gazetteer.data.core.errors import InputError
from gazetteer.data.scenes.weights import MODELS, read_world, world_views


def build_of(folder: Path) -> Path:
    """A build whose autoencoder and detector are done, and whose text-to-image model is in training."""
    files = {
        "autoencoder.done": "", "vae/config.json": "{}", str(kept.VAE): "v", "autoencoder/curve.jsonl": "1\n",
        "autoencoder/checkpoint.pt": "large", "detector.done": "", "models/detector/model": "d",
        "models/world.json": json.dumps({"views": ["sky"], "training": {"detector": {"steps": 3}}}),
        "models/segmenter/model": "half done", "text_to_image/averages.safetensors": "a",
        "text_to_image/curve.jsonl": "2\n", "text_to_image/checkpoint.pt": "large",
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_what_is_done_and_averages_are_kept_and_put_where_they_were(tmp_path: Path) -> None:
    build = build_of(tmp_path / "build")
    assert kept.keep(build, tmp_path / "kept") == ["autoencoder", "detector", "text_to_image"]
    files = {str(file.relative_to(tmp_path / "kept")) for file in (tmp_path / "kept").rglob("*") if file.is_file()}
    assert files == {
        "autoencoder.done", "vae/config.json", str(kept.VAE), "autoencoder/curve.jsonl", "detector.done",
        "models/detector/model", "models/world.json", "text_to_image/averages.safetensors", "text_to_image/curve.jsonl",
    }  # fmt: skip
    new = tmp_path / "new"
    assert kept.restore(new, tmp_path / "kept") == ["autoencoder", "detector", "text_to_image"]
    assert {str(file.relative_to(new)) for file in new.rglob("*") if file.is_file()} == files
    assert (new / kept.VAE).read_text() == "v"
    assert kept.figures_of(new, "detector") == {"steps": 3} and kept.figures_of(new, "segmenter") == {}
    assert kept.restore(new, tmp_path / "kept") == []
    assert [step.name for step in chain.STEPS if steps.is_done(new, step.name)] == ["autoencoder", "detector"]


def test_what_was_trained_with_an_earlier_autoencoder_is_not_kept(tmp_path: Path) -> None:
    build = build_of(tmp_path / "build")
    (build / "concept_classifier.done").touch()
    assert "concept_classifier" in kept.keep(build, tmp_path / "kept")
    later = (build / "concept_classifier.done").stat().st_mtime_ns + 10**9
    os.utime(build / "autoencoder.done", ns=(later, later))
    assert "concept_classifier" not in kept.keep(build, tmp_path / "other")
    assert steps.unfinished(build, ["autoencoder", "concept_classifier"]) == ["concept_classifier"]


def test_what_a_build_has_begun_itself_stays(tmp_path: Path) -> None:
    kept.keep(build_of(tmp_path / "build"), tmp_path / "kept")
    new = tmp_path / "new"
    (new / "text_to_image").mkdir(parents=True)
    (new / "text_to_image/checkpoint.pt").write_text("own")
    (new / "models").mkdir()
    (new / "models/world.json").write_text("own")
    assert kept.restore(new, tmp_path / "kept") == ["autoencoder", "detector"]
    assert not (new / "text_to_image/averages.safetensors").exists()
    assert (new / "models/world.json").read_text() == "own"


def test_with_another_autoencoder_nothing_is_taken_that_was_trained_with_the_kept_one(tmp_path: Path) -> None:
    kept.keep(build_of(tmp_path / "build"), tmp_path / "kept")
    own = tmp_path / "own"
    (own / kept.VAE).parent.mkdir(parents=True)
    (own / kept.VAE).write_text("another")
    (own / "autoencoder.done").touch()
    assert kept.restore(own, tmp_path / "kept") == ["detector"]
    begun = tmp_path / "begun"
    (begun / "autoencoder").mkdir(parents=True)
    (begun / "autoencoder/checkpoint.pt").write_text("in training")
    assert kept.restore(begun, tmp_path / "kept") == ["detector"]


def test_what_ships_is_not_kept_any_more(tmp_path: Path) -> None:
    kept.keep(build_of(tmp_path / "build"), tmp_path / "kept")
    kept.drop(["autoencoder", "detector", "saes"], tmp_path / "kept")
    assert not (tmp_path / "kept/models").exists()
    assert (tmp_path / "kept" / kept.VAE).exists(), "the averages are worth nothing without it"
    kept.drop(["autoencoder", "text_to_image"], tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_build_without_anything_to_keep_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="nothing to keep"):
        kept.keep(tmp_path, tmp_path / "kept")
    with pytest.raises(SystemExit):
        kept.main(["--build", str(tmp_path), "--kept", str(tmp_path / "kept")])
    assert "nothing to keep" in capsys.readouterr().err
    assert kept.main(["--build", str(build_of(tmp_path / "build")), "--kept", str(tmp_path / "kept")]) == 0
    assert "kept autoencoder, detector, text_to_image" in capsys.readouterr().out


def test_what_is_kept_is_small() -> None:
    files = [file for file in kept.KEPT.rglob("*") if file.is_file()]
    assert all(file.stat().st_size < 30e6 for file in files) and sum(file.stat().st_size for file in files) < 60e6


def training(folder: Path) -> tuple[nn.Linear, Average, Resumable]:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    average = Average([layer], 0.9)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9)
    state = Resumable(
        folder / "checkpoint.pt", [layer], optimizer, Budget(None, 10), others=[average], averages=average
    )
    return layer, average, state


def step(layer: nn.Linear, average: Average, state: Resumable) -> None:
    state.optimizer.zero_grad()
    layer(torch.randn(4, 3)).square().sum().backward()
    state.optimizer.step()
    average.update(state.budget.step)
    state.tick()


def test_a_training_whose_checkpoint_is_gone_goes_on_from_its_averages(tmp_path: Path) -> None:
    layer, average, state = training(tmp_path)
    state.start(resume=True)  # there is nothing yet
    for _ in range(4):
        step(layer, average, state)
    state.budget.seconds = 1234.5
    state.save()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["averages.safetensors", "checkpoint.pt"]
    halves = [tensor.half().float() for tensor in average.shadow]
    random = torch.get_rng_state()

    (tmp_path / "checkpoint.pt").unlink()
    layer, average, state = training(tmp_path)
    state.start(resume=True)
    assert all(torch.equal(live, half) for live, half in zip(layer.parameters(), halves, strict=True))
    assert all(torch.equal(tensor, half) for tensor, half in zip(average.shadow, halves, strict=True))
    assert (state.budget.step, state.budget.seconds, state.budget.warm_from) == (4, 1234.5, 4)
    assert not torch.equal(torch.get_rng_state(), random)
    # The new optimiser is warmed up like one at step 0; a later run knows that.
    assert cosine_rate(1.0, state.budget, warmup=10) == pytest.approx(0.1 * cosine_rate(1.0, state.budget, warmup=1))
    step(layer, average, state)
    state.save()
    _, _, state = training(tmp_path)
    state.start(resume=True)
    assert (state.budget.step, state.budget.warm_from) == (5, 4)

    (tmp_path / "checkpoint.pt").unlink()
    other = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    wider = Resumable(
        tmp_path / "checkpoint.pt", [other], state.optimizer, Budget(None, 1), averages=Average([other], 0.9)
    )
    with pytest.raises(ValueError, match="holds 2 tensors, this network 4"):
        wider.start(resume=True)

    layer, _, state = training(tmp_path)
    state.start(resume=False)
    assert state.budget.step == 0 and not torch.equal(layer.weight, halves[0])


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
