"""`gazetteer attribute`: score weights, apply edits, measure them."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from gazetteer.attribution.attacks.names import ATTACKS, FLOOR
from gazetteer.attribution.edits.method_names import AMPLIFY, ERASE, FEATURES, MOST_STEPS, PARTS
from gazetteer.data.core.files.own_files import require_own_folder, says
from gazetteer.jobs.cli.arguments import DONE, OF_RUN, configuration, configured, machine, of_run, seed
from gazetteer.jobs.cli.output import print_json
from gazetteer.jobs.cli.verbs.protocol import add_protocol


def add_attribute(parent: Any) -> None:
    """Add the verb and its verbs."""
    parser = parent.add_parser("attribute", help="which weights carry a concept: score, apply, evaluate")
    verbs = parser.add_subparsers(dest="attribute_verb", required=True, metavar="VERB")
    for add in (_add_score, _add_apply, _add_concepts, add_protocol, _add_evaluate):
        add(verbs)


def _add_score(verbs: Any) -> None:
    score = verbs.add_parser(
        "score", help="score weights; write components.parquet and the edit that zeroes the top fraction"
    )
    configured(score)
    score.add_argument("--out", required=True, metavar="FOLDER", help="receives the edit and components.parquet")
    score.add_argument("--concept", default="", help="of vocabulary.concepts or steer.words; or name a --feature")
    score.add_argument(
        "--feature", default="", metavar="SITE:N", help="an SAE feature, with --prompts to measure it on"
    )
    score.add_argument("--prompts", nargs="+", default=[], metavar="PROMPT", help="default: the concept's bare name")
    score.add_argument("--objective", default="erase", help="erase (default), erase-live, amplify, or module:attribute")
    score.add_argument(
        "--estimator",
        default="cad",
        metavar="NAME",
        help="cad (default), integrated, expected, curved, iterated, coar, finite, a control",
    )
    score.add_argument("--preset", default="", help="cad: scope, fraction and pairing of the published code")
    score.add_argument("--scope", help="ff (default), cross, self, conv or all")
    score.add_argument(
        "--fraction", "--share", type=float, help="of the weights, taken from the top; default: 0.001"
    )  # fmt: skip
    score.add_argument("--per", help="row, layer (default) or global")
    score.add_argument("--base", default="", help="prompt of the base concept (default: the empty one)")
    for name, value, words in (
        ("steps", 50, "of the sampler (default: 50)"),
        ("seeds", 1, "pictures of every prompt (default: 1)"),
        ("points", None, "integrated, expected, curved, iterated: gradients or projections (default: 8)"),
        ("ablations", None, "coar: random ablations that it regresses on (default: 500)"),
        ("groups", None, "coar, finite: groups into which the rows of the weights are cut (default: 200)"),
    ):
        score.add_argument(f"--{name}", type=int, default=value, help=words)
    score.add_argument("--seed", type=seed, default=0, help="of the first picture, and of what is random (default: 0)")
    score.add_argument("--guidance", type=float, default=3.0, help="the sampler's scale (default: 3.0)")
    score.add_argument("--by-step", action="store_true", help="how the score is spread over the sampler's steps")
    score.set_defaults(action=_attribute_score)


def _add_apply(verbs: Any) -> None:
    apply = verbs.add_parser("apply", help="copy a model folder with edits applied, without loading the model")
    apply.add_argument("--model", required=True, metavar="FOLDER", help="a diffusers model folder")
    apply.add_argument(
        "--edit", nargs="+", required=True, metavar="FILE", help="of attribute score or edit; several are composed"
    )
    apply.add_argument("--out", required=True, metavar="FOLDER", help="a new folder")
    apply.add_argument("--undo", action="store_true", help="take the edit out again")
    machine(apply)
    apply.set_defaults(action=_attribute_apply)


def _add_concepts(verbs: Any) -> None:
    """The verbs that take concepts of the run's vocabulary."""
    edit = verbs.add_parser(
        "edit", help="make an edit that erases or amplifies a concept, by any evaluated method",
        description=f"Make the edit that was evaluated, and pictures before and after. As the evaluation it takes "
        f"{MOST_STEPS} of generation.steps at most to make it; the pictures are painted with all of them. It takes "
        "minutes at most and does not resume: what is stopped starts anew.",
    )  # fmt: skip
    configured(edit)
    edit.add_argument("--out", required=True, metavar="FOLDER", help="receives the edit")
    edit.add_argument("--concept", required=True, help="of vocabulary.concepts or steer.words")
    edit.add_argument("--goal", default="erase", choices=("erase", "amplify"), help="what to do (default: erase)")
    edit.add_argument(
        "--method", default="steps", metavar="METHOD",
        help=f"default: steps; to erase: {', '.join(m for m in ERASE if m not in FEATURES)}; to amplify: "
        f"{', '.join(AMPLIFY)}",
    )  # fmt: skip
    edit.add_argument(
        "--fraction", "--share", type=float,
        help="of the weights of the method's scope; default: what it was evaluated with",
    )  # fmt: skip
    edit.add_argument(
        "--sheet", type=int, default=4, help="prompts on a sheet of pictures, original above edited (default: 4)"
    )
    edit.set_defaults(action=_attribute_edit)

    sheet = verbs.add_parser("sheet", help="pictures original, erased, amplified, for gazetteer atlas --edits")
    configured(sheet)
    sheet.add_argument("--edits", nargs="+", required=True, metavar="FILE", help="of attribute edit or score")
    sheet.add_argument("--pictures", type=int, default=6, help="rows of prompts that name the concept (default: 6)")
    sheet.add_argument("--others", type=int, default=2, help="rows of prompts that do not (default: 2)")
    sheet.add_argument("--out", required=True, metavar="FOLDER", help="receives weights.json and the pictures")
    sheet.set_defaults(action=_attribute_sheet)

    features = verbs.add_parser(
        "features", help="tie a concept's weights to the features labelled with it",
        description="Tie a concept's weights to the features labelled with it. Edits are made and pictures painted "
        f"with {MOST_STEPS} of generation.steps at most, as in attribute evaluate.",
    )  # fmt: skip
    configured(features, OF_RUN)
    of_run(features, "a finished labelling run")
    features.add_argument("--out", required=True, metavar="FOLDER", help="receives components.parquet")
    features.add_argument("--concepts", nargs="+", default=[], metavar="CONCEPT", help="default: all with labels")
    features.add_argument(
        "--method", default="steps", help="how weights are chosen and changed to erase (default: steps)"
    )
    features.add_argument(
        "--fraction", type=float,
        help="default: that of attribute edit, though edits are made here from half as many prompts",
    )  # fmt: skip
    features.add_argument("--top", type=int, default=8, help="features per concept and site at most (default: 8)")
    features.add_argument(
        "--most", type=int, default=6, help="pictures that name a concept (default: 6); half as many that do not"
    )
    features.set_defaults(action=_attribute_features)


def _add_evaluate(verbs: Any) -> None:
    evaluate = verbs.add_parser(
        "evaluate", help="faithfulness, erasing and amplifying, measured on same-seed pairs",
        description=f"Measure faithfulness, erasing and amplifying on same-seed pairs. Edits are made and pictures "
        f"painted with {MOST_STEPS} of generation.steps at most, edits from 2 trajectories and up to 16 prompts that "
        "name the concept, as attribute edit makes them; with --quick from 1 and 8.",
    )  # fmt: skip
    configured(evaluate)
    evaluate.add_argument("--quick", action="store_true", help="few concepts, few pictures: minutes, wide intervals")
    evaluate.add_argument("--concepts", nargs="+", default=[], metavar="CONCEPT", help="default: by the intact rate")
    evaluate.add_argument(
        "--methods", nargs="+", default=[], metavar="METHOD",
        help="default: all; steps and, to erase, blocking are always measured, and so is what a named one follows",
    )  # fmt: skip
    evaluate.add_argument(
        "--parts", nargs="+", default=[], metavar="PART",
        help=f"of {', '.join(PARTS)}; default: all",
    )  # fmt: skip
    evaluate.add_argument(
        "--attacks", nargs="+", default=[], metavar="ATTACK",
        help=f"of {', '.join(ATTACKS)}; default: all; {FLOOR}: the floor alone, which is measured with any",
    )  # fmt: skip
    evaluate.add_argument(
        "--out", metavar="FOLDER",
        help="receives evaluation.json and plots, and caches every result, so that the same command goes on; other "
        "parts and methods of the same concepts are added",
    )  # fmt: skip
    evaluate.set_defaults(action=_attribute_evaluate)


def _attribute_score(arguments: argparse.Namespace) -> int:
    run = configuration(arguments)
    require_own_folder(arguments.out)
    from gazetteer.attribution.scores.score import ScoreConfig
    from gazetteer.jobs.experiments.attribute_score import score

    given = {name: value for name, value in vars(arguments).items() if name in ScoreConfig.__dataclass_fields__}
    config = ScoreConfig(**{**given, "prompts": tuple(arguments.prompts)})
    result = score(run, config, arguments.out)
    print(f"{result['weights']} of {result['scored']} weights; edit {result['edit']}, table {result['components']}")
    for sentence in (result["short"], result["said"]):
        if sentence:
            print(sentence)
    print_json(arguments, result)
    return DONE


def _attribute_apply(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.experiments.attribute_score import apply_edit

    result = apply_edit(arguments.model, arguments.edit, arguments.out, undo=arguments.undo)
    done = "put back " if result["undone"] else "changed, "
    print(f"{result['model']}: {result['weights']} weights {done}{result['rounding']}")
    if result["left_out"]:
        print(f"left out of the copy, as they hold the weights unedited: {', '.join(result['left_out'])}")
    print_json(arguments, result)
    return DONE


def _attribute_edit(arguments: argparse.Namespace) -> int:
    run = configuration(arguments)
    require_own_folder(arguments.out)
    from gazetteer.attribution.edits.defaults import evaluated
    from gazetteer.jobs.experiments.attribute_edit import EditConfig, make_edit, settled
    from gazetteer.jobs.experiments.attribute_report import print_edit

    methods = evaluated(run.generation.steps, run.generation.guidance, run.seed)
    given = {name: getattr(arguments, name) for name in ("concept", "goal", "method", "fraction", "sheet")}
    config = EditConfig(**given)
    settled(run, methods, config)  # what cannot be is refused before a model is read, and before minutes are promised
    promise = partial(print, "making the edit, minutes at most; it does not resume")
    result = make_edit(run, methods, config, arguments.out, promise)
    print_edit(result)
    print_json(arguments, result)
    return DONE


def _attribute_sheet(arguments: argparse.Namespace) -> int:
    run = configuration(arguments)
    from gazetteer.jobs.experiments.attribute_sheet import write_sheet

    result = write_sheet(run, arguments.edits, arguments.pictures, arguments.out, arguments.others)
    print(f"{result['sheet']}: {result['pictures']} rows of {', '.join(result['columns'])}")
    if result["shown"]:
        print(result["shown"])
    print_json(arguments, result)
    return DONE


def _attribute_features(arguments: argparse.Namespace) -> int:
    run = configuration(arguments)
    require_own_folder(arguments.out)
    from gazetteer.attribution.edits.defaults import dose, evaluated
    from gazetteer.attribution.evaluation.features import FeaturesConfig
    from gazetteer.jobs.experiments.attribute_evaluate import relate_features
    from gazetteer.jobs.experiments.attribute_report import print_features

    methods = evaluated(run.generation.steps, run.generation.guidance, run.seed)
    fraction = dose("erase", arguments.method, "objects").taken if arguments.fraction is None else arguments.fraction
    given = {"method": arguments.method, "fraction": fraction, "top": arguments.top}
    result = relate_features(
        run, arguments.run, arguments.concepts, FeaturesConfig(**given), methods, arguments.out, most=arguments.most
    )
    print_features(result)
    print_json(arguments, result)
    return DONE


def _attribute_evaluate(arguments: argparse.Namespace) -> int:
    arguments.resumes = bool(arguments.out)  # without a folder nothing is kept
    run = configuration(arguments)
    from gazetteer.attribution.evaluation.checks import check_heard
    from gazetteer.attribution.evaluation.suite import attacked_by, full, quick
    from gazetteer.jobs.experiments.attribute_evaluate import evaluate
    from gazetteer.jobs.experiments.attribute_parts import earlier, joined, joining, put_apart
    from gazetteer.jobs.experiments.attribute_report import print_evaluation, write_evaluation

    parts = arguments.parts or PARTS
    check_heard(parts, arguments.concepts, arguments.methods, arguments.attacks)
    size = quick if arguments.quick else full
    config = size(run.generation.steps, run.generation.guidance, run.seed)
    config = attacked_by(config, arguments.attacks) if arguments.attacks else config
    cache = f"{arguments.out}/cache" if arguments.out else ""
    if arguments.out is not None:
        require_own_folder(arguments.out, ours=says(f"{cache}/settings.json", "cases", "source"))
        earlier(arguments.out)  # refused now, not after hours
    result = evaluate(run, config, arguments.concepts, cache, arguments.methods, parts)
    print_evaluation(result)
    if arguments.out:
        with joining(arguments.out):
            both = joined(earlier(arguments.out), result)  # what another call wrote in the meantime is there too
            if both.apart:
                print(f"the evaluation of an earlier call is kept as {put_apart(arguments.out)}: {both.apart}")
            if both.kept:
                print(f"of earlier calls, kept in {arguments.out}: {', '.join(both.kept)}")
            print("\n".join(write_evaluation(both.result, arguments.out)))
    print_json(arguments, result)
    return DONE
