"""`gazetteer publish`: a run's tables and autoencoders to a folder or to the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.storage.open import open_files
from gazetteer.data.storage.place import holds, real_place, warn_of_columns
from gazetteer.data.tables.provenance import read_provenance
from gazetteer.jobs.label.card import Published
from gazetteer.jobs.publish.bundle import bundle
from gazetteer.jobs.publish.folder import publish_to_folder
from gazetteer.jobs.publish.hub import publish_to_hub, repository_of
from gazetteer.jobs.publish.saes import sae_bundle

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_SHARED = "https://huggingface.co"


def publish(
    run: str | os.PathLike[str],
    to: str,
    *,
    saes: str | Path | None = None,
    title: str = "",
    license: str = "",
    public: bool = False,
) -> dict[str, Any]:
    """Publish a finished run, byte for byte, with a data set card and a Croissant description.

    Args:
        to: a folder, or ``hf:owner/name``; the autoencoders go to ``FOLDER/saes``, or ``hf:owner/name-saes``.
        saes: the folder of autoencoders that the run was labelled with; None leaves them out.
        title: of the card; the run's name where empty.
        license: an identifier of the hub; the card states none where empty.
        public: whether a repository that is made now is for everybody (one that exists stays as it is).

    Returns:
        what `publish_to_folder` or `publish_to_hub` say, with ``to``, ``left_out`` (files that are not the run's), and
        the same of the autoencoders under ``saes``.

    Raises:
        InputError: the run is not finished or not sound; the goal holds something else; no right to write there.
        GazetteerError: stopped on the way; the same call goes on from there.
    """
    if license and not _LICENSE.fullmatch(license):
        raise InputError(f"--license {license!r} is no identifier of the hub, such as mit, apache-2.0 or cc-by-4.0.")
    repository = repository_of(to)
    if repository is None:
        _require_apart(to, run, saes)
        warn_of_columns(to)
    model = "" if saes is None else f"{to}-saes" if repository else "saes"
    url = f"{_SHARED}/datasets/{repository}" if repository else ""
    ready = bundle(run, Published(title, license, to if repository else "FOLDER", model), url)
    packed = None
    if saes is not None:
        made = read_provenance(open_files(run).source("labels.parquet"), "fingerprint", "config")
        where, data = (f"{repository}-saes", to) if repository else ("FOLDER/saes", "the tables of the folder above")
        packed = sae_bundle(saes, made["fingerprint"], made["config"], license=license, data=data, where=where)
    if repository is None:
        report = publish_to_folder(ready, to, packed)
    else:
        report = publish_to_hub(ready, repository, "dataset", public)
        if packed is not None:
            report["saes"] = publish_to_hub(packed, f"{repository}-saes", "model", public)
    return report | {"to": to, "left_out": list(ready.content.left_out)}


def _require_apart(to: str, run: str | os.PathLike[str], saes: str | Path | None) -> None:
    """InputError where the goal and what is published are one folder, or one lies in the other."""
    if real_place(to) == real_place(run):
        raise InputError(f"--to {to} is the run itself; give another folder.")
    for what, source in (("the run", run), ("--saes", saes)):
        if source is not None and holds(source, to):
            raise InputError(f"--to {to} lies in {what} {os.fspath(source)}; give a folder outside it.")
        if source is not None and holds(to, source):
            raise InputError(f"--to {to} holds {what} {os.fspath(source)}; give another folder.")


def print_published(report: dict[str, Any]) -> None:
    """The report as text."""
    for name in report["left_out"]:
        print(f"left out: {name}, which is no file of the run")
    for what, part in (("tables", report), ("autoencoders", report.get("saes"))):
        if part is None:
            print("autoencoders: left out; --saes FOLDER publishes them beside the tables")
            continue
        sent = f"{part['written']} of {part['files']} files written ({part['bytes'] / 1e6:.1f} MB)"
        gone = f", {part['removed']} older ones removed" if part["removed"] else ""
        kind = "" if "private" not in part else f", {'private' if part['private'] else 'public'}: {part['url']}"
        print(f"{what}: {sent if part['written'] or gone else 'nothing to do'}{gone}{kind}")
    if report["to"].startswith("hf:"):
        print(f'read it back: gazetteer.load_labels("{report["to"]}")')
    else:
        print(f'read it back: datasets.load_dataset("{report["to"]}", "labels")')
