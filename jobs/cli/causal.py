"""`gazetteer causal`: what features cause, beside where they fire."""

from __future__ import annotations

import argparse
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, configured, print_json


def add_causal(verbs: Any) -> None:
    """Add the verb."""
    causal = verbs.add_parser("causal", help="switch features on and off: are their labels confirmed?")
    causal.add_argument("run", metavar="RUN", help="a finished run folder; receives causal/ and causal.parquet")
    causal.add_argument("--features", type=int, default=32, metavar="N", help="a site at most; 0: all (default: 32)")
    causal.add_argument("--images", type=int, metavar="N", help="shared pictures (default: causal.images, 16)")
    causal.add_argument("--sites", nargs="+", default=[], metavar="SITE", help="e.g. mid_block.attentions.0-cond-t0.50")
    configured(causal)
    causal.set_defaults(action=_causal)


def _causal(arguments: argparse.Namespace) -> int:
    from gazetteer.data.core.errors import InputError
    from gazetteer.jobs.config.schema import load_config
    from gazetteer.jobs.experiments.causal import measure_causes, print_causes

    if arguments.features < 0:
        raise InputError(f"--features must be at least 0, not {arguments.features}.")
    overrides = list(arguments.overrides)
    if arguments.images is not None:
        overrides.append(f"causal.images={arguments.images}")
    result = measure_causes(
        load_config(arguments.config, overrides), arguments.run, arguments.features, arguments.sites
    )
    print_causes(result)
    print_json(arguments, result)
    return DONE
