"""Publish to the Hugging Face hub: few commits, each of which may be the last, until everything is there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gazetteer.data.core.errors import GazetteerError, InputError, first_line
from gazetteer.jobs.publish.content import MARK, say_removed, stale
from gazetteer.jobs.publish.publication import Publication, require_no_persons

FILES_A_COMMIT = 100
BYTES_A_COMMIT = 1 << 30
_REPOSITORY = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}")
_KEPT = frozenset({".gitattributes"})


def repository_of(address: str) -> str | None:
    """``owner/name`` of ``hf:owner/name``, or None for what is no address of the hub.

    Raises:
        InputError: it begins with ``hf:`` and goes on otherwise.
    """
    if not address.startswith("hf:"):
        return None
    name = address.removeprefix("hf:")
    if not _REPOSITORY.fullmatch(name):
        raise InputError(f"{address} names no repository; accepted: hf:owner/name.")
    return name


def publish_to_hub(publication: Publication, repository: str, kind: str, public: bool) -> dict[str, Any]:
    """Bring a repository to hold the publication; what is there already does not travel again.

    Files of an earlier publication that this one has not are removed, and said; what else lies there stays.

    Args:
        kind: ``dataset`` or ``model``.
        public: whether a repository that is made now is for everybody; one that exists stays as it is.

    Returns:
        ``url``, ``private``, ``files``, ``written`` and ``bytes`` of what was sent, ``removed``.

    Raises:
        InputError: no token, no right to write there, or the repository holds something else, a card or a
            description that a person wrote, or a table about labels that the run has not.
        GazetteerError: the hub cannot be reached, or refused; the same command goes on from there.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    with _told(repository):
        url = str(api.create_repo(repository, repo_type=kind, private=not public, exist_ok=True))
        private = bool(api.repo_info(repository, repo_type=kind).private)
        published = {file.path: file for file in api.list_repo_tree(repository, recursive=True, repo_type=kind)
                 if hasattr(file, "blob_id")}  # fmt: skip
        _require_ours(api, publication, repository, kind, set(published) - _KEPT)

        def read(name: str) -> bytes | None:
            return _fetched(api, repository, kind, name) if name in published else None

        require_no_persons(publication, f"hf:{repository}", read)
        old = stale(f"hf:{repository}", set(published), publication.names)
        sizes = dict(_missing(publication, published))
        if (sizes or old) and MARK in published and MARK not in sizes:
            sizes[MARK] = len(publication.read(MARK))
        report = {"url": url, "private": private, "files": len(publication.names), "written": len(sizes)}
        first = MARK in published
        batches = list(_batches(sizes)) or ([[]] if old else [])
        for number, batch in enumerate(batches, 1):
            contents = {name: publication.read(name) for name in batch}
            operations: list[Any] = [CommitOperationAdd(name, content) for name, content in contents.items()]
            last = number == len(batches)
            if first and not last:
                operations.append(CommitOperationDelete(MARK))  # half a publication is none
            if last:
                operations += [CommitOperationDelete(name) for name in old]
            first = False
            message = f"Publish with Gazetteer ({number} of {len(batches)})"
            api.create_commit(repository, operations, commit_message=message, repo_type=kind)
    say_removed(f"hf:{repository}", old)
    return report | {"bytes": sum(sizes.values()), "removed": len(old)}


def _require_ours(api: Any, publication: Publication, repository: str, kind: str, published: set[str]) -> None:
    """InputError unless the repository is empty, or holds an earlier publication of the same thing."""
    if published <= set(publication.names):
        return
    mark = next((name for name in ("_meta/run.json", "config.json") if name in publication.names), "")
    if mark in published and _fetched(api, repository, kind, mark) == publication.read(mark):
        return
    other = sorted(published - set(publication.names))[0]
    raise InputError(f"hf:{repository} holds something else ({other}); publish to a repository of its own.")


def _fetched(api: Any, repository: str, kind: str, name: str) -> bytes:
    with open(api.hf_hub_download(repository, name, repo_type=kind), "rb") as file:
        return file.read()


def _missing(publication: Publication, published: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Names of which the hub has not the same bytes, with their sizes."""
    for name in publication.names:
        content = publication.read(name)
        if not _same(published.get(name), content):
            yield name, len(content)


def _same(published: Any, content: bytes) -> bool:
    """Whether a file of the hub has these bytes, by git's or LFS's own digest."""
    if published is None:
        return False
    if published.lfs is not None:
        return bool(published.lfs.sha256 == hashlib.sha256(content).hexdigest())
    return bool(
        published.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    )


def _batches(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """The names in their order, in commits of bounded size."""
    batch: list[str] = []
    size = 0
    for name, more in sizes.items():
        if batch and (len(batch) == FILES_A_COMMIT or size + more > BYTES_A_COMMIT):
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += more
    if batch:
        yield batch


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """Turn what the hub answers into a sentence."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise InputError("There is no Hugging Face token; hf auth login keeps one, or HF_TOKEN holds it.") from error
    except OfflineModeIsEnabled as error:
        raise InputError("HF_HUB_OFFLINE is set, so nothing can be published; unset it.") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        reason = str(error).strip().splitlines()[-1].strip()
        if status in (401, 403):
            raise InputError(
                f"The hub does not let this token write to {repository} ({status}): {reason} hf auth login, or "
                "HF_TOKEN with the right to write, and the same command goes on."
            ) from error
        raise GazetteerError(f"The hub refused ({reason}); the same command goes on from there.") from error
    except GazetteerError:
        raise
    except Exception as error:
        if isinstance(error, OSError | RuntimeError):
            said = "The publication stopped"
        elif type(error).__module__.startswith("http"):  # of its HTTP library, and no OSError
            said = f"The hub cannot be reached, to publish to {repository}"
        else:
            raise
        raise GazetteerError(
            f"{said} ({first_line(error)}); the same command goes on from where it came to."
        ) from error
