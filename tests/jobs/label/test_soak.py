"""Drivers and workers on Ray, killed at random moments and resumed, come to the tables of an undisturbed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.support.system.running import ROOT

pytestmark = pytest.mark.alone


def soak(kills: int, timeout: float, *settings: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "benchmarks/soak.py", "--kills", str(kills), "--json", *settings], cwd=ROOT,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def nothing_lost(result: dict[str, Any], kills: int) -> None:
    assert result["kills"] == kills
    assert (result["rows_lost"], result["rows_doubled"], result["tables_equal"]) == (0, 0, True)


@pytest.mark.full
def test_a_few_kills() -> None:
    nothing_lost(soak(3, 550, "--set", "images=24"), 3)


@pytest.mark.full
@pytest.mark.timeout(9_600)
def test_two_hundred_kills() -> None:
    result = soak(200, 9_000)
    nothing_lost(result, 200)
    assert min(result[f"kills_{what}"] for what in ("driver", "worker", "all")) >= 20
