"""Examiners of labels: AUROC and retrieval by hand, what they say of truth, and the verb that asks them all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.provenance import provenance
from gazetteer.data.tables.schemas import CAUSAL, EXAMINERS, IMAGES
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments.examine import _witnessed, known_examiners
from gazetteer.jobs.label.examined import Before, recorded
from gazetteer.labeling.evidence.concept_maps import ConceptMaps
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.quality.examiners import KEYS, auroc, examined, label_aurocs, picture_scores, print_aurocs
from gazetteer.labeling.quality.retrieval import average_precisions, retrieval, top_purity
from tests.support.runs.runs import blank

SITE = Site("mid", "cond", 0.5)


def codes_of(values: np.ndarray) -> SiteCodes:
    """Of float [N, F, 4] on a 2 x 2 grid."""
    image, feature, cell = (part.astype(np.int32) for part in np.nonzero(values))
    ids = tuple(f"i{n}" for n in range(len(values)))
    return SiteCodes(SITE, ids, 2, 2, image, feature, cell, values[image, feature, cell].astype(np.float32))


def maps_of(masks: np.ndarray, splits: list[str]) -> ConceptMaps:
    """Of pixels int [N, C, 4], cells of 4 pixels."""
    of, which = np.nonzero(masks.any(axis=2))
    names = tuple(f"c{n}" for n in range(masks.shape[1]))
    return ConceptMaps(
        tuple(f"i{n}" for n in range(len(masks))), names, np.array(splits), np.full((len(masks), 2), 4),
        np.ones(masks.shape[:2], np.bool_), of, which, {(2, 2): masks[of, which].astype(np.int32)},
    )  # fmt: skip


def test_auroc_by_hand() -> None:
    assert auroc(np.array([3.0, 1, 2, 1]), np.array([True, False, True, True])) == pytest.approx(2.5 / 3)
    assert np.isnan(auroc(np.ones(3), np.ones(3, bool)))


def test_a_feature_is_scored_by_its_activation_in_the_whole_picture() -> None:
    values = np.zeros((3, 6, 4))
    values[0, 5], values[1, 2, 1], values[2, 2, 0] = [1, 0, 2, 0], 4, 1
    codes = codes_of(values)
    assert picture_scores(codes, np.array([5, 2])).tolist() == [[3, 0], [0, 4], [0, 1]]
    labels = [{"feature": 2, "concept": "dog"}, {"feature": 5, "concept": "cat"}, {"feature": 5, "concept": "cow"}]
    positive = {"dog": np.array([True, False]), "cat": np.array([True, False])}
    found = label_aurocs(labels, codes, positive, np.array([1, 0]))
    assert found[:2].tolist() == [1.0, 0.0]  # picture 1 first, then picture 0
    assert np.isnan(found[2])


class Spotter:
    """A classifier that calls the concepts its own way."""

    labels = ("Dogs", "hound", "cow")

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        bright = pictures.mean(axis=(1, 2, 3)) > 100
        return np.stack([0.9 * bright, 0.1 + 0 * bright, 0.6 + 0 * bright], axis=1)


def test_a_witness_may_call_concepts_its_own_way(tmp_path: Path) -> None:
    rows = [
        {"image_id": name, "prompt": "", "seed": 0, "split": "heldout", "width": 4, "height": 4, "asked": [],
         "image": {"bytes": encode_image(np.full((4, 4, 3), shade, np.uint8)), "path": None}}
        for name, shade in (("a", 0), ("b", 200))
    ]  # fmt: skip
    store = SimpleNamespace(
        read_table=lambda *_, **__: pa.Table.from_pylist(rows, schema=IMAGES), read_json=lambda _: {"dog": ["hound"]}
    )
    config = load_config(
        None, [f"attribute.classifier={__name__}:Spotter", 'labels.style_classifier=""', 'steer.classifier=""']
    )
    seen = _witnessed(config, store, {"dog", "cat"})  # type: ignore[arg-type]
    assert seen == {"a": {"dog": False, "cow": True}, "b": {"dog": True, "cow": True}}


def test_average_precision_is_that_of_ranked_cells_with_the_silent_ones_tied_last() -> None:
    rng = np.random.default_rng(0)
    values = np.where(rng.random((8, 3, 4)) < 0.5, rng.integers(1, 4, (8, 3, 4)), 0).astype(float)
    masks = rng.integers(0, 5, (8, 2, 4))
    codes, maps = codes_of(values), maps_of(masks, ["discovery"] * 6 + ["heldout"] * 2)
    found, base = average_precisions(codes, maps, "discovery")
    for concept in range(2):
        shown = (masks[:6, concept] >= 2).ravel()
        assert base[concept] == pytest.approx(shown.mean())
        for feature in range(3):
            scores = values[:6, feature].ravel()
            expected, before = 0.0, 0.0
            for level in sorted(set(scores), reverse=True):  # every distinct value is one threshold
                taken = scores >= level
                recall = shown[taken].sum() / shown.sum()
                expected += (recall - before) * shown[taken].mean()
                before = recall
            assert found[feature, concept] == pytest.approx(expected)


def test_a_picture_that_was_not_asked_says_nothing_of_a_concept() -> None:
    """Of pictures of which some were asked, a concept's figures are those of the asked ones alone."""
    rng = np.random.default_rng(1)
    values = np.where(rng.random((9, 3, 4)) < 0.6, rng.integers(1, 4, (9, 3, 4)), 0).astype(float)
    masks = rng.integers(0, 5, (9, 2, 4))
    asked = np.ones((9, 2), bool)
    masks[[1, 4, 8], 1], asked[[1, 4, 8], 1] = 0, False
    splits = ["discovery"] * 7 + ["heldout"] * 2
    codes, maps = codes_of(values), replace(maps_of(masks, splits), asked=asked)
    kept = asked[:, 1]
    few_codes = codes_of(values[kept])
    few = maps_of(masks[kept], [split for split, own in zip(splits, kept, strict=True) if own])
    for split in ("discovery", "heldout"):
        found, base = average_precisions(codes, maps, split)
        expected, expected_base = average_precisions(few_codes, few, split)
        assert found[:, 1] == pytest.approx(expected[:, 1]) and base[1] == pytest.approx(expected_base[1])
        for feature in range(3):
            pair = np.array([feature]), np.array([1])
            assert top_purity(codes, maps, *pair, split) == pytest.approx(top_purity(few_codes, few, *pair, split))


def test_cells_of_which_nobody_decided_count_neither_way() -> None:
    rng = np.random.default_rng(2)
    values = np.where(rng.random((8, 3, 4)) < 0.5, rng.integers(1, 4, (8, 3, 4)), 0).astype(float)
    ignored = rng.random((8, 4)) < 0.4
    values[:, 0][ignored] = 3  # something fires in each
    masks = np.where(ignored[:, None], 0, rng.integers(0, 5, (8, 2, 4)))
    codes, maps = codes_of(values), maps_of(masks, ["discovery"] * 4 + ["heldout"] * 4)
    marked = replace(codes, ignored=ignored[codes.image, codes.cell])
    learnt, base = average_precisions(marked, maps, "discovery")
    for concept in range(2):
        shown = (masks[:4, concept] >= 2)[~ignored[:4]]
        assert base[concept] == pytest.approx(shown.mean())
        for feature in range(3):
            scores = values[:4, feature][~ignored[:4]]
            order = sorted(set(scores), reverse=True)
            recalls = [0.0, *(shown[scores >= level].sum() / shown.sum() for level in order)]
            gains = np.diff(recalls) @ [shown[scores >= level].mean() for level in order]
            assert learnt[feature, concept] == pytest.approx(gains)
    assert retrieval(marked, maps) != retrieval(codes, maps)


def test_the_feature_is_chosen_on_discovery_and_measured_on_held_out_cells() -> None:
    masks = np.tile(np.array([4, 0, 0, 0]), (4, 1, 1))
    values = np.zeros((4, 2, 4))
    values[:2, 0, 0], values[2:, 0, 1] = 1, 1  # follows the concept in discovery pictures alone
    values[2:, 1, 0] = 1
    codes, maps = codes_of(values), maps_of(masks, ["discovery"] * 2 + ["heldout"] * 2)
    # Held out: the first quarter of the cells is wrong, and the concept's two are among six tied ones.
    assert retrieval(codes, maps) == {"concepts": 1, "map": 0.25, "purity_at_16": 0.0, "coverage": 0.0}
    assert top_purity(codes, maps, np.array([1]), np.array([0]), "heldout").tolist() == [1.0]
    values[2:, 0] = 0
    silent = retrieval(codes_of(values), maps)
    assert silent["purity_at_16"] == 0.25 == silent["map"], (
        "of a feature that is silent held out any cells are the first"
    )
    nothing = retrieval(codes_of(np.zeros((4, 1, 4))), maps)
    assert (nothing["concepts"], nothing["map"]) == (1, None)


def test_an_examiner_that_ranks_right_labels_first_knows_them(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        blank(
            EXAMINERS, **SITE.columns(), feature=n, concept="sea", heldout_dataset_iou=n / 20, fresh_auroc=0.5,
            causal_verdict="confirmed" if n > 15 else "no effect", right=n >= 10, witness_auroc=None,
        )
        for n in range(20)
    ]  # fmt: skip
    found = examined(pa.Table.from_pylist(rows, schema=EXAMINERS))
    assert found["heldout_dataset_iou"]["auroc"] == [1.0, None, None]  # one concept says nothing of others
    assert found["fresh_auroc"]["auroc"] == [0.5, None, None]
    assert found["causal_verdict"]["auroc"][0] == pytest.approx(0.7)
    assert (found["witness_auroc"]["labels"], found["witness_auroc"]["auroc"]) == (0, [None] * 3)
    assert (found["fresh_auroc"]["labels"], found["fresh_auroc"]["right"]) == (20, 0.5)
    # Verdicts: 10 right ones, of which 4 are confirmed, and 10 wrong ones without effect.
    assert found["causal_area"] == {"labels": 0, "right": None, "auroc": [None] * 3, "same_labels": 0,
                                    "same": [None] * 3}  # fmt: skip
    assert found["fresh_auroc"]["same_labels"] == 20 and found["heldout_dataset_iou"]["same"] == [1.0, None, None]
    print_aurocs(found)
    assert " 1.000 " in capsys.readouterr().out
    many = [row | {"concept": f"c{n // 5}", "heldout_dataset_iou": (7 * n % 20) / 20} for n, row in enumerate(rows)]
    widths = []
    for table in (many, [row | {"concept": f"c{n}"} for n, row in enumerate(many)]):
        _, low, high = examined(pa.Table.from_pylist(table, schema=EXAMINERS))["heldout_dataset_iou"]["auroc"]
        widths.append(high - low)
    assert widths[0] != widths[1], "the labels of a concept are drawn together"
    unknown = pa.Table.from_pylist([row | {"right": None} for row in rows], schema=EXAMINERS)
    assert examined(unknown) == {}


def test_what_causes_say_is_compared_on_the_labels_that_were_tried() -> None:
    """Of 12 labels the last 8 were tried; two of those came out undecided, which is no answer."""
    verdicts = [None] * 4 + ["undecided", "undecided", "contradicted", "no effect", "no effect"] + ["confirmed"] * 3
    rows = [
        blank(
            EXAMINERS, **SITE.columns(), feature=n, concept="sea", heldout_dataset_iou=(7 * n % 12) / 12,
            causal_verdict=verdict, right=n not in (0, 4, 6, 8), witness_auroc=None,
        )
        for n, verdict in enumerate(verdicts)
    ]  # fmt: skip
    areas = [None] * 4 + [0.01, 0.02, -0.2, 0.0, 0.03, 0.2, 0.1, 0.3]
    found = examined(pa.Table.from_pylist(rows, schema=EXAMINERS), areas)
    # Decided: wrong 6 (-1) and 8 (0), right 7 (0), 9, 10, 11 (1): of 8 comparisons 7 are won and one is a tie.
    assert found["causal_verdict"]["labels"] == 6 and found["causal_verdict"]["auroc"][0] == pytest.approx(7.5 / 8)
    # All tried: wrong .01, -.2, .03, right .02, 0, .2, .1, .3: 0 beats one, .02 two and the others all three.
    assert found["causal_area"]["labels"] == 8 and found["causal_area"]["auroc"][0] == pytest.approx(12 / 15, abs=1e-4)
    assert {row["same_labels"] for row in found.values() if row["labels"]} == {6}
    # Held-out IoU 6/12 and 8/12 of wrong labels (42 and 56 mod 12), 1, 3, 10, 5 twelfths of right ones.
    assert found["heldout_dataset_iou"]["labels"] == 12 and found["heldout_dataset_iou"]["same"][0] == 2 / 8


def test_an_examiner_of_few_labels_does_not_shrink_what_the_others_are_compared_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of 40 labels, four have a verdict and half a held-out IoU (a place has none)."""
    rows = [
        blank(
            EXAMINERS, **SITE.columns(), feature=n, concept=f"c{n // 2}", right=n % 4 != 0, fresh_auroc=n / 40,
            heldout_explained=(7 * n % 40) / 40, heldout_dataset_iou=n / 40 if n < 20 else None,
            causal_verdict="confirmed" if n in (0, 1, 2, 25) else None,
        )
        for n in range(40)
    ]  # fmt: skip
    asked = examined(pa.Table.from_pylist(rows, schema=EXAMINERS))
    assert (asked["causal_verdict"]["labels"], asked["causal_verdict"]["same_labels"]) == (4, 0)
    compared = ("heldout_dataset_iou", "heldout_explained", "fresh_auroc")
    assert {name: row["same_labels"] for name, row in asked.items() if row["same_labels"]} == dict.fromkeys(
        compared, 20
    )
    print_aurocs(asked)
    said = capsys.readouterr().out
    assert "on the 20 labels that all of these know: " in said
    assert "(causal_verdict left out: fewer than half of these)" in said


def test_the_verb_writes_a_table_of_every_label(
    scenes_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    run = shutil.copytree(scenes_run, tmp_path / "run")
    settings = json.loads((run / "_meta/run.json").read_text())
    store = RunFolder(run)
    best = [row for row in store.read_final("labels").to_pylist() if row["rank"] == 1]
    tried = [
        blank(CAUSAL, **{name: row[name] for name in KEYS[:-1]}, labelled=True, causal_area=n / 100,
              causal_verdict="undecided" if n else "confirmed")
        for n, row in enumerate(best[:3])
    ]  # fmt: skip
    store.write_final("causal", pa.Table.from_pylist(tried, schema=CAUSAL), provenance(store.of_tables(), {}))
    chosen = [f"generation.{name}={json.dumps(settings[f'generation.{name}'])}" for name in ("steps", "blocks", "t")]
    command = ["examine", str(run), "--json", "--fresh", "1", "--set", *chosen, "accuracy.images=3"]
    code = main(command)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    found = json.loads(captured.out)
    table = RunFolder(run).read_final("examiners")
    assert table.schema == EXAMINERS
    assert (
        found["labels"]
        == table.num_rows
        == sum(r == 1 for r in RunFolder(run).read_final("labels")["rank"].to_pylist())
    )
    assert table["right"].null_count == 0
    said = found["examiners"]
    assert said["causal_area"]["labels"] == 3 and said["causal_verdict"]["labels"] == 1
    assert {verdict for verdict in table["causal_verdict"].to_pylist() if verdict} == {"confirmed", "undecided"}
    assert known_examiners(str(run))["examiners"] == said
    assert {row["site"] for row in found["retrieval"]} and all("purity_at_16" in row for row in found["retrieval"])
    assert main(["verify", str(run)]) == 0
    assert main(["examine", str(run), "--fresh", "-1"]) == 2
    keeps_what_it_does_not_measure(run, chosen, capsys)


def keeps_what_it_does_not_measure(run: Path, chosen: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Of a table with one fresh picture a name and three with truth: less takes the place of nothing, unless told."""

    def examine(*words: str) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        code = main(["examine", str(run), "--json", "--fresh", "0", *words])
        captured = capsys.readouterr()
        return code, json.loads(captured.out), captured.err

    path = run / "examiners.parquet"
    bytes_before, before = path.read_bytes(), RunFolder(run).read_final("examiners")
    code, _, said = examine("--set", *chosen, "accuracy.images=2")
    assert code == 2 and "accuracy.images: was 3, now 2" in said and "--replace" in said
    assert path.read_bytes() == bytes_before
    code, result, said = examine("--set", *chosen, 'accuracy.truth=""')
    assert code == 0 and result["kept"] == ["fresh", "truth"] and "kept from an earlier call: fresh (--fresh=1)" in said
    assert RunFolder(run).read_final("examiners").equals(before)
    assert known_examiners(str(run))["measured_with"]["truth"]["accuracy.images"] == 3
    code, result, _ = examine("--replace", "--set", *chosen, "accuracy.images=2")
    assert code == 0 and result["kept"] == ["fresh"] and result["measured_with"]["truth"]["accuracy.images"] == 2
    assert RunFolder(run).read_final("examiners")["fresh_auroc"].equals(before["fresh_auroc"])


def test_a_table_that_does_not_say_how_it_was_measured_is_told_by_its_columns(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    store.write_json("config.json", {"accuracy": {"truth": "a:b", "half": "report", "images": 300}})
    rows = [blank(EXAMINERS, feature=n, concept="dog", fresh_images=4 * n, right=True) for n in range(2)]
    store.write_final("examiners", pa.Table.from_pylist(rows, schema=EXAMINERS), provenance({}, {}))
    assert recorded(store) == {
        "fresh": {"--fresh": 4},
        "truth": {"accuracy.truth": "a:b", "accuracy.half": "report", "accuracy.images": 300},
    }
    before = Before.of(store, rows[::-1])
    assert before.columns({"fresh": {}})["fresh_images"] == [4, 0]
    with pytest.raises(InputError, match=r"\(--fresh: was 4, now 3\).*--replace"):
        before.refuse_less(store, {"fresh": {"--fresh": 3}})
    before.refuse_less(store, {"fresh": {"--fresh": 5}})
    assert Before.of(store, rows[:1]).table is None  # of other labels
