"""A feature as a notebook shows it: its pictures, where it fires in them, and where the thing of its name is."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import IMAGE, SITE_COLUMNS, TEXT, Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.images import decode_image
from gazetteer.data.tables.masks import struct_to_mask
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.labeling.evidence.site_codes import SiteCodes, codes_by_site, site_of_row
from gazetteer.labeling.tables import Run, load_features, load_labels

SIDE = 168
"""Pixels of the longer side of a picture."""
STOPS = np.array([[104, 44, 168], [178, 44, 128], [232, 92, 56], [250, 178, 60], [255, 246, 190]], float)
"""Of a heat map from weak to strong, as in the atlas."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Plate:
    """One picture of a feature: uint8 [height, width, 3] each.

    Attributes:
        picture, heat, mask: as drawn; over it where the feature fires; over it where the thing of its name is.
        peak: its largest activation here.
        found: whether the thing of its name is in the picture; None for a feature whose name, if any, is no thing.
    """

    picture: Pixels
    heat: Pixels
    mask: Pixels
    prompt: str
    seed: int
    peak: float
    found: bool | None


@dataclass(frozen=True, eq=False)
class FeatureCard:
    """One feature with its labels, best first (rows of labels.parquet), and its strongest pictures.

    Notebooks draw it; `save` writes it as a page that needs no other file.
    """

    site: Site
    feature: int
    row: Mapping[str, Any]
    labels: tuple[Mapping[str, Any], ...]
    plates: tuple[Plate, ...]

    @property
    def name(self) -> str:
        """The concept of its best label, or ``unnamed``."""
        return str(self.labels[0]["concept"]) if self.labels else "unnamed"

    def __repr__(self) -> str:
        return f"{self.name}, feature {self.feature} of {self.site.slug}, in {len(self.plates)} pictures"

    def save(self, path: str | Path) -> None:
        """Write the card as an HTML page."""
        head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(repr(self))}</title>'
        Path(path).write_text(f"{head}<body>{self._repr_html_()}</body></html>", encoding="utf-8")

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        figures = "".join(_plate(plate, self.name) for plate in self.plates)
        return (
            f'<div style="font:14px/1.45 Georgia,serif;max-width:72rem">'
            f'<div style="font:12px sans-serif;opacity:.7">{escape(self.site.slug)} · no. {self.feature}</div>'
            f'<div style="font-size:28px;line-height:1.2">{escape(self.name)}</div>'
            f'<p style="max-width:44rem;margin:.4em 0 1em">{escape(self._sentence())}</p>'
            f'<div style="display:flex;flex-wrap:wrap;gap:18px">{figures}</div></div>'
        )

    def _sentence(self) -> str:
        if self.row["dead"]:
            return "It never fired in this run's pictures."
        fires = f"It fires in {self.row['density']:.1%} of all cells, in {self.row['images']} pictures."
        if not self.labels:
            return f"No name is given: nothing that was looked for earned one. {fires}"
        best = self.labels[0]
        held = best["heldout_dataset_iou"]
        also = ", ".join(str(label["concept"]) for label in self.labels[1:])
        if best["kind"] not in SPATIAL_KINDS:
            return (
                f"A {best['kind']}: “{best['concept']}” explains {_number(best['explained'])} of its activation, "
                f"held out {_number(best['heldout_explained'])}. {fires}{f' Also: {also}.' if also else ''}"
            )
        return (
            f"Overlap (IoU) with “{best['concept']}” {best['dataset_iou']:.2f}, by chance {_number(best['null_iou'])}, "
            f"held out {_number(held)}; q {_number(best['q_value'], 2)}. {fires}{f' Also: {also}.' if also else ''}"
        )


def show(
    run: Run, feature: int | str | Mapping[str, Any], *, block: str | None = None, stream: str | None = None,
    signal: str | None = None, branch: str | None = None, t: float | None = None, top: int = 6,
) -> FeatureCard:  # fmt: skip
    """A feature of a finished run, for a notebook to draw: pictures, heat maps, masks.

    Args:
        feature: its number, with as much of `block`, `stream`, `signal`, `branch` and `t` as tells it from others; or a
            concept, for the feature that overlaps with it most above chance; or a row of a run's tables as a mapping.
            Where no `stream` is said, features of words are passed over, which lie nowhere in a picture.
        top: pictures at most.

    Raises:
        InputError: not a finished run, no such feature or concept, or several.
    """
    store = run if isinstance(run, RunFolder) else RunFolder(run)
    where = {"block": block, "stream": stream, "signal": signal, "branch": branch, "t": t}
    if isinstance(feature, str):
        row = _best_of(store, feature, where)
    elif isinstance(feature, Mapping):
        row = _row(store, int(feature["feature"]), {name: feature[name] for name in SITE_COLUMNS if name in feature})
    else:
        row = _row(store, feature, where)
    site, number = site_of_row(row), int(row["feature"])
    labels = load_labels(store, block=site.block, branch=site.branch, t=site.t, feature=number).to_pylist()
    labels = sorted((label for label in labels if site_of_row(label) == site), key=lambda label: label["rank"])
    places = row["top_images"][:top]
    return FeatureCard(site, number, row, tuple(labels), _plates(store, site, number, places, labels))


def _row(run: RunFolder, feature: int, where: Mapping[str, Any]) -> dict[str, Any]:
    rows = _pictured(load_features(run, feature=feature, **where), where).to_pylist()
    if not rows:
        raise InputError(f"{run.path} has no feature {feature} at {_said(where)}.")
    if len(rows) > 1:
        sites = ", ".join(site_of_row(row).slug for row in rows[:4]) + (", …" if len(rows) > 4 else "")
        *telling, last = (name for name in SITE_COLUMNS if len({row[name] for row in rows}) > 1)
        said = f"{', '.join(telling)} and {last}" if telling else last
        raise InputError(f"There are {len(rows)} features {feature} ({sites}); say {said}.")
    return dict(rows[0])


def _best_of(run: RunFolder, concept: str, where: Mapping[str, Any]) -> dict[str, Any]:
    labels = _pictured(load_labels(run, concept=concept, **where), where)
    if not labels.num_rows:
        raise InputError(f"No feature of {run.path} is labelled {concept!r} at {_said(where)}.")
    above = pc.subtract(labels["dataset_iou"], labels["null_iou"]).to_numpy()
    if np.isnan(above).all():  # looks and places have no overlap
        above = labels["explained"].to_numpy()
    best = labels.slice(int(np.nanargmax(above)), 1).to_pylist()[0]
    site = site_of_row(best)
    return _row(run, int(best["feature"]), site.columns())


def _pictured(rows: pa.Table, where: Mapping[str, Any]) -> pa.Table:
    """Those of the image stream, where there are some and nobody said which is meant."""
    if where.get("stream") is not None:
        return rows
    pictured = rows.filter(pc.equal(rows["stream"], IMAGE))
    return pictured if pictured.num_rows else rows


def _said(where: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in where.items() if value is not None) or "any site"


def _plates(
    run: RunFolder, site: Site, feature: int, places: list[dict[str, Any]], labels: list[dict[str, Any]]
) -> tuple[Plate, ...]:
    if site.stream == TEXT:
        raise InputError(f"{site.slug} listens to words, which lie nowhere in a picture; gazetteer atlas shows them.")
    ids = [place["image_id"] for place in places]
    if not ids:
        return ()
    among = pc.field("image_id").isin(ids)
    images = {row["image_id"]: row for row in run.read_table("images", filter=among).to_pylist()}
    wanted = among
    for name in SITE_COLUMNS[:-1]:
        wanted = wanted & (pc.field(name) == getattr(site, name))
    codes = codes_by_site(run.read_table("codes", filter=wanted))[site]
    concept = labels[0]["concept"] if labels and labels[0]["kind"] not in ("style", "place") else None
    segments = (
        []
        if concept is None
        else run.read_table("segments", filter=among & (pc.field("concept") == concept)).to_pylist()
    )
    strongest = max(place["value"] for place in places)
    plates = []
    for place in places:
        image = images.get(place["image_id"])
        if image is None:
            continue
        picture = _small(decode_image(image["image"]["bytes"]))
        masks = [struct_to_mask(segment["mask"]) for segment in segments if segment["image_id"] == place["image_id"]]
        plates.append(
            Plate(
                picture, heat_over(picture, heat_of(codes, place["image_id"], feature), strongest),
                outline_over(picture, masks), image["prompt"], image["seed"], place["value"],
                None if concept is None else bool(masks),
            )
        )  # fmt: skip
    return tuple(plates)


def heat_of(codes: SiteCodes, image_id: str, feature: int) -> NDArray[np.float32]:
    """The activation map of a feature in a picture: float32 [height, width]."""
    image = codes.image_ids.index(image_id)
    slots = (codes.image == image) & (codes.feature == feature)
    heat = np.zeros(codes.cells, np.float32)
    heat[codes.cell[slots]] = codes.value[slots]
    return heat.reshape(codes.height, codes.width)


def heat_over(picture: Pixels, heat: NDArray[np.float32], strongest: float) -> Pixels:
    """The picture, dim and grey, with a map over it from violet to yellow; silent cells are left free."""
    height, width = picture.shape[:2]
    rows = np.minimum(np.arange(height) * heat.shape[0] // height, heat.shape[0] - 1)
    columns = np.minimum(np.arange(width) * heat.shape[1] // width, heat.shape[1] - 1)
    level = np.clip(heat[rows][:, columns] / max(strongest, 1e-9), 0.0, 1.0)
    colour = np.stack([np.interp(level, np.linspace(0, 1, len(STOPS)), STOPS[:, c]) for c in range(3)], axis=2)
    alpha = np.where(level > 0, 0.65 + 0.35 * level, 0.0)[:, :, None]
    dim = picture.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.5
    return (dim * (1 - alpha) + colour * alpha).round().astype(np.uint8)


def outline_over(picture: Pixels, masks: list[NDArray[np.bool_]]) -> Pixels:
    """The picture, a little faded, with the outlines of the masks in pale yellow on black."""
    out = (picture.mean(axis=2, keepdims=True) * 0.45 + picture * 0.55) * 0.8
    height, width = picture.shape[:2]
    for mask in masks:
        small = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
        line = small & ~binary_erosion(small, iterations=2, border_value=0)
        out[binary_dilation(line) & ~line] = 0
        out[line] = (255, 243, 176)
    return out.round().astype(np.uint8)


def _small(pixels: Pixels) -> Pixels:
    """The picture with its longer side at `SIDE`."""
    picture = Image.fromarray(pixels)
    fraction = SIDE / max(picture.size)
    size = (max(1, round(picture.width * fraction)), max(1, round(picture.height * fraction)))
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS))


def _plate(plate: Plate, name: str) -> str:
    panels = [("picture", plate.picture), ("where it fires", plate.heat)]
    if plate.found is not None:
        panels.append((f"where “{name}” is" if plate.found else f"no “{name}” found", plate.mask))
    cells = "".join(
        f'<div><img alt="{escape(title)}" src="{_source(pixels)}" style="display:block;margin:0">'
        f'<div style="font:11px sans-serif;opacity:.7">{escape(title)}</div></div>'
        for title, pixels in panels
    )
    about = f"peak {plate.peak:.3g} · seed {plate.seed}"
    caption = f'<i>“{escape(plate.prompt)}”</i> <span style="font:11px sans-serif;opacity:.7">{about}</span>'
    width = sum(pixels.shape[1] for _, pixels in panels) + 4 * (len(panels) - 1)
    return f'<div style="max-width:{width}px"><div style="display:flex;gap:4px">{cells}</div>{caption}</div>'


def _source(pixels: Pixels) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _number(value: float | None, digits: int = 2) -> str:
    return "unknown" if value is None else f"{value:.{digits}g}" if abs(value) < 0.01 else f"{value:.{digits}f}"
