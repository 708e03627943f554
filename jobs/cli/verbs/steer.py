"""What features do: `steer` draws with edits or measures them, `causal` switches features on and off."""

from __future__ import annotations

import argparse
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, OF_RUN, configuration, configured, of_run, seed
from gazetteer.jobs.cli.output import print_json


def add_steer(verbs: Any) -> None:
    """Add the verbs."""
    steer = verbs.add_parser("steer", help="draw pictures with edits, or measure what edits do")
    steer_verbs = steer.add_subparsers(dest="steer_verb", required=True, metavar="VERB")
    draw = steer_verbs.add_parser("draw", help="draw every prompt plain and edited")
    of_run(draw, "the finished run that says which features a concept has", needed=False)
    draw.add_argument("--edits", required=True, metavar="FILE", help="the edits: YAML, JSON (docs/reference/edits.md)")
    draw.add_argument("--prompt", required=True, nargs="+", help="one picture each")
    draw.add_argument("--seed", type=seed, default=0, help="of the first picture's noise (default: 0)")
    draw.add_argument("--out", required=True, metavar="FOLDER", help="receives the pictures")
    draw.add_argument("--stages", action="store_true", help="every edit early, in the middle and at the end")
    configured(draw, OF_RUN)
    draw.set_defaults(action=_draw)

    evaluate = steer_verbs.add_parser("evaluate", help="measure what edits do to pictures of held-out prompts")
    of_run(evaluate, "the finished run that says which features a concept has")
    evaluate.add_argument("--out", metavar="FOLDER", help="the trials (default: RUN/steer)")
    evaluate.add_argument("--quick", action="store_true", help="a few pictures a stage, within minutes")
    evaluate.add_argument("--plots", metavar="FOLDER", help="also write curves and tables of side effects, as SVG")
    configured(evaluate, OF_RUN)
    evaluate.set_defaults(action=_evaluate, resumes=True)

    causal = verbs.add_parser("causal", help="switch features on beside random ones: are their labels confirmed?")
    of_run(causal, "a finished run folder; receives causal/ and causal.parquet")
    causal.add_argument(
        "--features", type=int, default=32, metavar="N", help="a site at most, of --sweep in all; 0: all (default: 32)"
    )
    causal.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="a feature at most (default: causal.images, or as many as causal.power needs; of --sweep 8)",
    )
    causal.add_argument("--sites", nargs="+", default=[], metavar="SITE", help="e.g. mid_block.attentions.0-cond-t0.50")
    causal.add_argument("--sweep", action="store_true", help="compare windows, doses and places on tuning features")
    causal.add_argument(
        "--out",
        metavar="FOLDER",
        help="receives the pass and its causal.parquet instead of the run",
    )
    causal.add_argument(
        "--replace", action="store_true", help="remove what a pass with other settings recorded, and begin anew"
    )
    configured(causal, OF_RUN)
    causal.set_defaults(action=_causal, resumes=True)


def _draw(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    from gazetteer.jobs.experiments.steer import steer_pictures

    result = steer_pictures(
        config, arguments.edits, arguments.run, arguments.prompt, arguments.seed, arguments.out, arguments.stages
    )
    drawn = len(result["pictures"])
    print(f"{'1 picture' if drawn == 1 else f'{drawn} pictures, each'} plain and edited, in {arguments.out}")
    print_json(arguments, result)
    return DONE


def _evaluate(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    from gazetteer.jobs.experiments.steer_evaluate import evaluate_steering
    from gazetteer.jobs.plots.charts import plots_folder, save_plots
    from gazetteer.jobs.plots.evaluation import steer_plots
    from gazetteer.labeling.interventions.evaluation.summary import print_evaluation

    plots_folder(arguments.plots)
    result = evaluate_steering(config, arguments.run, arguments.quick, arguments.out)
    print_evaluation(result)
    if arguments.plots:
        save_plots(arguments.plots, steer_plots(result))
    print_json(arguments, result)
    return DONE


def _causal(arguments: argparse.Namespace) -> int:
    arguments.resumes = not arguments.sweep  # a sweep writes nothing, so it begins anew
    if arguments.images is not None:
        arguments.overrides = [*arguments.overrides, f"causal.images={arguments.images}"]
    config = configuration(arguments)
    from gazetteer.data.core.errors import InputError
    from gazetteer.jobs.experiments.causal.measure import measure_causes, print_causes
    from gazetteer.jobs.experiments.causal.sweep import print_sweep, sweep_causes

    if arguments.features < 0:
        raise InputError(f"--features must be at least 0, not {arguments.features}.")
    if arguments.sweep:
        if arguments.sites:
            raise InputError("--sweep takes the best labelled feature of every concept and no --sites.")
        if arguments.out or arguments.replace:
            raise InputError("--sweep writes nothing, so --out and --replace say nothing; leave them out.")
        swept = sweep_causes(config, arguments.run, arguments.features)
        print_sweep(swept)
        print_json(arguments, swept)
        return DONE
    result = measure_causes(
        config, arguments.run, arguments.features, arguments.sites, arguments.out, arguments.replace
    )
    print_causes(result)
    print_json(arguments, result)
    return DONE
