"""`gazetteer export`: a run's pictures, segments and tables in the formats of other tools."""

from __future__ import annotations

import argparse
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, machine, of_run
from gazetteer.jobs.cli.output import print_json


def add_export(verbs: Any) -> None:
    """Add the verb."""
    export = verbs.add_parser("export", help="write a run as COCO JSON, a PASCAL VOC folder, Label Studio tasks or CSV")
    of_run(export, "a finished run folder or URL")
    export.add_argument("--coco", metavar="FILE", help="COCO JSON; pictures go into images/ beside it")
    export.add_argument("--voc", metavar="FOLDER", help="a new folder as PASCAL VOC lays it out")
    export.add_argument("--labelstudio", metavar="FILE", help="tasks with masks to correct; the interface beside it")
    export.add_argument("--csv", metavar="FILE", help="the scalar columns of a table")
    export.add_argument("--table", default="labels", help="of --csv: labels, features, candidates, images or segments")
    export.add_argument("--no-pictures", action="store_true", help="of --coco: the JSON alone")
    machine(export)
    export.set_defaults(action=_export)


def _export(arguments: argparse.Namespace) -> int:
    from gazetteer.data.core.errors import InputError
    from gazetteer.data.runs.folder import RunFolder
    from gazetteer.labeling.export.coco import export_coco
    from gazetteer.labeling.export.csv import export_csv
    from gazetteer.labeling.export.labelstudio import export_labelstudio
    from gazetteer.labeling.export.voc import export_voc

    if not (arguments.coco or arguments.voc or arguments.labelstudio or arguments.csv):
        raise InputError("Say what to write: --coco FILE, --voc FOLDER, --labelstudio FILE or --csv FILE.")
    run, written = RunFolder(arguments.run), []
    if arguments.coco:
        written.append(export_coco(run, arguments.coco, pictures=not arguments.no_pictures))
    if arguments.voc:
        written.append(export_voc(run, arguments.voc))
    if arguments.labelstudio:
        written.append(export_labelstudio(run, arguments.labelstudio))
    if arguments.csv:
        written.append(export_csv(run, arguments.csv, arguments.table))
    for one in written:
        where, rest = next(iter(one.items()))[1], {k: v for k, v in one.items() if isinstance(v, int)}
        print(f"{where}: {', '.join(f'{value} {name}' for name, value in rest.items())}")
        if one.get("overlapping"):
            print(f"  a pixel has one class there: {one['overlapping']} pixels of segments lie below smaller ones")
        if one.get("left_out"):
            print(f"  left out, as they are no scalars: {', '.join(one['left_out'])}")
    print_json(arguments, {"run": arguments.run, "written": written})
    return DONE
