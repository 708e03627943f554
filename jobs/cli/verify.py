"""`gazetteer verify`: check a run, say what is wrong and what to do."""

from __future__ import annotations

import argparse
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, FAILED, PARTIAL, print_json


def add_verify(verbs: Any) -> None:
    """Add the verb to the command line."""
    verify = verbs.add_parser(
        "verify",
        help="check every digest, count and schema of a run, and say what to do",
        epilog="exit codes: 0 sound and complete, 1 damaged, 2 not a run, 3 unfinished or with recorded failures",
    )
    verify.add_argument("run", metavar="RUN", help="a run folder or URL")
    verify.add_argument(
        "--drop", action="store_true", help="forget what is damaged, so that gazetteer label computes it again"
    )
    verify.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    verify.set_defaults(action=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.operate.verify import DAMAGED, SOUND, print_verdict, verify

    report = verify(arguments.run, drop=arguments.drop)
    print_verdict(report)
    print_json(arguments, report)
    if report["verdict"] == DAMAGED:
        return FAILED
    return DONE if report["verdict"] == SOUND and not report["failing"] else PARTIAL
