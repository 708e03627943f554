"""Scheduled labelling of a folder of SAE checkpoints: what is new gets a run, `latest` moves, old runs go."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import GazetteerError, InputError, LockedError
from gazetteer.data.core.files.regular import local_path, require_folder
from gazetteer.data.core.terminal import print_table
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.shards.records import check_name
from gazetteer.data.storage.open import open_files
from gazetteer.jobs.config.fingerprint import REUSABLE, differing, fingerprint_of
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.label.job import label
from gazetteer.jobs.label.progress.logs import log_file, logging_to
from gazetteer.sae.model.sources import unfinished_sites

log = logging.getLogger(__name__)

HISTORY = "nightly.json"


def nightly(config: RunConfig, checkpoints: str | Path, out: str, *, keep: int = 0) -> dict[str, Any]:
    """Label every checkpoint that has no run yet, each into ``OUT/<checkpoint>-<digest>``.

    A checkpoint is a sub-folder with one autoencoder a site, as ``saes`` of a configuration. One that is still being
    written is left for the next time; one whose content changed gets a new run. Where an earlier run has the same
    pictures, their images and segments are taken over and only the codes are made again, by a replay of the same
    seeds (`labeling.pipeline.reuse`). ``OUT/latest.json``, and on a local disk the link ``OUT/latest``, name the
    complete run of the last checkpoint in natural order (step-900 before step-1000); they never name an unfinished one.

    Args:
        keep: delete complete runs beyond the last so many, in the same order, those of other settings than the night's
            first; 0 keeps all. Their checkpoints are not labelled again, nor is one whose run would be deleted at once.

    Returns:
        ``checkpoints``: a row each with its ``outcome`` (``labelled``, ``there``, ``unfinished``, ``failed``,
        ``deleted``, ``old``), run, pictures, how many were ``replayed`` and are ``failing``, message; ``latest``;
        ``deleted`` runs; ``held``: runs that are to go, and that another process holds: they go another night.

    Raises:
        InputError: no such folder, a folder that is itself a checkpoint, a damaged history, or a person's own
            ``latest`` or ``latest.json`` in `out`; nothing was labelled.
        LockedError: another process works on `out`.
    """
    root = RunFolder(out)
    folders = _checkpoints(Path(checkpoints), config)
    with root.lock():
        _require_pointers(root)
        night = _Night(config, root, keep)
        # With --keep the last come first: how many of them are complete decides whether an earlier one would be kept.
        rows = [night.visit(folder) for folder in (reversed(folders) if keep else folders)]
        night.point_latest()
        deleted, held = night.delete_old() if keep else ([], [])
        rows = rows[::-1] if keep else rows
        return {"checkpoints": rows, "latest": night.latest(), "deleted": deleted, "held": held}


class _Night:
    """One visit to all checkpoints; what is known of the runs is kept in ``OUT/_meta/nightly.json``."""

    def __init__(self, config: RunConfig, root: RunFolder, keep: int) -> None:
        self.config, self.root, self.keep = config, root, keep
        self.runs = _history(root)
        self.settings = ""
        self._own: dict[str, bool] = {}

    def visit(self, folder: Path) -> dict[str, Any]:
        """Bring one checkpoint's run to its end, if that is possible and needed."""
        row: dict[str, Any] = dict.fromkeys(("run", "images", "replayed", "failing"))
        row |= {"checkpoint": folder.name, "message": ""}
        try:
            check_name(folder.name)
            missing = unfinished_sites(folder, self.config.generation.sites)
            if missing:
                return row | {"outcome": "unfinished", "message": f"no finished autoencoder for {', '.join(missing)}"}
            config = dataclasses.replace(self.config, saes=str(folder))
            fingerprint = fingerprint_of(config)
            name = f"{folder.name}-{digest_json(fingerprint)[:12]}"
            row["run"], self.settings = name, _but_saes(fingerprint)
            known = self.runs.get(name, {})
            if known.get("deleted"):
                return row | {"outcome": "deleted", "message": "labelled before, and deleted since by --keep"}
            if known.get("complete") and (manifest := self._open(name).manifest()) is not None:
                return row | {"outcome": "there", **_left(len(manifest["failing"]))}
            if self.keep and self._later(folder.name) >= self.keep:
                message = f"not labelled: --keep {self.keep} would delete its run in the same night"
                return row | {"outcome": "old", "message": message}
            return row | self._label(config, name, folder.name, fingerprint)
        except GazetteerError as error:
            log.warning("Checkpoint %s could not be labelled: %s", folder.name, error)
            return row | {"outcome": "failed", "message": str(error)}
        except Exception as error:  # whatever it is, the other checkpoints are still labelled
            log.exception("Checkpoint %s could not be labelled, and this was not foreseen", folder.name)
            return row | {"outcome": "failed", "message": f"{type(error).__name__}: {' '.join(str(error).split())}"}

    def _label(self, config: RunConfig, name: str, checkpoint: str, fingerprint: dict[str, Any]) -> dict[str, Any]:
        base = self._base(name, fingerprint)
        out = self._at(name)
        with logging_to(own=log_file(out)):
            manifest = label(config, out, reuse=base and self._at(base))
        done = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.runs[name] = {"checkpoint": checkpoint, "complete": done, "base": base}
        self._remember()
        self.point_latest()
        made, replayed = manifest["images"], manifest["replayed"]
        how = f"{made - replayed} pictures made"
        if replayed:
            how += f"; {replayed} taken from {base}, codes by replay of the same seeds"
        left = _left(len(manifest["failing"]))
        how = "; ".join(part for part in (how, left["message"]) if part)
        return {"outcome": "labelled", "images": made, "replayed": replayed, **left, "message": how}

    def _base(self, name: str, fingerprint: dict[str, Any]) -> str | None:
        """The last complete run with the same pictures and segments; None where they are given, and read anew."""
        if self.config.pictures.kind:
            return None
        for earlier in reversed(self._complete()):
            store = self._open(earlier)
            try:
                same = earlier != name and not differing(fingerprint, store.read_json("run.json"), REUSABLE)
            except GazetteerError as error:
                log.warning("The run %s cannot be read, and nothing is taken over from it: %s", earlier, error)
                continue
            if same and self._there(earlier):
                return earlier
        return None

    def _there(self, name: str) -> bool:
        """Whether a run is complete indeed; one that cannot be read is not, and said."""
        store = self._open(name)
        try:
            return store.is_complete()
        except GazetteerError as error:
            log.warning("The run %s cannot be read, and is not counted: %s", name, error)
            return False

    def _complete(self) -> list[str]:
        """Runs completed and not deleted by --keep, in the natural order of their checkpoints, then of completion."""
        complete = [name for name, run in self.runs.items() if run.get("complete") and not run.get("deleted")]
        return sorted(complete, key=lambda name: (natural(self.runs[name]["checkpoint"]), self.runs[name]["complete"]))

    def _of_tonight(self, name: str) -> bool:
        """Whether a run has the night's settings, autoencoders aside; none before a checkpoint was visited."""
        if name not in self._own:
            try:
                begun = self._open(name).read_json("run.json")
            except GazetteerError:
                begun = None
            self._own[name] = isinstance(begun, dict) and _but_saes(begun) == self.settings
        return self._own[name]

    def _later(self, checkpoint: str) -> int:
        """Complete runs of the night's settings and later checkpoints, as far as --keep counts."""
        count = 0
        for name in reversed(self._complete()):
            if count == self.keep or natural(self.runs[name]["checkpoint"]) <= natural(checkpoint):
                break
            count += self._of_tonight(name) and self._there(name)
        return count

    def latest(self) -> str | None:
        """The run that `latest` shall name: the last that is complete indeed."""
        return next((name for name in reversed(self._complete()) if self._there(name)), None)

    def point_latest(self) -> None:
        """Move the pointers, each in one step; with no complete run they stay away."""
        name = self.latest()
        if name is None:
            return
        self.root.write_top_json("latest.json", {"run": name, **self.runs[name]})
        folder = local_path(self.root.path)
        if folder is None:
            return
        link, staged = folder / "latest", folder / "_meta" / "latest.new"
        if not (link.is_symlink() and os.readlink(link) == name):
            staged.unlink(missing_ok=True)
            staged.symlink_to(name)
            os.replace(staged, link)

    def delete_old(self) -> tuple[list[str], list[str]]:
        """Delete all but the last complete runs, as many as --keep says; written down first: none is labelled again.

        A run whose folder is gone, or cannot be read, is none of those that are kept; one of other settings goes first.

        Returns:
            the runs that are gone, and those that another process holds, which are deleted another night.
        """
        whole = sorted((name for name in self._complete() if self._there(name)), key=self._of_tonight)
        for name in whole[: -self.keep]:
            self.runs[name]["deleted"] = True
        self._remember()
        self.point_latest()  # at one that stays
        # Also what an earlier night had written down and not finished deleting.
        gone, held = list[str](), list[str]()
        for name in [name for name, run in self.runs.items() if run.get("deleted") and self._open(name).exists()]:
            try:
                self._open(name).delete()
            except LockedError as error:
                log.warning("The run %s is kept for now: %s", name, error)
                held.append(name)
            else:
                log.info("run deleted", extra={"run": name})
                gone.append(name)
        return gone, held

    def _remember(self) -> None:
        self.root.write_json(HISTORY, {"runs": self.runs})

    def _at(self, name: str) -> str:
        check_name(name)
        return f"{self.root.path.rstrip('/')}/{name}"

    def _open(self, name: str) -> RunFolder:
        return RunFolder(self._at(name))


def _but_saes(fingerprint: dict[str, Any]) -> str:
    return digest_json({key: value for key, value in fingerprint.items() if key != "saes"})


def _left(failing: int) -> dict[str, Any]:
    """What a complete run lacks, said every night as `gazetteer label` says it, until it is made."""
    retry = f"{failing} pictures failed and are in failures/; --retry-failed of `gazetteer label` tries them again"
    return {"failing": failing, "message": retry if failing else ""}


def _require_pointers(root: RunFolder) -> None:
    """InputError where what will be pointed with is a person's own, or no link any more: before hours of labelling."""
    try:
        said = json.loads(open_files(root.path).read("latest.json"))
    except FileNotFoundError:
        said = {"run": "", "complete": ""}
    except (ValueError, RecursionError):
        said = None
    away = "move it away, or give another --out."
    if not (isinstance(said, dict) and said.keys() >= {"run", "complete"}):
        raise InputError(f"{root.path}/latest.json is not what gazetteer nightly left there; {away}")
    folder = local_path(root.path)
    if folder is None or not os.path.lexists(folder / "latest"):
        return
    named = os.readlink(folder / "latest") if (folder / "latest").is_symlink() else "/"
    if os.path.basename(named) != named:
        raise InputError(
            f"{root.path}/latest is no link to a run beside it (a copy that followed links has a folder there); {away}"
        )


def _history(root: RunFolder) -> dict[str, dict[str, Any]]:
    """What is known of the runs; InputError where that is damaged: forgotten, what --keep deleted would come again."""
    try:
        stored = root.read_json(HISTORY)
        runs = {} if stored is None else stored.get("runs")
    except InputError:  # its sentence would have it moved away without saying what comes of that
        runs = None
    if not isinstance(runs, dict) or not all(
        isinstance(run, dict) and all(isinstance(run.get(key), str) for key in ("checkpoint", "complete"))
        for run in runs.values()
    ):
        raise InputError(
            f"{root.path}/_meta/{HISTORY} is no history of runs any more; put it back, or move it away, and every "
            "checkpoint is labelled that is there, those of runs that --keep deleted too."
        )
    return dict(runs)


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which numbers inside names count as numbers: step-900 comes before step-1000."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def print_nightly(result: dict[str, Any]) -> None:
    """The night's work as text."""
    print_table(
        {"checkpoint": "", "outcome": "", "message": ""},
        ((row["checkpoint"], row["outcome"], row["message"]) for row in result["checkpoints"]),
    )
    print(f"latest: {result['latest'] or 'none yet'}")
    if result["deleted"]:
        print(f"deleted: {', '.join(result['deleted'])}")
    if result["held"]:
        print(f"kept for now, as another process holds them: {', '.join(result['held'])}")


def _checkpoints(folder: Path, config: RunConfig) -> list[Path]:
    require_folder("The folder of checkpoints", folder)
    folders = [child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")]
    if {sae.name for sae in folders} & {site.slug for site in config.generation.sites}:
        raise InputError(f"{folder} is one checkpoint itself; give the folder that holds it.")
    return sorted(folders, key=lambda sae: natural(sae.name))
