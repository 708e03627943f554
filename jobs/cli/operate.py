"""The operator's verbs: submit, schedule, see where a run stands, compare runs, and the files to launch with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, FAILED, PARTIAL, configured, logged, print_json

LAUNCH = Path(__file__).resolve().parent / "launch"


def add_operate(verbs: Any) -> None:
    """Add the verbs."""
    status = verbs.add_parser("status", help="say where a run stands, from its files alone, on any machine")
    status.add_argument("run", metavar="RUN", help="run folder or URL")
    status.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    status.set_defaults(action=_status)

    compare = verbs.add_parser("compare", help="say which features' labels changed from one run to another")
    compare.add_argument("before", metavar="RUN_A", help="a finished run")
    compare.add_argument("after", metavar="RUN_B", help="another")
    compare.add_argument("--out", metavar="FILE", help="also write every change as Parquet")
    compare.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    compare.set_defaults(action=_compare)

    nightly = verbs.add_parser("nightly", help="label the new checkpoints of a folder, reusing pictures; for schedules")
    nightly.add_argument("--checkpoints", required=True, metavar="FOLDER", help="one sub-folder a set of autoencoders")
    nightly.add_argument("--out", required=True, metavar="ROOT", help="folder or URL; receives a run per checkpoint")
    nightly.add_argument("--keep", type=int, default=0, metavar="N", help="keep the last N complete runs; 0: all")
    configured(nightly)
    logged(nightly)
    nightly.set_defaults(action=_nightly)

    submit = verbs.add_parser("submit", help="run label, nightly or sae train on a standing Ray cluster (Ray Jobs)")
    submit.add_argument(
        "--address", required=True, metavar="URL", help="the cluster's dashboard: http://127.0.0.1:8265"
    )
    submit.add_argument("--attach", action="store_true", help="if the run has a job there already, follow that one")
    submit.add_argument("--no-wait", action="store_true", help="do not follow the job; 0 means submitted")
    submit.add_argument("command", nargs=argparse.REMAINDER, metavar="-- VERB ...", help="what to run on the cluster")
    submit.set_defaults(action=_submit)

    token = verbs.add_parser("token", help="make the private token of a Ray cluster, or make the one there private")
    token.add_argument("--file", metavar="FILE", help="where (default: where Ray looks for it)")
    token.set_defaults(action=_token)

    launch = verbs.add_parser(
        "launch", help="copy the launching files: ray up, Kubernetes, Slurm, systemd, cron, Docker"
    )
    launch.add_argument("folder", metavar="FOLDER", help="new, or empty")
    launch.set_defaults(action=_launch)


def _status(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.operate.status import print_status, status

    found = status(arguments.run)
    print_status(found)
    print_json(arguments, found)
    return DONE


def _compare(arguments: argparse.Namespace) -> int:
    from gazetteer.labeling.quality.compare import compare_runs, print_comparison

    changes, found = compare_runs(arguments.before, arguments.after)
    if arguments.out:
        from gazetteer.data.inputs.activations import replace_file
        from gazetteer.data.runs.publish import parquet_bytes

        replace_file(Path(arguments.out), parquet_bytes("changes", changes, found))
    print_comparison(changes, found)
    print_json(arguments, {**found, "changes": changes.num_rows})
    return DONE


def _nightly(arguments: argparse.Namespace) -> int:
    from gazetteer.data.core.errors import InputError
    from gazetteer.jobs.config.schema import load_config
    from gazetteer.jobs.label.logs import logging_to
    from gazetteer.jobs.operate.nightly import nightly, print_nightly

    if arguments.keep < 0:
        raise InputError(f"--keep must be 0 or more, not {arguments.keep}.")
    with logging_to(*arguments.log):
        config = load_config(arguments.config, arguments.overrides)
        found = nightly(config, arguments.checkpoints, arguments.out, keep=arguments.keep)
    print_nightly(found)
    print_json(arguments, found)
    outcomes = [row["outcome"] for row in found["checkpoints"]]
    if "failed" in outcomes:
        return FAILED
    return PARTIAL if any(row.get("failing") for row in found["checkpoints"]) else DONE


def _submit(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.cli.main import parser
    from gazetteer.jobs.operate.submit import submit

    words = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    asked = parser().parse_args(words)  # what is wrong with it is said here, not on the cluster
    out = getattr(asked, "out", None) or ""
    return submit(words, out, arguments.address, attach=arguments.attach, follow=not arguments.no_wait)


def _token(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.executors.ray.security import make_token, token_path

    path = Path(arguments.file) if arguments.file else token_path()
    made = make_token(path)
    print(f"{path}: {'a new token' if made else 'the token that was there'}, readable by you alone")
    return DONE


def _launch(arguments: argparse.Namespace) -> int:
    import shutil

    from gazetteer.data.core.errors import InputError

    folder = Path(arguments.folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already; give a new or empty folder.")
    shutil.copytree(LAUNCH, folder, dirs_exist_ok=True)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(path)
    return DONE
