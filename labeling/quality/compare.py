"""Which features' labels changed between two runs, and what that did to the concepts."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.core.terminal import print_table
from gazetteer.data.runs.folder import open_finished
from gazetteer.data.tables.schemas import LABELS, SPATIAL_KINDS
from gazetteer.labeling.evidence.site_codes import site_of_row, site_order

CHANGES = pa.schema(
    [
        *(LABELS.field(name) for name in SITE_COLUMNS),
        pa.field("feature", pa.int32(), nullable=False),
        pa.field("change", pa.string(), nullable=False),
        pa.field("before", pa.string()),
        pa.field("after", pa.string()),
        pa.field("iou_before", pa.float64()),
        pa.field("iou_after", pa.float64()),
    ]
)
"""A row per feature whose best label differs: ``changed``, ``gained`` or ``lost``; IoU is `heldout_dataset_iou`."""

Key = tuple[Site, int]
_LONGEST = 60  # letters of a setting that are shown


def compare_runs(before: str | os.PathLike[str], after: str | os.PathLike[str]) -> tuple[pa.Table, dict[str, Any]]:
    """The best label of every feature of every site that both runs have.

    Feature numbers mean the same in both only if the autoencoders are the same, or one was trained on from the other;
    the counts of concepts mean something in any case.

    Returns:
        the changes (CHANGES; by site, then feature), and ``sites``: per site ``features`` that both have, and how many
        are ``same``, ``changed``, ``gained``, ``lost``, or ``unlabelled`` in both; ``concepts``: features of these
        sites best labelled with it ``before`` and ``after``; ``same_saes``; ``only_before`` and ``only_after``: sites
        of one run alone; ``settings``: those that differ and may change labels, each with its values
        ``before`` and ``after``.

    Raises:
        InputError: a run that is not finished.
    """
    first, second = _Side(before), _Side(after)
    rows, sites = [], []
    common = first.features.keys() & second.features.keys()
    for site in sorted(common, key=site_order):
        counts: Counter[str] = Counter()
        for feature in sorted(first.features[site] & second.features[site]):
            old, new = first.best.get((site, feature)), second.best.get((site, feature))
            change = _change(old and old[0], new and new[0])
            counts[change] += 1
            if change in ("changed", "gained", "lost"):
                rows.append(_row(site, feature, change, old, new))
        named = {kind: counts[kind] for kind in ("same", "changed", "gained", "lost", "unlabelled")}
        sites.append({"site": site.slug, "features": sum(counts.values()), **named})
    old_counts, new_counts = first.concepts(common), second.concepts(common)
    return pa.Table.from_pylist(rows, schema=CHANGES), {
        "before": os.fspath(before),
        "after": os.fspath(after),
        "same_saes": first.saes is not None and first.saes == second.saes,
        "sites": sites,
        "concepts": [
            {"concept": concept, "before": old_counts[concept], "after": new_counts[concept]}
            for concept in sorted(old_counts.keys() | new_counts.keys())
        ],
        "only_before": [site.slug for site in sorted(first.features.keys() - second.features.keys(), key=site_order)],
        "only_after": [site.slug for site in sorted(second.features.keys() - first.features.keys(), key=site_order)],
        "settings": {
            name: {"before": first.settings.get(name), "after": second.settings.get(name)}
            for name in sorted(first.settings.keys() | second.settings.keys())
            if name != "saes" and first.settings.get(name) != second.settings.get(name)
        },
    }


def print_comparison(changes: pa.Table, differences: dict[str, Any], most: int = 20) -> None:
    """The comparison as text, with up to `most` of the changes."""
    for line in _caveats(differences):
        print(line)
    names = ("features", "same", "changed", "gained", "lost")
    print_table(
        {"site": "", **dict.fromkeys(names, "d")},
        ([row["site"], *(row[name] for name in names)] for row in differences["sites"]),
    )
    if changes.num_rows:
        print()
    print_table(
        {"site": "", "feature": "d", "before": "", "after": ""},
        (
            (site_of_row(row).slug, row["feature"], row["before"] or "nothing", row["after"] or "nothing")
            for row in changes.slice(0, most).to_pylist()
        ),
    )
    if changes.num_rows > most:
        print(f"and {changes.num_rows - most} more")
    moved = [c for c in differences["concepts"] if c["before"] != c["after"]]
    print("concepts: " + (", ".join(f"{c['concept']} {c['before']} -> {c['after']}" for c in moved) or "as before"))


def _caveats(differences: dict[str, Any]) -> list[str]:
    """What has to be known before any of the counts is read."""
    said = []
    if not differences["same_saes"]:
        said.append(
            "The autoencoders differ: a feature's number is the same feature only if one was trained on from the other."
        )
    if differences["settings"]:
        pairs = (
            f"{name} {_said(of['before'])} -> {_said(of['after'])}" for name, of in differences["settings"].items()
        )
        said.append(f"Made with other settings, which change labels too: {'; '.join(pairs)}.")
    for side in ("before", "after"):
        sites = differences[f"only_{side}"]
        if sites:
            said.append(
                f"Left out, as only {differences[side]} has {'it' if len(sites) == 1 else 'them'}: {', '.join(sites)}."
            )
    if not differences["sites"]:
        said.append("The runs have no site in common: there is nothing to compare.")
    return said


def _said(value: Any) -> str:
    """A setting as YAML has it; models are recorded by their digests, of which the beginning is enough."""
    text = "nothing" if value in (None, "") else json.dumps(value, ensure_ascii=False).strip('"')
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


class _Side:
    """One run: the features of each site, and the best label of those that have one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        store = open_finished(path)
        self.features: dict[Site, set[int]] = {}
        self.best: dict[Key, tuple[str, float | None]] = {}
        columns = [*SITE_COLUMNS, "feature"]
        for row in store.read_final("features", columns).to_pylist():
            site = site_of_row(row)
            self.features.setdefault(site, set()).add(row["feature"])
        wanted = [*columns, "concept", "kind", "rank", "heldout_dataset_iou"]
        for row in store.read_final("labels", wanted).to_pylist():
            if row["rank"] == 1:
                key = site_of_row(row), row["feature"]
                # A region goes by its concept alone; what says nothing of where it is says so in its name.
                spatial = row["kind"] in SPATIAL_KINDS
                name = row["concept"] if spatial else f"{row['concept']} ({row['kind']})"
                self.best[key] = name, row["heldout_dataset_iou"]
        self.settings = store.of_tables()
        self.saes = self.settings.get("saes")

    def concepts(self, sites: Collection[Site]) -> Counter[str]:
        """Features of some sites best labelled with each concept."""
        return Counter(concept for (site, _), (concept, _) in self.best.items() if site in sites)


def _change(old: str | None, new: str | None) -> str:
    if old == new:
        return "unlabelled" if old is None else "same"
    return "gained" if old is None else "lost" if new is None else "changed"


def _row(
    site: Site, feature: int, change: str, old: tuple[str, float | None] | None, new: tuple[str, float | None] | None
) -> dict[str, Any]:
    before, iou_before = old or (None, None)
    after, iou_after = new or (None, None)
    return {
        **site.columns(), "feature": feature, "change": change,
        "before": before, "after": after, "iou_before": iou_before, "iou_after": iou_after,
    }  # fmt: skip
