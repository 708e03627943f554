"""The configurations that ship with the project say what the papers say."""

from __future__ import annotations

import configparser
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import from_json
from gazetteer.data.core.sites import BRANCHES, step_of
from gazetteer.diffusion.config.generation import check_moments
from gazetteer.jobs.config.schema import DEFAULT_CONFIG, PRESETS, RunConfig, load_config, presets
from gazetteer.labeling.vocabulary.concepts import Vocabulary
from gazetteer.sae.training.config import TrainConfig
from tests.support.system.running import ROOT


def test_the_presets_there_are_and_that_they_are_packaged() -> None:
    assert presets() == ["flux-schnell", "paper-sd14", "scenes-dit", "sd35-medium", "sdxl-turbo"]
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert "presets/*.yaml" in setup["options.package_data"]["gazetteer.jobs.config"]


@pytest.mark.parametrize("name", presets())
def test_every_key_is_known_and_every_t_a_step(name: str, caplog: pytest.LogCaptureFixture) -> None:
    file = PRESETS / f"{name}.yaml"
    file = file if file.exists() else DEFAULT_CONFIG.parent / f"{name}.yaml"
    raw, config = yaml.safe_load(file.read_text()), load_config(name)
    assert from_json(RunConfig, json.dumps(raw)).generation == config.generation and config.name == raw["name"]
    check_moments(config.generation)
    assert not caplog.records


def test_paper_sd14_is_the_papers_job() -> None:
    """arXiv 2504.15473, sections 3.2, 4.1 and appendix A."""
    config = load_config("paper-sd14")
    assert config.model.path == "CompVis/stable-diffusion-v1-4"
    assert config.model.scheduler == "ddim"
    generation = config.generation
    assert (generation.steps, generation.guidance) == (50, 7.5)
    assert (generation.height, generation.width) == (0, 0), "512 px, the model's own"
    assert set(generation.blocks) == {
        "down_blocks.2.attentions.1", "mid_block.attentions.0", "up_blocks.1.attentions.0",
    }  # fmt: skip
    assert generation.t == (1.0, 0.5, 0.0)
    assert [step_of(t, 50) for t in generation.t] == [0, 25, 49]
    assert generation.branches == BRANCHES
    assert len(generation.sites) == 18, "three blocks, three t, two branches; with k of 10 and of 20, the paper's 36"
    assert config.images == 40_000 and config.coverage.first == 1.0 and config.heldout == 0.0
    assert (config.evidence.binarize, config.evidence.hit_iou) == (0.1, 0.5)
    assert config.sae is not None
    train = config.sae.train
    assert train == TrainConfig.paper(10)
    assert config.sae.images == 200_000
    assert (train.k, train.shape(1280).n, train.lr, train.batch_size, train.epochs) == (10, 5120, 1e-4, 4096, 1)
    assert (train.alpha, train.k_aux) == (1 / 32, 256)
    assert train.total_steps(200_000 * 256) == 12_500
    assert train.total_steps(200_000 * 64) == 3_125


def seen(picture: np.ndarray) -> list[str]:
    """A tagger of pictures, as RAM is one."""
    return ["white house", "grass"] if picture.any() else []


def test_the_papers_annotator_asks_for_what_a_tagger_sees_and_nothing_else() -> None:
    """Section 4.1: RAM's tags go to Grounding DINO. Without a tagger: the 80 classes of COCO, of every picture."""
    prompt = "a dog before a white house"
    assert len(Vocabulary(load_config("paper-sd14").vocabulary).asked(prompt)) == 80
    (line,) = (one for one in (PRESETS / "paper-sd14.yaml").read_text().splitlines() if "--set" in one and "tag" in one)
    (key,) = (one for one in shlex.split(line) if one.startswith("vocabulary="))
    config = load_config("paper-sd14", [key.replace("my_module:tags", "tests.jobs.config.test_presets:seen")])
    asked = Vocabulary(config.vocabulary).asked
    assert asked(prompt, np.ones((2, 2, 3), np.uint8)) == ("grass", "white house")
    assert asked(prompt, np.zeros((2, 2, 3), np.uint8)) == ()


def test_sdxl_turbo_listens_at_the_four_blocks_without_guidance() -> None:
    """arXiv 2410.22366."""
    config = load_config("sdxl-turbo")
    assert set(config.generation.blocks) == {
        "down_blocks.2.attentions.1", "mid_block.attentions.0",
        "up_blocks.0.attentions.0", "up_blocks.0.attentions.1",
    }  # fmt: skip
    assert (config.generation.steps, config.generation.guidance, config.generation.branches) == (1, 0.0, ("cond",))
    assert config.generation.t == (1.0,)
    assert config.sae is not None
    assert (config.sae.train.k, config.sae.train.shape(1280).n) == (10, 5120)


def test_overrides_and_files_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_config("paper-sd14", ["images=3"]).images == 3
    (tmp_path / "paper-sd14").write_text((PRESETS / "sdxl-turbo.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    assert load_config("paper-sd14").name == "sdxl-turbo"
    with pytest.raises(InputError, match=r"There is no configuration sd14; accepted: a YAML file, or a preset \(flux"):
        load_config("sd14")
