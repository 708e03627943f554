"""A run of which no layout can be read or measured is refused in a sentence, before models are loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gazetteer.diffusion.load as loading
from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments import layout
from gazetteer.labeling.layout.evaluation.config import LayoutEvaluationConfig
from gazetteer.labeling.layout.evaluation.evaluate import evaluate_layout, print_layout, require_measurable
from gazetteer.labeling.layout.model import fit_layout
from gazetteer.labeling.layout.run import LayoutRun, open_run
from tests.support.runs.layout_runs import world_run
from tests.support.runs.small_world import MID, World, sky_world

CONFIG = LayoutEvaluationConfig(every_step=False, baselines=False, resamples=20)


@pytest.fixture(scope="module")
def world() -> World:
    return sky_world(40)


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> LayoutRun:
    return open_run(world_run(tmp_path_factory.mktemp("measurable") / "run", world, "a sky and a ball"))


def kept(run: LayoutRun, splits: tuple[str, ...]) -> LayoutRun:
    """The run with captions of the pictures of these splits alone."""
    return replace(run, mentioned=run.mentioned & np.isin(run.splits, splits)[:, None])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda run: replace(run, grids={}), "listens to words alone"),
        (lambda run: replace(run, grids={replace(MID, branch="uncond"): (8, 8)}), "no site of the cond branch"),
        (lambda run: kept(run, ()), "of the discovery pictures of .* names a concept that its picture shows"),
        (lambda run: kept(run, ("discovery",)), "of the heldout pictures of .* names a concept"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_models_are_loaded(
    run: LayoutRun, monkeypatch: pytest.MonkeyPatch, change: Any, says: str
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a model was loaded")

    other = change(run)
    monkeypatch.setattr(layout, "open_run", lambda _: other)
    monkeypatch.setattr(layout, "check_config", lambda *_: None)
    monkeypatch.setattr(loading, "load_pipeline", never)
    with pytest.raises(InputError, match=says):
        layout.evaluate_run(load_config(None, []), "run", stored=True)
    with pytest.raises(InputError, match=says):
        evaluate_layout(other, {}, np.eye(2), CONFIG)


def test_pictures_with_exact_masks_may_be_measured_instead(run: LayoutRun) -> None:
    require_measurable(kept(run, ("discovery",)), exact=True)


def test_a_layout_of_words_is_refused_as_such(run: LayoutRun) -> None:
    with pytest.raises(InputError, match="listens to words alone"):
        fit_layout(replace(run, grids={}))
    with pytest.raises(InputError, match="no site of the uncond branch"):
        fit_layout(run, branch="uncond")


def test_means_over_concepts_of_few_pairs_are_said(run: LayoutRun, capsys: pytest.CaptureFixture[str]) -> None:
    held = run.of_split("heldout")[:3]
    few = replace(run, splits=np.where(np.isin(np.arange(len(run.splits)), held), "heldout", "discovery"))
    print_layout({**evaluate_layout(few, {}, np.eye(2), CONFIG), "seconds": 1})
    assert "of held-out pictures no concept has 5 pairs: means are over all concepts" in capsys.readouterr().out
    print_layout({**evaluate_layout(run, {}, np.eye(2), CONFIG), "seconds": 1})
    assert "no concept has 5 pairs" not in capsys.readouterr().out


def test_a_prior_that_was_not_measured_is_no_number(run: LayoutRun, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate_layout(run, {}, np.eye(2), CONFIG)
    result["miou"]["0.50"]["prior"] = [np.nan] * 3
    print_layout({**result, "seconds": 1})
    assert "nan" not in capsys.readouterr().out
