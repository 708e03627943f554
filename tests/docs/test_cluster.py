"""What the page on pools says of their keys is what the configuration takes, and its commands repair a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from gazetteer.jobs.config.schema import load_config
from tests.support.system.pages import blocks
from tests.support.system.running import FEW, ROOT, gazetteer

PAGE = ROOT / "docs/reference/cluster.md"


def test_its_configuration_is_valid() -> None:
    (block,) = blocks(PAGE, "yaml")
    config = load_config(None, [f"{key}={json.dumps(value)}" for key, value in yaml.safe_load(block.text).items()])
    assert [pool.workers for pool in config.all_pools] == [8, 0, 2]
    assert config.limits.wait_seconds == 600


def test_its_commands_run_in_order(tmp_path: Path) -> None:
    typed = [words for block in blocks(PAGE, "sh") for words in block.commands()]
    assert [words[:2] for words in typed] == [["gazetteer", "label"], *[["gazetteer", "verify"]] * 2]
    for _, verb, *words in typed:
        words = [word.replace("runs/small", str(tmp_path / "run")) for word in words]
        if verb == "label":
            # Fewer pictures than a reader would want, so that the test is short; the flag goes before --set's values.
            words = ["--retry-failed", *(word for word in words if word != "--retry-failed"), *FEW, "images=4"]
        done = gazetteer(verb, *words)
        assert done.returncode == 0, f"{verb} {words}: {done.stderr}"


def test_every_key_it_explains_exists() -> None:
    pool = {"workers", "cpus", "gpus", "resources", "labels", "memory_gib"}
    rows = re.findall(r"^\| `.*?\|", PAGE.read_text(encoding="utf-8"), re.M)
    explained = set(re.findall(r"`((?:limits\.)?[a-z_]+)`", "\n".join(rows)))
    assert explained == pool | {f"limits.{name}" for name in vars(load_config(None).limits)}
