"""The `gazetteer` command: parse, call one function, print a summary, turn errors into sentences and exit codes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from data.errors import GazetteerError

DONE, FAILED, BAD_INPUT, PARTIAL = 0, 1, 2, 3
EXIT_CODES = (
    "exit codes: 0 done, 1 failed, 2 bad input, 3 done with recorded failures, 75 another process holds the run"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Usage errors exit with 2, as argparse does."""
    arguments = _parser().parse_args(argv)
    _quiet_libraries()
    try:
        return arguments.action(arguments)
    except GazetteerError as error:
        print(f"gazetteer: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("gazetteer: stopped; run the same command again and it goes on from here.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gazetteer",
        description="Say what the features inside text-to-image models mean, with evidence.",
        epilog=EXIT_CODES,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    label = verbs.add_parser("label", help="the whole job, from prompts to tables, resumed where it stands")
    _configured(label)
    label.add_argument("--out", required=True, metavar="RUN", help="run folder or URL; created, or resumed")
    label.add_argument("--retry-failed", action="store_true", help="try again exactly the pictures that failed")
    label.set_defaults(action=_label)

    sae = verbs.add_parser("sae", help="sparse autoencoders")
    sae_verbs = sae.add_subparsers(dest="sae_verb", required=True, metavar="VERB")
    train = sae_verbs.add_parser("train", help="capture activations and train one autoencoder per site")
    _configured(train)
    train.add_argument("--out", required=True, metavar="FOLDER", help="receives activations/ and saes/")
    train.add_argument(
        "--stream", dest="overrides", action="append_const", const="sae.stream=true",
        help="train all sites while the pictures are sampled, with no activations on disk",
    )  # fmt: skip
    train.set_defaults(action=_sae_train)
    report = sae_verbs.add_parser("report", help="write a set's tables and page again, and print its metrics")
    report.add_argument("--saes", required=True, metavar="FOLDER", help="a folder with one autoencoder per site")
    report.add_argument("--out", metavar="FOLDER", help="where the tables and the page go (default: the same folder)")
    report.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    report.set_defaults(action=_sae_report)

    atlas = verbs.add_parser("atlas", help="write static pages to browse a finished run")
    atlas.add_argument("--run", required=True, metavar="RUN", help="a finished run folder")
    atlas.add_argument("--out", metavar="FOLDER", help="where the pages go (default: RUN/atlas)")
    atlas.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    atlas.set_defaults(action=_atlas)

    summary = verbs.add_parser("summary", help="say what a finished run holds")
    summary.add_argument("--run", required=True, metavar="RUN", help="a finished run folder")
    summary.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    summary.set_defaults(action=_summary)

    quality = verbs.add_parser("quality", help="measure a run's labels: held-out IoU, grid ceiling, shuffled control")
    quality.add_argument("--run", required=True, metavar="RUN", help="a finished run folder")
    quality.add_argument("--no-shuffle", action="store_true", help="leave out the shuffled control, the slow part")
    quality.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    quality.set_defaults(action=_quality)

    _layout_verbs(verbs)

    steer = verbs.add_parser("steer", help="draw pictures with edits, or measure what edits do")
    steer.add_argument("what", nargs="?", choices=["draw", "evaluate"], default="draw", help="default: draw")
    _configured(steer)
    steer.add_argument("--run", metavar="RUN", help="the finished run whose labels say which features a concept has")
    steer.add_argument("--edits", metavar="FILE", help="draw: the edits, YAML or JSON (docs/steering.md)")
    steer.add_argument("--prompt", nargs="+", default=[], help="draw: one picture each")
    steer.add_argument("--seed", type=int, default=0, help="draw: of the first picture's noise")
    steer.add_argument("--out", metavar="FOLDER", help="draw: receives the pictures and steer.json")
    steer.add_argument("--quick", action="store_true", help="evaluate: a few pictures a stage, within minutes")
    steer.set_defaults(action=_steer)

    _attribute_verbs(verbs.add_parser("attribute", help="which weights carry a concept: score, apply, evaluate"))

    doctor = verbs.add_parser("doctor", help="say what is installed, what is missing, and which blocks a model offers")
    doctor.add_argument("--model", metavar="PATH", help="a text-to-image model: list its blocks, grids and widths")
    doctor.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    doctor.set_defaults(action=_doctor)
    return parser


def _layout_verbs(verbs: Any) -> None:
    layout = verbs.add_parser("layout", help="say what will be where while a picture is still noise")
    layout_verbs = layout.add_subparsers(dest="layout_verb", required=True, metavar="VERB")
    predict = layout_verbs.add_parser("predict", help="generate one picture and write its predicted layouts")
    predict.add_argument("run", metavar="RUN", help="a finished run folder")
    predict.add_argument("--prompt", required=True, metavar="TEXT", help="what to paint")
    predict.add_argument("--seed", type=int, default=0, help="of the picture's noise")
    predict.add_argument("--out", required=True, metavar="FOLDER", help="receives picture.png and layout.npz")
    _configured(predict)
    predict.set_defaults(action=_layout_predict)
    evaluate = layout_verbs.add_parser("evaluate", help="measure predictions on held-out pictures, beside baselines")
    evaluate.add_argument("run", metavar="RUN", help="a finished run folder")
    evaluate.add_argument("--quick", action="store_true", help="the run's own t only, and fewer pictures")
    evaluate.add_argument("--stored", action="store_true", help="sample nothing again: what stored codes allow")
    evaluate.add_argument("--exact", metavar="FOLDER", help="also measure on pictures with exact masks")
    evaluate.add_argument("--vectors", default="model", metavar="SOURCE", help="word vectors of the published method")
    for name in ("train", "heldout", "exact"):
        evaluate.add_argument(f"--{name}-images", type=int, default=0, metavar="N", help="at most N of them; 0: all")
    _configured(evaluate)
    evaluate.set_defaults(action=_layout_evaluate)


def _configured(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML configuration (default: the embedded Scenes world)")
    parser.add_argument(
        "--set", dest="overrides", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="override keys, e.g. images=100 executor=serial model.device=cuda",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def _attribute_verbs(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="attribute_verb", required=True, metavar="VERB")
    score = verbs.add_parser(
        "score", help="score weights; write components.parquet and the edit that zeroes the top share"
    )
    _configured(score)
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
    _configured(evaluate)
    evaluate.add_argument("--quick", action="store_true", help="few concepts, few pictures: minutes, wide intervals")
    evaluate.add_argument("--concepts", nargs="+", default=[], metavar="CONCEPT", help="default: by the intact rate")
    evaluate.set_defaults(action=_attribute_evaluate)


def _label(arguments: argparse.Namespace) -> int:
    from jobs.config import load_config
    from jobs.label import label
    from jobs.summary import print_summary, summarise

    manifest = label(
        load_config(arguments.config, arguments.overrides), arguments.out, retry_failed=arguments.retry_failed
    )
    summary = summarise(arguments.out)
    print_summary(summary)
    _print_json(arguments, summary)
    return PARTIAL if manifest["failing"] else DONE


def _sae_train(arguments: argparse.Namespace) -> int:
    from jobs.config import load_config
    from jobs.sae_train import train_site_saes

    rows = train_site_saes(load_config(arguments.config, arguments.overrides), arguments.out)
    for row in rows:
        print(
            f"{row['site']:<52} explained variance {row['explained_variance']:.3f}  "
            f"scaled MSE {row['scaled_mse']:.3f}  dead {row['dead_share']:.1%}"
        )
    saes = os.path.join(arguments.out, "saes")
    print(f"{len(rows)} autoencoders in {saes}; open {os.path.join(saes, 'index.html')} in a browser.")
    _print_json(arguments, {"sites": rows, "report": os.path.join(saes, "index.html")})
    return DONE


def _sae_report(arguments: argparse.Namespace) -> int:
    from sae.report import table_one, write_report

    out = arguments.out or arguments.saes
    metrics = write_report(arguments.saes, out)
    print(table_one(metrics))
    print(f"Open {os.path.join(out, 'index.html')} in a browser.")
    _print_json(arguments, {"sites": metrics.to_pylist(), "report": os.path.join(out, "index.html")})
    return DONE


def _atlas(arguments: argparse.Namespace) -> int:
    from labeling.atlas import write_atlas

    out = arguments.out or os.path.join(arguments.run, "atlas")
    summary = write_atlas(arguments.run, out)
    print(f"Open {os.path.join(out, 'index.html')} in a browser.")
    _print_json(arguments, {"index": os.path.join(out, "index.html"), **vars(summary)})
    return DONE


def _summary(arguments: argparse.Namespace) -> int:
    from jobs.summary import print_summary, summarise

    summary = summarise(arguments.run)
    print_summary(summary)
    _print_json(arguments, summary)
    return DONE


def _quality(arguments: argparse.Namespace) -> int:
    from labeling.quality import print_quality, run_quality

    result = run_quality(arguments.run, shuffle=not arguments.no_shuffle)
    print_quality(result)
    _print_json(arguments, result)
    return DONE


def _layout_predict(arguments: argparse.Namespace) -> int:
    from jobs.config import load_config
    from jobs.layout import predict

    config = load_config(arguments.config, arguments.overrides)
    result = predict(config, arguments.run, arguments.prompt, arguments.seed, arguments.out)
    for row in result["steps"]:
        shares = ", ".join(f"{concept} {share:.0%}" for concept, share in row["shares"].items())
        print(f"t={row['t']:.2f}  {shares}")
    _print_json(arguments, result)
    return DONE


def _layout_evaluate(arguments: argparse.Namespace) -> int:
    from jobs.config import load_config
    from jobs.layout import evaluate, finite
    from labeling.layout_evaluate import print_layout

    result = evaluate(
        load_config(arguments.config, arguments.overrides),
        arguments.run,
        quick=arguments.quick,
        stored=arguments.stored,
        exact=arguments.exact,
        vectors=arguments.vectors,
        train_images=arguments.train_images,
        heldout_images=arguments.heldout_images,
        exact_images=arguments.exact_images,
    )
    print_layout(result)
    _print_json(arguments, finite(result))
    return DONE


def _steer(arguments: argparse.Namespace) -> int:
    from data.errors import InputError

    needed = ("run",) if arguments.what == "evaluate" else ("edits", "prompt", "out")
    missing = [f"--{name}" for name in needed if not getattr(arguments, name)]
    if missing:
        raise InputError(f"steer {arguments.what} needs {', '.join(missing)}.")
    from jobs.config import load_config
    from jobs.steer import evaluate_steering, steer_pictures

    config = load_config(arguments.config, arguments.overrides)
    if arguments.what == "evaluate":
        from labeling.steer_evaluation import print_evaluation

        result = evaluate_steering(config, arguments.run, arguments.quick)
        print_evaluation(result)
    else:
        result = steer_pictures(config, arguments.edits, arguments.run, arguments.prompt, arguments.seed, arguments.out)
        print(f"{len(result['pictures'])} pictures, each plain and edited, in {arguments.out}")
    _print_json(arguments, result)
    return DONE


def _attribute_score(arguments: argparse.Namespace) -> int:
    from jobs.attribute import ScoreConfig, score
    from jobs.config import load_config

    given = {name: value for name, value in vars(arguments).items() if name in ScoreConfig.__dataclass_fields__}
    config = ScoreConfig(**{**given, "prompts": tuple(arguments.prompts)})
    result = score(load_config(arguments.config, arguments.overrides), config, arguments.out)
    print(f"{result['weights']} of {result['scored']} weights; edit {result['edit']}, table {result['components']}")
    _print_json(arguments, result)
    return DONE


def _attribute_apply(arguments: argparse.Namespace) -> int:
    from jobs.attribute import apply_edit

    result = apply_edit(arguments.model, arguments.edit, arguments.out, undo=arguments.undo)
    print(f"{result['model']}: {result['weights']} weights {'put back' if result['undone'] else 'changed'}")
    _print_json(arguments, result)
    return DONE


def _attribute_evaluate(arguments: argparse.Namespace) -> int:
    from jobs.attribute import evaluate, full, print_evaluation, quick
    from jobs.config import load_config

    run = load_config(arguments.config, arguments.overrides)
    result = evaluate(run, quick(run) if arguments.quick else full(run), arguments.concepts)
    print_evaluation(result)
    _print_json(arguments, result)
    return DONE


def _doctor(arguments: argparse.Namespace) -> int:
    from jobs.doctor import examine, print_report

    report = examine(arguments.model)
    print_report(report)
    _print_json(arguments, report)
    return DONE


def _print_json(arguments: argparse.Namespace, value: dict[str, Any]) -> None:
    if arguments.json:
        print(json.dumps(value, default=str))


def _quiet_libraries() -> None:
    """Model libraries report loading at length and phone home by default; neither belongs in this output."""
    defaults = {
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    sys.exit(main())
