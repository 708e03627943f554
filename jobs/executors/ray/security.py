"""What every Ray of ours keeps to: token authentication, a private token file, no telemetry, only named clusters."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import write_errors
from gazetteer.data.core.files.regular import has_file
from gazetteer.data.storage.local import make_folder

JOB = "job"
"""The address that names the cluster on which this very process runs as a Ray job."""


def secure_ray(address: str) -> str:
    """Set up this process's Ray environment; returns what `ray.init` shall join, empty for a private Ray.

    A stray RAY_ADDRESS is never followed. An explicit RAY_AUTH_MODE is the user's decision and stays.

    Args:
        address: a cluster by name, ``job`` inside a Ray job, or empty.

    Raises:
        InputError: ``auto``, which names nothing; ``job`` outside of one; no token, or one that others can read.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Under `uv run` Ray would pack the working folder, whatever its size, and let each worker install from it.
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    if address == "auto":
        raise InputError("ray_address=auto joins whatever is there; name the cluster, or use job inside a Ray job.")
    if address == JOB:
        if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ or not os.environ.get("RAY_ADDRESS"):
            raise InputError("ray_address=job is for commands that run as a Ray job (gazetteer submit).")
        address = os.environ["RAY_ADDRESS"]
    if address:
        require_token()
    elif not any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    _reread_environment()
    return address


def _reread_environment() -> None:
    """Tell Ray what `secure_ray` has put into the environment, where it was imported before: it reads it but once."""
    if "ray" not in sys.modules:
        return
    from ray import _raylet
    from ray._private import ray_constants

    compiled: Any = _raylet
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False


def require_token() -> None:
    """InputError unless a cluster's token is at hand, and in a file that nobody else can read."""
    if os.environ.get("RAY_AUTH_MODE") != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = token_path()
    if not has_file("The Ray token", path):
        raise InputError(
            f"There is no token for the Ray cluster: put its token into {path} (mode 600) or into RAY_AUTH_TOKEN."
        )
    if not path.read_bytes().strip():
        raise InputError(f"The Ray token {path} is empty; make one with gazetteer token, or put the cluster's there.")
    if _open_to_others(path):
        raise InputError(f"The Ray token {path} can be read by others; make it private: chmod 600 {path}.")


def token_path() -> Path:
    """Where Ray looks for the token of this user."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def make_token(path: Path) -> bool:
    """Make a token for a new cluster, readable by its owner only; says whether there was none before.

    One that is there keeps its content and loses the permissions of others; an empty file is none. The token appears
    whole or not at all, and of two processes that make one at once, one's counts for both.

    Raises:
        InputError: something else than a file lies there.
        GazetteerError: the file cannot be written.
    """
    if os.path.lexists(path) and not path.is_file():
        raise InputError(f"{path} is not a file, and cannot hold a token; name a file, or remove what lies there.")
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with write_errors(str(path)):
        make_folder(path.parent)
        try:
            with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
                file.flush()
                os.fsync(file.fileno())
            return _put(staged, path)
        finally:
            staged.unlink(missing_ok=True)


def _put(staged: Path, path: Path) -> bool:
    """Give a whole token its name unless one is there, which becomes private; says whether it did."""
    if path.exists() and not path.read_bytes().strip():
        os.replace(staged, path)
        return True
    try:
        os.link(staged, path)
    except FileExistsError:
        if _open_to_others(path):
            path.chmod(0o600)
        return False
    return True


def _open_to_others(path: Path) -> bool:
    return bool(stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO))
