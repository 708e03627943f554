"""`gazetteer sae`: train sparse autoencoders, and report on a set of them."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from typing import Any

from gazetteer.data.core.terminal import print_table
from gazetteer.jobs.cli.arguments import DONE, configuration, configured, machine
from gazetteer.jobs.cli.output import print_json


def add_sae(verbs: Any) -> None:
    """Add the verb and its verbs."""
    sae = verbs.add_parser("sae", help="sparse autoencoders")
    sae_verbs = sae.add_subparsers(dest="sae_verb", required=True, metavar="VERB")
    train = sae_verbs.add_parser("train", help="capture activations and train one autoencoder per site")
    configured(train)
    train.add_argument("--out", required=True, metavar="FOLDER", help="receives activations/ and saes/")
    train.add_argument(
        "--stream", dest="overrides", action="append_const", const="sae.stream=true",
        help="train all sites while the pictures are sampled, with no activations on disk",
    )  # fmt: skip
    train.set_defaults(action=_train, resumes=True)
    threshold = sae_verbs.add_parser(
        "threshold", help="give BatchTopK autoencoders whose files have no threshold one, as copies"
    )
    configured(threshold)
    threshold.add_argument("--out", required=True, metavar="FOLDER", help="receives one folder a site; new or empty")
    threshold.add_argument("--pictures", type=int, help="pictures it is estimated on (default: 4)")
    threshold.add_argument("--threshold", type=float, help="use this one instead, for every site")
    threshold.set_defaults(action=_threshold)
    report = sae_verbs.add_parser("report", help="write a set's tables and page again, and print its metrics")
    report.add_argument("--saes", required=True, metavar="FOLDER", help="a folder with one autoencoder per site")
    report.add_argument("--out", metavar="FOLDER", help="where the tables and the page go (default: the same folder)")
    machine(report)
    report.set_defaults(action=_report)
    export = sae_verbs.add_parser("export", help="write autoencoders in another project's layout")
    export.add_argument("sae", metavar="SAE", help="an autoencoder's folder, file or hub id, or a folder of sites")
    export.add_argument("--layout", required=True, help="sae-lens or sdxl-unbox")
    export.add_argument("--to", required=True, metavar="FOLDER", help="where to write; must be new or empty")
    machine(export)
    export.set_defaults(action=_export)


def _train(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    from gazetteer.jobs.sae.train import train_site_saes

    rows = train_site_saes(config, arguments.out)
    print_table(
        {"site": "", "explained variance": ".3f", "scaled MSE": ".3f", "dead": ".1%"},
        ((row["site"], row["explained_variance"], row["scaled_mse"], row["dead_share"]) for row in rows),
    )
    saes = os.path.join(arguments.out, "saes")
    page = os.path.join(saes, "index.html")
    print(f"{len(rows)} autoencoders in {saes}; open {page} in a browser. To label with them: --set saes={saes}")
    print_json(arguments, {"sites": rows, "saes": saes, "report": page})
    return DONE


def _threshold(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    from gazetteer.jobs.sae.threshold import add_thresholds, with_copies

    rows = add_thresholds(config, arguments.out, arguments.pictures, arguments.threshold)
    print_table(
        {"site": "", "threshold": ".4g", "features a vector": ".2f"},
        ((row["site"], row["threshold"], row["l0"]) for row in rows),
    )
    if any(row["l0"] is None for row in rows):
        print("features a vector: not measured, which takes two or more --pictures, and an estimate")
    else:
        print("features a vector: on pictures that were left out of the estimate in turn")
    saes = with_copies(config, arguments.out)
    setting = f"saes={saes}" if isinstance(saes, str) else shlex.quote(f"saes={json.dumps(saes)}")
    print(f"{len(rows)} autoencoders in {arguments.out}. To label with them: --set {setting}")
    print_json(arguments, {"sites": rows, "saes": saes})
    return DONE


def _report(arguments: argparse.Namespace) -> int:
    from gazetteer.sae.report.report import table_one, write_report

    out = arguments.out or arguments.saes
    metrics = write_report(arguments.saes, out)
    headings, rows = table_one(metrics)
    print("scaled MSE / explained variance in percent")
    print_table({**dict.fromkeys(headings[:2], ""), **dict.fromkeys(headings[2:], ">")}, rows)
    print(f"Open {os.path.join(out, 'index.html')} in a browser.")
    print_json(arguments, {"sites": metrics.to_pylist(), "report": os.path.join(out, "index.html")})
    return DONE


def _export(arguments: argparse.Namespace) -> int:
    from gazetteer.sae.model.export import export

    folders = export(arguments.sae, arguments.to, arguments.layout)
    many = "an autoencoder" if len(folders) == 1 else f"{len(folders)} autoencoders"
    print(f"{many} written to {arguments.to} in the layout of {arguments.layout}")
    print_json(arguments, {"layout": arguments.layout, "folders": [str(folder) for folder in folders]})
    return DONE
