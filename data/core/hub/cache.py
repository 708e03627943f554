"""What this machine's Hugging Face cache holds of a repository, read from its files, or what the hub says of it.

A cached file is a link to a blob that is named by what the hub says of its content: the SHA-256 of a large file, Git's
SHA-1 of a small one. So two copies are the same where their files have the same names and blobs, and a copy is whole
where its blobs are what they are called.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from gazetteer.data.core.digests import digest_file, files_below
from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.core.hub.reach import within_reach

_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PATIENCE = 10.0
"""Seconds that the hub has to answer."""

_COMMIT, _LARGE = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Snapshot:
    """A repository as it lies in the cache.

    Attributes:
        commit: the revision of all of it.
        folder: where its files are.
        blobs: per file the name of its blob; empty for one that is no link, as in caches on systems without links.
    """

    commit: str
    folder: Path
    blobs: dict[str, str]


def cached(path: str, revision: str = "") -> Snapshot | None:
    """What is cached of a hub id ``owner/name[/folder][@revision]``; None: nothing, or `path` is no such id.

    Raises:
        InputError: the cache holds what is no regular file.
    """
    named = _named(path, revision)
    if named is None:
        return None
    from huggingface_hub.constants import HF_HUB_CACHE

    repository, revision = named
    root = Path(os.environ.get("HF_HUB_CACHE", HF_HUB_CACHE)) / f"models--{repository.replace('/', '--')}"
    try:
        commit = revision if _COMMIT.fullmatch(revision) else (root / "refs" / revision).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    folder = root / "snapshots" / commit
    if not folder.is_dir():
        return None
    blobs = {}
    for file in files_below(folder):
        target = os.path.basename(os.readlink(file)) if file.is_symlink() else ""
        blobs[file.relative_to(folder).as_posix()] = target
    return Snapshot(commit, folder, dict(sorted(blobs.items())))


def stated(path: str, revision: str = "") -> Snapshot | None:
    """The commit of a hub id of which nothing is cached, as it is named or the hub says; None: `path` is no such id.

    Raises:
        InputError: the hub does not say, so that copies of other machines could not be held to one another.
    """
    named = _named(path, revision)
    if named is None:
        return None
    repository, revision = named
    if _COMMIT.fullmatch(revision):
        return Snapshot(revision, Path(), {})
    from huggingface_hub import HfApi

    try:
        with within_reach(repository):
            commit = HfApi().model_info(repository, revision=revision, timeout=_PATIENCE).sha
    except Exception as error:  # of its HTTP library, of the file system, of its own
        reason = first_line(error)
        raise InputError(
            f"{path} is neither a file or folder nor in this machine's cache, and the hub does not say which commit "
            f"of it is meant: {reason.rstrip('.')}. Fetch it here too (hf download {repository}), so that the copies "
            "that are used can be held to one another."
        ) from error
    return Snapshot(str(commit), Path(), {})


def _named(path: str, revision: str) -> tuple[str, str] | None:
    """Repository and revision of a hub id; None for what is none, or lies on this machine."""
    named, _, pinned = path.partition("@")
    match = _ID.match(named)
    if os.path.exists(path) or match is None or named[match.end() :][:1] not in ("", "/"):
        return None
    return match[0], revision or pinned or "main"


def damaged(snapshot: Snapshot) -> str | None:
    """A file of the copy whose content is not what its blob is called by, or None.

    Raises:
        InputError: a file cannot be read.
    """
    for name, blob in snapshot.blobs.items():
        file = snapshot.folder / name
        if _LARGE.fullmatch(blob) and digest_file(file) != blob:
            return name
        if _COMMIT.fullmatch(blob):
            content = file.read_bytes()
            if hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() != blob:
                return name
    return None


def same(wanted: Snapshot, here: Snapshot) -> bool:
    """Whether a copy is of what another one is of: the same commit, or all of its files with the same blobs."""
    known = all(here.blobs.values()) and here.blobs.items() <= wanted.blobs.items()
    return wanted.commit == here.commit or known
