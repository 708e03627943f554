"""A real disk of a few hundred kilobytes, for what happens when it is full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a tmpfs of `size` (e.g. ``700k``) at a new folder; the test fails with advice where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mount = subprocess.run(command, capture_output=True, text=True, check=False)
    if mount.returncode:
        pytest.fail(
            f"This test mounts a small disk and may not ({mount.stderr.strip()}): run it as root, "
            "or set GAZETTEER_NO_MOUNT=1 to leave such tests out.",
            pytrace=False,
        )
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def resize(folder: Path, size: str) -> None:
    """Give the disk mounted at `folder` another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
