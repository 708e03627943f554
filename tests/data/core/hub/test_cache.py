"""Copies of the hub's repositories in the cache are told apart offline, by commit, blobs and content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gazetteer.data.core.hub.cache import cached, damaged, same
from tests.support.system.hub_cache import BIG, put_in_cache

COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_copy_is_known_by_its_commit_and_blobs(cache: Path) -> None:
    put_in_cache(cache, "some/model", COMMIT, {"config.json": b"{}", "unet/model.safetensors": BIG})
    copy = cached("some/model")
    assert copy is not None and copy.commit == COMMIT
    assert copy.blobs == {
        "config.json": hashlib.sha1(b"blob 2\0{}").hexdigest(),
        "unet/model.safetensors": hashlib.sha256(BIG).hexdigest(),
    }
    assert damaged(copy) is None
    assert cached(f"some/model/inside@{COMMIT}") == copy == cached("some/model", COMMIT)


@pytest.mark.parametrize("name", ["some/model@v2", "some/other", "model", "some/model.x", "/some/model", "./x"])
def test_what_is_not_cached_or_no_id_is_none(cache: Path, name: str) -> None:
    put_in_cache(cache, "some/model", COMMIT, {"config.json": b"{}"})
    assert cached(name) is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_content_that_is_not_what_its_blob_says_is_damage(cache: Path, name: str) -> None:
    put_in_cache(cache, "some/model", COMMIT, {"config.json": b"{}", "model.safetensors": BIG})
    copy = cached("some/model")
    assert copy is not None
    (copy.folder / name).write_bytes(b"[]")
    assert damaged(copy) == name


def test_other_commits_are_the_same_where_every_file_is(cache: Path) -> None:
    put_in_cache(cache, "some/model", COMMIT, {"config.json": b"{}", "model.safetensors": BIG})
    first = cached("some/model")
    put_in_cache(cache, "some/model", OTHER, {"config.json": b"{}"})
    second = cached("some/model")
    put_in_cache(cache, "some/model", "c" * 40, {"config.json": b"[]"})
    third = cached("some/model")
    assert first and second and third
    assert same(first, first) and same(first, second)
    assert not same(first, third) and not same(second, first), "nothing is known of the weights"
