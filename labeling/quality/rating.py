"""Labels against a person's own words: a page of heat maps without names, and how far the answers agree.

The page shows for each feature of the image stream (those of words have no place in a picture) the pictures in which
it fires most, dark where it is silent, and asks what lights up.
It holds no label, no vocabulary and nothing from which either could be read: a feature is known by its site and number.
The answers are saved as a file by the browser; nothing is sent anywhere.

An answer agrees when it names the label's concept, look or place, in singular or plural and however it is hyphenated; a
synonym of the run's names it too, and so do the other spelling of a word, the head of a look's name and everyday words
for a place (labeling/quality/own_words.py), for a page without names cannot tell how the label is worded. What it
denies it does not name, and one that names several labels agrees with each by its share: 1/2 of two, 1/3 of three. It
agrees strictly when it names the label by its own wording. By chance: the mean agreement when the answers are dealt out
anew to the features.
"""

from __future__ import annotations

import base64
import html
import io
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import OwnFiles
from gazetteer.data.core.files.regular import read_regular
from gazetteer.data.core.sites import IMAGE, SITE_COLUMNS, Site
from gazetteer.data.runs.folder import RunFolder, open_finished
from gazetteer.data.tables.images import decode_image
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.labeling.evidence.run_codes import site_codes
from gazetteer.labeling.evidence.site_codes import SiteCodes, rows_by_site, site_of_row
from gazetteer.labeling.quality.intervals import fraction_interval
from gazetteer.labeling.quality.own_words import OwnWords, apart, credit
from gazetteer.labeling.rules.null import seeded
from gazetteer.labeling.vocabulary.concept_index import ConceptIndex
from gazetteer.labeling.vocabulary.synonyms import read_synonyms

SHOWN = 5
"""Pictures of a feature."""

_SIDE = 160
_DEALT = 200


def write_page(run: str | Path, out: str | Path, features: int = 40, seed: int = 0) -> int:
    """Write ``index.html`` with so many labelled features, drawn at random, into a folder; how many there are.

    Features of words are left out, which is printed.

    Raises:
        InputError: the run is not finished, no feature of its image stream has a label, or another page is there.
    """
    store, folder = open_finished(run), OwnFiles(out, ["index.html"], alone=True)
    if features < 1:
        raise InputError(f"A page needs at least one feature, not {features}.")
    labels = store.read_final("labels", [*SITE_COLUMNS, "feature", "rank"]).to_pylist()
    every = [(site_of_row(row), row["feature"]) for row in labels if row["rank"] == 1]
    named = [(site, feature) for site, feature in every if site.stream == IMAGE]
    if not named:
        raise InputError(f"{store.path} has no label{' but of words' if every else ''}, so there is nothing to rate.")
    if len(named) < len(every):
        left = len(every) - len(named)
        print(f"{left} labelled features of words are left out: they have no place in a picture", file=sys.stderr)
    chosen = seeded("rate", seed).permutation(len(named))[:features]
    wanted = [named[i] for i in chosen]
    tops = _top_images(store, wanted)
    ids = sorted({image for images in tops.values() for image in images})
    pictures = _pictures(store, ids)
    codes = {site: site_codes(store, site) for site in {site for site, _ in wanted}}
    blocks = [_block(number, key, tops[key], pictures, codes[key[0]]) for number, key in enumerate(wanted, start=1)]
    about = json.dumps({"run": _run_name(store), "features": len(wanted)})
    page = _PAGE.replace("{about}", about.replace("<", "\\u003c")).replace("{blocks}", "\n".join(blocks))
    folder.write("index.html", page.encode())
    return len(wanted)


def agreement(run: str | Path, answers: str | Path) -> dict[str, Any]:
    """How far a person's answers agree with the labels.

    Args:
        answers: the file that the page saved.
    Returns:
        ``answered``, ``skipped``; ``left_out``: answers for features of words, which earlier pages showed;
        ``unlabelled``: answers for features that have no label any more, as after `gazetteer relabel`; ``agree``:
        [mean, low, high] with its 95 % bootstrap interval, all answers for labels of a concept drawn together, for who
        does not tell it from another errs on all of them; ``strict``: the same by the labels' own wording alone;
        ``by_chance``, of ``agree``; ``several``: answers that name several labels, which agree by their share;
        ``spatial``: answered and agree of things, stuff and parts alone; ``disagreements``: ``feature``, ``label``,
        ``kind`` and ``answer``.
    Raises:
        InputError: the file cannot be read, is of another run, or names no feature of it, or none that has a label.
    """
    store = RunFolder(run)
    given = _answers(answers, _run_name(store))
    store.require_finished()
    rows = store.read_final("labels", [*SITE_COLUMNS, "feature", "concept", "kind", "rank"]).to_pylist()
    labels = {f"{site_of_row(row).slug}/{row['feature']}": row for row in rows if row["rank"] == 1}
    unlabelled = set(given) - labels.keys()
    _require_features(store, unlabelled, answers)
    if given and not given.keys() - unlabelled:
        raise InputError(f"{store.path} has no label any more for any feature that {answers} answers for.")
    given = {key: text for key, text in given.items() if key not in unlabelled}
    of_words = {key for key in given if labels[key]["stream"] != IMAGE}
    given = {key: text for key, text in given.items() if key not in of_words}
    said = {key: text for key, text in sorted(given.items()) if text.strip()}
    truth = [labels[key] for key in said]
    strictly, named = _named(store, rows, list(said.values()))
    exact, agrees = _agrees(truth, strictly), _agrees(truth, named)
    spatial = np.array([row["kind"] in SPATIAL_KINDS for row in truth], bool)
    concepts_of = np.array([row["concept"] for row in truth], np.str_)
    wrong = [
        {"feature": key, "label": labels[key]["concept"], "kind": labels[key]["kind"], "answer": said[key]}
        for key, agreed in zip(said, agrees, strict=True)
        if not agreed
    ]
    return {
        "answered": len(said), "skipped": len(given) - len(said), "left_out": len(of_words),
        "unlabelled": len(unlabelled),
        "agree": fraction_interval(agrees.tolist(), concepts_of.tolist()),
        "strict": fraction_interval(exact.tolist(), concepts_of.tolist()),
        "by_chance": _by_chance(truth, named), "several": sum(len(mentions) > 1 for mentions in named),
        "spatial": {
            "answered": int(spatial.sum()),
            "agree": fraction_interval(agrees[spatial].tolist(), concepts_of[spatial].tolist()),
        },
        "disagreements": wrong,
    }  # fmt: skip


def print_agreement(result: Mapping[str, Any]) -> None:
    """The agreement as text."""
    if result["left_out"]:
        print(f"{result['left_out']} features of words are left out: they have no place in a picture")
    if result["unlabelled"]:
        print(f"{result['unlabelled']} features are left out: they have no label any more")
    if not result["answered"]:
        print("no answer to compare: every feature was skipped")
        return
    value, low, high = result["agree"]
    print(
        f"{value:.0%} [{low:.0%}, {high:.0%}] of {result['answered']} answers agree with the label, "
        f"{result['by_chance']:.0%} by chance, {result['strict'][0]:.0%} by its own wording; "
        f"{result['skipped']} skipped"
    )
    if result["several"]:
        print(f"{result['several']} of them name several labels, and agree with each by its share")
    for row in result["disagreements"][:20]:
        print(f"  {row['feature']}: {row['label']} ({row['kind']}), answered {row['answer']!r}")


def _require_features(store: RunFolder, keys: Collection[str], answers: str | Path) -> None:
    """InputError where one of the keys is no feature of the run."""
    if not keys:
        return
    table = store.read_final("features", [*SITE_COLUMNS, "feature"])
    number = table["feature"].to_numpy()
    features = {f"{site.slug}/{i}" for site, rows in rows_by_site(table).items() for i in number[rows]}
    if unknown := sorted(set(keys) - features):
        raise InputError(f"{answers} answers for {unknown[0]}, which is no feature of {store.path}.")


def _run_name(store: RunFolder) -> str:
    """By which answers know their run: its name, and a digest of what it was started with.

    Another run of that name has other pictures, or others of its features; of a run that was labelled anew both stay.
    """
    started = store.read_json("run.json")
    if not started:
        return store.path.rstrip("/").rpartition("/")[2]
    return f"{started.get('name', '')} {digest_json(started)[:12]}".strip()


def _answers(path: str | Path, run: str) -> dict[str, str]:
    try:
        content = json.loads(read_regular(Path(path)).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as the answers of a page ({error}).") from error
    given = content.get("answers") if isinstance(content, dict) else None
    if not isinstance(given, dict) or not all(isinstance(text, str) for text in given.values()):
        raise InputError(f"{path} holds no answers; accepted: what the page of gazetteer rate saves.")
    if content.get("run") != run:
        raise InputError(f"{path} answers for the run {content.get('run')!r}, not for {run!r}.")
    return given


def _named(
    store: RunFolder, rows: Sequence[Mapping[str, Any]], answers: Sequence[str]
) -> tuple[list[list[set[str]]], list[list[set[str]]]]:
    """The labels that each answer mentions by their own wording, and those that it mentions at all."""
    names = {row["concept"] for row in rows}
    asked = ((store.read_json("config.json") or {}).get("labels") or {}).get("styles") or []
    index = ConceptIndex(dict.fromkeys(sorted(names), ()))
    own = OwnWords(names, {*asked, *(row["concept"] for row in rows if row["kind"] == "style")}, read_synonyms(store))
    texts = [own.affirmed(text) for text in answers]
    strictly = [[{name} for name in sorted(index.find(text)[0])] for text in texts]
    return strictly, [apart([*named, *own.mentions(text)]) for named, text in zip(strictly, texts, strict=True)]


def _agrees(truth: Sequence[Mapping[str, Any]], named: Sequence[Sequence[set[str]]]) -> NDArray[np.float64]:
    return np.array([credit(row["concept"], mentions) for row, mentions in zip(truth, named, strict=True)], np.float64)


def _by_chance(truth: Sequence[Mapping[str, Any]], named: Sequence[Sequence[set[str]]]) -> float | None:
    if not truth:
        return None
    random = seeded("dealt")
    dealt = [random.permutation(len(named)) for _ in range(_DEALT)]
    return round(float(np.mean([_agrees(truth, [named[i] for i in order]).mean() for order in dealt])), 4)


def _top_images(store: RunFolder, wanted: Sequence[tuple[Site, int]]) -> dict[tuple[Site, int], list[str]]:
    known = set(wanted)
    tops = {}
    for row in store.read_final("features", [*SITE_COLUMNS, "feature", "top_images"]).to_pylist():
        key = (site_of_row(row), row["feature"])
        if key in known:
            tops[key] = [place["image_id"] for place in row["top_images"][:SHOWN]]
    return tops


def _pictures(store: RunFolder, ids: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
    import pyarrow.compute as pc

    table = store.read_table("images", columns=["image_id", "image"], filter=pc.field("image_id").isin(list(ids)))
    return {row["image_id"]: decode_image(row["image"]["bytes"]) for row in table.to_pylist()}


def _block(
    number: int,
    key: tuple[Site, int],
    images: Sequence[str],
    pictures: Mapping[str, NDArray[np.uint8]],
    codes: SiteCodes,
) -> str:
    """The pictures of one feature and the field for its word, as HTML."""
    site, feature = key
    peak = float(codes.value[codes.feature == feature].max(initial=0.0)) or 1.0
    shown = []
    for image in images:
        heat = np.zeros(codes.cells, np.float32)
        own = (codes.feature == feature) & (codes.image == codes.image_ids.index(image))
        heat[codes.cell[own]] = codes.value[own] / peak
        shown.append(_lit(pictures[image], heat.reshape(codes.height, codes.width)))
    name = html.escape(f"{site.slug}/{feature}", quote=True)
    tags = "".join(f'<img alt="" src="data:image/png;base64,{picture}">' for picture in shown)
    return f'<section><h2>{number}</h2><p class="row">{tags}</p><input data-key="{name}" autocomplete="off"></section>'


def _lit(picture: NDArray[np.uint8], heat: NDArray[np.float32]) -> str:
    """The picture, dark and grey where the map is silent, as base64 of a PNG."""
    small = np.asarray(Image.fromarray(picture).resize((_SIDE, _SIDE)), np.float32)
    light = np.asarray(Image.fromarray(heat).resize((_SIDE, _SIDE), Image.Resampling.NEAREST))[..., None]
    strength = np.where(light > 0, 0.35 + 0.65 * light, 0.0)
    mixed = strength * small + (1 - strength) * 0.22 * small.mean(axis=2, keepdims=True)
    target = io.BytesIO()
    Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(target, "PNG")
    return base64.b64encode(target.getvalue()).decode()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>What lights up?</title>
<style>
body { font: 16px/1.45 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #bbb; padding: 0.8rem 0; } h2 { font-size: 1rem; margin: 0; }
.row { display: flex; flex-wrap: wrap; gap: 6px; margin: 0.4rem 0; } img { width: 160px; height: 160px; }
input { font: inherit; width: 100%; max-width: 30rem; padding: 0.3rem; } button { font: inherit; padding: 0.4rem 1rem; }
</style></head><body>
<h1>What lights up?</h1>
<p>Each row shows one feature in the pictures where it is strongest: bright where it fires, dark where it is silent.
Write in your own word or words what it stands for: a thing, a part of it, a look of the whole picture, or a place in
the frame. Leave a row empty when you cannot tell. Nothing is sent; the button saves a file.</p>
{blocks}
<p><button id="save">Save answers</button> <span id="count"></span></p>
<script>
const about = {about};
const fields = [...document.querySelectorAll("input[data-key]")];
const count = () => { document.getElementById("count").textContent =
  fields.filter((f) => f.value.trim()).length + " of " + fields.length + " answered"; };
fields.forEach((field) => field.addEventListener("input", count));
count();
document.getElementById("save").addEventListener("click", () => {
  const answers = Object.fromEntries(fields.map((field) => [field.dataset.key, field.value]));
  const file = new Blob([JSON.stringify({ run: about.run, answers }, null, 1)], { type: "application/json" });
  const href = URL.createObjectURL(file);
  const link = Object.assign(document.createElement("a"), { href, download: "answers.json" });
  link.click();
  URL.revokeObjectURL(link.href);
});
</script></body></html>
"""
