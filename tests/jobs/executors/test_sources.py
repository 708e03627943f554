"""Models named by hub id: nodes whose caches hold different copies are refused, offline."""

from __future__ import annotations

from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.fingerprint import fingerprint_of
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.executors.sources import Source, require_unchanged, same_copies, sources
from tests.support.runs.runs import PROVENANCE, parts
from tests.support.servers.hub_server import Repository, hub
from tests.support.system.hub_cache import BIG, put_in_cache

FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    put_in_cache(tmp_path / "cache", "some/model", FIRST, {"model_index.json": b"{}", "unet.safetensors": BIG})
    return tmp_path / "cache"


def named() -> list[Source]:
    config = load_config(None, ["model.path=some/model"])
    found = sources(config, fingerprint_of(config), {"model"})
    assert found[0].copy is not None
    return list(found)


def test_a_node_with_another_copy_is_refused(cache: Path) -> None:
    (model,) = named()
    require_unchanged([model])
    put_in_cache(cache, "some/model", SECOND, {"model_index.json": b"[]"})
    with pytest.raises(InputError, match=rf"model.path on .* commit {SECOND[:12]} of some/model.*--revision {FIRST}"):
        require_unchanged([model])


def test_a_damaged_copy_is_refused(cache: Path) -> None:
    (model,) = named()
    (cache / "models--some--model/snapshots" / FIRST / "unet.safetensors").write_bytes(b"other weights")
    with pytest.raises(InputError, match=r"unet.safetensors in the cached copy of some/model is damaged"):
        require_unchanged([model])


def test_a_run_goes_on_with_the_copy_it_began_with(cache: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run").open_or_create({"model.path": "some/model"})
    same_copies(named(), run)
    put_in_cache(cache, "some/model", SECOND, {"model_index.json": b"[]"})
    (model,) = same_copies(named(), run)  # nothing is made with the first yet
    run.commit_shard("s0", parts(0), {}, PROVENANCE)
    assert same_copies([model], run) == (model,)
    put_in_cache(cache, "some/model", "c" * 40, {"model_index.json": b"{ }"})
    with pytest.raises(InputError, match=f"the run has {SECOND[:12]}"):
        same_copies(named(), run)


def test_without_a_copy_here_the_hub_says_which_commit_workers_must_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a cluster's head that holds no weights: of two workers with other copies at least one is refused."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "head"))
    with hub() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        server.repositories["model", "some/model"] = Repository(private=False)
        (model,) = named()
        commit = server.repositories["model", "some/model"].head
        assert model.copy is not None and model.copy.commit == commit
    require_unchanged([model])  # on a worker that has loaded nothing yet
    for node, here in (("one", commit), ("two", SECOND)):
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / node))
        put_in_cache(tmp_path / node, "some/model", here, {"model_index.json": b"{}"})
    with pytest.raises(InputError, match=rf"commit {SECOND[:12]} of some/model, and the run has {commit[:12]}"):
        require_unchanged([model])
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "one"))
    require_unchanged([model])


def test_a_model_of_which_nobody_tells_the_commit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"nor in this machine's cache, .*127\.0\.0\.1:9.*hf download some/model"):
        named()
    config = load_config(None, ["model.path=some/model", f"model.revision={FIRST}"])
    (model,) = sources(config, fingerprint_of(config), {"model"})
    assert model.copy is not None and model.copy.commit == FIRST, "who names a commit needs no hub"
