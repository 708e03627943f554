"""The labelling job, and what reads its runs and judges them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from gazetteer.jobs.cli.arguments import (
    DONE,
    OF_RUN,
    PARTIAL,
    configuration,
    configured,
    logged,
    machine,
    of_new_run,
    of_run,
    seed,
)
from gazetteer.jobs.cli.output import new_files, pages_folder, print_json


def add_label(verbs: Any) -> None:
    """Add the verbs."""
    label = verbs.add_parser("label", help="the whole job, from prompts to tables, resumed where it stands")
    configured(label)
    of_new_run(label, "run folder or URL; created, or resumed")
    label.add_argument("--retry-failed", action="store_true", help="try again exactly the pictures that failed")
    label.add_argument("--reuse", metavar="RUN", help="take over images and segments of a run with the same pictures")
    logged(label)
    label.set_defaults(action=_label, resumes=True)

    again = verbs.add_parser("relabel", help="make a finished run's tables again under other label settings; no model")
    of_run(again, "a finished run folder or URL; its pictures, codes and segments stay as they are")
    again.add_argument(
        "--set", dest="overrides", nargs="+", action="extend", default=[], metavar="labels.KEY=VALUE",
        help="label settings to change, e.g. labels.min_precision=0.4; the others stay as the tables have them. Also "
        "executor, ray_address and limits.*: where this call works (default: this machine)",
    )  # fmt: skip
    machine(again)
    again.set_defaults(action=_relabel, resumes=True)

    summary = verbs.add_parser("summary", help="say what a finished run holds")
    of_run(summary, "a finished run folder or URL")
    machine(summary)
    summary.set_defaults(action=_summary)

    quality = verbs.add_parser("quality", help="measure a run's labels: held-out IoU, grid ceiling, shuffled control")
    of_run(quality, "a finished run folder or URL")
    quality.add_argument(
        "--no-accuracy", action="store_true", help="leave out how often labels are right, which asks the model"
    )
    quality.add_argument("--no-shuffle", action="store_true", help="leave out the shuffled control, the slow part")
    quality.add_argument(
        "--vectors", metavar="SOURCE",
        help="also measure the published dictionaries by these word vectors: model, a file, or module:function",
    )  # fmt: skip
    configured(quality, OF_RUN)
    quality.set_defaults(action=_quality)

    _add_judges(verbs)

    compare = verbs.add_parser("compare", help="say which features' labels changed from one run to another")
    compare.add_argument("before", metavar="RUN_A", help="a finished run")
    compare.add_argument("after", metavar="RUN_B", help="another")
    compare.add_argument("--out", metavar="FILE", help="also write every change as Parquet")
    machine(compare)
    compare.set_defaults(action=_compare)

    atlas = verbs.add_parser("atlas", help="write static pages to browse a finished run")
    of_run(atlas, "a finished run folder or URL")
    atlas.add_argument("--out", metavar="FOLDER", help="where the pages go (default: RUN/atlas)")
    atlas.add_argument("--layouts", nargs="+", default=[], metavar="FOLDER", help="of gazetteer layout predict: a page")
    atlas.add_argument(
        "--edits", nargs="+", default=[], metavar="FOLDER", help="of gazetteer steer or attribute sheet: a page"
    )
    atlas.add_argument(
        "--saes", metavar="FOLDER", help="the run's autoencoders, if not the embedded: shows which features are alike"
    )
    machine(atlas)
    atlas.set_defaults(action=_atlas)


def _add_judges(verbs: Any) -> None:
    """Add the verbs that judge labels apart from what chose them."""
    examine = verbs.add_parser("examine", help="ask measures that chose no label what they say of every label")
    of_run(examine, "a finished run folder or URL; receives examiners.parquet")
    examine.add_argument(
        "--fresh", type=int, default=6, metavar="N", help="pictures made of every name (default: 6); 0: none anew"
    )
    examine.add_argument(
        "--replace", action="store_true",
        help="let what this call measures take the place of what an earlier one measured with more pictures or others",
    )  # fmt: skip
    configured(examine, OF_RUN)
    examine.set_defaults(action=_examine)

    rate = verbs.add_parser("rate", help="write a page that asks a person for own words, blind, and compare")
    of_run(rate, "a finished run folder or URL")
    rate.add_argument("--out", metavar="FOLDER", help="where the page goes (default: RUN/rate)")
    rate.add_argument("--features", type=int, metavar="N", help="labelled features to show (default: 40)")
    rate.add_argument("--seed", type=seed, help="decides which (default: 0)")
    rate.add_argument("--answers", metavar="FILE", help="instead of a page: how far these agree with the labels")
    machine(rate)
    rate.set_defaults(action=_rate)


def _label(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    from gazetteer.jobs.label.job import label
    from gazetteer.jobs.label.progress.logs import log_file, logging_to
    from gazetteer.jobs.label.summary import print_summary, summarise

    with logging_to(*arguments.log, own=log_file(arguments.out)):
        manifest = label(config, arguments.out, retry_failed=arguments.retry_failed, reuse=arguments.reuse)
    summary = summarise(arguments.out)
    if manifest["nothing_to_do"]:
        print(f"nothing to do: {arguments.out} is finished")
    if heard := manifest["heard"]:
        print(f"later commands on {arguments.out} go by the {', '.join(heard)} given now")
    print_summary(summary, before=manifest["nothing_to_do"])
    print_json(arguments, {**summary, "nothing_to_do": manifest["nothing_to_do"], "heard": manifest["heard"]})
    return PARTIAL if manifest["failing"] else DONE


def _relabel(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.label.relabel import print_relabelled, relabel

    result = relabel(arguments.run, arguments.overrides)
    print_relabelled(result)
    print_json(arguments, result)
    return DONE


def _summary(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.label.summary import print_summary, summarise

    summary = summarise(arguments.run)
    print_summary(summary, before=True)
    print_json(arguments, summary)
    return DONE


def _quality(arguments: argparse.Namespace) -> int:
    from gazetteer.data.core.errors import InputError
    from gazetteer.labeling.quality.report import print_quality, run_quality

    if arguments.config or arguments.overrides:
        if arguments.no_accuracy and arguments.vectors != "model":
            raise InputError(
                "--config and --set say what --vectors model and the accuracy ask; with --no-accuracy leave them out."
            )
        configuration(arguments)
    result = run_quality(arguments.run, shuffle=not arguments.no_shuffle)
    print_quality(result)
    result["accuracy"] = None if arguments.no_accuracy else _accuracy(arguments)
    result |= _examiners(arguments.run)
    if arguments.vectors:
        from gazetteer.labeling.quality.dictionaries import dictionary_quality, print_dictionaries

        pipe = _pipeline_of_run(arguments) if arguments.vectors == "model" else None
        result["dictionaries"] = dictionary_quality(arguments.run, arguments.vectors, pipe)
        print_dictionaries(result["dictionaries"])
    print_json(arguments, result)
    return DONE


def _accuracy(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """How often labels are right, where the configuration is the run's and names pictures with exact masks."""
    from gazetteer.data.core.errors import InputError
    from gazetteer.data.core.sites import IMAGE
    from gazetteer.data.runs.folder import RunFolder
    from gazetteer.jobs.experiments.accuracy import accuracy
    from gazetteer.jobs.experiments.layout import check_config
    from gazetteer.labeling.quality.accuracy import print_accuracy
    from gazetteer.labeling.quality.thresholds import print_thresholds

    try:
        config = configuration(arguments)
        if not config.accuracy.truth:
            print("accuracy: not measured, for accuracy.truth names no pictures with exact masks")
            return None
        if IMAGE not in config.generation.streams:
            print("accuracy: not measured, for the run listens to words alone and pictures with masks show none")
            return None
        check_config(config, RunFolder(arguments.run))
    except InputError as error:
        if arguments.config or arguments.overrides:
            raise
        print(f"accuracy: not measured. {error}")  # its models may lie elsewhere, or it names code
        return None
    result = accuracy(config, arguments.run)
    print_accuracy(result)
    if "thresholds" in result:
        print_thresholds(result["thresholds"])
    return result


def _examiners(run: str) -> dict[str, Any]:
    """What `examine` and `causal` have left in the run."""
    from gazetteer.jobs.experiments.examine import known_examiners
    from gazetteer.jobs.label.examined import describe
    from gazetteer.labeling.quality.examiners import print_aurocs

    result = known_examiners(run)
    if result["examiners"]:
        print_aurocs(result["examiners"])
        print(f"as gazetteer examine measured: {describe(result['measured_with'])}")
    if counts := result["causal"]:
        said = (
            f"{counts[name]} {name.replace('_', ' ')}"
            for name in ("confirmed", "contradicted", "no_effect", "undecided")
        )
        print(f"causes: of {counts['labels']} labels tried {', '.join(said)}")
    return result


def _pipeline_of_run(arguments: argparse.Namespace) -> Any:
    config = configuration(arguments)
    from gazetteer.data.runs.folder import RunFolder
    from gazetteer.diffusion.load import load_pipeline
    from gazetteer.jobs.experiments.layout import check_config

    check_config(config, RunFolder(arguments.run))
    return load_pipeline(config.model)


def _compare(arguments: argparse.Namespace) -> int:
    from gazetteer.data.core.files.atomic import replace_file
    from gazetteer.labeling.quality.compare import compare_runs, print_comparison

    new_files(arguments.out)
    changes, differences = compare_runs(arguments.before, arguments.after)
    if arguments.out:
        from gazetteer.data.runs.publish import parquet_bytes

        replace_file(Path(arguments.out), parquet_bytes("changes", changes, differences))
    print_comparison(changes, differences)
    print_json(arguments, {**differences, "changes": changes.num_rows})
    return DONE


def _atlas(arguments: argparse.Namespace) -> int:
    from gazetteer.data.runs.folder import RunFolder
    from gazetteer.jobs.experiments.decoders import decoders_of
    from gazetteer.labeling.atlas import write_atlas

    out = pages_folder(arguments, "atlas")
    run = RunFolder(arguments.run)
    decoder_of = decoders_of(run, arguments.saes)
    summary = write_atlas(run, out, layouts=arguments.layouts, edits=arguments.edits, decoder_of=decoder_of)
    print(f"Open {os.path.join(out, 'index.html')} in a browser.")
    print_json(arguments, {"index": os.path.join(out, "index.html"), **vars(summary)})
    return DONE


def _examine(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    from gazetteer.jobs.experiments.examine import examine
    from gazetteer.jobs.label.examined import describe
    from gazetteer.labeling.quality.examiners import print_examined

    result = examine(config, arguments.run, arguments.fresh, arguments.replace)
    print_examined(result)
    if result["kept"]:
        kept = {measure: result["measured_with"][measure] for measure in result["kept"]}
        print(f"not measured now, kept from an earlier call: {describe(kept)}")
    print_json(arguments, result)
    return DONE


def _rate(arguments: argparse.Namespace) -> int:
    from gazetteer.data.core.errors import InputError
    from gazetteer.labeling.quality.rating import agreement, print_agreement, write_page

    if arguments.answers:
        if (arguments.out, arguments.features, arguments.seed) != (None, None, None):
            raise InputError("--answers writes no page, which --out, --features and --seed are about; leave them out.")
        result = agreement(arguments.run, arguments.answers)
        print_agreement(result)
        print_json(arguments, result)
        return DONE
    out = pages_folder(arguments, "rate")
    features = 40 if arguments.features is None else arguments.features
    count = write_page(arguments.run, out, features, arguments.seed or 0)
    page = os.path.join(out, "index.html")
    print(f"Open {page} in a browser, write what you see, save, and run gazetteer rate {arguments.run} --answers FILE.")
    print_json(arguments, {"run": arguments.run, "page": page, "features": count})
    return DONE
