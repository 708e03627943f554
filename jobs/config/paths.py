"""Which values of settings are paths: of files and folders that are there, but for names that come with the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gazetteer.data.core.settings import About


def is_there(about: About, value: Any, folder: str | Path = "") -> bool:
    """Whether a value of a setting names a file or folder that is there, from `folder` or else from here.

    What the setting knows by name (``vocabulary.path: coco``) is no path, whatever is called so.
    """
    named = about.path and isinstance(value, str) and value and value not in about.names
    return bool(named) and Path(folder, value).exists()
