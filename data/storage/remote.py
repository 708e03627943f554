"""Whole files behind a URL, through fsspec: one PUT a file, create-only where the store offers it.

Whether it does is tried out, once for every root that is written to: stores that do not know the condition either
refuse it (501) or, worse, take no notice of it and write over what is there. Where it is missing, only the run's lease
(data/storage/runlock.py) keeps two drivers apart.
"""

from __future__ import annotations

import errno
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from gazetteer.data.core.errors import GazetteerError, InputError, redacted
from gazetteer.data.storage.files import MADE_OF

log = logging.getLogger(__name__)

_PROBE = "_meta/.probe-"
_CONFLICTS = 5
_REFUSED = frozenset({
    "AccessDenied", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "RequestExpired",
    "SignatureDoesNotMatch", "TokenRefreshRequired", "RequestTimeTooSkewed",
})  # fmt: skip
"""What S3 answers when it does not take the credentials, or not any more."""


class RemoteFiles:
    """Files behind an fsspec URL (s3, gs, memory, …); `files.Files` says what each method does."""

    guards = False

    def __init__(self, url: str) -> None:
        self.root = url.rstrip("/")
        self._once: bool | None = None
        try:
            import fsspec

            self._fs, self._base = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except Exception as error:  # every store has its own
            raise InputError(
                f"Cannot open {url} ({error}); accepted: a folder, or a URL whose fsspec package is installed."
            ) from error

    def _at(self, name: str) -> str:
        return f"{self._base.rstrip('/')}/{name}" if name else self._base

    @contextmanager
    def _told(self, verb: str, name: str) -> Iterator[None]:
        """Turn whatever a store raises into a sentence (GazetteerError); missing and taken names stay themselves.

        A write that misses something misses its bucket, and that gets a sentence too.
        """
        try:
            yield
        except (FileExistsError, _NoConditionError):
            raise
        except Exception as error:  # every store has its own
            if isinstance(error, FileNotFoundError) and verb != "write" and "NoSuchBucket" not in _codes(error):
                raise
            raise GazetteerError(f"Cannot {verb} {self.root}/{name} ({_reason(error)}") from error

    def read(self, name: str) -> bytes:
        """The whole file; FileNotFoundError when absent."""
        with self._told("read", name):
            return bytes(self._fs.cat_file(self._at(name)))

    def size(self, name: str) -> int | None:
        """Bytes of the file, or None when absent."""
        with suppress(FileNotFoundError), self._told("read", name):
            return int(self._fs.info(self._at(name))["size"])
        return None

    def names(self, folder: str) -> list[str]:
        """Sorted base names of the files directly in `folder`."""
        return self._entries(folder, files=True)

    def folders(self, folder: str) -> list[str]:
        """Sorted base names of the prefixes directly in `folder`."""
        return self._entries(folder, files=False)

    def _entries(self, folder: str, files: bool) -> list[str]:
        with suppress(FileNotFoundError), self._told("list", folder):
            entries = self._fs.ls(self._at(folder).rstrip("/"), detail=True)
            wanted = [entry for entry in entries if (entry["type"] == "file") == files]
            return sorted({entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in wanted} - {""})
        return []

    def replace(self, name: str, content: bytes) -> None:
        """Write a file over whatever was there."""
        with self._told("write", name):
            self._fs.pipe_file(self._at(name), content)

    def move(self, name: str, to: str) -> None:
        """Copy a file to another name, then remove the first: object stores rename nothing."""
        self.copy(name, to)
        self.remove(name)

    def create(self, name: str, content: bytes, after: Sequence[str] = ()) -> bool:
        """Write a file unless the name is taken; says whether it did. What was put before is durable (`after`).

        Where the store cannot promise that, it is looked for before and read back afterwards: enough for one writer at
        a time, which the run's lease is for.
        """
        if self._creates_once():
            return self._create_once(name, content)
        if self.size(name) is not None:
            return False
        self.replace(name, content)
        with self._told("read", name):
            return self.read(name) == content

    @property
    def creates_once(self) -> bool | None:
        """Whether the store keeps a second writer of a name out; None while nothing was written."""
        return self._once

    def _creates_once(self) -> bool:
        if self._once is None:
            name = f"{_PROBE}{uuid.uuid4().hex}"
            try:
                # Taken already at the first try: its answer was lost, it was asked again, and the store keeps its word.
                self._once = not (self._create_once(name, b"1") and self._create_once(name, b"2"))
            except _NoConditionError:
                self._once = False
            finally:
                with suppress(GazetteerError):
                    self.remove(name)
            if not self._once:
                log.warning(
                    "The store of %s cannot create a name only once; its lease alone keeps two runs of one command "
                    "apart: do not start a second one.", redacted(self.root),
                )  # fmt: skip
        return self._once

    def _create_once(self, name: str, content: bytes) -> bool:
        """Ask for a name that must not be taken; _NoConditionError when the store says that it cannot do that."""
        with self._told("write", name):
            for attempt in range(_CONFLICTS):
                try:
                    self._fs.pipe_file(self._at(name), content, mode="create")
                    return True
                except FileExistsError:
                    return False
                except (TypeError, NotImplementedError) as error:
                    raise _NoConditionError from error
                except Exception as error:  # every store has its own
                    codes = _codes(error)
                    if codes & {"PreconditionFailed", "412"}:
                        return False
                    if codes & {"NotImplemented", "501"} or getattr(error, "errno", None) == errno.ENOSYS:
                        raise _NoConditionError from error
                    # Two writers of one name at the same moment: asked again, one of them finds it taken.
                    if not codes & {"ConditionalRequestConflict", "409"} or attempt == _CONFLICTS - 1:
                        raise
                    time.sleep(0.1 * 2**attempt)
        return False

    def copy(self, name: str, to: str) -> None:
        """Put the content of `name` under `to`, without fetching it where the store can."""
        with self._told("copy", name):
            self._fs.cp_file(self._at(name), self._at(to))

    def remove(self, name: str) -> None:
        """Remove the file if it exists."""
        with suppress(FileNotFoundError), self._told("remove", name):
            self._fs.rm_file(self._at(name))

    def remove_tree(self) -> None:
        """Remove every file under the root, one by one: `rm` would take ``[`` and ``*`` in its name for a pattern."""
        with suppress(FileNotFoundError), self._told("remove", ""):
            for path in sorted(self._fs.find(self._base), key=lambda path: path.endswith("/".join(("", *MADE_OF)))):
                self._fs.rm_file(path)

    def guard(self, key: str) -> AbstractContextManager[None]:
        """Guards nothing: object stores have no locks."""
        return nullcontext()

    def sweep(self) -> None:
        """Nothing to do: who writes what is staged may be alive, and `Commits.remove_staged` ends it."""

    def why_absent(self) -> str | None:
        """That the bucket does not exist, where the store says so."""
        try:
            self._fs.cat_file(self._at("_meta/run.json"))
        except FileNotFoundError as error:
            return "its bucket does not exist" if "NoSuchBucket" in _codes(error) else None
        except Exception:  # said by whoever reads next
            return None
        return None

    def source(self, name: str) -> Any:
        """What pyarrow can open to read the file."""
        with self._told("read", name):
            return self._fs.open(self._at(name), "rb")

    def free(self) -> int | None:
        """Unknown."""
        return None


class _NoConditionError(Exception):
    """The store refuses to write under a condition."""


def _codes(error: BaseException | None) -> set[str]:
    """What the store's own answers to an error were: codes and HTTP statuses."""
    codes: set[str] = set()
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            codes.add(str(response.get("Error", {}).get("Code")))
            codes.add(str(response.get("ResponseMetadata", {}).get("HTTPStatusCode")))
        codes.update(str(value) for name in ("code", "status") if isinstance(value := getattr(error, name, None), int))
        error = error.__cause__
    return codes


def _reason(error: BaseException) -> str:
    """The rest of a sentence about an error, from the parenthesis on."""
    codes, kind = _codes(error), type(error).__name__
    if "NoSuchBucket" in codes:
        return f"{error}): its bucket does not exist; create it, or name another, and run the same command again."
    if codes & _REFUSED or isinstance(error, PermissionError) or kind in ("NoCredentialsError", "TokenRetrievalError"):
        return (
            f"{kind}: {error}): the store does not accept the credentials, or not any more; renew them and run the "
            "same command again: what was begun goes on."
        )
    return f"{kind}: {error}); mend that and run the same command again: what was begun goes on."
