"""`gazetteer attribute`: score weights, apply edits, measure them."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.arguments import DONE, configured, print_json


def add_attribute(parent: Any) -> None:
    """Add the verb and its verbs."""
    parser = parent.add_parser("attribute", help="which weights carry a concept: score, apply, evaluate")
    verbs = parser.add_subparsers(dest="attribute_verb", required=True, metavar="VERB")
    score = verbs.add_parser(
        "score", help="score weights; write components.parquet and the edit that zeroes the top share"
    )
    configured(score)
    score.add_argument("--out", required=True, metavar="FOLDER", help="receives the edit and components.parquet")
    score.add_argument("--concept", default="", help="a word or phrase; or name a --feature")
    score.add_argument(
        "--feature", default="", metavar="SITE:N", help="an SAE feature, with --prompts to measure it on"
    )
    score.add_argument("--prompts", nargs="+", default=[], metavar="PROMPT", help="default: the concept's bare name")
    score.add_argument("--objective", default="erase", help="erase, erase-live, amplify, or module:attribute")
    score.add_argument("--estimator", default="cad", help="cad, integrated, expected, coar, finite, or a control")
    score.add_argument("--preset", default="", help="cad: scope, share and pairing of the published code")
    score.add_argument("--scope", default="ff", help="ff, cross, self, conv or all")
    score.add_argument("--share", type=float, default=0.001, help="of the weights, taken from the top")
    score.add_argument("--per", default="layer", help="row, layer or global")
    score.add_argument("--base", default="", help="prompt of the base concept")
    for name, value in (("steps", 50), ("seeds", 1), ("points", 8), ("ablations", 500), ("groups", 200), ("seed", 0)):
        score.add_argument(f"--{name}", type=int, default=value)
    score.add_argument("--guidance", type=float, default=3.0)
    score.set_defaults(action=_attribute_score)

    apply = verbs.add_parser("apply", help="copy a model folder with an edit applied, without loading the model")
    apply.add_argument("--model", required=True, metavar="FOLDER", help="a diffusers model folder")
    apply.add_argument("--edit", required=True, metavar="FILE", help="what attribute score wrote")
    apply.add_argument("--out", required=True, metavar="FOLDER", help="a new folder")
    apply.add_argument("--undo", action="store_true", help="take the edit out again")
    apply.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    apply.set_defaults(action=_attribute_apply)

    evaluate = verbs.add_parser("evaluate", help="faithfulness, erasing and amplifying, measured on same-seed pairs")
    configured(evaluate)
    evaluate.add_argument("--quick", action="store_true", help="few concepts, few pictures: minutes, wide intervals")
    evaluate.add_argument("--concepts", nargs="+", default=[], metavar="CONCEPT", help="default: by the intact rate")
    evaluate.set_defaults(action=_attribute_evaluate)


def _attribute_score(arguments: argparse.Namespace) -> int:
    from jobs.attribute import ScoreConfig, score
    from jobs.config import load_config

    given = {name: value for name, value in vars(arguments).items() if name in ScoreConfig.__dataclass_fields__}
    config = ScoreConfig(**{**given, "prompts": tuple(arguments.prompts)})
    result = score(load_config(arguments.config, arguments.overrides), config, arguments.out)
    print(f"{result['weights']} of {result['scored']} weights; edit {result['edit']}, table {result['components']}")
    print_json(arguments, result)
    return DONE


def _attribute_apply(arguments: argparse.Namespace) -> int:
    from jobs.attribute import apply_edit

    result = apply_edit(arguments.model, arguments.edit, arguments.out, undo=arguments.undo)
    print(f"{result['model']}: {result['weights']} weights {'put back' if result['undone'] else 'changed'}")
    print_json(arguments, result)
    return DONE


def _attribute_evaluate(arguments: argparse.Namespace) -> int:
    from jobs.attribute import evaluate, full, print_evaluation, quick
    from jobs.config import load_config

    run = load_config(arguments.config, arguments.overrides)
    result = evaluate(run, quick(run) if arguments.quick else full(run), arguments.concepts)
    print_evaluation(result)
    print_json(arguments, result)
    return DONE
