"""What became of the autoencoders of a set: ``metrics.parquet``, ``history.parquet`` and a page with curves."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import LIST, OwnFiles
from gazetteer.data.core.sites import SITE_COLUMNS, Port, Site
from gazetteer.sae.model.files import read_config
from gazetteer.sae.report.page import HEAD, render

KEYS = [(name, pa.float64() if name == "t" else pa.string()) for name in SITE_COLUMNS]
NUMBERS = (
    "explained_variance",
    "explained_total_variance",
    "scaled_mse",
    "cosine",
    "l0",
    "dead_share",
    "loss_recovered",
    "loss_recovered_mean",
    "noise_error",
    "noise_error_sae",
    "noise_error_zero",
    "noise_error_mean",
)
METRICS = pa.schema(
    [
        *KEYS,
        *((name, pa.int64()) for name in ("d", "n", "k", "steps", "vectors", "noise_pictures")),
        *((name, pa.float64()) for name in NUMBERS),
        ("density", pa.list_(pa.int64())),
    ]
)
NAMES = ("metrics.parquet", "history.parquet", "index.html")
"""What a report writes."""
CURVES = ("loss", "mse", "auxk", "dead", "lr")
HISTORY = pa.schema([*KEYS, ("step", pa.int64()), *((name, pa.float64()) for name in CURVES)])


def site_configs(root: Path | str) -> dict[Site, dict[str, Any]]:
    """The ``config.json`` of every finished autoencoder in ``ROOT/<site.slug>/``, sorted by site.

    Raises:
        InputError: there is none, or two of one site.
    """
    configs, folders = {}, dict[Site, str]()
    for folder in sorted(Path(root).iterdir()) if Path(root).is_dir() else ():
        if not (folder / "config.json").is_file():
            continue
        config = read_config(folder)
        if config.get("site"):
            try:
                site = Site(**config["site"])
            except (TypeError, ValueError) as error:
                raise InputError(f"{folder}/config.json names no site: {error}.") from error
            if site in configs:
                raise InputError(f"{folders[site]} and {folder.name} of {root} are both of one site, {site.slug}.")
            configs[site], folders[site] = config, folder.name
    if not configs:
        raise InputError(f"{root} holds no finished SAE that names its site.")
    return dict(sorted(configs.items()))


def metrics_table(configs: dict[Site, dict[str, Any]]) -> pa.Table:
    """One row a site: its shape, its steps and its `Metrics` on held-out vectors (null where not measured)."""
    rows = []
    for site, config in configs.items():
        outcome = (config.get("training") or {}).get("outcome") or {}
        row = _keys(site) | {name: config[name] for name in ("d", "n", "k")} | {"steps": outcome.get("steps")}
        rows.append(row | (config.get("metrics") or {}))
    return pa.Table.from_pylist(rows, schema=METRICS)


def history_table(configs: dict[Site, dict[str, Any]]) -> pa.Table:
    """One row a site and logged step: loss, scaled MSE, AuxK, dead features, learning rate."""
    rows = []
    for site, config in configs.items():
        outcome = (config.get("training") or {}).get("outcome") or {}
        rows += [_keys(site) | entry for entry in outcome.get("history") or []]
    return pa.Table.from_pylist(rows, schema=HISTORY)


def report_files(folder: Path) -> OwnFiles:
    """What a report writes into a folder; a report from before such files were listed is known by its page.

    Raises:
        InputError: the folder holds files of these names that are somebody else's, or were changed since.
    """
    page = folder / "index.html"
    ours = not (folder / LIST).exists() and page.is_file() and page.read_bytes().startswith(HEAD.encode())
    return OwnFiles(folder, NAMES, ours=ours)


def write_report(root: Path | str, out: Path | str | None = None) -> pa.Table:
    """Write the two tables and ``index.html`` into `out` (default: `root`), each atomically; returns the metrics.

    Raises:
        InputError: no finished autoencoder there, or such files of somebody else's where the report goes.
        GazetteerError: no space, or no permission.
    """
    configs, out = site_configs(root), Path(out or root)
    own = report_files(out)
    try:
        metrics, history = metrics_table(configs), history_table(configs)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"A config.json of {root} holds metrics or a history that are none: {error}.") from error
    written = {"index.html": render(metrics.to_pylist(), history.to_pylist()).encode()}
    for name, table in (("metrics", metrics), ("history", history)):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        written[f"{name}.parquet"] = buffer.getvalue()
    for name in NAMES:
        own.write(name, written[name])
    return metrics


def table_one(metrics: pa.Table) -> tuple[list[str], list[list[str]]]:
    """Headings and rows in the shape of the paper's Table 1: scaled MSE / explained variance in percent.

    One row a branch and block, one column a t, first step first.
    """
    rows = metrics.to_pylist()
    moments = sorted({row["t"] for row in rows}, reverse=True)
    by_place = {(*_place(row), row["t"]): row for row in rows}
    return ["branch", "block", *(f"t = {t:.2f}" for t in moments)], [
        [branch, block, *(_table_cell(by_place.get((branch, block, t))) for t in moments)]
        for branch, block in sorted({_place(row) for row in rows})
    ]


def _place(row: dict[str, Any]) -> tuple[str, str]:
    """Branch and port of a row, as the table names them."""
    return row["branch"], str(Port(row["block"], row["stream"], row["signal"]))


def _table_cell(row: dict[str, Any] | None) -> str:
    if row is None or row["scaled_mse"] is None or row["explained_variance"] is None:
        return "–"
    return f"{row['scaled_mse']:.4f} / {100 * row['explained_variance']:.1f}"


def _keys(site: Site) -> dict[str, Any]:
    return site.columns()
