"""Judging labels apart from what chose them: `examine` asks measures, `rate` asks a person."""

from __future__ import annotations

import argparse
import os
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, configured, machine, of_run
from gazetteer.jobs.cli.output import print_json


def add_examine(verbs: Any) -> None:
    """Add the verbs."""
    examine = verbs.add_parser("examine", help="ask measures that chose no label what they say of every label")
    of_run(examine, "a finished run folder or URL; receives examiners.parquet")
    examine.add_argument(
        "--fresh", type=int, default=6, metavar="N", help="pictures made of every name (default: 6); 0: none"
    )
    configured(examine)
    examine.set_defaults(action=_examine)

    rate = verbs.add_parser("rate", help="write a page that asks a person for own words, blind, and compare")
    of_run(rate, "a finished run folder or URL")
    rate.add_argument("--out", metavar="FOLDER", help="where the page goes (default: RUN/rate)")
    rate.add_argument("--features", type=int, default=40, metavar="N", help="labelled features to show (default: 40)")
    rate.add_argument("--seed", type=int, default=0, help="decides which")
    rate.add_argument("--answers", metavar="FILE", help="instead of a page: how far these agree with the labels")
    machine(rate)
    rate.set_defaults(action=_rate)


def _examine(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.config.schema import load_config
    from gazetteer.jobs.experiments.examine import examine
    from gazetteer.labeling.quality.examiners import print_examined

    result = examine(load_config(arguments.config, arguments.overrides), arguments.run, arguments.fresh)
    print_examined(result)
    print_json(arguments, result)
    return DONE


def _rate(arguments: argparse.Namespace) -> int:
    from gazetteer.labeling.quality.rating import agreement, print_agreement, write_page

    if arguments.answers:
        found = agreement(arguments.run, arguments.answers)
        print_agreement(found)
        print_json(arguments, found)
        return DONE
    out = arguments.out or os.path.join(arguments.run, "rate")
    count = write_page(arguments.run, out, arguments.features, arguments.seed)
    page = os.path.join(out, "index.html")
    print(f"Open {page} in a browser, write what you see, save, and run gazetteer rate {arguments.run} --answers FILE.")
    print_json(arguments, {"run": arguments.run, "page": page, "features": count})
    return DONE
