"""What workers load is what the run was started with: compared by digest, on every node, each time a worker starts."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.task import Worker

STAGE_OF = {"model": "generate", "saes": "generate", "detector": "detect", "segmenter": "segment"}
"""Which stage loads the files of a group of settings; what stands under `vocabulary` is read by all of them."""
GROUPS = (*STAGE_OF, "vocabulary")


@dataclass(frozen=True)
class Source:
    """A file or folder that a setting names, and its digest when the run was started (`digest_path`)."""

    key: str
    path: str
    digest: str

    @property
    def stage(self) -> str | None:
        """The stage that loads it; None: all of them."""
        return STAGE_OF.get(re.split(r"[.\[]", self.key)[0])


def sources(config: RunConfig, fingerprint: Mapping[str, Any], groups: Collection[str] = GROUPS) -> tuple[Source, ...]:
    """What workers will load, with the digests of the run's fingerprint.

    Args:
        groups: the first parts of the settings' keys.
    """
    found = []
    for key, digest in fingerprint.items():
        if key.partition(".")[0] not in groups:
            continue
        path: Any = config
        for name in key.split("."):
            path = getattr(path, name)
        if isinstance(path, Mapping) and isinstance(digest, Mapping):
            found += [(f"{key}[{name}]", path[name], one) for name, one in digest.items()]
        else:
            found.append((key, path, digest))
    digested = [one for one in found if isinstance(one[2], str) and one[2].startswith("sha256:")]
    return tuple(Source(key, str(path), digest) for key, path, digest in digested)


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
        if digest_path(source.path) != source.digest:
            raise InputError(
                f"{source.key} on {socket.gethostname()} is not what this run was started with: {source.path} was "
                f"changed meanwhile, or this node has another copy. Put {source.digest[:19]}… back and run the same "
                "command again: it resumes; with other content it is another run."
            )
