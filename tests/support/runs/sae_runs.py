"""`gazetteer sae train` on a pipeline of random weights: what it is configured with in tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

PROMPTS = ("a red house", "two boats on the sea", "a dog at night")


def tiny_config(folder: Path) -> dict[str, Any]:
    """The keys of a configuration of eight sites and 40 pictures; its model and prompts are written to `folder`."""
    tiny_pipeline().save_pretrained(folder)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    return {
        "model": {"path": str(folder)},
        "generation": {"steps": 3, "t": [1.0, 0.0], "branches": ["cond", "uncond"], "blocks": list(BLOCKS)},
        "sae": {
            "prompts": {"path": str(folder / "prompts.txt")},
            "images": 40,
            "recover": 2,
            "buffer": 128,
            "train": {"k": 3, "n": 48, "lr": 0.003, "batch_size": 64, "checkpoint_every": 2, "log_every": 2},
        },
        "executor": "serial",
        "threads": 1,
        "shard_size": 8,
    }


def overrides(config: dict[str, Any]) -> list[str]:
    """The keys of a configuration as `--set` takes them, those of its sections one by one."""
    flat = {}
    for key, value in config.items():
        flat |= {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, dict) else {key: value}
    return [f"{key}={json.dumps(value)}" for key, value in flat.items()]
