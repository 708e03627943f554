"""Causal labels: what switching does by hand, which verdict follows, and the pass on a tiny real pipeline."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gazetteer import load_causal, load_features, load_labels
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.inputs.edits import Edit, Target
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import CAUSAL, EFFECTS
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.resume import coarse_stride, resumed_at
from gazetteer.jobs.experiments.causal import _turns, features_to_try
from gazetteer.labeling.evidence.site_codes import site_of_row
from gazetteer.labeling.interventions.causal import CausalConfig, CausalTest, SharedPicture, Switch
from gazetteer.labeling.interventions.causal_table import causal_table, judged, paired_interval, sign_flip_p, summarise
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.labeling.interventions.test_steering import BLOCK, CONCEPTS, SITES, Finder
from tests.support.models.tiny_pipeline import tiny_pipeline
from tests.support.runs.runs import PROVENANCE, finished_run
from tests.support.system.running import SMALL

MID = Site("mid_block.attentions.0", "cond", 0.3)


def effects(on: list[float], off: list[float], plain: list[float], site: Site = MID, feature: int = 1) -> pa.Table:
    """One feature's effects on the area of dog."""
    rows = []
    for state, areas in (("plain", plain), ("on", on), ("off", off)):
        for i, area in enumerate(areas):
            rows.append(
                {
                    **site.columns(), "image_id": f"i{i}", "state": state,
                    "feature": None if state == "plain" else feature, "drawn": state == "on" or area != plain[i],
                    "change": abs(area - plain[i]), "concept": ["dog"] if area else [], "area": [area] if area else [],
                }
            )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=EFFECTS)


def labels(*concepts: str) -> pa.Table:
    rows = [{**MID.columns(), "feature": 1, "concept": c} for c in concepts]
    schema = pa.schema([CAUSAL.field(name) for name in (*SITE_COLUMNS, "feature", "concept")])
    return pa.Table.from_pylist(rows, schema=schema)


def test_changes_are_paired_and_split_into_on_and_off() -> None:
    table = causal_table(effects([0.5, 0.4, 0.3], [0.1, 0.0, 0.2], [0.3, 0.2, 0.2]), labels("dog"), ("cat", "dog"))
    dog = table.to_pylist()[1]
    assert (dog["concept"], dog["labelled"], dog["causal_images"], dog["causal_drawn"]) == ("dog", True, 3, 2)
    for name, value in (("area", 0.3), ("area_on", 0.5 / 3), ("area_off", -0.4 / 3), ("presence", 1 / 3),
                        ("presence_on", 0.0), ("presence_off", -1 / 3), ("change_on", 0.5 / 3)):  # fmt: skip
        assert dog[f"causal_{name}"] == pytest.approx(value), name
    assert dog["causal_area_low"] == pytest.approx(0.1) and dog["causal_area_high"] <= 0.4
    assert table["causal_verdict"].to_pylist() == ["none", "no effect"]  # three pictures prove nothing


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
        assert found["cat"] == ("no effect" if named == "cat" else "none")
    summary = summarise(causal_table(up, labels("cat"), ("cat", "dog")))
    assert (summary["labels"], summary["no_effect"], summary["effect_without_label"]) == (1, 1, 1)
    assert (summary["effect_features"], summary["effect_features_unlabelled"]) == (1, 0)
    assert summary["other_pairs_rising"] == 1.0


def test_pairs_with_an_effect_and_their_features_are_counted_apart() -> None:
    rows = effects(list(0.5 + np.linspace(0.1, 0.2, 12)), [0.1] * 12, [0.2] * 12).to_pylist()
    both = [{**row, "concept": ["cat", "dog"], "area": row["area"] * 2} for row in rows]
    table = pa.Table.from_pylist(both, schema=EFFECTS)
    for named, pairs, unlabelled in (((), 2, 1), (("cat",), 1, 0)):
        summary = summarise(causal_table(table, labels(*named), ("cat", "dog")))
        assert (summary["effect_without_label"], summary["effect_features"]) == (pairs, 1)
        assert summary["effect_features_unlabelled"] == unlabelled


def test_statistics_by_hand() -> None:
    one_sided = np.array([[1.0, 1, 1, 1, 1, 1], [1, -1, 1, -1, 1, -1], [0, 0, 0, 0, 0, 0], [0, 0, 0, 2, 0, 0]])
    p = sign_flip_p(one_sided)
    assert p[0] == pytest.approx(2 / 64, abs=0.005)
    assert p[1] == 1.0 and p[2] == 1.0 and p[3] == 1.0
    mean, low, high = paired_interval(one_sided)
    assert (mean[0], low[0], high[0]) == (1.0, 1.0, 1.0) and low[1] < 0 < high[1]
    # 99 pairs without label do not dilute the one that has it.
    area, p = np.ones(100), np.r_[0.04, np.ones(99)]
    assert judged(area, p, np.arange(100) == 0)[1][0] == "confirmed"
    assert judged(area, p, np.arange(100) < 0)[1][0] == "none"


def test_features_come_in_turns_and_longer_lists_begin_alike(tmp_path: Path) -> None:
    assert list(_turns([1, 2, 3, 4, 5], [7, 8], 1)) == [1, 2, 3, 7, 4, 5, 8]
    assert list(_turns([1, 2], [7, 8, 9], 1)) == [1, 2, 7, 8, 9]
    run = finished_run(tmp_path / "run")
    assert features_to_try(run, MID, 1) == [1]  # the other one is neither labelled nor fires


def test_switches_are_edits() -> None:
    stage = {"window": (0.2, 0.6), "branch": "cond"}
    target = Target(MID.block, "cond", 0.3, (7,))
    on = Edit(targets=(replace(target, scales=(0.5,)),), unit="feature_p99", strength=16.0, **stage)
    assert Switch(MID, 7, 0.5).edit("on", 16.0) == on
    assert Switch(MID, 7, 0.5).edit("off", 16.0) == Edit(targets=(target,), unit="code", strength=-1.0, **stage)
    assert Switch(Site("mid", "uncond", 1.0), 7, 0.5).edit("on", 2.0).branch == "uncond"


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
    features = load_features(run, columns=["feature"], causal=True).to_pylist()
    assert [(row["feature"], row["causal_concept"]) for row in features] == [(1, "dog"), (2, None)]


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
    return CausalTest(generator, saes, Finder(), Finder(), CONCEPTS, STARTS, CausalConfig(images=3, stride=4), 4)


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
        tested.prepare(SITES[1])
        seen.clear()
        tested._draw([(0, None)], "middle")
    finally:
        del scheduler.step
    fine = list(tested.sampler.schedule.timesteps[tested.sampler.first["middle"] :])
    assert [t for t, _ in seen] == fine[::2] and {length for _, length in seen} == {200}
    with resumed_at(tested.pipe, 0), pytest.raises(RuntimeError):
        raise RuntimeError
    assert "set_timesteps" not in vars(scheduler)


def test_switching_off_takes_out_what_the_feature_writes(tested: CausalTest) -> None:
    site = SITES[1]
    tested.prepare(site)
    fires = next(f for f in sorted(tested._plain[0].fired[site]))
    quiet = next(f for f in range(64) if f not in tested._plain[0].fired[site])
    plain = tested._plain[0].picture["middle"]
    for feature, same in ((fires, False), (quiet, True)):
        (drawn,) = tested._draw([(0, Switch(site, feature, 1.0).edit("off", 1.0))], "middle")
        # Only the picture drawn alone: batches of other sizes differ in the last bits.
        (alone,) = tested._draw([(0, Edit(targets=(Target(BLOCK, features=(0,)),), strength=0.0))], "middle")
        assert np.array_equal(drawn, alone) == same
    assert np.abs(plain.astype(int) - alone.astype(int)).max() <= 1


def test_many_features_share_their_pictures_and_the_result_repeats(tested: CausalTest) -> None:
    switches = [Switch(site, feature, 0.5) for site in SITES[:2] for feature in (3, 4)]
    table = tested.measure(switches)
    assert table.equals(tested.measure(switches))
    rows = table.to_pylist()
    assert len(rows) == 2 * 3 + 4 * 2 * 3
    assert {row["image_id"] for row in rows} == {"i0", "i1", "i2"}
    for row in rows:
        fired = tested._plain[int(row["image_id"][1])].fired[site_of_row(row)]
        assert row["drawn"] == (row["state"] == "on" or (row["state"] == "off" and row["feature"] in fired))
        assert row["drawn"] or row["change"] == 0.0
    assert any(row["state"] == "on" and row["change"] > 0 for row in rows)
    made = causal_table(table, labels(), CONCEPTS)
    assert made.num_rows == 4 * len(CONCEPTS) and not any(made["labelled"].to_pylist())


def test_a_pass_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gazetteer.jobs.cli.main import main

    assert main(["causal", str(tmp_path)]) == 2 and "not a finished run" in capsys.readouterr().err
    assert main(["causal", str(tmp_path), "--images", "0"]) == 2 and "at least 1" in capsys.readouterr().err
    run = RunFolder(tmp_path / "run").open_or_create({})
    run.finish({"shards": []})
    assert main(["causal", str(tmp_path / "run")]) == 2 and "these differ" in capsys.readouterr().err


def test_a_pass_on_the_embedded_models_goes_on_where_it_stood(
    scenes_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gazetteer.jobs.cli.main import main

    def causal(run: Path, features: int, *settings: str) -> int:
        site = "mid_block.attentions.0-cond-t0.50"
        command = ["causal", str(run), "--features", str(features), "--images", "2", "--sites", site, "--json"]
        return main([*command, "--set", *SMALL, "executor=serial", "causal.stride=2", "causal.chunk=1", *settings])

    def last() -> dict:
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    for name in ("bits", "whole"):
        shutil.copytree(scenes_run, tmp_path / name)
    assert causal(tmp_path / "bits", 1) == 0 and last()["groups_done_now"] == 1
    assert causal(tmp_path / "bits", 2) == 0
    result = last()
    assert (result["groups_done_now"], result["features"], result["images"]) == (1, 2, 2)
    assert result["rows"] == 2 * 16 == load_causal(tmp_path / "bits").num_rows
    assert causal(tmp_path / "bits", 2, "causal.strength=3") == 2
    assert "causal was started with other settings (strength: was 16.0, now 3" in capsys.readouterr().err
    assert causal(tmp_path / "whole", 2) == 0 and last()["groups_done_now"] == 2
    assert load_causal(tmp_path / "bits").equals(load_causal(tmp_path / "whole"))
    features = load_features(tmp_path / "bits", causal=True)
    assert features.num_rows == load_features(scenes_run).num_rows and "causal_concept" in features.column_names
    assert main(["causal", str(tmp_path / "bits"), "--sites", "nowhere", "--set", *SMALL]) == 2
    assert "has no site nowhere" in capsys.readouterr().err
