"""How good a run's labels are: held-out IoU beside what the grid allows, and the shuffled control."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.importing import is_ours
from gazetteer.data.core.sites import SITE_COLUMNS, Port, Site
from gazetteer.data.core.terminal import print_table
from gazetteer.data.inputs.given.config import given_setting
from gazetteer.data.runs.folder import RunFolder, open_finished
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.labeling.evidence.config import EvidenceConfig
from gazetteer.labeling.evidence.run_codes import picture_grids
from gazetteer.labeling.evidence.site_codes import site_of_row, site_order
from gazetteer.labeling.quality.ceiling import grid_ceiling
from gazetteer.labeling.quality.kinds import label_kinds
from gazetteer.labeling.quality.shuffle_check import shuffled_label_counts
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.reduce import columns_for

Heldout = Mapping[tuple[Site, str], float | None]
C = TypeVar("C", EvidenceConfig, LabelConfig)


def run_quality(run: str | Path, *, shuffle: bool = True) -> dict[str, Any]:
    """Measure the labels of a finished run, by the thresholds that it was made with.

    For every concept and site the feature with the highest *discovery* data-set IoU is chosen and its *held-out*
    data-set IoU reported, so nothing is measured on the pictures it was chosen by: once the best above each pair's own
    threshold (labeling/rules/top_quantile.py), which discovery pictures fixed as well, once the best over the support.
    `ceiling` is the best IoU that any choice of whole cells of the site's grid could reach on the run's own masks,
    averaged over concepts.

    Returns:
        ``sites``: per site, over all concepts of the run, ``mean_heldout_iou`` (above the threshold), the
        ``mean_discovery_iou`` that it was chosen by, ``mean_heldout_support_iou`` and the ``ceiling``, None where no
        segment was found;
        ``concepts``: per concept the number of features it is the best label of, held-out IoU by site, and that of the
        site with the highest discovery IoU, ``best_heldout_iou``;
        in both a concept that no feature goes with has 0, and a feature that no held-out picture could measure has
        None, which no mean counts;
        ``best_block_by_t``: per t the block (cond) with the highest discovery mean;
        ``kinds``: features by the kind of their best label;
        ``shuffled``: labels that pass as found, and with every concept moved to other pictures
        (`shuffle_check.shuffled_label_counts`), where the run listens to an image stream; ``unheard``: the run's own
        ``labels.style_classifier`` where it is code of somebody's, so that prompts said the looks in both.

    Raises:
        InputError: the run is not finished, or holds no picture.
    """
    store = open_finished(run)
    candidates = store.read_final("candidates")
    labels, unheard = _heard(labels_of(store))
    images = store.read_table("images", columns=columns_for(labels))
    if not images.num_rows:
        raise InputError(f"{store.path} holds no picture, so there is nothing to measure; failures/ says why.")
    segments = store.read_table("segments")
    grids = {_key(site): grid for site, grid in picture_grids(store).items()}
    ceilings = _ceilings(images, segments, grids)
    concepts = sorted({concept for concept, _ in ceilings})
    best, learnt = _best_heldout(candidates, "top_iou")
    support, _ = _best_heldout(candidates, "dataset_iou")
    sites = [
        {
            **site.columns(),
            "mean_heldout_iou": _mean(_measured(best, [(site, concept) for concept in concepts])),
            "mean_discovery_iou": _mean([max(learnt.get((site, concept), 0.0), 0.0) for concept in concepts]),
            "mean_heldout_support_iou": _mean(_measured(support, [(site, concept) for concept in concepts])),
            "ceiling": _mean([ceilings[concept, grid] for concept in concepts]),
        }
        for site, grid in sorted(grids.items(), key=lambda item: site_order(item[0]))
    ]
    result: dict[str, Any] = {
        "kinds": label_kinds(candidates),
        "sites": sites,
        "best_block_by_t": _best_blocks(sites),
        "concepts": _concepts(candidates, concepts, best, learnt, list(grids)),
    }
    if shuffle:
        codes = store.read_table("codes").filter(pc.field("stream") == "image")
        if codes.num_rows:
            result["shuffled"] = {**_shuffled(store, images, codes, segments, labels), **unheard}
    return result


def labels_of(store: RunFolder) -> LabelConfig:
    """The settings of labels that a run's tables follow from, ``style_classifier`` without the digest of its source."""
    recorded = _settings_of(store, "labels", LabelConfig)
    return replace(recorded, style_classifier=recorded.style_classifier.partition(" ")[0])


def _heard(labels: LabelConfig) -> tuple[LabelConfig, dict[str, str]]:
    """The settings without a classifier that is not ours, which a run folder may not make us execute, and its name."""
    classifier = labels.style_classifier
    if not classifier or is_ours(classifier):
        return labels, {}
    return replace(labels, style_classifier=""), {"unheard": classifier}


def _shuffled(
    store: RunFolder, images: pa.Table, codes: pa.Table, segments: pa.Table, labels: LabelConfig
) -> dict[str, int]:
    """`shuffled_label_counts` by the run's own settings, of the image stream: words lie in prompts, not in segments."""
    features = store.read_final("features", list(SITE_COLUMNS)).filter(pc.field("stream") == "image")
    return shuffled_label_counts(
        images,
        codes,
        segments,
        _feature_counts(features),
        base=_asked_everywhere(images),
        evidence_config=_settings_of(store, "evidence", EvidenceConfig),
        label_config=labels,
        given=bool(given_setting(store.read_json("run.json") or {})),
    )


def print_quality(result: Mapping[str, Any]) -> None:
    """The measurements as text."""
    print("held-out data-set IoU of the best feature per concept, mean over concepts: above the feature's threshold,")
    print("over its support, and the most that the grid allows")
    print_table(
        {"block": "", "branch": "", "t": ".2f", "IoU": ".3f", "support": ".3f", "ceiling": ".3f"},
        (
            (Port(site["block"], site["stream"], site["signal"]), site["branch"], site["t"],
             site["mean_heldout_iou"], site["mean_heldout_support_iou"], site["ceiling"])
            for site in result["sites"]
        ),
    )  # fmt: skip
    for t, best in result["best_block_by_t"].items():
        port = Port(best["block"], best["stream"], best["signal"])
        print(f"  best at t={t}: {port} {best['mean_heldout_iou']:.3f}")
    print("\nfeatures by the kind of their best label: " + ", ".join(f"{n} {k}" for k, n in result["kinds"].items()))
    print("\nfeatures labelled best with a concept, and the best held-out IoU at any site")
    print_table(
        {"concept": "", "features": "d", "IoU": ".3f"},
        ((row["concept"], row["features"], row["best_heldout_iou"]) for row in result["concepts"]),
    )
    if "shuffled" in result:
        counts = result["shuffled"]
        print(
            f"\nlabels that pass: trust rule {counts['trusted']}, {counts['trusted_shuffled']} with concepts shuffled; "
            f"its q-value alone {counts['q']}, {counts['q_shuffled']} shuffled; "
            f"published rule {counts['paper']}, {counts['paper_shuffled']} shuffled"
        )
        if unheard := counts.get("unheard"):
            print(f"  in both the prompts' words say the looks, for {unheard} is code of the run and was not executed")


def _settings_of(store: RunFolder, group: str, kind: type[C]) -> C:
    """A group of settings as the run recorded it, defaults for what it did not know yet."""
    recorded: Mapping[str, Any] = store.of_tables()
    known = {f"{group}.{field.name}": field.name for field in fields(kind)}
    return kind(**{name: recorded[key] for key, name in known.items() if key in recorded})


def _best_heldout(candidates: pa.Table, iou: str) -> tuple[Heldout, Mapping[tuple[Site, str], float]]:
    """(site, concept) -> held-out IoU of the feature with the highest discovery IoU, and that one; of the column `iou`.

    None: of that feature's concept no held-out picture says anything.
    """
    chosen: dict[tuple[Site, str], tuple[float, float | None]] = {}
    columns = [*SITE_COLUMNS, "concept", iou, f"heldout_{iou}"]
    named = candidates.filter(~pc.field("kind").isin(["style", "place"]))  # which may be called as a concept is
    for row in named.select(columns).to_pylist():
        key = (_key(site_of_row(row)), row["concept"])
        ious = (-1.0 if row[iou] is None else row[iou], row[f"heldout_{iou}"])
        if key not in chosen or ious[0] > chosen[key][0]:
            chosen[key] = ious
    return {key: heldout for key, (_, heldout) in chosen.items()}, {key: iou for key, (iou, _) in chosen.items()}


def _measured(heldout: Heldout, pairs: Iterable[tuple[Site, str]]) -> list[float]:
    """The held-out IoUs that are known; 0 where no feature goes with a concept."""
    return [iou for pair in pairs if (iou := heldout.get(pair, 0.0)) is not None]


def _ceilings(
    images: pa.Table, segments: pa.Table, grids: Mapping[Site, tuple[int, int]]
) -> dict[tuple[str, tuple[int, int]], float]:
    rows = grid_ceiling(images, segments, set(grids.values())).to_pylist()
    return {(r["concept"], (r["height"], r["width"])): r["best_iou"] for r in rows if r["best_iou"] is not None}


def _best_blocks(sites: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    best: dict[str, dict[str, Any]] = {}
    for site in sites:
        t = f"{site['t']:.2f}"
        mean = site["mean_discovery_iou"]
        measured = site["branch"] == "cond" and site["mean_heldout_iou"] is not None and mean is not None
        if measured and (t not in best or mean > best[t]["mean_discovery_iou"]):
            best[t] = site
    return best


def _concepts(
    candidates: pa.Table, concepts: list[str], best: Heldout, learnt: Mapping[tuple[Site, str], float],
    sites: list[Site],
) -> list[dict[str, Any]]:  # fmt: skip
    ranked = candidates.select(["concept", "kind", "rank"]).to_pylist()
    firsts = [row["concept"] for row in ranked if row["rank"] == 1 and row["kind"] in SPATIAL_KINDS]
    return [
        {
            "concept": concept,
            "features": firsts.count(concept),
            "best_heldout_iou": best.get((max(sites, key=lambda s: learnt.get((s, concept), -2.0)), concept), 0.0),
            "by_site": {
                _name(site): None if (iou := best.get((site, concept), 0.0)) is None else round(iou, 4)
                for site in sorted(sites)
            },
        }
        for concept in concepts
    ]


def _key(site: Site) -> Site:
    """Of a site as tables of any precision name it."""
    return site.at(round(site.t, 4))


def _name(site: Site) -> str:
    return f"{site.port}/{site.branch}/{site.t}"


def _feature_counts(features: pa.Table) -> dict[Site, int]:
    counts = features.group_by(list(SITE_COLUMNS)).aggregate([([], "count_all")]).to_pylist()
    return {_key(site_of_row(row)): row["count_all"] for row in counts}


def _asked_everywhere(images: pa.Table) -> tuple[str, ...]:
    asked = [set(row) for row in images["asked"].to_pylist()]
    return tuple(sorted(set.intersection(*asked))) if asked else ()


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
