"""Sites that train in processes of their own beside those that sample: what is lost of one is lost of no other."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.sites import Site
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import ModelConfig
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.label.shards import make_items
from gazetteer.jobs.sae import stream
from gazetteer.jobs.sae.capture import CaptureWorker, concatenate
from gazetteer.jobs.sae.train import train_site_saes
from gazetteer.jobs.sae.trainers import SiteTrainers, Standing, groups
from tests.support.models.dits import saved_dit
from tests.support.runs.sae_runs import overrides, tiny_config


class Mortal(SiteTrainers):
    """Is killed after its third shard of pictures, where it trains sites of the branch cond."""

    def take(self, shard: Mapping[Site, np.ndarray], first: int) -> Standing:
        """As `SiteTrainers.take`."""
        standing = super().take(shard, first)
        if first >= 16 and any(site.branch == "cond" for site in shard):
            os.kill(os.getpid(), signal.SIGKILL)
        return standing


class Spoiled(SiteTrainers):
    """Is handed pictures of which one site's are not finite from the second shard on."""

    def take(self, shard: Mapping[Site, np.ndarray], first: int) -> Standing:
        """As `SiteTrainers.take`."""
        bad = min(shard)
        return super().take({**shard, bad: np.full_like(shard[bad], np.nan)} if first else shard, first)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    config = tiny_config(tmp_path_factory.mktemp("model"))
    config["generation"]["t"] = [1.0]
    return [*overrides(config), "sae.stream=true", "sae.recover=0"]


@pytest.fixture(scope="module")
def whole(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The autoencoders of all four sites, trained in one process."""
    out = tmp_path_factory.mktemp("whole")
    train_site_saes(load_config(None, settings), out)
    return written(out)


def written(out: Path) -> dict[str, bytes]:
    """The weights of every finished site."""
    return {path.parent.name: path.read_bytes() for path in (out / "saes").glob("*/model.safetensors")}


@pytest.mark.alone
def test_kill_9_of_a_process_that_trains_loses_nothing_of_the_others_and_resumes_to_the_same_bytes(
    tmp_path: Path, settings: list[str], whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(None, [*settings, "executor=ray", "workers=1", "sae.workers=2"])
    sites = config.generation.sites
    killed = next(group for group in groups(sites, 2) if any(site.branch == "cond" for site in group))
    monkeypatch.setattr(stream, "SiteTrainers", Mortal)
    with pytest.raises(GazetteerError, match=r"pool train was lost .*it resumes\. The other 2 of 4 are finished"):
        train_site_saes(config, tmp_path)
    monkeypatch.undo()
    rest = {site.slug for site in sites} - {site.slug for site in killed}
    assert written(tmp_path) == {slug: whole[slug] for slug in rest}
    assert {path.name for path in (tmp_path / "saes" / "_stream").iterdir()} == {site.slug for site in killed}
    train_site_saes(load_config(None, settings), tmp_path)
    assert written(tmp_path) == whole
    assert not (tmp_path / "saes" / "_stream").exists()


def test_a_site_that_fails_ends_alone_and_is_trained_by_the_same_command_again(
    tmp_path: Path, settings: list[str], whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(None, settings)
    monkeypatch.setattr(stream, "SiteTrainers", Spoiled)
    bad = min(config.generation.sites).slug
    with pytest.raises(InputError, match=rf"{bad} stopped: .* NaN or infinity\. The other 3 of 4 are finished"):
        train_site_saes(config, tmp_path)
    monkeypatch.undo()
    assert written(tmp_path) == {slug: content for slug, content in whole.items() if slug != bad}
    train_site_saes(config, tmp_path)
    assert written(tmp_path) == whole


def test_prompts_keep_their_own_number_of_words(tmp_path: Path) -> None:
    """Qwen-Image's text is as long as its prompt; in a batch it would be filled up to the longest."""
    config = GenerationConfig(
        steps=2, t=(1.0,), branches=("cond",), blocks=("transformer_blocks.0",), streams=("image", "text"), exact=False
    )
    worker = CaptureWorker(ModelConfig(path=str(saved_dit("qwen_image", tmp_path / "model"))), config, 1, 4)
    items = make_items(["a boat", "a small boat on the sea"], 0, "")
    found = worker.run(items)
    image, words = (next(site for site in config.sites if site.stream == stream) for stream in ("image", "text"))
    assert found.cells[image][0] == found.cells[image][1]
    assert found.cells[words][1] - found.cells[words][0] == len("a small boat on the sea") - len("a boat")
    assert len(found.vectors[words]) == sum(found.cells[words])
    alone = worker.run(items[1:])
    np.testing.assert_array_equal(alone.vectors[words], found.vectors[words][found.cells[words][0] :])
    whole = concatenate([worker.run(items[:1]), alone])
    assert whole.cells == found.cells
    np.testing.assert_array_equal(whole.vectors[words], found.vectors[words])


def test_pictures_go_through_the_model_in_batches_unless_each_is_to_be_exact(
    tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    sample = Generator.sample

    def counted(self: Generator, prompts: list[str], *given: object, **named: object) -> object:
        seen.append(len(prompts))
        return sample(self, prompts, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Generator, "sample", counted)
    config = load_config(None, settings)
    items = make_items([f"a boat {number}" for number in range(7)], 0, "")
    worker = CaptureWorker(config.model, config.generation, 1, 3)
    exact = worker.run(items)
    assert seen == [1] * 7
    seen.clear()
    worker.fitting.size = 3
    batched = worker.run(items)
    assert seen == [3, 3, 1]
    assert exact.vectors.keys() == batched.vectors.keys() == set(config.generation.sites)
    assert exact.cells == batched.cells
    for site, array in exact.vectors.items():
        np.testing.assert_allclose(batched.vectors[site], array, atol=2e-2)
