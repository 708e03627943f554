"""The files of a run, at a folder or URL."""

from __future__ import annotations

import os
from pathlib import Path

from gazetteer.data.storage.hub import HubFiles, hub_url
from gazetteer.data.storage.local import LocalFiles
from gazetteer.data.storage.place import check_address
from gazetteer.data.storage.remote import RemoteFiles


def open_files(path: str | os.PathLike[str]) -> LocalFiles | RemoteFiles:
    """The files under a folder, a URL or ``hf:owner/name[@revision]`` (read only); nothing is created yet.

    Raises:
        InputError: no run can lie there: an empty name, ``/``, a file, a home folder that the shell did not expand, an
            address with a password in it, an unknown kind of URL.
    """
    text = os.fspath(path)
    check_address(text)
    if text.startswith(("hf:", "hf://")):
        return HubFiles(hub_url(text))
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    elif "://" in text:
        return RemoteFiles(text)
    return LocalFiles(Path(text))
