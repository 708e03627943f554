"""What an operator does with runs: `status`, `watch`, `verify`, `compact`, `nightly`."""

from __future__ import annotations

import argparse
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, FAILED, PARTIAL, configuration, configured, logged, machine, of_run
from gazetteer.jobs.cli.output import print_json


def add_operate(verbs: Any) -> None:
    """Add the verbs."""
    status = verbs.add_parser("status", help="say where a run stands, from its files alone, on any machine")
    of_run(status, "run folder or URL")
    machine(status)
    status.set_defaults(action=_status)

    watch = verbs.add_parser("watch", help="show where a run stands until it ends, from its files alone")
    of_run(watch, "run folder or URL")
    watch.add_argument("--interval", type=float, default=2.0, metavar="SECONDS", help="between two looks (default: 2)")
    machine(watch)
    watch.set_defaults(action=_watch)

    verify = verbs.add_parser(
        "verify",
        help="check every digest, count and schema of a run, and say what to do",
        epilog="exit codes: 0 sound and complete, 1 damaged, 2 not a run, 3 unfinished or with recorded failures",
    )
    of_run(verify, "a run folder or URL")
    verify.add_argument(
        "--drop", action="store_true", help="forget what is damaged, so that gazetteer label computes it again"
    )
    machine(verify)
    verify.set_defaults(action=_verify)

    compact = verbs.add_parser(
        "compact", help="put the shards of a finished run together: few large files, same tables"
    )
    of_run(compact, "a finished run's folder or URL")
    compact.add_argument("--megabytes", type=int, default=256, metavar="N", help="of files in a group (default: 256)")
    machine(compact)
    compact.set_defaults(action=_compact, resumes=True)

    nightly = verbs.add_parser("nightly", help="label the new checkpoints of a folder, reusing pictures; for schedules")
    nightly.add_argument("--checkpoints", required=True, metavar="FOLDER", help="one sub-folder a set of autoencoders")
    nightly.add_argument("--out", required=True, metavar="ROOT", help="folder or URL; receives a run per checkpoint")
    nightly.add_argument(
        "--keep", type=int, default=0, metavar="N", help="keep the last N complete runs; 0: all (default)"
    )
    configured(nightly)
    logged(nightly)
    nightly.set_defaults(action=_nightly, resumes=True)


def _status(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.operate.status import print_status, status

    state = status(arguments.run)
    print_status(state)
    print_json(arguments, state)
    return DONE


def _watch(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.operate.watch import watch

    state = watch(arguments.run, arguments.interval)
    print_json(arguments, state)
    return DONE if state["state"] == "complete" else FAILED


def _verify(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.operate.verify import DAMAGED, SOUND, print_verdict, verify

    report = verify(arguments.run, drop=arguments.drop)
    print_verdict(report)
    print_json(arguments, report)
    if report["verdict"] == DAMAGED:
        return FAILED
    return DONE if report["verdict"] == SOUND and not report["failing"] else PARTIAL


def _compact(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.operate.compact import compact, print_compacted

    compacted = compact(arguments.run, megabytes=arguments.megabytes)
    print_compacted(compacted)
    print_json(arguments, compacted)
    return DONE


def _nightly(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    from gazetteer.data.core.errors import InputError
    from gazetteer.jobs.label.progress.logs import logging_to
    from gazetteer.jobs.operate.nightly import nightly, print_nightly

    if arguments.keep < 0:
        raise InputError(f"--keep must be 0 or more, not {arguments.keep}.")
    with logging_to(*arguments.log):
        result = nightly(config, arguments.checkpoints, arguments.out, keep=arguments.keep)
    print_nightly(result)
    print_json(arguments, result)
    outcomes = [row["outcome"] for row in result["checkpoints"]]
    if "failed" in outcomes:
        return FAILED
    return PARTIAL if any(row.get("failing") for row in result["checkpoints"]) else DONE
