"""Runs for others: `publish`, and `export` in the formats of other tools."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, OF_RUN, configuration, configured, machine, of_run
from gazetteer.jobs.cli.output import new_files, print_json


def add_exchange(verbs: Any) -> None:
    """Add the verbs."""
    publish = verbs.add_parser("publish", help="publish a finished run to a folder or to the Hugging Face hub")
    of_run(publish, "a finished run folder or URL")
    publish.add_argument("--to", required=True, metavar="FOLDER|hf:OWNER/NAME", help="an empty goal, or an earlier one")
    publish.add_argument(
        "--saes", metavar="FOLDER",
        help="the autoencoders of the run, published beside the tables (default: those of the configuration, if they "
        "are the run's)",
    )  # fmt: skip
    publish.add_argument("--title", default="", help="of the card")
    publish.add_argument("--license", default="", metavar="ID", help="as the hub names it: mit, cc-by-4.0, …")
    publish.add_argument("--public", action="store_true", help="make new repositories public (default: private)")
    configured(publish, OF_RUN)
    publish.set_defaults(action=_publish)

    export = verbs.add_parser("export", help="write a run as COCO JSON, a PASCAL VOC folder, Label Studio tasks or CSV")
    of_run(export, "a finished run folder or URL")
    export.add_argument("--coco", metavar="FILE", help="COCO JSON; pictures go into images/ beside it")
    export.add_argument("--voc", metavar="FOLDER", help="a new folder as PASCAL VOC lays it out")
    export.add_argument("--labelstudio", metavar="FILE", help="tasks with masks to correct; the interface beside it")
    export.add_argument("--csv", metavar="FILE", help="the scalar columns of a table")
    export.add_argument(
        "--table", metavar="NAME", help="of --csv: labels (default), features, candidates, images or segments"
    )
    export.add_argument("--no-pictures", action="store_true", help="of --coco: the JSON alone")
    machine(export)
    export.set_defaults(action=_export)


def _publish(arguments: argparse.Namespace) -> int:
    from gazetteer.data.core.errors import InputError
    from gazetteer.jobs.publish.run import print_published, publish

    if arguments.public and not arguments.to.startswith("hf:"):
        raise InputError(f"--public is about repositories of the hub, and --to {arguments.to} is none; leave it out.")
    report = publish(
        arguments.run, arguments.to, saes=arguments.saes or _of_config(arguments), title=arguments.title,
        license=arguments.license, public=arguments.public,
    )  # fmt: skip
    print_published(report)
    print_json(arguments, report)
    return DONE


def _of_config(arguments: argparse.Namespace) -> str | None:
    """The configuration's autoencoders, if they are a folder here and the run was labelled with them.

    Raises:
        InputError: they are not, of a configuration that was named.
    """
    from gazetteer.data.core.errors import InputError
    from gazetteer.data.runs.folder import RunFolder
    from gazetteer.sae.model.digests import as_recorded

    named = bool(arguments.config or arguments.overrides)
    try:
        saes = configuration(arguments).saes
    except InputError:  # of the run's own, which may name code or be of an older version
        if named:
            raise
        return None
    run = RunFolder(arguments.run).read_json("run.json") or {}
    folder, *others = [saes] if isinstance(saes, str) else sorted(set(saes.values())) or [""]
    if folder and not others and Path(folder).is_dir() and as_recorded(folder, run.get("saes")) is not None:
        return folder
    if named:
        raise InputError(
            f"The configuration's saes are no folder of the autoencoders that {arguments.run} was labelled with, and "
            "nothing else of it is published; leave --config and --set out."
        )
    return None


def _export(arguments: argparse.Namespace) -> int:
    from gazetteer.data.core.errors import InputError
    from gazetteer.data.runs.folder import open_finished
    from gazetteer.data.storage.place import warn_of_columns
    from gazetteer.labeling.export.coco import export_coco
    from gazetteer.labeling.export.csv import export_csv
    from gazetteer.labeling.export.labelstudio import export_labelstudio
    from gazetteer.labeling.export.voc import export_voc

    if not (arguments.coco or arguments.voc or arguments.labelstudio or arguments.csv):
        raise InputError("Say what to write: --coco FILE, --voc FOLDER, --labelstudio FILE or --csv FILE.")
    if arguments.no_pictures and not arguments.coco:
        raise InputError("--no-pictures is for --coco alone; name its file, or leave --no-pictures out.")
    if arguments.table is not None and not arguments.csv:
        raise InputError("--table says which table --csv writes; name its file, or leave --table out.")
    run, written = open_finished(arguments.run), []
    new_files(arguments.coco, arguments.labelstudio, arguments.csv)  # before any of them is written
    for place in filter(None, (arguments.coco, arguments.voc, arguments.labelstudio, arguments.csv)):
        warn_of_columns(str(Path(place)))
    if arguments.coco:
        written.append(export_coco(run, arguments.coco, pictures=not arguments.no_pictures))
    if arguments.voc:
        written.append(export_voc(run, arguments.voc))
    if arguments.labelstudio:
        written.append(export_labelstudio(run, arguments.labelstudio))
    if arguments.csv:
        written.append(export_csv(run, arguments.csv, arguments.table or "labels"))
    for path in written:
        where = next(iter(path.values()))
        rest = {key: value for key, value in path.items() if isinstance(value, int) and "ignored" not in key}
        print(f"{where}: {', '.join(f'{value} {name}' for name, value in rest.items())}")
        if path.get("overlapping"):
            print(f"  a pixel has one class there: {path['overlapping']} pixels of segments lie below smaller ones")
        if count := path.get("with_ignored"):
            print(f"  what is to be ignored, in {count} pictures, is written in whole cells of the codes")
        if count := path.get("ignored_left_out"):
            print(f"  left out: what is to be ignored, in {count} pictures; --coco and --voc keep it")
        if path.get("left_out"):
            print(f"  left out, as they are no scalars: {', '.join(path['left_out'])}")
    print_json(arguments, {"run": arguments.run, "written": written})
    return DONE
