"""Causal labels: what switching does by hand, which verdict follows, and the pass on a tiny real pipeline."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from gazetteer import load_causal, load_features, load_labels
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.inputs.edits import Edit, Target, stage_of
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import CAUSAL, EFFECTS
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.resume import coarse_stride, resumed_at
from gazetteer.jobs.experiments.causal.choose import _turns, features_to_try, starts_of
from gazetteer.jobs.experiments.causal.measure import print_causes
from gazetteer.labeling.evidence.site_codes import site_of_row
from gazetteer.labeling.interventions.able import can_show
from gazetteer.labeling.interventions.causal import CausalConfig, CausalTest, SharedPicture, Switch
from gazetteer.labeling.interventions.causal_table import causal_table, summarise
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.labeling.interventions.test_steering import BLOCK, CONCEPTS, SITES, Finder
from tests.support.models.tiny_pipeline import tiny_pipeline
from tests.support.runs.layout_runs import world_run
from tests.support.runs.runs import PROVENANCE, finished_run, rewrite
from tests.support.runs.small_world import sky_world
from tests.support.system.running import SMALL

MID = Site("mid_block.attentions.0", "cond", 0.3)


def effects(on: list[float], random: list[float], plain: list[float], site: Site = MID, feature: int = 1) -> pa.Table:
    """One feature's effects on the area of dog."""
    rows = []
    for state, areas in (("plain", plain), ("on", on), ("random", random)):
        for i, area in enumerate(areas):
            rows.append(
                {
                    **site.columns(), "image_id": f"i{i}", "state": state,
                    "feature": None if state == "plain" else feature,
                    "change": abs(area - plain[i]), "concept": ["dog"] if area else [], "area": [area] if area else [],
                }
            )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=EFFECTS)


def test_one_picture_of_every_prompt_comes_before_the_second_of_any(tmp_path: Path) -> None:
    world = world_run(tmp_path / "world", sky_world(12), "a sky")
    ids = [start.image_id for start in starts_of(world, "discovery")]
    assert ids == sorted(ids)
    shards = sorted(Path(world.path, "images").iterdir())
    rewrite(shards[0], lambda table: table.set_column(1, table.field(1), [["b", "a", "b", "b", "c", "a"] * 2]))
    rows = starts_of(world, "discovery")
    assert [row.image_id for row in rows[:4]] == ["i0000", "i0001", "i0004", "i0002"]
    assert sorted(row.image_id for row in rows) == ids


def labels(*concepts: str) -> pa.Table:
    rows = [{**MID.columns(), "feature": 1, "concept": c} for c in concepts]
    schema = pa.schema([CAUSAL.field(name) for name in (*SITE_COLUMNS, "feature", "concept")])
    return pa.Table.from_pylist(rows, schema=schema)


def test_changes_are_paired_and_split_into_on_and_random() -> None:
    table = causal_table(effects([0.5, 0.4, 0.3], [0.1, 0.0, 0.2], [0.3, 0.2, 0.2]), labels("dog"), ("cat", "dog"))
    dog = table.to_pylist()[1]
    assert (dog["concept"], dog["labelled"], dog["causal_images"]) == ("dog", True, 3)
    for name, value in (("area", 0.3), ("area_on", 0.5 / 3), ("area_random", -0.4 / 3), ("presence", 1 / 3),
                        ("presence_on", 0.0), ("presence_random", -1 / 3), ("change_on", 0.5 / 3)):  # fmt: skip
        assert dog[f"causal_{name}"] == pytest.approx(value), name
    assert dog["causal_area_low"] == pytest.approx(0.1) and dog["causal_area_high"] <= 0.4
    assert table["causal_verdict"].to_pylist() == ["none", "undecided"]  # three pictures prove nothing


def test_a_feature_that_was_measured_again_counts_once() -> None:
    first = effects([0.5, 0.4], [0.1, 0.3], [0.3, 0.2])
    again = effects([0.5, 0.0], [0.1, 0.3], [0.3, 0.2])
    table = causal_table(pa.concat_tables([first, again]), labels("dog"), ("dog",))
    assert table.equals(causal_table(again, labels("dog"), ("dog",)))


def test_a_verdict_needs_a_sure_effect_and_a_label() -> None:
    steps = np.linspace(0.1, 0.2, 12)
    up = effects(list(0.4 + steps), [0.1] * 12, [0.2] * 12)
    down = effects([0.1] * 12, list(0.4 + steps), [0.2] * 12)
    for rows, named, verdict in (
        (up, "dog", "confirmed"), (down, "dog", "contradicted"), (up, "cat", "effect without label"),
        (down, "cat", "suppressed"),
    ):  # fmt: skip
        table = causal_table(rows, labels(named), ("cat", "dog"))
        found = dict(zip(table["concept"].to_pylist(), table["causal_verdict"].to_pylist(), strict=True))
        assert found["dog"] == verdict
        assert found["cat"] == ("undecided" if named == "cat" else "none")
    summary = summarise(causal_table(up, labels("cat"), ("cat", "dog")))
    assert (summary["labels"], summary["undecided"], summary["effect_without_label"]) == (1, 1, 1)
    assert (summary["effect_features"], summary["effect_features_unlabelled"]) == (1, 0)
    assert summary["other_pairs_rising"] == 1.0


def test_a_share_of_no_pairs_is_not_printed_as_none_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    summary = summarise(causal_table(effects([0.5] * 12, [0.1] * 12, [0.2] * 12), labels("dog"), ("dog",)))
    assert summary["other_pairs_rising"] is None
    print_causes({**summary, "images": 12, "rows": 1, "table": "causal.parquet"})
    said = capsys.readouterr().out
    assert "100.0% of labels, no other pair was tried" in said and " 0.0%" not in said


def test_pairs_with_an_effect_and_their_features_are_counted_apart() -> None:
    rows = effects(list(0.5 + np.linspace(0.1, 0.2, 12)), [0.1] * 12, [0.2] * 12).to_pylist()
    both = [{**row, "concept": ["cat", "dog"], "area": row["area"] * 2} for row in rows]
    table = pa.Table.from_pylist(both, schema=EFFECTS)
    for named, pairs, unlabelled in (((), 2, 1), (("cat",), 1, 0)):
        summary = summarise(causal_table(table, labels(*named), ("cat", "dog")))
        assert (summary["effect_without_label"], summary["effect_features"]) == (pairs, 1)
        assert summary["effect_features_unlabelled"] == unlabelled


def test_features_come_in_turns_and_longer_lists_begin_alike(tmp_path: Path) -> None:
    assert list(_turns([1, 2, 3, 4, 5], [7, 8], 1)) == [1, 2, 3, 7, 4, 5, 8]
    assert list(_turns([1, 2], [7, 8, 9], 1)) == [1, 2, 7, 8, 9]
    run = finished_run(tmp_path / "run")
    assert features_to_try(run, MID, 1) == [1]  # the other one is neither labelled nor fires


def test_switches_are_edits_and_random_ones_get_the_same_dose_elsewhere_in_the_dictionary() -> None:
    config = CausalConfig(window="middle", strength=3.0, place="everywhere")
    target = Target(MID.block, "cond", 0.3, (7,), (0.5,))
    on = Edit(targets=(target,), unit="feature_p99", strength=3.0, window=(0.2, 0.6), outside="keep")
    switch = Switch(MID, 7, 0.5, centres=((0.5, 0.25), (0.0, 1.0)))
    assert switch.edit(config, 0) == on
    assert switch.edit(config, 0, (9, 1.0)) == replace(on, targets=(replace(target, features=(9,)),))
    assert switch.edit(config, 0, (9, 0.5)).targets[0].scales == (0.25,)
    assert replace(switch, site=Site("mid", "uncond", 1.0)).edit(config, 0).branch == "uncond"
    lengths = np.ones(20)
    drawn = [switch.random_feature(i, lengths) for i in range(400)]
    assert {number for number, _ in drawn} == set(range(20)) - {7} and {ratio for _, ratio in drawn} == {1.0}
    assert drawn == [switch.random_feature(i, lengths) for i in range(400)]
    lengths[[3, 7]] = 0.0, 3.0  # what has no direction cannot stand for another
    drawn = [switch.random_feature(i, lengths) for i in range(400)]
    assert {number for number, _ in drawn} == set(range(20)) - {3, 7} and {ratio for _, ratio in drawn} == {3.0}
    cells = replace(config, place="cells", box=0.5, window="early and middle")
    assert switch.edit(cells, 0).region.box == (0.25, 0.0, 0.75, 0.5) and switch.edit(cells, 0).window == (0.2, 1.0)
    assert switch.edit(cells, 3).region.box == (0.0, 0.5, 0.5, 1.0)  # within the picture
    assert [stage_of(name) for name in ("early", "middle", "early and middle")] == ["early", "middle", "early"]


def test_features_with_other_pictures_are_judged_apart() -> None:
    one = effects([0.5, 0.4], [0.1, 0.3], [0.3, 0.2])
    two = effects([0.5, 0.4, 0.4], [0.1, 0.3, 0.1], [0.3, 0.2, 0.2], feature=2)
    table = causal_table(pa.concat_tables([one, two]), labels("dog"), ("dog",))
    assert table["causal_images"].to_pylist() == [2, 3] and table["feature"].to_pylist() == [1, 2]
    alone = causal_table(two, labels("dog"), ("dog",))
    assert table["causal_area"].to_pylist()[1] == alone["causal_area"].to_pylist()[0]


def test_a_concept_can_show_in_the_company_it_keeps() -> None:
    # sea, boat, moon; boats are on the sea in half of its pictures, the moon was seen alone.
    shown = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]], bool)
    able = can_show(shown, np.array([True, True, True, False, False]), ("sea", "boat", "moon"))
    assert able.tolist()[3] == [True, True, False] and able.tolist()[4] == [False, False, False]
    assert can_show(shown[:, :2], np.array([False, False, True, False, False]), ("sea", "boat")).all()


def test_causal_columns_join_labels_and_features(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    with pytest.raises(InputError, match="has no causal"):
        load_causal(run)
    steps = np.linspace(0.1, 0.2, 12)
    table = causal_table(effects(list(0.4 + steps), [0.1] * 12, [0.2] * 12), labels("dog"), ("cat", "dog"))
    run.write_final("causal", table, PROVENANCE)
    assert load_causal(run, verdict="confirmed")["concept"].to_pylist() == ["dog"]
    plain, joined = load_labels(run), load_labels(run, causal=True)
    assert joined.select(plain.column_names).equals(plain)
    verdicts = dict(zip(zip(joined["feature"].to_pylist(), joined["concept"].to_pylist(), strict=True),
                        joined["causal_verdict"].to_pylist(), strict=True))  # fmt: skip
    assert verdicts[1, "dog"] == "confirmed" and verdicts[1, "sky"] is None
    features = load_features(run, columns=["feature"], causal=True)
    added = [name for name in joined.column_names if name.startswith("causal_")]
    assert features.column_names[0] == "feature" and all(
        name.startswith("causal_") for name in features.column_names[1:]
    )
    assert load_labels(run, columns=["q_value"], causal=True).column_names == ["q_value", *added]
    rows = features.to_pylist()
    assert [(row["feature"], row["causal_concept"]) for row in rows] == [(1, "dog"), (2, None)]


# On a pipeline


STARTS = [
    SharedPicture("i0", "a red house", 3),
    SharedPicture("i1", "a dog at night", 4),
    SharedPicture("i2", "the sea", 5),
]


@pytest.fixture(scope="module")
def tested() -> CausalTest:
    config = GenerationConfig(steps=10, guidance=3.0, blocks=(BLOCK,), branches=("cond",))
    saes = {site: SparseAutoencoder(SAEConfig(32, 64, 4)).initialise(1).requires_grad_(False) for site in SITES}
    generator = Generator(tiny_pipeline(), config)
    return CausalTest(generator, saes, Finder(), Finder(), CONCEPTS, STARTS, CausalConfig(window="middle", stride=4), 4)


def test_random_features_add_as_much_as_the_feature_itself_however_long_vectors_are(tested: CausalTest) -> None:
    saes = {site: SparseAutoencoder(SAEConfig(32, 64, 4)).initialise(1).requires_grad_(False) for site in SITES}
    switch, places = Switch(SITES[0], 3, 0.5), range(len(STARTS))

    def added(own: CausalTest, state: str, i: int) -> tuple[float, float]:
        (target,) = own.edit(switch, state, i).targets
        vector = own.saes[switch.site].decoder[list(target.features)].float()
        return target.scales[0], target.scales[0] * float(vector.norm())

    def of(saes: dict[Site, SparseAutoencoder]) -> CausalTest:
        return CausalTest(tested.generator, saes, Finder(), Finder(), CONCEPTS, STARTS, tested.config, 4)

    for sae in saes.values():
        sae.half().float()  # of unit norm but for rounding
    assert [added(of(saes), "random", i)[0] for i in places] == [0.5] * len(STARTS)
    for sae in saes.values():
        sae.decoder *= torch.linspace(0.1, 3.0, 64)[:, None]
    own = added(of(saes), "on", 0)[1]
    assert [added(of(saes), "random", i)[1] for i in places] == pytest.approx([own] * len(STARTS), rel=1e-5)


def test_areas_are_shares_of_the_picture(tested: CausalTest) -> None:
    assert tested._areas([np.zeros((4, 8, 3), np.uint8)] * 5) == [dict.fromkeys(CONCEPTS, 1 / 32)] * 5


def test_coarse_steps_end_where_fine_ones_do(tested: CausalTest) -> None:
    assert (
        tested.sampler.stride == 2 and coarse_stride(tested.pipe, 10, 5) == 5 and coarse_stride(tested.pipe, 7, 4) == 1
    )
    seen = []
    scheduler = tested.pipe.scheduler
    step = scheduler.step

    def watched(*args, **kwargs):
        seen.append((int(args[1]), scheduler.config.num_train_timesteps // scheduler.num_inference_steps))
        return step(*args, **kwargs)

    scheduler.step = watched
    try:
        tested.prepare([0])
        seen.clear()
        tested._draw([(0, None)], "middle")
    finally:
        del scheduler.step
    fine = list(tested.sampler.schedule.timesteps[tested.sampler.first["middle"] :])
    assert [t for t, _ in seen] == fine[::2] and {length for _, length in seen} == {200}
    with resumed_at(tested.pipe, 0), pytest.raises(RuntimeError):
        raise RuntimeError
    assert "set_timesteps" not in vars(scheduler)


def test_many_features_share_their_pictures_and_the_result_repeats(tested: CausalTest) -> None:
    switches = [Switch(site, feature, 0.5) for site in SITES[:2] for feature in (3, 4)]
    switches[0] = replace(switches[0], pictures=(2, 0))
    table = tested.measure(switches)
    assert table.equals(tested.measure(switches))
    rows = table.to_pylist()
    assert len(rows) == 2 * 3 + 3 * 2 * 3 + 2 * 2
    mine = [row["image_id"] for row in rows if row["feature"] == 3 and site_of_row(row) == SITES[0]]
    assert mine == ["i2", "i0"] * 2
    assert any(row["state"] == "on" and row["change"] > 0 for row in rows)
    assert any(row["state"] == "random" and row["change"] > 0 for row in rows)
    made = causal_table(table, labels(), CONCEPTS)
    assert made.num_rows == 4 * len(CONCEPTS) and not any(made["labelled"].to_pylist())


def test_a_pass_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gazetteer.jobs.cli.main import main

    assert main(["causal", str(tmp_path)]) == 2 and "not a finished run" in capsys.readouterr().err
    assert main(["causal", str(tmp_path), "--images", "-1"]) == 2 and "at least 0" in capsys.readouterr().err
    run = RunFolder(tmp_path / "run").open_or_create({})
    run.finish({"shards": []})
    assert main(["causal", str(tmp_path / "run")]) == 2 and "these differ" in capsys.readouterr().err


def test_a_run_without_held_out_pictures_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gazetteer.jobs.config.schema import load_config
    from gazetteer.jobs.experiments.causal import measure

    run = RunFolder(tmp_path / "run").open_or_create({})
    (tmp_path / "run" / "labels.parquet").write_bytes(b"labels")
    monkeypatch.setattr(measure, "finished_run", lambda config, path: run)
    monkeypatch.setattr(measure, "asked_concepts", lambda config, folder: ("dog",))
    with pytest.raises(InputError, match="has no held-out pictures"):
        measure.CausalPass(load_config(None), str(tmp_path / "run"))
    assert not (tmp_path / "run" / "causal").exists() and not capsys.readouterr().err
    with pytest.raises(InputError, match="has no held-out pictures"):
        measure.CausalPass(load_config(None, [f"pictures.table={tmp_path}"]), str(tmp_path / "run"))
    assert "others are drawn from their captions" in capsys.readouterr().err


def test_a_pass_on_the_embedded_models_goes_on_where_it_stood(
    scenes_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gazetteer.jobs.cli.main import main

    def causal(run: Path, features: int, *settings: str) -> int:
        site = "mid_block.attentions.0-cond-t0.50"
        command = ["causal", str(run), "--features", str(features), "--images", "2", "--sites", site, "--json"]
        return main(
            [
                *command,
                "--set",
                *SMALL,
                "executor=serial",
                "causal.stride=2",
                "causal.chunk=1",
                "causal.round=1",
                *settings,
            ]
        )

    def last() -> dict:
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    for name in ("bits", "whole"):
        shutil.copytree(scenes_run, tmp_path / name)
    assert causal(tmp_path / "bits", 1) == 0 and last()["groups_done_now"] == 2
    assert causal(tmp_path / "bits", 2) == 0
    result = last()
    assert (result["groups_done_now"], result["features"], result["images"]) == (2, 2, 2)
    assert result["rows"] == 2 * 16 == load_causal(tmp_path / "bits").num_rows
    assert causal(tmp_path / "bits", 2, "causal.strength=3") == 2
    assert "causal was started with other settings (strength: was 4.0, now 3" in capsys.readouterr().err
    assert causal(tmp_path / "whole", 2) == 0 and last()["groups_done_now"] == 4
    assert load_causal(tmp_path / "bits").equals(load_causal(tmp_path / "whole"))
    features = load_features(tmp_path / "bits", causal=True)
    assert features.num_rows == load_features(scenes_run).num_rows and "causal_concept" in features.column_names
    assert main(["causal", str(tmp_path / "bits"), "--sites", "nowhere", "--set", *SMALL]) == 2
    assert "has no site nowhere" in capsys.readouterr().err
