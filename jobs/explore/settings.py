"""The configuration to draw a run's pictures with: what was named, and for the rest what the run itself recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gazetteer.data.core.files.regular import local_path
from gazetteer.data.core.settings import Effect
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.fingerprint import SETTINGS, differing, fingerprint_of
from gazetteer.jobs.config.kept import RECORD, run_config
from gazetteer.jobs.config.schema import RunConfig, load_config
from gazetteer.jobs.experiments.layout import check_config


def own_file(run: RunFolder, overrides: Sequence[str]) -> str | None:
    """The configuration that a run kept, for ``--config``; None where the embedded models drew it, or it is not here.

    Raises:
        InputError: it names somebody's code, which a run may not make us execute (`run_config`).
    """
    recorded, folder = run.read_json("run.json") or {}, local_path(run.path)
    shaping = differing(fingerprint_of(load_config()), recorded, {Effect.PICTURES, Effect.CODES})
    paths = [key for key in shaping if key in SETTINGS and SETTINGS[key].about.path]
    if not paths or folder is None or not (kept := folder / "_meta" / RECORD).is_file():
        return None
    run_config(run.path, overrides)
    return str(kept)


def overrides_of(run: RunFolder, path: str | None, overrides: Sequence[str]) -> list[str]:
    """`overrides`, and before them those with which the configuration draws what the run drew.

    Only keys that no path is behind can be taken over: of those the run keeps a digest alone.
    """
    recorded = run.of_tables()
    shaping = {Effect.PICTURES, Effect.CODES}
    keys = differing(fingerprint_of(load_config(path, overrides)), recorded, shaping, last_bits=False)
    known = [key for key in keys if key in recorded and not SETTINGS[key].about.path]
    return [*(f"{key}={json.dumps(recorded[key])}" for key in known), *overrides]


def config_of(run: RunFolder, path: str | None, overrides: Sequence[str]) -> RunConfig:
    """The configuration of a finished run.

    Raises:
        InputError: another model, or other autoencoders, than the run's.
    """
    config = load_config(path, overrides_of(run, path, overrides))
    check_config(config, run)
    return config
