"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import label


@pytest.fixture(scope="session")
def scenes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run on the embedded models; tests read it and never change it."""
    run = tmp_path_factory.mktemp("scenes") / "run"
    done = label(run, "executor=serial")
    assert done.returncode == 0, done.stderr
    assert "16 pictures" in done.stdout
    return run
