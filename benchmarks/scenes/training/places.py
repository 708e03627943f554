"""Keep folders of this machine out of what is exported."""

from __future__ import annotations

import json
from pathlib import Path


def forget_places(folder: Path) -> None:
    """Let no configuration in or below an exported folder say where its part lay when it was read (`_name_or_path`)."""
    for config in folder.rglob("config.json"):
        said = json.loads(config.read_text(encoding="utf-8"))
        if said.pop("_name_or_path", None):
            config.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
