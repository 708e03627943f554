"""A Hugging Face cache as huggingface_hub lays it out: blobs by digest, snapshots of links to them, refs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

BIG = b"weights"
"""Content that is laid down as a large file, under its SHA-256; all other as a small one, under Git's SHA-1."""


def put_in_cache(cache: Path, repository: str, commit: str, files: dict[str, bytes]) -> Path:
    """Add a commit, and make it main; returns its snapshot."""
    root = cache / f"models--{repository.replace('/', '--')}"
    for name, content in files.items():
        small = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        blob = root / "blobs" / (hashlib.sha256(content).hexdigest() if content == BIG else small)
        link = root / "snapshots" / commit / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(commit)
    return root / "snapshots" / commit
