"""How well layouts can be read off blocks: a probe on what is planted, and on the model that ships."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scenes import readable
from gazetteer.data.scenes.render import render
from gazetteer.data.scenes.weights import MODELS
from gazetteer.data.scenes.world import CONCEPT_NAMES, EVAL_SEEDS

GRID = (16, 16)


@pytest.fixture(scope="module")
def scenes() -> list[readable.Scene]:
    return [render(EVAL_SEEDS[readable.FIRST + number]) for number in range(60)]


def test_what_is_written_in_the_updates_is_read_up_to_the_grid(scenes: list[readable.Scene]) -> None:
    truth = readable.truth_of(scenes, GRID)
    shares = (truth.pixels / truth.areas).transpose(0, 2, 1).astype(np.float32)
    turned = shares @ np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0].astype(np.float32)
    read = readable.probed(turned, truth)
    assert read["mean"] > 0.7 and read["sky"] > 0.9  # small things lose their rims to the grid
    noise = np.random.default_rng(1).normal(size=shares.shape).astype(np.float32)
    assert readable.probed(noise, truth)["mean"] < 0.4 * read["mean"]


def test_a_concept_that_no_channel_knows_is_not_read(scenes: list[readable.Scene]) -> None:
    truth = readable.truth_of(scenes, GRID)
    shares = (truth.pixels / truth.areas).transpose(0, 2, 1).astype(np.float32)
    sea = CONCEPT_NAMES.index("sea")
    without = np.delete(shares, sea, axis=2)
    without[..., [CONCEPT_NAMES.index(name) for name in ("sky", "grass", "sand")]] = 0
    assert readable.probed(without, truth)["sea"] < readable.probed(shares, truth)["sea"] - 0.2


def test_exact_masks_become_pixels_of_cells(scenes: list[readable.Scene]) -> None:
    truth = readable.truth_of(scenes[:3], GRID)
    for number, scene in enumerate(scenes[:3]):
        for name in CONCEPT_NAMES:
            area = sum(int(instance.mask.sum()) for instance in scene.instances if instance.concept == name)
            assert truth.pixels[number, CONCEPT_NAMES.index(name)].sum() == area
    assert truth.areas.sum() == 128 * 128


def test_every_block_of_the_model_that_ships_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert readable.main(["--scenes", "20", "--t", "1.0", "0.0", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {"down_blocks.0.attentions.0", "mid_block.attentions.0", "up_blocks.1.attentions.0"} <= said.keys()
    for by_t in said.values():
        assert by_t.keys() == {"1.00", "0.00"}
        assert all(0 <= value <= 1 for values in by_t.values() for value in values.values())
    best = said["up_blocks.1.attentions.0"]
    assert best["0.00"]["mean"] > best["1.00"]["mean"], "at the end there is a scene to be read, at the start noise"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--models", "elsewhere"], "name them with --views"),
        (["--models", "elsewhere", "--views", "none", "--scenes", "9"], "At least 10 scenes are needed"),
        (["--models", "elsewhere", "--views", "none", "--scenes", "10", "--t", "1.5"], "t must lie between"),
        (["--t", "0.5", "0.501"], "One t is named twice in 0.50, 0.50."),
        (["--models", "nowhere", "--views", "none", "--scenes", "10"], "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "text_to_image").symlink_to(MODELS / "text_to_image")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        readable.main(words)
    assert said in capsys.readouterr().err.splitlines()[-1]
