"""What workers load is what the run was started with: compared by digest, on every node, each time a worker starts."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.hub.cache import Snapshot, cached, damaged, same, stated
from gazetteer.data.inputs.given.config import PicturesConfig
from gazetteer.data.inputs.given.open import annotations_digest
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.fingerprint import SETTINGS
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.task import Worker
from gazetteer.sae.model.digests import digest_sae

STAGE_OF = {
    "model": "generate", "saes": "generate", "pictures": "generate", "detector": "detect", "segmenter": "segment",
}  # fmt: skip
"""Which stage loads the files of a group of settings; what stands under `vocabulary` is read by all of them."""
GROUPS = (*STAGE_OF, "vocabulary")
RECORD = "hub.json"
"""Where a run keeps the commits of the hub repositories that it was made with, below ``_meta``."""


@dataclass(frozen=True)
class Source:
    """What a setting names, as it was when the run was started: a file or folder by its digest (`digest_path`,
    `digest_sae`), or a repository of the hub by the copy of it in the cache, or by its commit alone.

    Of given pictures the digest is of what is said of them (`annotations_digest`); their own files are compared one by
    one, as they are read.
    """

    key: str
    path: str
    digest: str = ""
    copy: Snapshot | None = None
    revision: str = ""
    pictures: PicturesConfig | None = None

    @property
    def stage(self) -> str | None:
        """The stage that loads it; None: all of them."""
        return STAGE_OF.get(re.split(r"[.\[]", self.key)[0])


def sources(config: RunConfig, fingerprint: Mapping[str, Any], groups: Collection[str] = GROUPS) -> tuple[Source, ...]:
    """What workers will load, with the digests of the run's fingerprint, or what is known of it as a hub's.

    Args:
        groups: the first parts of the settings' keys.

    Raises:
        InputError: a hub id of which neither this machine's cache nor the hub tells the commit.
    """
    named_digests = []
    for key, digest in fingerprint.items():
        if key.partition(".")[0] not in groups:
            continue
        path: Any = config
        for name in key.split("."):
            path = getattr(path, name)
        if isinstance(path, Mapping) and isinstance(digest, Mapping):
            named_digests += [(f"{key}[{name}]", path[name], sha256) for name, sha256 in digest.items()]
        else:
            named_digests.append((key, path, digest))
    named = [(key, str(path), digest) for key, path, digest in named_digests if isinstance(digest, str) and path]
    digested = [
        Source(*source, pictures=config.pictures if source[0].startswith("pictures.") else None)
        for source in named
        if source[2].startswith("sha256:")
    ]
    revisions = {"model.path": config.model.revision}
    copies = [
        Source(key, path, copy=copy, revision=revisions.get(key, ""))
        for key, path, digest in named
        if SETTINGS[key.partition("[")[0]].about.path and not digest.startswith("sha256:")
        if (copy := cached(path, revisions.get(key, "")) or stated(path, revisions.get(key, "")))
    ]
    return (*digested, *copies)


def same_copies(named: Collection[Source], store: RunFolder) -> tuple[Source, ...]:
    """What workers will load, held to the copies of hub repositories that the run's shards were made with.

    The first process of a run writes down the commits, in ``_meta/hub.json``; until the first shard they may change.

    Raises:
        InputError: this machine's cache holds another copy than the run was started with.
    """
    known: dict[str, str] = dict(store.read_json(RECORD) or {}) if store.shard_ids() else {}
    for source in named:
        if source.copy and known.setdefault(source.key, source.copy.commit) != source.copy.commit:
            raise InputError(_differs(source, known[source.key]))
    if known:
        store.write_json(RECORD, known)
    return tuple(named)


def checking(build: Callable[..., Worker], sources: tuple[Source, ...]) -> Callable[..., Worker]:
    """A `build` for a `Task` whose workers compare what they have loaded; picklable where `build` is."""
    return partial(_checked, build, sources)


def _checked(build: Callable[..., Worker], sources: tuple[Source, ...], *stages: Collection[str]) -> Worker:
    worker = build(*stages)
    # After loading: what is replaced in between is found here, what is replaced later is not loaded any more.
    wanted = {None, *stages[0]} if stages else {None, *STAGE_OF.values()}
    require_unchanged([source for source in sources if source.stage in wanted])
    return worker


def require_unchanged(sources: Collection[Source]) -> None:
    """InputError unless everything has the digest that the run was started with.

    Files that have not changed since this process read them last are not read again (`digest_file`).
    """
    for source in sources:
        if source.copy is not None:
            _require_same_copy(source, source.copy)
        elif not _same(source):
            raise InputError(
                f"{source.key} on {socket.gethostname()} is not what this run was started with: {source.path} was "
                f"changed meanwhile, or this node has another copy. Put {source.digest[:19]}… back and run the same "
                "command again: it resumes; with other content it is another run."
            )


def _same(source: Source) -> bool:
    if source.key.partition("[")[0] == "saes":
        return digest_sae(source.path) == source.digest
    if source.pictures is None or (source.digest != annotations_digest(source.pictures) and os.path.isdir(source.path)):
        return digest_path(source.path) == source.digest  # of pictures: as runs begun earlier digest their folders
    return annotations_digest(source.pictures) == source.digest


def _require_same_copy(source: Source, wanted: Snapshot) -> None:
    here = cached(source.path, source.revision)
    if here is None:
        return  # nothing cached, nothing to compare
    broken = damaged(here)
    if broken is not None:
        raise InputError(
            f"{source.key} on {socket.gethostname()}: {broken} in the cached copy of {source.path} is damaged, its "
            f"content is not what the hub says of it. Remove {here.folder} and fetch it again."
        )
    if not same(wanted, here):
        raise InputError(_differs(dataclasses.replace(source, copy=here), wanted.commit))


def _differs(source: Source, wanted: str) -> str:
    assert source.copy is not None
    return (
        f"{source.key} on {socket.gethostname()} is not what this run was started with: the cache holds commit "
        f"{source.copy.commit[:12]} of {source.path}, and the run has {wanted[:12]}. Fetch that one here "
        f"(hf download {source.path} --revision {wanted}), then run the same command again: it resumes."
    )
