"""What the verbs of the command line share: exit codes, the configuration's options, `--json`."""

from __future__ import annotations

import argparse
import json
from typing import Any

DONE, FAILED, PARTIAL = 0, 1, 3


def configured(parser: argparse.ArgumentParser) -> None:
    """Add what every verb with a run configuration takes: `--config`, `--set`, `--json`."""
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file or preset: paper-sd14, sdxl-turbo (default: the embedded world)"
    )
    parser.add_argument(
        "--set", dest="overrides", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="override keys, e.g. images=100 executor=serial model.device=cuda",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def logged(parser: argparse.ArgumentParser) -> None:
    """Add `--log` to a verb that works on a run for long."""
    parser.add_argument(
        "--log", action="append", default=[], metavar="FILE",
        help="also append JSON lines here; - is stderr (a local run always keeps its own in RUN/_meta/log.jsonl)",
    )  # fmt: skip


def print_json(arguments: argparse.Namespace, value: dict[str, Any]) -> None:
    """Print the value as one JSON object where `--json` was asked for."""
    if arguments.json:
        print(json.dumps(value, default=str))
