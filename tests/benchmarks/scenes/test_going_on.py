"""Trainings go on where they stood and from nothing else, and outlive a bad batch."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.scenes.classifiers import concepts as concept_classifier
from benchmarks.scenes.classifiers import styles as style_classifier
from benchmarks.scenes.detector import train as detector
from benchmarks.scenes.segmenter import train as segmenter
from benchmarks.scenes.training import finder_run
from benchmarks.scenes.training.loop import Average, Budget, Resumable, load_checkpoint, step_if_finite
from benchmarks.scenes.training.scene_cache import SceneCache, read, write
from gazetteer.data.core.errors import InputError
from gazetteer.data.scenes.world import EVAL_SEEDS


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> SceneCache:
    folder = tmp_path_factory.mktemp("scenes")
    write(folder, 0, 3)
    return read(folder)


@pytest.fixture(autouse=True)
def small(scenes: SceneCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three scenes for all, and a second for every step, as rates follow the clock."""

    def tick(budget: Budget) -> None:
        budget.step, budget.seconds = budget.step + 1, budget.seconds + 1.0

    monkeypatch.setattr(finder_run, "read_or_write", lambda *_: scenes)
    monkeypatch.setattr(Budget, "tick", tick)


def options(out: Path, **more: object) -> argparse.Namespace:
    usual = {"out": out, "scenes": out / "scenes", "count": 3, "minutes": 1.0, "pretrain_minutes": 0.02, "batch": 1,
             "prompts": 1, "rate": 1e-3, "seed": 0, "views": ("sky",), "threads": 1, "resume": True}  # fmt: skip
    return argparse.Namespace(**{**usual, **more})


def weights(run: finder_run.FinderRun) -> list[Tensor]:
    return [*run.model.parameters(), *run.average.shadow]


@pytest.mark.parametrize("kind", [segmenter.Run, detector.Run])
def test_a_killed_finder_goes_on_where_it_stood_and_with_nothing_else(
    kind: type[segmenter.Run] | type[detector.Run], tmp_path: Path
) -> None:
    whole = kind(options(tmp_path))
    whole.model.train()
    for number in range(3):
        if number == 2:
            whole.save()
        whole.step()
    killed = kind(options(tmp_path))
    assert killed.resume() and killed.budget.step == 2 and killed.budget.seconds == 2.0
    killed.model.train()
    killed.step()
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(killed), strict=True))
    for what, other in (("views", {"views": ("above",)}), ("seed", {"seed": 1}), ("scenes", {"count": 9})):
        with pytest.raises(InputError, match=f"was trained with {what}"):
            kind(options(tmp_path, **other)).resume()


def test_a_detector_of_other_words_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector.Run(options(tmp_path)).save()
    monkeypatch.setattr(detector, "WORDS", ("sky", "dog"))
    with pytest.raises(InputError, match="was trained with words"):
        detector.Run(options(tmp_path)).resume()


def test_a_bad_batch_leaves_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = segmenter.Run(options(tmp_path))
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    batch = run.batches()
    batch.pixels[:] = torch.nan
    monkeypatch.setattr(run, "batches", lambda: batch)
    run.step()
    assert all(torch.equal(one, other) for one, other in zip(before, run.model.parameters(), strict=True))


def test_gradients_that_are_finite_are_followed() -> None:
    layer = nn.Linear(1, 1)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    for value in (torch.inf, torch.nan, 1.0):
        layer.weight.grad = torch.full((1, 1), value)
        step_if_finite(optimizer, nn.utils.clip_grad_norm_([layer.weight], 10.0))
        assert torch.equal(layer.weight, before - float(value == 1.0))


def test_checkpoints_and_averages_of_something_else_are_refused(tmp_path: Path) -> None:
    def training(**about: object) -> Resumable:
        layer = nn.Linear(2, 2)
        average = Average([layer], 0.9)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        path = tmp_path / "checkpoint.pt"
        return Resumable(path, [layer], optimizer, Budget(None, 9), 1, (average,), average, about)

    first = training(vae="one", views=["sky"])
    first.start(resume=True)
    first.tick()
    for _ in ("checkpoint", "averages"):
        again = training(vae="one", views=["sky"])
        again.start(resume=True)
        assert again.budget.step == 1
        for about in ({"vae": "two", "views": ["sky"]}, {"vae": "one", "views": []}):
            with pytest.raises(InputError, match="remove it to begin anew"):
                training(**about).start(resume=True)
            training(**about).start(resume=False)
        (tmp_path / "checkpoint.pt").unlink(missing_ok=True)
    first.about = {}
    first.save()
    state = load_checkpoint(first.path)
    del state["about"]  # as before checkpoints said it
    torch.save(state, first.path)
    training(vae="two").start(resume=True)


def test_the_last_checkpoint_of_a_classifier_has_the_steps_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card takes them from there: it said 11,700 of a training that went on for some steps more."""
    monkeypatch.setattr(style_classifier, "EVAL_SEEDS", EVAL_SEEDS[:10_008])
    weights = {
        "style": style_classifier.train(Budget(None, 3), 16, 0, tmp_path / "style.pt", every=2),
        "concept": concept_classifier.train(Budget(None, 3), 6, 0, tmp_path / "concept.pt", every=2),
    }
    for name, model in weights.items():
        state = load_checkpoint(tmp_path / f"{name}.pt")
        assert state["step"] == 3
        assert all(torch.equal(state["modules"][0][key], value) for key, value in model.state_dict().items())
