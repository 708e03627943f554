"""What the README tells people to type works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gazetteer.jobs.config.schema import load_config
from tests.support.system.running import ROOT, gazetteer

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)
    assert found, f"the README has no {language} blocks"
    return found


def commands(program: str) -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} ")]


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_run(block: str, scenes_run: Path) -> None:
    code = block.replace("runs/scenes", str(scenes_run))
    assert code != block
    environment = {"HF_HOME": str(scenes_run.parent / "hf"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_gazetteer_commands_run_in_order(tmp_path: Path) -> None:
    run = tmp_path / "small"
    lines = commands("gazetteer")
    assert len(lines) >= 5
    for words in lines:
        arguments = [word.replace("runs/small", str(run)) for word in words[1:]]
        if arguments[0] == "label":
            # Fewer steps and pictures than a reader would want, so that the test is short.
            arguments += ["generation.steps=3", "images=10", "shard_size=5"]
        done = gazetteer(*arguments)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        assert done.stdout.strip()


def test_make_targets_exist() -> None:
    assert [words[:2] for words in commands("make")] == [["make", "label"], ["make", "test"]]
    for target in ("label", "test", "check-full", "bench", "lint"):
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_configuration_for_a_model_of_ones_own_is_valid(tmp_path: Path) -> None:
    for block in blocks("yaml"):
        path = tmp_path / "my.yaml"
        path.write_text(block)
        config = load_config(path)
        assert config.name == yaml.safe_load(block)["name"]
        assert len(config.generation.sites) == 18


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target
