"""The `gazetteer` command: parse, call one function, print a summary, turn errors into sentences and exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from gazetteer import __version__
from gazetteer.data.core.errors import GazetteerError
from gazetteer.jobs.cli.arguments import DONE, FAILED, PARTIAL, configured, logged, print_json
from gazetteer.jobs.cli.attribute import add_attribute
from gazetteer.jobs.cli.causal import add_causal
from gazetteer.jobs.cli.layout import add_layout
from gazetteer.jobs.cli.operate import add_operate
from gazetteer.jobs.cli.plan import add_plan
from gazetteer.jobs.cli.steer import add_steer
from gazetteer.jobs.cli.verify import add_verify

EXIT_CODES = (
    "exit codes: 0 done, 1 failed, 2 bad input, 3 done with recorded failures, 75 another process holds the run"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Usage errors exit with 2, as argparse does."""
    arguments = parser().parse_args(argv)
    _quiet_libraries()
    _end_gracefully()
    try:
        return arguments.action(arguments)
    except GazetteerError as error:
        print(f"gazetteer: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        print("gazetteer: stopped; run the same command again and it goes on from here.", file=sys.stderr)
        return 128 + getattr(error, "signal", signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The command line of every verb."""
    parser = argparse.ArgumentParser(
        prog="gazetteer",
        description="Say what the features inside text-to-image models mean, with evidence.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"gazetteer {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (
        _add_label, _add_sae, _add_atlas, _add_summary, _add_quality, add_plan, add_verify, add_operate, add_layout,
        add_steer, add_causal, add_attribute, _add_doctor,
    ):  # fmt: skip
        add(verbs)
    return parser


def _add_label(verbs: Any) -> None:
    label = verbs.add_parser("label", help="the whole job, from prompts to tables, resumed where it stands")
    configured(label)
    label.add_argument("--out", required=True, metavar="RUN", help="run folder or URL; created, or resumed")
    label.add_argument("--retry-failed", action="store_true", help="try again exactly the pictures that failed")
    label.add_argument("--reuse", metavar="RUN", help="take over images and segments of a run with the same pictures")
    logged(label)
    label.set_defaults(action=_label)


def _add_sae(verbs: Any) -> None:
    sae = verbs.add_parser("sae", help="sparse autoencoders")
    sae_verbs = sae.add_subparsers(dest="sae_verb", required=True, metavar="VERB")
    train = sae_verbs.add_parser("train", help="capture activations and train one autoencoder per site")
    configured(train)
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


def _add_atlas(verbs: Any) -> None:
    atlas = verbs.add_parser("atlas", help="write static pages to browse a finished run")
    atlas.add_argument("--run", required=True, metavar="RUN", help="a finished run folder")
    atlas.add_argument("--out", metavar="FOLDER", help="where the pages go (default: RUN/atlas)")
    atlas.add_argument("--layouts", nargs="+", default=[], metavar="FOLDER", help="of gazetteer layout predict: a page")
    atlas.add_argument(
        "--edits", nargs="+", default=[], metavar="FOLDER", help="of gazetteer steer or attribute sheet: a page"
    )
    atlas.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    atlas.set_defaults(action=_atlas)


def _add_summary(verbs: Any) -> None:
    summary = verbs.add_parser("summary", help="say what a finished run holds")
    summary.add_argument("--run", required=True, metavar="RUN", help="a finished run folder")
    summary.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    summary.set_defaults(action=_summary)


def _add_quality(verbs: Any) -> None:
    quality = verbs.add_parser("quality", help="measure a run's labels: held-out IoU, grid ceiling, shuffled control")
    quality.add_argument("--run", required=True, metavar="RUN", help="a finished run folder")
    quality.add_argument("--no-shuffle", action="store_true", help="leave out the shuffled control, the slow part")
    quality.add_argument(
        "--vectors", metavar="SOURCE",
        help="also measure the published dictionaries by these word vectors: model, a file, or module:function",
    )  # fmt: skip
    configured(quality)
    quality.set_defaults(action=_quality)


def _add_doctor(verbs: Any) -> None:
    doctor = verbs.add_parser("doctor", help="say what is installed, what is missing, and which blocks a model offers")
    doctor.add_argument("--model", metavar="PATH", help="a text-to-image model: list its blocks, grids and widths")
    doctor.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    doctor.set_defaults(action=_doctor)


def _label(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.config.schema import load_config
    from gazetteer.jobs.label.job import label
    from gazetteer.jobs.label.logs import log_file, logging_to
    from gazetteer.jobs.label.summary import print_summary, summarise

    with logging_to(*log_file(arguments.out), *arguments.log):
        manifest = label(
            load_config(arguments.config, arguments.overrides),
            arguments.out,
            retry_failed=arguments.retry_failed,
            reuse=arguments.reuse,
        )
    summary = summarise(arguments.out)
    print_summary(summary)
    print_json(arguments, summary)
    return PARTIAL if manifest["failing"] else DONE


def _sae_train(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.config.schema import load_config
    from gazetteer.jobs.sae.train import train_site_saes

    rows = train_site_saes(load_config(arguments.config, arguments.overrides), arguments.out)
    for row in rows:
        print(
            f"{row['site']:<52} explained variance {row['explained_variance']:.3f}  "
            f"scaled MSE {row['scaled_mse']:.3f}  dead {row['dead_share']:.1%}"
        )
    saes = os.path.join(arguments.out, "saes")
    print(f"{len(rows)} autoencoders in {saes}; open {os.path.join(saes, 'index.html')} in a browser.")
    print_json(arguments, {"sites": rows, "report": os.path.join(saes, "index.html")})
    return DONE


def _sae_report(arguments: argparse.Namespace) -> int:
    from gazetteer.sae.report.report import table_one, write_report

    out = arguments.out or arguments.saes
    metrics = write_report(arguments.saes, out)
    print(table_one(metrics))
    print(f"Open {os.path.join(out, 'index.html')} in a browser.")
    print_json(arguments, {"sites": metrics.to_pylist(), "report": os.path.join(out, "index.html")})
    return DONE


def _atlas(arguments: argparse.Namespace) -> int:
    from gazetteer.labeling.atlas import write_atlas

    out = arguments.out or os.path.join(arguments.run, "atlas")
    summary = write_atlas(arguments.run, out, layouts=arguments.layouts, edits=arguments.edits)
    print(f"Open {os.path.join(out, 'index.html')} in a browser.")
    print_json(arguments, {"index": os.path.join(out, "index.html"), **vars(summary)})
    return DONE


def _summary(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.label.summary import print_summary, summarise

    summary = summarise(arguments.run)
    print_summary(summary)
    print_json(arguments, summary)
    return DONE


def _quality(arguments: argparse.Namespace) -> int:
    from gazetteer.labeling.quality.report import print_quality, run_quality

    result = run_quality(arguments.run, shuffle=not arguments.no_shuffle)
    print_quality(result)
    if arguments.vectors:
        from gazetteer.labeling.quality.dictionaries import dictionary_quality, print_dictionaries

        pipe = _pipeline_of_run(arguments) if arguments.vectors == "model" else None
        result["dictionaries"] = dictionary_quality(arguments.run, arguments.vectors, pipe)
        print_dictionaries(result["dictionaries"])
    print_json(arguments, result)
    return DONE


def _pipeline_of_run(arguments: argparse.Namespace) -> Any:
    from gazetteer.data.runs.folder import RunFolder
    from gazetteer.diffusion.load import load_pipeline
    from gazetteer.jobs.config.schema import load_config
    from gazetteer.jobs.experiments.layout import check_config

    config = load_config(arguments.config, arguments.overrides)
    check_config(config, RunFolder(arguments.run))
    return load_pipeline(config.model)


def _doctor(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.operate.doctor import examine, print_report

    report = examine(arguments.model)
    print_report(report)
    print_json(arguments, report)
    return DONE


class _Terminated(KeyboardInterrupt):
    """Asked to end by a scheduler: the run is left as by Ctrl-C, and says so in progress.json."""

    signal = signal.SIGTERM


def _end_gracefully() -> None:
    """Let systemd, Slurm and Kubernetes, which send SIGTERM, end a run with its last words written."""

    def end(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)


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
