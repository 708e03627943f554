"""`gazetteer examine`: what measures that chose no label say of every label, side by side in examiners.parquet."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import IMAGE, Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.classifier import load_classifier
from gazetteer.data.runs.folder import RunFolder, open_finished
from gazetteer.data.tables.images import decode_image
from gazetteer.data.tables.provenance import provenance
from gazetteer.data.tables.schemas import EXAMINERS
from gazetteer.jobs.config.fingerprint import portable_config
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.experiments.accuracy import judged_exactly, truth_pictures
from gazetteer.jobs.experiments.layout import check_config, load_saes
from gazetteer.jobs.label.beside import labels_of, still_of
from gazetteer.jobs.label.card import write_card
from gazetteer.jobs.label.examined import RECORD, Before, digest_of, recorded, settings_of
from gazetteer.labeling.evidence.concept_maps import read_concepts
from gazetteer.labeling.evidence.run_codes import all_codes, picture_grids
from gazetteer.labeling.evidence.site_codes import SiteCodes, rows_by_site, same_site
from gazetteer.labeling.interventions.causal_table import summarise
from gazetteer.labeling.layout.live import stack_codes
from gazetteer.labeling.quality.accuracy import COLUMNS
from gazetteer.labeling.quality.examiners import KEYS, examined, label_aurocs
from gazetteer.labeling.quality.retrieval import retrieval
from gazetteer.labeling.vocabulary.meant import stands_for
from gazetteer.labeling.vocabulary.synonyms import read_synonyms

TEMPLATE = "a picture of {}"
_BATCH = 8


def examine(config: RunConfig, run: str, fresh: int = 6, replace: bool = False) -> dict[str, Any]:
    """Examine the best label of every feature of a finished run and write RUN/examiners.parquet, last of all.

    What this call does not measure stays as an earlier one measured it.

    Args:
        fresh: pictures made of every name; 0 makes none.
        replace: also measure with fewer pictures than an earlier call did, or others.
    Returns:
        ``run``, ``table``, ``labels``; ``examiners``: how well each predicts exact truth, where `accuracy.truth` names
        it (`quality.examiners.examined`); ``measured_with``: by measure its settings, and ``kept``: those measures that
        are an earlier call's; ``retrieval``: per site saev's measures (`quality.retrieval`); ``seconds``.
    Raises:
        InputError: the run is not finished, its labels became others meanwhile, the configuration is not the run's, or
            the table would be measured with less than the one that is there.
        LockedError: another process holds the run.
    """
    begun = time.monotonic()
    if fresh < 0:
        raise InputError(f"--fresh must be at least 0, not {fresh}.")
    use_threads(config.threads)
    store = open_finished(run)
    now = labels_of(store)
    labels = store.read_final("labels", [*COLUMNS, "heldout_dataset_iou", "heldout_explained"])
    check_config(config, store)
    labels = labels.filter(pa.compute.equal(labels["rank"], 1))
    rows = labels.to_pylist()
    by_site = rows_by_site(labels)
    needed = (*KEYS, "heldout_dataset_iou", "heldout_explained")
    before, asked = Before.of(store, rows), settings_of(config, fresh)
    if not replace:
        before.refuse_less(store, asked)
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in needed}
    seen = _witnessed(config, store, {row["concept"] for row in rows})
    columns["witness_auroc"], columns["witness_images"] = _heard(rows, by_site, all_codes(store), seen)
    columns["fresh_auroc"], columns["fresh_images"] = _heard(rows, by_site, *_fresh(config, rows, fresh))
    columns["causal_verdict"], areas = _causal(store, rows)
    columns |= _truth(config, store, labels)
    kept = before.kept(asked)
    columns |= before.columns(kept)
    table = pa.table({name: pa.array(columns[name], EXAMINERS.field(name).type) for name in EXAMINERS.names}, EXAMINERS)
    result = {"examiners": examined(table, areas), "retrieval": _retrieval(store)}
    about = {**provenance(now[0], portable_config(config)), RECORD: {**kept, **asked}}
    with still_of(store, now, "examiners"):
        if digest_of(store) != before.digest:
            raise InputError(f"Another call wrote {store.path}/examiners.parquet meanwhile, which stays; run it again.")
        written = store.write_final("examiners", table, about)
        write_card(store)
    return {
        "run": run, "table": f"{store.path.rstrip('/')}/examiners.parquet", "labels": written["rows"], **result,
        "measured_with": about[RECORD], "kept": sorted(kept), "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip


def known_examiners(run: str) -> dict[str, Any]:
    """What a run's own tables say of its labels: ``examiners`` (`quality.examiners.examined`) and ``causal`` counts.

    ``measured_with``: the settings of the examiners. Each is None where its table is not there. Verdicts are those of
    the causal table as it is now, which may be newer than the examiners'.
    """
    store = open_finished(run)
    aside: dict[str, Any] = {"examiners": None, "measured_with": None, "causal": None}
    if store.has_final("examiners"):
        table = store.read_final("examiners")
        verdicts, areas = _causal(store, table.select(list(KEYS)).to_pylist())
        at, field = table.schema.get_field_index("causal_verdict"), EXAMINERS.field("causal_verdict")
        aside["examiners"] = examined(table.set_column(at, field, pa.array(verdicts, pa.string())), areas)
        aside["measured_with"] = recorded(store)
    if store.has_final("causal"):
        aside["causal"] = summarise(store.read_final("causal"))
    return aside


def _heard(
    rows: Sequence[Mapping[str, Any]],
    by_site: Mapping[Site, NDArray[np.int64]],
    codes: Iterable[tuple[Site, SiteCodes]],
    positive: Mapping[str, dict[str, bool]],
) -> tuple[list[float | None], list[int]]:
    """AUROC of every label over pictures, and how many of them are positive for its name.

    positive: by picture, what it is taken to show; names that no picture's answer holds have no AUROC.
    """
    aurocs: list[float | None] = [None] * len(rows)
    counts = [0] * len(rows)
    known = {name for answer in positive.values() for name in answer}
    for site, site_codes in codes:
        chosen = by_site.get(site)
        if chosen is None or not known:
            continue
        known_images = [i for i, name in enumerate(site_codes.image_ids) if name in positive]
        part = [rows[i] for i in chosen]
        told = {
            name: np.array([positive[site_codes.image_ids[i]].get(name, False) for i in known_images], bool)
            for name in known
        }
        for i, value in zip(
            chosen, label_aurocs(part, site_codes, told, np.array(known_images, np.int64)), strict=True
        ):
            aurocs[i] = None if np.isnan(value) else float(value)
            counts[i] = int(told[rows[i]["concept"]].sum()) if rows[i]["concept"] in told else 0
    return aurocs, counts


def _witnessed(config: RunConfig, store: RunFolder, names: Collection[str]) -> dict[str, dict[str, bool]]:
    """What the classifiers that the configuration names see in each held-out picture, by picture.

    names: of labels, by which what a classifier calls otherwise written is called.
    """
    looks = "labels.style_classifier" if config.labels.style_classifier else "steer.classifier"
    wanted = {
        "attribute.classifier": config.attribute.classifier,
        looks: config.labels.style_classifier or config.steer.classifier,
    }
    judges = [load_classifier(name, (), key) for key, name in wanted.items() if name]
    if not judges:
        return {}
    called = stands_for({str(label) for judge in judges for label in judge.labels}, names, read_synonyms(store))
    images = store.read_table("images", columns=["image_id", "split", "image"])
    rows = images.filter(pa.compute.equal(images["split"], "heldout")).to_pylist()
    seen: dict[str, dict[str, bool]] = {row["image_id"]: {} for row in rows}
    for judge in judges:
        pictures = (decode_image(row["image"]["bytes"]) for row in rows)
        for row, odds in zip(rows, judge.of_each(pictures), strict=True):
            seen_here: dict[str, bool] = {}
            for label, value in zip(judge.labels, odds, strict=True):
                name = called[str(label)]
                seen_here[name] = bool(value >= 0.5) or seen_here.get(name, False)
            seen[row["image_id"]] |= seen_here
    return seen


def _fresh(
    config: RunConfig, rows: Sequence[Mapping[str, Any]], fresh: int
) -> tuple[list[tuple[Site, SiteCodes]], dict[str, dict[str, bool]]]:
    """Codes of new pictures of every name that a label has (places have none), and which name each was made from."""
    names = sorted({row["concept"] for row in rows if row["kind"] != "place"})
    if not fresh or not names:
        return [], {}
    from gazetteer.diffusion.generate import Generator
    from gazetteer.diffusion.load import load_pipeline

    saes = load_saes(config)
    generator = Generator(load_pipeline(config.model), config.generation)
    told = [(f"{name}-{number:04d}", TEMPLATE.format(name), name, number) for name in names for number in range(fresh)]
    maps: dict[Site, list[Any]] = {}
    for start in range(0, len(told), _BATCH):
        batch = told[start : start + _BATCH]
        # Seeds of their own: no picture of the run was drawn from noise so numbered.
        codes = generator.codes([row[1] for row in batch], [2**40 + row[3] for row in batch], saes)
        for code in codes:
            for site, code_map in code.items():
                maps.setdefault(same_site(site), []).append(code_map)
        print(f"examine: {min(start + _BATCH, len(told))} of {len(told)} fresh pictures", file=sys.stderr, flush=True)
    ids = [row[0] for row in told]
    positive = {row[0]: {name: name == row[2] for name in names} for row in told}
    return [(site, stack_codes(site, ids, code_maps)) for site, code_maps in maps.items()], positive


def _causal(store: RunFolder, rows: Sequence[Mapping[str, Any]]) -> tuple[list[str | None], list[float | None]]:
    """Of every label that was tried its causal verdict and the rise of its area; None of the others."""
    if not store.has_final("causal"):
        return [None] * len(rows), [None] * len(rows)
    names = KEYS[:-1]
    tried = store.read_final("causal", [*names, "causal_verdict", "causal_area"]).to_pylist()
    table = {tuple(row[name] for name in names): row for row in tried}
    measured = [table.get(tuple(row[name] for name in names), {}) for row in rows]
    return [row.get("causal_verdict") for row in measured], [row.get("causal_area") for row in measured]


def _truth(config: RunConfig, store: RunFolder, labels: pa.Table) -> dict[str, list[Any]]:
    """Whether each label is right, where exact truth is known: None of labels of what no exact picture shows."""
    names = ("right", "truth_explained", "truth_other")
    if not config.accuracy.truth:
        return {name: [None] * labels.num_rows for name in names}
    truths = judged_exactly(config, store, labels, truth_pictures(config))
    keyed = {tuple(row[name] for name in KEYS): row for row in truths.to_pylist()}
    rows = [keyed.get(tuple(row[name] for name in KEYS), {}) for row in labels.select(list(KEYS)).to_pylist()]
    return {name: [row.get(name) for row in rows] for name in names}


def _retrieval(store: RunFolder) -> list[dict[str, Any]]:
    images = store.read_table("images", columns=["image_id", "split", "width", "height", "asked"])
    maps = read_concepts(images, store.read_table("segments"), set(picture_grids(store).values()))
    return [{"site": site.slug, **retrieval(codes, maps)} for site, codes in all_codes(store) if site.stream == IMAGE]
