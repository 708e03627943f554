"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.storage.lock import hold
from gazetteer.diffusion.runtime.beside import use_helpers
from tests.support.system.running import label


@pytest.fixture(autouse=True)
def no_helpers() -> Iterator[None]:
    """Threads that a worker of one test let work beside its models are not those of the next."""
    yield
    use_helpers(0)


@pytest.fixture(scope="session")
def scenes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run on the embedded models; tests read it and never change it.

    Processes that test side by side share it: the first to ask makes it.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    run = shared / "scenes" / "run"
    run.parent.mkdir(exist_ok=True)
    lock = hold(shared / "scenes.lock")
    try:
        if not RunFolder(run).is_complete():
            done = label(run, "executor=serial")
            assert done.returncode == 0, done.stderr
            assert "16 pictures" in done.stdout
    finally:
        lock.release()
    return run


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless browser for all tests of a process that need one."""
    from tests.support.servers.browser import chromium

    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server with one bucket, ``bucket``; this process's ``s3://`` goes there meanwhile."""
    import fsspec

    from tests.support.servers.object_store import s3_server, use

    before = dict(os.environ)
    with s3_server() as address:
        use(address)
        fsspec.filesystem("s3").mkdir("bucket")
        yield address
    os.environ.clear()
    os.environ.update(before)


LEFT_OUT_BY = {"browser": "GAZETTEER_NO_BROWSER", "mount": "GAZETTEER_NO_MOUNT", "compiler": "GAZETTEER_NO_COMPILER"}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out: who reads "passed" should know."""
    for marker, variable in LEFT_OUT_BY.items():
        if os.environ.get(variable) == "1":
            terminalreporter.write_line(f"left out by {variable}=1: the tests marked {marker}", yellow=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, and count as deselected, what this machine cannot do and its user said so."""
    markers = {marker for marker, variable in LEFT_OUT_BY.items() if os.environ.get(variable) == "1"}
    out = [item for item in items if markers & {mark.name for mark in item.iter_markers()}]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]
