"""The command line of every verb."""

from __future__ import annotations

import argparse

from gazetteer import __version__
from gazetteer.jobs.cli.arguments import Parser
from gazetteer.jobs.cli.config import add_config
from gazetteer.jobs.cli.verbs.attribute import add_attribute
from gazetteer.jobs.cli.verbs.exchange import add_exchange
from gazetteer.jobs.cli.verbs.explore import add_explore
from gazetteer.jobs.cli.verbs.label import add_label
from gazetteer.jobs.cli.verbs.launch import add_launch
from gazetteer.jobs.cli.verbs.layout import add_layout
from gazetteer.jobs.cli.verbs.operate import add_operate
from gazetteer.jobs.cli.verbs.sae import add_sae
from gazetteer.jobs.cli.verbs.steer import add_steer

EXIT_CODES = (
    "exit codes: 0 done, 1 failed, 2 bad input, 3 done with recorded failures, 75 another process holds the run, "
    "130 stopped by Ctrl-C, 143 stopped by SIGTERM"
)

_VERBS = (
    add_label,
    add_sae,
    add_layout,
    add_steer,
    add_attribute,
    add_explore,
    add_exchange,
    add_config,
    add_operate,
)


def parser() -> argparse.ArgumentParser:
    """The command line: every verb sets ``action``, which takes the arguments and returns the exit code."""
    parser = Parser(
        prog="gazetteer",
        description="Say what the features inside text-to-image models mean, with evidence.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"gazetteer {__version__}")
    parser.set_defaults(resumes=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in _VERBS:
        add(verbs)
    add_launch(verbs, parser.parse_args)
    return parser
