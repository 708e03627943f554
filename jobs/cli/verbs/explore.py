"""`gazetteer explore`: a local page to paint with a run's features, watch layouts appear, and look features up."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from gazetteer.jobs.cli.arguments import DONE, OF_RUN, configured, of_run
from gazetteer.jobs.cli.output import print_json

if TYPE_CHECKING:
    from gazetteer.jobs.explore.server.serve import Address


def add_explore(verbs: Any) -> None:
    """Add the verb."""
    explore = verbs.add_parser("explore", help="a local page: paint with features, watch layouts appear, look them up")
    of_run(explore, "a finished run folder or URL")
    explore.add_argument("--port", type=int, metavar="N", help="to listen on (default: 8642, or a free one); 0: any")
    explore.add_argument("--no-browser", action="store_true", help="only print the address")
    configured(explore, OF_RUN)
    explore.set_defaults(action=_explore)


def _explore(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.explore.server.serve import explore

    def ready(address: Address) -> None:
        print(f"{address.url}\nOpen this address on this machine; Ctrl-C stops.", flush=True)
        print_json(arguments, {"url": address.url, "port": address.port, "token": address.token})
        getattr(arguments, "stdout", sys.stdout).flush()

    explore(
        arguments.run, arguments.config, arguments.overrides,
        port=arguments.port, browser=not arguments.no_browser, ready=ready,
    )  # fmt: skip
    return DONE
