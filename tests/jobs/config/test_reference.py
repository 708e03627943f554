"""The page of all keys and `gazetteer config` say of every key what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gazetteer.jobs.config.fingerprint import SETTINGS
from gazetteer.jobs.config.reference import as_yaml, plain, reference, said_type
from gazetteer.jobs.config.schema import load_config
from tests.support.system.running import in_process


@pytest.mark.parametrize("name", [None, "paper-sd14", "sdxl-turbo"])
def test_what_is_printed_loads_as_the_same_configuration(name: str | None, tmp_path: Path) -> None:
    config = load_config(name, ["name='1e-4'", "vocabulary.ignore=[no, '010', 'a: b', '#x', héron, \"\\n\"]"])
    (tmp_path / "printed.yaml").write_text(as_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "printed.yaml") == config


def test_every_key_is_printed_with_its_default_and_meaning() -> None:
    text = as_yaml(load_config(None))
    for key in ("threads", "box_threshold", "fire_above"):
        assert re.search(rf"^ *{key}: ", text, re.M)
    assert "# Sampler steps. (default: 50; changes pictures)\n  steps: 16\n" in text
    assert max(map(len, (line for line in text.splitlines() if line.lstrip().startswith("#")))) <= 118


def test_the_page_has_a_row_for_every_key() -> None:
    page = reference()
    rows = dict(re.findall(r"^\| `([\w.\[\]]+)` \| (.*) \|$", page, re.M))
    assert set(SETTINGS) - set(rows) == {"pools"}, "pools are a list of groups, with rows of their own"
    assert rows["generation.steps"] == "whole number, at least 1 | `50` | pictures | Sampler steps."
    assert rows["heldout"].startswith("number, at least 0, below 1 | `0.3` | labels | ")
    assert rows["model.path"].startswith("text | required | pictures | ")
    assert rows["pools[].gpus"].startswith("number, at least 0, or null | `null` | nothing | ")
    assert rows["sae.prompts.limit"].split(" | ")[2] == "autoencoders"
    assert rows["threads"].split(" | ")[2] == "pictures (last bits)"
    assert rows["vocabulary.ask"].startswith("one of all, prompt, both | `all` | segments | ")
    assert rows["sae.train.n"].startswith("whole number, at least 1, or null | `null` | autoencoders | ")


def test_types_in_words() -> None:
    assert said_type(dict[str, float]) == "names with: number"
    assert said_type(tuple[str, ...]) == "list of: text"
    assert said_type(SETTINGS["steer.tops"].hint) == "list of: whole number, at least 0, not empty"


def test_the_command_prints_it_for_people_and_machines() -> None:
    done = in_process("config", "--set", "images=7")
    assert done.returncode == 0 and re.search(r"^images: 7$", done.stdout, re.M)
    done = in_process("config", "--set", "images=7", "--json")
    assert json.loads(done.stdout) == json.loads(json.dumps(plain(load_config(None, ["images=7"]))))
