"""The layout from labels alone: hand-computed weights, the law of the best cut, and a command that needs no run."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SITE_COLUMNS, Port, Site
from gazetteer.data.tables.provenance import with_provenance
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.config.fingerprint import fingerprint_of
from gazetteer.jobs.config.schema import load_config
from gazetteer.labeling.evidence.site_codes import flat_codes
from gazetteer.labeling.layout.evaluation.config import LayoutEvaluationConfig
from gazetteer.labeling.layout.evaluation.evaluate import evaluate_layout
from gazetteer.labeling.layout.label_layout import (
    HABIT,
    NEIGHBOURS,
    SCALE,
    WINNERS_SCALE,
    best_cuts,
    habit_odds,
    label_maps,
    layout_of_labels,
    splitting_cuts,
)
from gazetteer.labeling.layout.label_weights import label_weights, read_label_table
from gazetteer.labeling.layout.prior import layout_prior
from gazetteer.labeling.layout.run import open_run
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline
from tests.support.runs.layout_runs import CONCEPTS, GENERATION, PROVENANCE, random_saes, world_run
from tests.support.runs.small_world import MID, sky_world

SITE = Site("mid", "cond", 0.5)


def labels_of(rows: list[tuple], **columns: list) -> pa.Table:
    """(site, feature, concept, precision, lift, dataset_iou) as a table of labels."""
    made = {
        **{name: [r[0].columns()[name] for r in rows] for name in SITE_COLUMNS},
        "feature": pa.array([r[1] for r in rows], pa.int32()),
        "concept": [r[2] for r in rows], "precision": [float(r[3]) for r in rows], "lift": [float(r[4]) for r in rows],
        "dataset_iou": [float(r[5]) for r in rows],
    }  # fmt: skip
    return pa.table({**made, **columns})


def test_a_prior_of_finer_cells_is_their_mean_where_labels_are_read() -> None:
    fine = np.array([0.2, 0.4, 0.1, 0.1, 0.6, 0.8, 0.3, 0.5], np.float32)[:, None]  # two rows of four cells
    layout = layout_of_labels(labels_of([(SITE, 3, "dog", 0.8, 4, 0.5)]), prior=(("dog",), fine, (2, 4)))
    silent = flat_codes(SITE, ["a"], (1, 2), np.array([0, 0]), np.array([0.0, 0.0]), np.array([2]))
    np.testing.assert_allclose(layout.read(silent, SITE)[0][0, :, 0], [0.5, 0.25], rtol=1e-5)


def test_each_picture_may_have_a_prior_of_its_own_in_the_place_of_the_layouts() -> None:
    own = (("dog",), np.full((2, 1), 0.5, np.float32), (1, 2))
    layout = layout_of_labels(labels_of([(SITE, 3, "dog", 0.8, 4, 0.5)]), prior=own)
    silent = flat_codes(SITE, ["a", "b"], (1, 2), np.zeros(4, int), np.zeros(4), np.array([2, 2]))
    prior = np.array([[0.1, 0.2], [0.3, 0.4]], np.float32)[:, :, None]
    np.testing.assert_allclose(layout.read(silent, SITE, prior=prior)[0], prior, rtol=1e-5)


def test_a_label_moves_the_log_odds_from_what_places_give_to_its_precision() -> None:
    weights = label_weights(labels_of([(SITE, 3, "dog", 0.8, 4, 0.5), (SITE, 7, "dog", 0.5, 2, 0.3)]))[SITE]
    assert weights.features.tolist() == [3, 7] and weights.base.tolist() == pytest.approx([(0.2 + 0.25) / 2])
    by_hand = [np.log(0.8 / 0.2) - np.log(0.2 / 0.8), -np.log(0.25 / 0.75)]
    assert weights.weights[:, 0].tolist() == pytest.approx(by_hand) and weights.best == 0.5
    # One row of three cells; 3 fires in the first, 9 (unlabelled) in the second.
    codes = flat_codes(SITE, ["a"], (1, 3), np.array([3, 9, 0]), np.array([1.0, 1, 0]), np.array([3]))
    near = np.array([2 / 3, 1 / 3, 0]) * by_hand[0]  # the edge stands for what lies beyond it
    expected = np.array([by_hand[0], 0, 0]) + NEIGHBOURS * near
    np.testing.assert_allclose(label_maps(weights, codes)[0, :, 0], expected, rtol=1e-6)
    layout = layout_of_labels(labels_of([(SITE, 3, "dog", 0.8, 4, 0.5)]))
    base = np.log(0.2 / 0.8)
    np.testing.assert_allclose(
        layout.read(codes, SITE)[0][0, :, 0], 1 / (1 + np.exp(-(base + WINNERS_SCALE * expected))), rtol=1e-5
    )


def test_candidates_say_what_is_common_where_features_fire_and_count_where_they_are_sure() -> None:
    rows = [
        (SITE, 3, "dog", 0.8, 4, 0.5), (SITE, 3, "sea", 0.1, 0.5, 0.1), (SITE, 7, "dog", 0.02, 1.0, 0.0),
        (SITE, 9, "sea", 0.9, 3, 0.6), (SITE, 9, "dog", 0.0, 0.0, 0.0),
    ]  # fmt: skip
    kinds = ["thing", "stuff", "thing", "scene", "thing"]
    table = labels_of(rows, kind=kinds, q_value=[0.01, 0.01, 0.9, 0.01, None], trusted=[False] * 5)
    found = label_weights(table, ["dog", "sea"])[SITE]
    # Only 3 and the dog go together beyond chance and say where; every pair with a lift says what is common.
    assert found.features.tolist() == [3] and np.flatnonzero(found.weights).tolist() == [0]
    assert found.habits is not None and found.habits.features.tolist() == [3, 7, 9]
    assert found.habits.known.tolist() == [[1, 1], [1, 0], [0, 1]]
    odds = np.log(np.array([0.2, 0.02, 0.2, 0.3]) / (1 - np.array([0.2, 0.02, 0.2, 0.3])))
    # One row of three cells: 3 in the first, 7 in the second, nothing in the third, which a neighbour speaks for.
    codes = flat_codes(SITE, ["a"], (1, 3), np.array([3, 7, 0]), np.array([1.0, 1, 0]), np.array([3]))
    base = np.log(0.2 / 0.8)
    said, many = np.array([2 * odds[0] + odds[1], odds[0] + odds[1], odds[1]]) / 3, np.array([3, 2, 1]) / 3
    np.testing.assert_allclose(habit_odds(found, codes)[0, :, 0], (said + HABIT * base) / (many + HABIT), rtol=1e-6)
    assert layout_of_labels(table).concepts == ("dog",)
    evidence = label_maps(found, codes)[0, :, 0]
    odds_there = habit_odds(found, codes)[0, :, 0]
    np.testing.assert_allclose(
        layout_of_labels(table).read(codes, SITE)[0][0, :, 0],
        1 / (1 + np.exp(-(odds_there + SCALE * evidence))),
        rtol=1e-5,
    )


def test_only_labels_that_say_where_count_and_the_best_block_is_read() -> None:
    other = Site("up", "cond", 0.5)
    rows = [(SITE, 1, "dog", 0.5, 2, 0.2), (other, 1, "night", 0.9, 3, 0.9), (other, 2, "sea", 0.5, 2, 0.3)]
    table = labels_of(rows, kind=["thing", "style", "stuff"])
    assert layout_of_labels(table).concepts == ("dog", "sea") and layout_of_labels(table).ports == (Port("up"),)
    assert layout_of_labels(table.filter(pa.array([True, True, False]))).ports == (Port("mid"),)
    with pytest.raises(InputError, match="no thing, stuff or part that goes with a feature"):
        layout_of_labels(table.slice(1, 1))
    with pytest.raises(InputError, match="no number above 0"):
        label_weights(labels_of([(SITE, 1, "dog", float("nan"), 2, 0.2)]))
    with pytest.raises(
        InputError, match=r"a lift of 0.5, by which shuffled pictures would give 1.6; that is at most 1"
    ):
        label_weights(labels_of([(SITE, 1, "dog", 0.8, 0.5, 0.2)]))
    with pytest.raises(InputError, match="goes with a feature of the uncond branch"):
        layout_of_labels(table, branch="uncond")


@pytest.mark.parametrize("column", ["feature", "concept", "q_value", "kind", "block"])
def test_a_table_in_memory_says_which_column_it_lacks(column: str) -> None:
    columns = {"kind": ["thing"], "q_value": [0.01], "trusted": [True]}
    table = labels_of([(SITE, 3, "dog", 0.8, 4, 0.5)], **columns)
    assert layout_of_labels(table.drop_columns(["stream", "signal"])).ports == (Port("mid"),)  # as older runs have it
    for read in (layout_of_labels, label_weights):
        with pytest.raises(InputError, match=f"^The table of labels has no column '{column}'; a layout needs"):
            read(table.drop_columns([column]))


def test_a_site_that_a_table_leaves_out_is_not_made_up() -> None:
    table = labels_of([(SITE, 3, "dog", 0.8, 4, 0.5), (SITE, 4, "dog", 0.8, 4, 0.5)])
    for name, kind in (("block", pa.string()), ("branch", pa.string()), ("t", pa.float64())):
        values = pa.array([table[name][0].as_py(), None], kind)
        with pytest.raises(InputError, match=f"a row without {name}"):
            layout_of_labels(table.set_column(table.column_names.index(name), name, values))


def test_a_prior_has_a_share_of_every_cell() -> None:
    table, names = labels_of([(SITE, 3, "dog", 0.8, 4, 0.5)]), ("dog",)
    for maps in (np.zeros((3, 1), np.float32), np.full((2, 1), np.nan, np.float32), np.full((2, 1), 7, np.float32)):
        with pytest.raises(InputError, match="a share from 0 to 1 of every cell"):
            layout_of_labels(table, prior=(names, maps, (1, 2)))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ((SITE, 1, "dog", 0.5, float("inf"), 0.2), "lift of inf"),
        ((SITE, 1, "dog", 0.5, 2, float("inf")), "dataset_iou of inf"),
        ((SITE, -1, "dog", 0.5, 2, 0.2), "feature of -1"),
        ((SITE, "x", "dog", 0.5, 2, 0.2), "column 'feature' of the labels is string"),
        ((SITE, 1, "dog", "0.5", 2, 0.2), "column 'precision' of the labels is string"),
        ((SITE, 1, "dog", 5.0, 20, 0.2), "precision of 5; accepted: numbers from 0 to 1"),
        ((SITE, 1, "dog", 0.5, 2, 1.5), "dataset_iou of 1.5"),
        ((SITE, None, "dog", 0.5, 2, 0.2), "a row without feature"),
        ((SITE, 1, None, 0.5, 2, 0.2), "a row without concept|column 'concept' of the labels is null"),
        ((SITE, 1, "", 0.5, 2, 0.2), "a row without concept"),
        ((SITE, 1, 7, 0.5, 2, 0.2), "column 'concept' of the labels is int64"),
    ],
)
def test_what_is_no_number_is_not_believed(row: tuple, says: str) -> None:
    table = labels_of([(SITE, 1, "dog", 0.5, *row[4:])])
    columns = {name: pa.array([row[i]]) for i, name in ((1, "feature"), (2, "concept"), (3, "precision"))}
    if row[1] is None:
        columns["feature"] = pa.array([None], pa.int32())
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    with pytest.raises(InputError, match=says):
        layout_of_labels(table)
    for name, value in (("kind", "thing"), ("q_value", 0.01), ("trusted", True)):
        table = table.append_column(name, pa.array([value]))
    with pytest.raises(InputError, match=says):  # of candidates too
        layout_of_labels(table)


def test_the_cut_has_the_highest_expected_iou_of_all_sets() -> None:
    p = np.random.default_rng(0).random((3, 7, 2)).astype(np.float32)
    cuts = best_cuts(p)
    for picture, concept in itertools.product(range(3), range(2)):
        cells = p[picture, :, concept]

        def value(chosen: tuple[int, ...], cells: np.ndarray = cells) -> float:
            inside = cells[list(chosen)].sum()
            return inside / (len(chosen) + cells.sum() - inside)

        every = (s for size in range(1, 8) for s in itertools.combinations(range(7), size))
        best = max(every, key=value)
        assert set(np.flatnonzero(cells >= cuts[picture, concept])) == set(best)


def test_a_mask_keeps_to_where_a_label_speaks() -> None:
    """A base of a third would by itself take all cells; where nothing is labelled, nothing tells cells apart."""
    layout = layout_of_labels(labels_of([(SITE, 3, "sky", 0.5, 1.5, 0.5), (SITE, 4, "dog", 0.6, 3, 0.5)]))
    upper = np.repeat([[3], [0]], 32, axis=0).ravel()  # feature 3 in the upper four of eight rows of eight cells
    codes = flat_codes(SITE, ["a"], (8, 8), upper, np.repeat([1.0, 0.0], 32), np.array([64]))
    probabilities, cuts = layout.read(codes, SITE)
    dog, sky = (layout.concepts.index(name) for name in ("dog", "sky"))
    chosen = (probabilities >= cuts[:, None])[0].reshape(8, 8, 2)
    assert best_cuts(probabilities)[0, sky] == probabilities[0, :, sky].min()
    assert chosen[:5, :, sky].all() and not chosen[5:, :, sky].any()  # the fifth row has neighbours that speak
    assert np.ptp(probabilities[0, :, dog]) == 0 and chosen[:, :, dog].all()


def test_a_splitting_cut_has_the_highest_variance_between_its_sides() -> None:
    p = np.random.default_rng(1).random((3, 9, 2)).astype(np.float32)
    cuts = splitting_cuts(p)
    for picture, concept in itertools.product(range(3), range(2)):
        cells = p[picture, :, concept].astype(float)

        def between(cut: float, cells: np.ndarray = cells) -> float:
            above = cells >= cut
            if above.all():
                return 0.0
            return above.mean() * (1 - above.mean()) * (cells[above].mean() - cells[~above].mean()) ** 2

        assert between(cuts[picture, concept]) == pytest.approx(max(between(cut) for cut in cells))
    assert splitting_cuts(p[:, :1]).tolist() == p[:, 0].tolist()
    assert (splitting_cuts(np.full((1, 5, 1), 0.3, np.float32)) == np.float32(0.3)).all()


def test_labels_alone_find_what_a_feature_follows(tmp_path: Path) -> None:
    world = sky_world(80)
    run = open_run(world_run(tmp_path / "run", world, "a sky and a ball"))
    tables = world.reduce({MID: 4})
    for name in ("labels", "candidates"):
        run.store.write_final(name, tables[name], PROVENANCE)
    config = LayoutEvaluationConfig(every_step=False, baselines=False, resamples=50)
    found = evaluate_layout(run, {}, np.eye(2), config)["by_concept"]["0.50"]
    for method in ("labels", "labels_prior", "labels_winners"):
        assert found[method]["sky"][0] > 0.9 > found["prior"]["sky"][0], method
    layouts = [  # what the command runs is measured under the name that it gives
        layout_of_labels(tables[name], prior=prior)
        for name in ("candidates", "labels")
        for prior in (None, layout_prior(run.store))
    ]
    assert [layout.name for layout in layouts] == [
        "labels_unfitted", "labels_unfitted_prior", "labels_unfitted_winners", "labels_unfitted_winners_prior",
    ]  # fmt: skip
    for layout in layouts:
        assert found[layout.name]["sky"][0] >= found["chance"]["sky"][0], layout.name
    # What labels.max_q lets into labels.parquet is no evidence: the table is read, and why candidates are not is said.
    unsure = tables["candidates"]
    ones = pa.array(np.ones(unsure.num_rows), unsure.schema.field("q_value").type)
    unsure = unsure.set_column(unsure.column_names.index("q_value"), "q_value", ones)
    run.store.write_final("candidates", unsure, PROVENANCE)
    without = evaluate_layout(open_run(run.store.path), {}, np.eye(2), config)
    assert "q of at most 0.05" in without["left_out"]["labels"] and "labels" not in without["miou"]["0.50"]
    assert without["miou"]["0.50"]["labels_winners"] and "labels_winners" not in without["left_out"]
    names, prior, grid = layout_prior(run.store)
    np.testing.assert_allclose(prior, run.tables[MID].prior()[0], rtol=1e-6)
    assert names == run.concepts and grid == (8, 8)


def test_the_command_needs_a_table_and_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    for site, sae in random_saes().items():
        sae.save_pretrained(tmp_path / "saes" / site.slug, {"site": site})
    config = {
        "name": "tiny", "prompts": {"path": "none.txt"}, "model": {"path": "model"}, "saes": "saes",
        "generation": {"steps": 3, "guidance": 3.0, "blocks": list(BLOCKS), "t": [1.0, 0.0], "exact": False},
        "vocabulary": {"concepts": list(CONCEPTS)}, "detector": {"path": "none"}, "segmenter": {"path": "none"},
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    made = fingerprint_of(load_config(tmp_path / "tiny.yaml"))
    rows = [(site, i % 48, "dog", 0.6, 3, 0.3) for i, site in enumerate(GENERATION.sites) for _ in (0,)]
    table = with_provenance(labels_of(rows), {**PROVENANCE, "fingerprint": made})
    pq.write_table(table, tmp_path / "some.parquet")
    words = ["layout", "predict", "--config", str(tmp_path / "tiny.yaml"), "--json", "--prompt", "a dog", "--out",
             str(tmp_path / "out")]  # fmt: skip
    assert main([*words, "--labels", str(tmp_path / "some.parquet")]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["method"] == "labels_unfitted_winners" and said["named"] == ["dog"] and len(said["steps"]) == 3
    stored = np.load(tmp_path / "out" / "layout.npz")
    assert stored["where"].shape == (3, 1, 4, 4) and stored["thresholds"].shape == (3, 1)
    every = table
    for name, value in (("kind", "thing"), ("q_value", 0.01), ("trusted", True)):
        every = every.append_column(name, pa.array([value] * len(rows)))
    pq.write_table(every, tmp_path / "every.parquet")
    assert main([*words[:-1], str(tmp_path / "more"), "--labels", str(tmp_path / "every.parquet")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["method"] == "labels_unfitted"
    # Where pictures were given from is no matter to a picture that is drawn of a prompt.
    of_given = {**PROVENANCE, "fingerprint": {**made, "pictures.coco": "sha256:0", "pictures.split": "val"}}
    pq.write_table(with_provenance(labels_of(rows), of_given), tmp_path / "given.parquet")
    assert main([*words[:-1], str(tmp_path / "given"), "--labels", str(tmp_path / "given.parquet")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == said["steps"]
    beyond = labels_of([(row[0], 1_000_048, *row[2:]) for row in rows])
    pq.write_table(with_provenance(beyond, {**PROVENANCE, "fingerprint": made}), tmp_path / "beyond.parquet")
    for where, threshold, step in zip(stored["where"], stored["thresholds"], said["steps"], strict=True):
        assert np.ptp(where[0]) > 0
        assert step["shares"]["dog"] == pytest.approx((where[0] >= threshold[0]).mean(), abs=1e-4)
    for more, sentence in (
        ([], "Name the finished run"),
        (["--prior", "--labels", str(tmp_path / "some.parquet")], "Name the finished run"),
        (["--labels", str(tmp_path / "nope.parquet")], f"{tmp_path / 'nope.parquet'} does not exist"),
        (["--labels", str(tmp_path / "tiny.yaml")], "cannot be read as a table of labels"),
        (["--labels", str(tmp_path / "some.parquet"), "--set", "generation.guidance=4.0"], "differ: generation.guid"),
        (["--labels", str(tmp_path / "beyond.parquet")], "name feature 1000048 of "),
    ):
        assert main([*words, *more]) == 2
        assert sentence in capsys.readouterr().err
    pq.write_table(table.drop_columns(["lift"]), tmp_path / "less.parquet")
    with pytest.raises(InputError, match="no column 'lift'"):
        read_label_table(tmp_path / "less.parquet")
    pq.write_table(table.append_column("trusted", pa.array([True] * len(rows))), tmp_path / "less.parquet")
    with pytest.raises(InputError, match=r"no column 'kind'; a layout needs .*, q_value"):
        read_label_table(tmp_path / "less.parquet")  # candidates, without what tells which of them count
