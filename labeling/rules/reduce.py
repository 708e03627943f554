"""From the tables of all shards to the tables a reader wants: candidates, labels, features."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import TEXT, Site
from gazetteer.data.tables.schemas import CANDIDATES, FEATURES
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, image_places, read_concepts
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.prompt_words import read_words
from gazetteer.labeling.evidence.site_codes import SiteCodes, rows_by_site, same_site, site_order
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.features import make_features
from gazetteer.labeling.rules.kinds.beyond import Beyond, beyond_tests, join_beyond, place_rows, style_rows
from gazetteer.labeling.rules.kinds.decide import Rivals, candidates_of, columns_of, decide
from gazetteer.labeling.rules.kinds.explained import WORD, explain
from gazetteer.labeling.rules.kinds.styles import read_looks
from gazetteer.labeling.rules.labels import labels_of, make_pairs
from gazetteer.labeling.rules.meetings import meetings
from gazetteer.labeling.rules.significance import PairTests, join_tests, pair_tests, significance
from gazetteer.labeling.rules.top_quantile import with_top_quantile


def columns_for(config: LabelConfig, words: bool = False) -> list[str]:
    """The columns of the images table that labels are made from: no pixels unless a classifier looks at them.

    words: whether a site listens to the text stream.
    """
    looks = ["image"] if config.styles and config.style_classifier else []
    return ["image_id", "prompt", "split", "width", "height", "asked", *(["words"] if words else ()), *looks]


@dataclass(frozen=True)
class Tests:
    """What permutations say of a site, or of some of its features: against concepts, and against looks and places."""

    pairs: PairTests
    beyond: Beyond


@dataclass(frozen=True)
class Verdicts:
    """The same with the false discovery rates, which need every feature of the site.

    Attributes:
        nulls: `labels.NULLS`.
    """

    nulls: pa.Table
    beyond: Beyond

    def among(self, low: int, high: int) -> Verdicts:
        """Of the features from `low` to `high` alone."""
        feature = self.nulls["feature"].to_numpy()
        return Verdicts(self.nulls.filter(pa.array((feature >= low) & (feature < high))), self.beyond.among(low, high))


def site_tests(codes: SiteCodes, maps: ConceptMaps, looks: NDArray[np.bool_], config: LabelConfig) -> Tests:
    """The permutations of a site, or of some of its features (`SiteCodes.among`): most of the work, and the same
    however the features are shared out."""
    return Tests(pair_tests(codes, maps, config), beyond_tests(codes, maps, looks, config))


def join_verdicts(site: Site, parts: Sequence[Tests], concepts: Sequence[str], config: LabelConfig) -> Verdicts:
    """The verdicts of a site from the tests of its features in ascending stretches."""
    pairs = join_tests([part.pairs for part in parts])
    nulls = significance(site, pairs, concepts, config)
    return Verdicts(nulls, join_beyond([part.beyond for part in parts]))


def site_candidates(
    codes: SiteCodes,
    maps: ConceptMaps,
    looks: NDArray[np.bool_],
    evidence: pa.Table,
    model: str,
    config: LabelConfig = LabelConfig(),
    verdicts: Verdicts | None = None,
) -> pa.Table:
    """Everything that the features of one site may be called, with the evidence and the verdict.

    Args:
        codes: the site's codes, or those of some of its features.
        maps: the concepts' maps at the grid of `codes`.
        looks: bool [I, S], which of `config.styles` each picture of `maps` has.
        evidence: the site's summed evidence of these features; its maps are not looked at.
        model: name of the model under study.
        config: thresholds and sampling.
        verdicts: on these features; None where `codes` are the whole site's, which is then tested.
    Returns:
        schemas.CANDIDATES, ordered by feature, rank (nulls last), concept.
    """
    if verdicts is None:
        verdicts = join_verdicts(codes.site, [site_tests(codes, maps, looks, config)], maps.concepts, config)
    pairs = make_pairs(evidence, verdicts.nulls, model, meetings(codes, maps))
    pairs = with_top_quantile(pairs, codes.judged(), maps, config.top_shares)
    explained = explain(codes, maps, config.styles, looks)
    if not len(explained.features):
        return CANDIDATES.empty_table()
    held = explain(codes, maps, config.styles, looks, "heldout")
    regions = columns_of(pairs)
    spoken = codes.site.stream == TEXT
    others = [style_rows(explained, verdicts.beyond, config)]
    if not spoken:
        others.append(place_rows(explained, verdicts.beyond, (codes.height, codes.width), config))
    other = {name: np.concatenate([rows[name] for rows in others]) for name in ("feature", "concept", "kind", "passes")}
    decided = decide(regions, other, Rivals.of(explained, WORD if spoken else "thing"), held, config)
    for rows in (regions, *others):
        count = len(rows["feature"])
        rows |= {name: np.full(count, value) for name, value in codes.site.columns().items()}
        rows |= {"model": np.full(count, model), "top_share": rows.get("top_share", np.ones(count))}
        rows["paper_label"] = rows.get("paper_label", np.zeros(count, np.bool_))
    return candidates_of([regions, *others], decided)


def reduce_site(
    site: Site,
    codes: SiteCodes,
    maps: ConceptMaps,
    looks: NDArray[np.bool_],
    evidence: pa.Table,
    count: int,
    model: str,
    config: LabelConfig = LabelConfig(),
    images_wanted: int = 0,
    verdicts: Verdicts | None = None,
) -> tuple[pa.Table, pa.Table]:
    """The candidates and features of one site; sites know nothing of one another, so any number may be done at once.

    With `verdicts` it may be some of the site's features: of `features` the rows of the others are then of dead ones.

    Args:
        codes: the site's codes.
        maps: the concepts' maps at the grid of `codes`, of every image of the run; of a text stream those of words
            (`prompt_words.read_words`).
        looks: which of `config.styles` each of these images has (`styles.read_looks`).
        evidence: the summed evidence of the site (schemas.EVIDENCE).
        count: features of its autoencoder.
        model, config, images_wanted: see `reduce_tables`.
    Returns:
        schemas.CANDIDATES and schemas.FEATURES.
    Raises:
        InputError: tables that contradict each other.
    """
    candidates = site_candidates(codes, maps, looks, evidence, model, config, verdicts)
    cells = int(maps.sizes_in_cells(codes.cells)[image_places(codes, maps)].sum())
    return candidates, make_features(site, codes, candidates, count, model, images_wanted, cells)


def join_sites(
    tables: Mapping[Site, tuple[pa.Table, pa.Table]],
    feature_counts: Mapping[Site, int],
    model: str,
    images_wanted: int = 0,
) -> dict[str, pa.Table]:
    """The final tables from those of every site; a site without codes has dead features only.

    Args:
        tables: per site what `reduce_site` returned.
        feature_counts: features of each site's autoencoder.
    """
    none = CANDIDATES.empty_table()
    whole = dict(tables)
    for site, count in feature_counts.items():
        if site not in whole:
            whole[site] = none, make_features(site, None, none, count, model, images_wanted)
    order = sorted(whole, key=site_order)
    candidates = pa.concat_tables([none, *(whole[site][0] for site in order)]).combine_chunks()
    features = pa.concat_tables([FEATURES.empty_table(), *(whole[site][1] for site in order)]).combine_chunks()
    return {"labels": labels_of(candidates), "candidates": candidates, "features": features}


def known_sites(feature_counts: Mapping[Site, int]) -> dict[Site, int]:
    """The same counts by the sites as they read back from tables."""
    return {same_site(site): int(count) for site, count in feature_counts.items()}


def require_known(site: Site, sizes: Mapping[Site, int]) -> int:
    """Features of the autoencoder of `site`; InputError when none was named."""
    if site not in sizes:
        raise InputError(f"Codes exist at {site.slug}, for which no autoencoder was named.")
    return sizes[site]


def reduce_tables(
    images: pa.Table,
    codes: Iterable[tuple[Site, SiteCodes]],
    grids: Collection[Grid],
    segments: pa.Table,
    evidence: pa.Table,
    feature_counts: Mapping[Site, int],
    model: str,
    config: LabelConfig = LabelConfig(),
    images_wanted: int = 0,
    given: bool = False,
) -> dict[str, pa.Table]:
    """The final tables of a run; one site's codes are looked at after the other.

    Args:
        images, segments: the run's tables (schemas.IMAGES, SEGMENTS), rows in any order; `image` is read where a
            classifier tells the looks.
        codes: the sites, each once, with their codes (`run_codes.all_codes`).
        grids: (height, width) of every grid of `codes`.
        evidence: the sum of the shards' evidence.
        feature_counts: features of each site's autoencoder.
        model: name of the model under study.
        config: trust thresholds and sampling of the null.
        images_wanted: images a feature should fire in (0: no wish).
        given: the pictures were given, each of them a witness of its own; else those of one prompt are one for a test.
    Returns:
        {"labels": ..., "candidates": ..., "features": ...} as schemas.FINAL_TABLES; a function of the run's
        content only, not of shards or row order.
    Raises:
        InputError: tables that contradict each other, or a corrupt mask.
    """
    maps = read_concepts(images, segments, grids, by_prompt=not given)
    words: dict[Grid, ConceptMaps] = {}
    looks = read_looks(images, config.styles, config.style_classifier)
    rows = rows_by_site(evidence)
    sizes = known_sites(feature_counts)
    tables: dict[Site, tuple[pa.Table, pa.Table]] = {}
    for site, own in codes:
        count = require_known(site, sizes)
        own_evidence = evidence.take(pa.array(rows.pop(site, np.zeros(0, np.int64))))
        own_maps = maps
        if site.stream == TEXT:
            grid = (1, own.width)
            own_maps = words[grid] = words.get(grid) or read_words(images, own.width)
        tables[site] = reduce_site(site, own, own_maps, looks, own_evidence, count, model, config, images_wanted)
    if rows:
        raise InputError(f"Evidence exists at {next(iter(rows)).slug}, where no picture has codes.")
    return join_sites(tables, sizes, model, images_wanted)
