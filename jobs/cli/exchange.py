"""Runs for others: `publish`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, configured, of_run
from gazetteer.jobs.cli.output import print_json


def add_exchange(verbs: Any) -> None:
    """Add the verbs."""
    publish = verbs.add_parser("publish", help="publish a finished run to a folder or to the Hugging Face hub")
    of_run(publish, "a finished run folder or URL")
    publish.add_argument("--to", required=True, metavar="FOLDER|hf:OWNER/NAME", help="an empty goal, or an earlier one")
    publish.add_argument(
        "--saes", metavar="FOLDER",
        help="the autoencoders of the run, published beside the tables (default: those of the configuration, if they "
        "are the run's)",
    )  # fmt: skip
    publish.add_argument("--title", default="", help="of the card")
    publish.add_argument("--license", default="", metavar="ID", help="as the hub names it: mit, cc-by-4.0, …")
    publish.add_argument("--public", action="store_true", help="make new repositories public (default: private)")
    configured(publish)
    publish.set_defaults(action=_publish)


def _publish(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.publish.run import print_published, publish

    report = publish(
        arguments.run, arguments.to, saes=arguments.saes or _of_config(arguments), title=arguments.title,
        license=arguments.license, public=arguments.public,
    )  # fmt: skip
    print_published(report)
    print_json(arguments, report)
    return DONE


def _of_config(arguments: argparse.Namespace) -> str | None:
    """The configuration's autoencoders, if they are a folder here and the run was labelled with them."""
    from gazetteer.data.core.digests import digest_path
    from gazetteer.data.runs.folder import RunFolder
    from gazetteer.jobs.config.schema import load_config

    folder = load_config(arguments.config, arguments.overrides).saes
    if not isinstance(folder, str) or not folder or not Path(folder).is_dir():
        return None
    run = RunFolder(arguments.run).read_json("run.json") or {}
    return folder if digest_path(folder) == run.get("saes") else None
