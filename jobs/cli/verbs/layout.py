"""`gazetteer layout`: predict what will be where, and measure such predictions."""

from __future__ import annotations

import argparse
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, OF_RUN, configuration, configured, of_run, seed
from gazetteer.jobs.cli.output import print_json


def add_layout(verbs: Any) -> None:
    """Add the verb and its verbs."""
    layout = verbs.add_parser("layout", help="say what will be where while a picture is still noise")
    layout_verbs = layout.add_subparsers(dest="layout_verb", required=True, metavar="VERB")
    predict = layout_verbs.add_parser("predict", help="generate one picture and write its predicted layouts")
    of_run(predict, "a finished run; not needed with --labels FILE", needed=False)
    predict.add_argument("--labels", metavar="FILE", help="a labels.parquet or candidates.parquet, read alone")
    predict.add_argument("--prior", action="store_true", help="add where things usually are, from the run's evidence")
    predict.add_argument("--calibrated", action="store_true", help="calibrate on the run's codes and masks instead")
    predict.add_argument("--prompt", required=True, metavar="TEXT", help="what to paint")
    predict.add_argument("--seed", type=seed, default=0, help="of the picture's noise (default: 0)")
    predict.add_argument(
        "--out", required=True, metavar="FOLDER", help="receives picture.png, layout.npz and layout.json"
    )
    configured(predict, OF_RUN)
    predict.set_defaults(action=_layout_predict)
    evaluate = layout_verbs.add_parser("evaluate", help="measure predictions on held-out pictures, beside baselines")
    of_run(evaluate, "a finished run folder or URL")
    evaluate.add_argument("--quick", action="store_true", help="the run's own t only, and fewer pictures")
    evaluate.add_argument("--stored", action="store_true", help="sample nothing again: what stored codes allow")
    evaluate.add_argument("--exact", metavar="FOLDER", help="also measure on pictures with exact masks")
    evaluate.add_argument(
        "--vectors", default="model", metavar="SOURCE", help="word vectors of the published method (default: model)"
    )
    for name in ("train", "heldout", "exact"):
        evaluate.add_argument(
            f"--{name}-images", type=int, default=0, metavar="N", help="at most N of them; 0: all (default)"
        )
    evaluate.add_argument("--memory", type=int, default=2000, metavar="MB", help="for the maps (default: 2000)")
    evaluate.add_argument("--plots", metavar="FOLDER", help="also write the curves over the steps there, as SVG")
    configured(evaluate, OF_RUN)
    evaluate.set_defaults(action=_layout_evaluate)


def _layout_predict(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    from gazetteer.jobs.experiments.layout import predict

    result = predict(
        config, arguments.run, arguments.prompt, arguments.seed, arguments.out, labels=arguments.labels,
        prior=arguments.prior, calibrated=arguments.calibrated,
    )  # fmt: skip
    if not result["named"]:
        print("the prompt names no concept of the layout; layout.npz holds the maps of all of them")
    for row in result["steps"]:
        shares = row["shares"].items()
        fractions = ", ".join(f"{name} {'?' if share is None else f'{share:.0%}'}" for name, share in shares)
        print(f"t={row['t']:.2f}  {fractions}")
    if any(None in row["shares"].values() for row in result["steps"]):
        print("?: no feature that fires there is labelled with it, so that every cell is as likely as any other")
    print_json(arguments, result)
    return DONE


def _layout_evaluate(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    from gazetteer.jobs.experiments.layout import evaluate_run
    from gazetteer.jobs.plots.charts import plots_folder, save_plots
    from gazetteer.jobs.plots.evaluation import layout_plots
    from gazetteer.labeling.layout.evaluation.evaluate import print_layout

    plots_folder(arguments.plots)
    result = evaluate_run(
        config,
        arguments.run,
        quick=arguments.quick,
        stored=arguments.stored,
        exact=arguments.exact,
        vectors=arguments.vectors,
        train_images=arguments.train_images,
        heldout_images=arguments.heldout_images,
        exact_images=arguments.exact_images,
        memory_mb=arguments.memory,
    )
    print_layout(result)
    if arguments.plots:
        save_plots(arguments.plots, layout_plots(result))
    print_json(arguments, result)
    return DONE
