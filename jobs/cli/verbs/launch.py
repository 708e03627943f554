"""Clusters: `submit` a command to one, make its `token`, copy the files to `launch` with."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, machine
from gazetteer.jobs.cli.output import print_json

Parse = Callable[[Sequence[str]], argparse.Namespace]


def add_launch(verbs: Any, parse: Parse) -> None:
    """Add the verbs.

    Args:
        parse: the command line itself, by which `submit` checks what it is given.
    """
    submit = verbs.add_parser("submit", help="run label, nightly or sae train on a standing Ray cluster (Ray Jobs)")
    submit.add_argument(
        "--address", required=True, metavar="URL", help="the cluster's dashboard: http://127.0.0.1:8265"
    )
    submit.add_argument("--attach", action="store_true", help="if the run has a job there already, follow that one")
    submit.add_argument("--no-wait", action="store_true", help="do not follow the job; 0 means submitted")
    submit.add_argument("command", nargs=argparse.REMAINDER, metavar="-- VERB ...", help="what to run on the cluster")
    submit.set_defaults(action=partial(_submit, parse))

    token = verbs.add_parser("token", help="make the private token of a Ray cluster, or make the one there private")
    token.add_argument("--file", metavar="FILE", help="where (default: where Ray looks for it)")
    machine(token)
    token.set_defaults(action=_token)

    launch = verbs.add_parser(
        "launch", help="copy the launching files: ray up, Kubernetes, Slurm, systemd, cron, Docker"
    )
    launch.add_argument("folder", metavar="FOLDER", help="new, or empty")
    machine(launch)
    launch.set_defaults(action=_launch)


def _submit(parse: Parse, arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.operate.submit import submit

    words = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    asked = parse(words)  # what is wrong with it is said here, not on the cluster
    out = getattr(asked, "out", None) or ""
    return submit(words, out, arguments.address, attach=arguments.attach, follow=not arguments.no_wait)


def _token(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.executors.ray.security import make_token, token_path

    path = Path(arguments.file) if arguments.file else token_path()
    made = make_token(path)
    print(f"{path}: {'a new token' if made else 'the token that was there'}, readable by you alone")
    print_json(arguments, {"file": str(path), "new": made})
    return DONE


def _launch(arguments: argparse.Namespace) -> int:
    import shutil

    from gazetteer.data.core.errors import InputError
    from gazetteer.jobs.operate import LAUNCH

    folder = Path(arguments.folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already; give a new or empty folder.")
    shutil.copytree(LAUNCH, folder, dirs_exist_ok=True)
    files = [str(path) for path in sorted(path for path in folder.rglob("*") if path.is_file())]
    print("\n".join(files))
    print_json(arguments, {"files": files})
    return DONE
