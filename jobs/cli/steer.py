"""`gazetteer steer`: draw with edits, or measure what edits do."""

from __future__ import annotations

import argparse
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, configured, print_json


def add_steer(verbs: Any) -> None:
    """Add the verb."""
    steer = verbs.add_parser("steer", help="draw pictures with edits, or measure what edits do")
    steer.add_argument("what", nargs="?", choices=["draw", "evaluate"], default="draw", help="default: draw")
    configured(steer)
    steer.add_argument("--run", metavar="RUN", help="the finished run whose labels say which features a concept has")
    steer.add_argument("--edits", metavar="FILE", help="draw: the edits, YAML or JSON (docs/steering.md)")
    steer.add_argument("--prompt", nargs="+", default=[], help="draw: one picture each")
    steer.add_argument("--seed", type=int, default=0, help="draw: of the first picture's noise")
    steer.add_argument("--out", metavar="FOLDER", help="draw: receives the pictures; evaluate: the trials (RUN/steer)")
    steer.add_argument("--stages", action="store_true", help="draw: every edit early, in the middle and at the end")
    steer.add_argument("--quick", action="store_true", help="evaluate: a few pictures a stage, within minutes")
    steer.add_argument(
        "--plots", metavar="FOLDER", help="evaluate: also write curves and tables of side effects there, as SVG"
    )
    steer.set_defaults(action=_steer)


def _steer(arguments: argparse.Namespace) -> int:
    from gazetteer.data.core.errors import InputError

    needed = ("run",) if arguments.what == "evaluate" else ("edits", "prompt", "out")
    missing = [f"--{name}" for name in needed if not getattr(arguments, name)]
    if missing:
        raise InputError(f"steer {arguments.what} needs {', '.join(missing)}.")
    from gazetteer.jobs.config.schema import load_config

    config = load_config(arguments.config, arguments.overrides)
    if arguments.what == "evaluate":
        from gazetteer.jobs.experiments.steer_evaluate import evaluate_steering
        from gazetteer.jobs.plots.evaluation import steer_plots, write_plots
        from gazetteer.labeling.interventions.evaluation.summary import print_evaluation

        result = evaluate_steering(config, arguments.run, arguments.quick, arguments.out)
        print_evaluation(result)
        if arguments.plots:
            write_plots(arguments.plots, steer_plots(result))
    else:
        from gazetteer.jobs.experiments.steer import steer_pictures

        result = steer_pictures(
            config, arguments.edits, arguments.run, arguments.prompt, arguments.seed, arguments.out, arguments.stages
        )
        print(f"{len(result['pictures'])} pictures, each plain and edited, in {arguments.out}")
    print_json(arguments, result)
    return DONE
