"""What docs/cluster.md tells people to type works."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import yaml

from gazetteer.jobs.config.schema import load_config
from tests.support.system.running import ROOT, gazetteer

TEXT = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)
    assert found
    return found


def test_its_configuration_is_valid() -> None:
    (block,) = blocks("yaml")
    config = load_config(None, [f"{key}={json.dumps(value)}" for key, value in yaml.safe_load(block).items()])
    assert [pool.workers for pool in config.all_pools] == [8, 0, 2]
    assert config.limits.wait_seconds == 600


def test_its_commands_run_in_order(tmp_path: Path) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert [line.split()[:2] for line in lines] == [["gazetteer", "label"], *[["gazetteer", "verify"]] * 2]
    for line in lines:
        words = [word.replace("runs/small", str(tmp_path / "run")) for word in shlex.split(line)[1:]]
        if words[0] == "label":
            # Fewer pictures than a reader would want, so that the test is short; the flag goes before --set's values.
            words = [word for word in words if word != "--retry-failed"]
            words = [words[0], "--retry-failed", *words[1:], "images=4", "shard_size=2", "generation.steps=2"]
        done = gazetteer(*words)
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_every_key_it_explains_exists() -> None:
    pool = {"workers", "cpus", "gpus", "resources", "labels", "memory_gib"}
    explained = set(re.findall(r"`((?:limits\.)?[a-z_]+)`", "\n".join(re.findall(r"^\| `.*?\|", TEXT, re.M))))
    assert explained == pool | {f"limits.{name}" for name in vars(load_config(None).limits)}
