"""A file system without locks: flock refused for a whole process, by a small library loaded before all others."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SOURCE = """
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
int flock(int descriptor, int operation) { errno = atoi(getenv("FLOCK_ERRNO")); return -1; }
"""
_LINK = """
int link(const char *from, const char *to) { errno = EPERM; return -1; }
int linkat(int a, const char *from, int b, const char *to, int flags) { errno = EPERM; return -1; }
"""


def without_flock(folder: Path, errno: int, *, links: bool = True) -> dict[str, str]:
    """The environment in which every flock fails with `errno`, and every hard link too unless `links`."""
    source, library = folder / "noflock.c", folder / f"noflock{'' if links else '-nolink'}.so"
    if not library.exists():
        source.write_text(_SOURCE + ("" if links else _LINK))
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return {"LD_PRELOAD": str(library), "FLOCK_ERRNO": str(errno)}
