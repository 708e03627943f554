"""Layout prediction: hand-computed cases, laws, and the whole of it on a tiny real pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.diffusion.attention import capture_attention, token_places
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.config.fingerprint import fingerprint_of
from gazetteer.jobs.config.schema import load_config
from gazetteer.labeling.evidence.counts import build_evidence
from gazetteer.labeling.evidence.site_codes import codes_by_site, flat_codes
from gazetteer.labeling.layout.evaluation.baselines import table_of_codes
from gazetteer.labeling.layout.evaluation.config import LayoutEvaluationConfig
from gazetteer.labeling.layout.evaluation.evaluate import evaluate_layout, print_layout
from gazetteer.labeling.layout.evaluation.exact import exact_group
from gazetteer.labeling.layout.evaluation.group import Group, pictures_at_once
from gazetteer.labeling.layout.evaluation.step import StepEvaluation
from gazetteer.labeling.layout.live import predict_layout
from gazetteer.labeling.layout.metrics import Truth
from gazetteer.labeling.layout.model import fit_layout
from gazetteer.labeling.layout.own_counts import own_counts
from gazetteer.labeling.layout.run import LayoutRun, mentions, open_run, take_images
from gazetteer.labeling.layout.score_maps import evidence_maps, paper_maps
from gazetteer.labeling.layout.site_table import site_tables
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline
from tests.support.runs.layout_runs import CONCEPTS, GENERATION, hooks_of, pipeline_run, random_saes, world_run
from tests.support.runs.small_world import MID, World, sky_world

SITE = Site("mid", "cond", 0.5)


@pytest.fixture(scope="module")
def world() -> World:
    return sky_world(80)


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> LayoutRun:
    return open_run(world_run(tmp_path_factory.mktemp("layout") / "run", world, "a sky and a ball"))


# Scores


def test_weights_are_log_odds_ratios_of_observed_and_shuffled_precision(run: LayoutRun) -> None:
    table = run.tables[MID]
    pseudo = 32 * 16.0  # 32 cells of 4 x 4 pixels
    inside, area, expected = table.intersection[0, 1], table.area[0, 1], table.expected[0, 1]
    precision = min((inside + pseudo * expected) / (area + pseudo), 1 - 1e-4)
    by_hand = np.log(precision / (1 - precision)) - np.log(expected / (1 - expected))
    assert inside == area  # feature 0 fires in the sky and nowhere else
    assert table.weights(np.array([0]), table.intersection[:1], table.area[:1])[0, 1] == pytest.approx(by_hand)


def test_a_feature_that_only_shares_the_place_says_nothing(run: LayoutRun) -> None:
    table = run.tables[MID]
    weights = table.weights(np.arange(3), table.intersection[:3], table.area[:3])[:, 1]
    follows, merely_top, everywhere = np.abs(weights)
    assert follows > 2 and merely_top < 0.5 and everywhere < 0.5


def test_own_counts_taken_out_equal_a_table_made_without_the_picture(world: World) -> None:
    inputs = [one for one in world.inputs if one.split == "discovery"][:12]
    grids = {MID: (8, 8)}
    whole = site_tables(build_evidence(inputs, world.base), grids, 1024)[MID]
    some = World(inputs, world.base)
    codes = codes_by_site(some.codes)[MID]
    pixels = np.zeros((12, 2, 64), np.int32)
    for i, one in enumerate(inputs):
        for concept, mask in one.segments:
            pixels[i, world.base.index(concept)] += mask.reshape(8, 4, 8, 4).sum(axis=(1, 3)).ravel()
    truth = Truth(pixels, np.full(64, 16.0), pixels.any(axis=2), np.ones((12, 2), bool))
    maps = evidence_maps(whole, codes, own_counts(whole, codes, truth))
    for i in (0, 7):
        rest = site_tables(build_evidence(inputs[:i] + inputs[i + 1 :], world.base), grids, 1024)[MID]
        kept = np.isin(whole.features, rest.features)
        assert kept.sum() == len(rest.features)
        # What pictures share in place (the shuffled precision) stays that of all pictures.
        rest = replace(rest, expected=whole.expected[kept])
        alone = take_images(codes, [inputs[i].image_id])
        known = np.isin(alone.feature, rest.features)
        alone = replace(alone, image=alone.image[known], feature=alone.feature[known], cell=alone.cell[known],
                        value=alone.value[known])  # fmt: skip
        np.testing.assert_allclose(maps[i], evidence_maps(rest, alone)[0], rtol=1e-5, atol=1e-5)


def test_counts_from_codes_and_masks_equal_the_evidence_of_the_run(world: World, run: LayoutRun) -> None:
    images = run.of_split("discovery")
    made = table_of_codes(run.codes(MID, images), run.truth((8, 8), images), run.concepts)
    stored = run.tables[MID]
    for name in ("features", "intersection", "area", "expected", "prior_pixels", "prior_area"):
        np.testing.assert_allclose(getattr(made, name), getattr(stored, name), err_msg=name)


def test_the_published_map_is_the_cosine_of_the_mean_of_the_strongest_features(run: LayoutRun) -> None:
    words = np.array([[True, False], [True, True], [False, False]])
    table = replace(run.tables[MID], grid=(1, 2), features=np.arange(3), hits=words.astype(np.int64),
                    intersection=np.zeros((3, 2)), area=np.ones((3, 2)), expected=np.ones((3, 2)) / 2)  # fmt: skip
    feature, value = np.array([0, 1, 2, 2, 2, 1]), np.array([3.0, 2.0, 9.0, 1.0, 1.0, 0.0])
    codes = flat_codes(SITE, ["a"], (1, 2), feature, value, np.array([6]))
    found = paper_maps(table, codes, np.eye(2), top=2)
    cell = (np.array([1.0, 0.0]) + np.array([0.5, 0.5])) / 2
    np.testing.assert_allclose(found[0, 0], cell / np.linalg.norm(cell), rtol=1e-6)
    np.testing.assert_array_equal(found[0, 1], 0.0)  # only a feature without a dictionary fires
    np.testing.assert_allclose(paper_maps(table, codes, np.eye(2), top=1)[0, 0], [1.0, 0.0])
    with pytest.raises(InputError, match="2 concepts need as many word vectors, not 3"):
        paper_maps(table, codes, np.eye(3))


# From a run's tables


def test_a_run_teaches_the_layout_and_heldout_pictures_take_no_part(run: LayoutRun, world: World, tmp_path) -> None:
    result = evaluate_layout(
        run, {}, np.eye(2), LayoutEvaluationConfig(every_step=False, baselines=False, resamples=100)
    )  # fmt: skip
    scores = result["miou"]["0.50"]
    assert scores["gazetteer"][1] > scores["prior"][2]  # intervals apart, over sky and ball together
    assert result["by_concept"]["0.50"]["gazetteer"]["sky"][0] > 0.9
    assert result["margin"]["0.50"]["prior"][1] > 0
    assert result["presence_ap"]["0.50"]["gazetteer"][0] > result["presence_ap"]["0.50"]["prior"][0] + 0.2
    changed = [
        replace(one, segments=[("sky", ~one.segments[-1][1])]) if one.split == "heldout" else one
        for one in world.inputs
    ]
    other = fit_layout(open_run(world_run(tmp_path / "other", World(changed, world.base), "a sky and a ball")))
    model = fit_layout(run)
    for mine, its in (
        (model.fits[0.5].where, other.fits[0.5].where),
        (model.fits[0.5].whether, other.fits[0.5].whether),
    ):
        np.testing.assert_array_equal(mine.weights, its.weights)
        np.testing.assert_array_equal(mine.thresholds, its.thresholds)


def test_pictures_of_one_prompt_are_drawn_together(run: LayoutRun, capsys: pytest.CaptureFixture[str]) -> None:
    config = LayoutEvaluationConfig(every_step=False, baselines=False, resamples=20)
    assert run.maps.prompts is not None and len(set(run.maps.prompts.tolist())) == len(run.image_ids)
    alike = replace(run, maps=replace(run.maps, prompts=np.zeros(len(run.image_ids), np.int64)))
    results = [evaluate_layout(one, {}, np.eye(2), config) for one in (run, alike)]
    apart, together = (result["miou"]["0.50"]["prior"] for result in results)
    assert apart[1] < apart[0] < apart[2]
    assert together == pytest.approx([apart[0], np.nan, np.nan], nan_ok=True), "one prompt says nothing of others"
    print_layout({**results[0], "seconds": 1})
    count = len(run.of_split("discovery"))
    assert f"{count} in the tables that gazetteer, paper and labels read, {count} to" in capsys.readouterr().out


def test_measuring_in_parts_changes_nothing_and_memory_is_bounded(run: LayoutRun) -> None:
    step = StepEvaluation(
        run, {}, np.eye(2), LayoutEvaluationConfig(every_step=False, baselines=False, resamples=20), 0.5
    )
    train, held = (run.of_split(split) for split in ("discovery", "heldout"))
    groups = [
        Group(tuple(run.image_ids[i] for i in some), run.truth, some, None, stored=True) for some in (train, held)
    ]
    step.fit(groups[0], None)
    whole = step.measure(groups[1])
    step.at_once = 3
    assert [len(part.image_ids) for part in groups[1].parts(3)][:2] == [3, 3]
    parts = step.measure(groups[1])
    for key in ("miou", "pointing", "presence_ap", "margin"):
        for name, values in whole[key].items():
            np.testing.assert_allclose(parts[key][name], values, rtol=1e-5, err_msg=f"{key} {name}")
    # 64 cells of 2 concepts: 2 * (3 + 1) + 2 maps of 4 bytes each.
    assert pictures_at_once(1, 64, 2, 1, 0) == 2**20 // (4 * 64 * 2 * 10)
    assert pictures_at_once(1, 10**6, 100, 6, 1280) == 1


# Inside a pipeline


@pytest.fixture(scope="module")
def saes() -> dict:
    return random_saes()


@pytest.fixture(scope="module")
def painted(saes: dict, tmp_path_factory: pytest.TempPathFactory) -> LayoutRun:
    return open_run(pipeline_run(tmp_path_factory.mktemp("painted") / "run", tiny_pipeline(), saes))


def paint(pipe, count: int = 2, **options):
    noise = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    settings = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "np", **options}
    return pipe(prompt=["a red house", "a dog"][:count], latents=noise, **settings).images


def test_the_live_layout_equals_the_stored_one_and_changes_no_picture(painted: LayoutRun, saes: dict) -> None:
    pipe, model = tiny_pipeline(), fit_layout(painted, saes)
    plain = paint(pipe)
    told = []
    with predict_layout(pipe, model, on_layout=told.append) as layout:
        np.testing.assert_array_equal(paint(pipe), plain)
    assert [one.step for one in told] == [0, 1, 2] and [one.t for one in told] == [1.0, 0.5, 0.0]
    assert layout.latest is told[-1] and told[0].where.shape == (2, 3, 4, 4)
    assert layout.latest.mask("dog").shape == (2, 4, 4)
    image = painted.of_split("heldout")[:2]
    with predict_layout(pipe, model) as layout:
        Generator(pipe, replace(GENERATION, exact=False)).pictures(
            [painted.prompts[i] for i in image], [painted.seeds[i] for i in image], saes
        )
    stored = model.predict({site: painted.codes(site, image) for site in model.sites_at(1.0)}, 1.0, 0)
    np.testing.assert_allclose(layout.history[0].where, stored.where, atol=2e-3)
    with predict_layout(pipe, model) as layout:
        paint(pipe, count=1, guidance_scale=1.0)
    assert layout.latest.where.shape == (1, 3, 4, 4)
    with pytest.raises(RuntimeError, match="stop"), predict_layout(pipe, model):
        raise RuntimeError("stop")
    assert hooks_of(pipe.unet) == 0


def test_a_layout_that_cannot_be_says_why(painted: LayoutRun, saes: dict, run: LayoutRun) -> None:
    pipe = tiny_pipeline()
    with pytest.raises(InputError, match="no autoencoders"), predict_layout(pipe, fit_layout(painted)):
        pass
    with pytest.raises(InputError, match="no block 'mid'"), predict_layout(pipe, replace(fit_layout(run), saes=saes)):
        pass
    uncond = fit_layout(painted, saes, branch="uncond")
    with pytest.raises(InputError, match="without guidance"), predict_layout(pipe, uncond):
        paint(pipe, guidance_scale=1.0)
    model = fit_layout(painted, saes)
    with pytest.raises(InputError, match="no layout yet"), predict_layout(pipe, model) as layout:
        layout.latest  # noqa: B018
    with predict_layout(pipe, model) as layout:
        paint(pipe)
    assert (layout.latest.mask("Dogs") == layout.latest.mask("dog")).all()
    assert (layout.latest.told("Dogs") == layout.latest.told("dog")).all()
    with pytest.raises(InputError, match="knows no 'cat'"):
        layout.latest.mask("cat")
    with pytest.raises(InputError, match="knows no 'cat'"):
        layout.latest.told("cat")
    with pytest.raises(InputError, match="not a finished run"):
        open_run("/nowhere")


def test_attention_is_the_layers_own_softmax() -> None:
    pipe, seen = tiny_pipeline(), {}
    plain = paint(pipe)
    with capture_attention(pipe, lambda layer, call, maps: seen.setdefault((layer, call.timestep), maps)):
        np.testing.assert_array_equal(paint(pipe), plain)
    layers = {layer for layer, _ in seen}
    assert len(seen) == 3 * len(layers) and all("attn2" in layer for layer in layers)
    for maps in seen.values():
        assert maps.shape[:2] == (4, 16)
        torch.testing.assert_close(maps.sum(dim=2), torch.ones(4, 16))
    (path, timestep), ours = next(iter(seen.items()))
    layer, inputs = pipe.unet.get_submodule(path), []
    hook = layer.register_forward_pre_hook(
        lambda _, args, kwargs: inputs.append((args[0], kwargs["encoder_hidden_states"])), with_kwargs=True
    )
    paint(pipe)
    hook.remove()
    cells, words = inputs[0]  # of the first step, as `ours`
    assert timestep == int(pipe.scheduler.timesteps[0])
    query, key = (layer.head_to_batch_dim(x) for x in (layer.to_q(cells), layer.to_k(words)))
    by_library = layer.get_attention_scores(query, key).reshape(4, layer.heads, 16, -1).mean(dim=1)
    torch.testing.assert_close(ours, by_library)
    assert hooks_of(pipe.unet) == 0


def test_words_are_found_among_the_tokens() -> None:
    tokenizer = tiny_pipeline().tokenizer
    places = token_places(tokenizer, "two boats on a red boat", ("boat", "boats"))
    ids = tokenizer("two boats on a red boat").input_ids
    spelled = tokenizer.convert_ids_to_tokens([ids[i] for i in places])
    assert "".join(spelled).replace("</w>", " ").split() == ["boats", "boat"]
    assert token_places(tokenizer, "a red house", ("boat",)) == []
    assert mentions(["two boats", "a house"], CONCEPTS).tolist() == [[True, False, False], [False, False, True]]


def test_everything_is_measured_at_every_step_and_on_exact_masks(painted: LayoutRun, saes: dict) -> None:
    folder = painted.store.path
    exact = exact_group(painted, folder, GENERATION, 8, most=3)
    result = evaluate_layout(
        painted, saes, np.eye(3), LayoutEvaluationConfig(resamples=20, batch_size=4), tiny_pipeline(), GENERATION, exact
    )
    methods = {"gazetteer", "paper", "prior", "chance", "attention", "attention_daam", "directions", "probe", "neurons",
               "features_only", "uncond"}  # fmt: skip
    at_each = {"1.00": methods, "0.50": methods | {"gazetteer_nearest", "gazetteer_shared", "live"}, "0.00": methods}
    assert list(result["miou"]) == list(at_each)  # in the order of sampling
    for key in ("miou", "by_concept"):
        assert {t: set(found) for t, found in result[key].items()} == at_each
    for found in result["miou"].values():
        for mean, low, high in found.values():
            assert 0.0 <= low <= mean <= high <= 1.0 or low - 1e-9 <= mean <= high + 1e-9
    assert {t: set(found["miou"]) for t, found in result["exact"].items()} == at_each
    between = result["miou"]["0.50"]
    assert between["live"] != between["gazetteer_nearest"]  # codes alike, fitted elsewhere
    assert between["gazetteer"] in (between["gazetteer_nearest"], between["gazetteer_shared"])
    assert result["autoencoder_t"] == {"1.00": 1.0, "0.50": result["autoencoder_t"]["0.50"], "0.00": 0.0}
    boats = result["by_concept"]["0.50"]["prior"]["boat"]
    assert len(boats) == 3 and boats[1] < boats[0] < boats[2]
    assert len(result["sites"]) == 3 * 2 * len(BLOCKS)
    assert result["images"] == {"tables": 8, "train": 8, "train_sampled": 8, "heldout": 4, "exact": 3}
    # Every picture shows two boats, and the first of its three names a boat alone.
    assert result["pairs"]["boat"] == 4 and result["exact_pairs"] == {"boat": 3, "dog": 0, "house": 0}
    with pytest.raises(InputError, match="no readable table images"):
        exact_group(painted, "/nowhere", GenerationConfig(), 8)
    with pytest.raises(InputError, match="keep the baselines"):
        LayoutEvaluationConfig(baselines=False)
    group = Group((), painted.truth, np.zeros(0, np.int64), None, stored=False)
    assert group.truth((4, 4)).pixels.shape == (0, 3, 16)


def test_the_command_predicts_and_measures(saes: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tiny_pipeline()
    pipe.save_pretrained(tmp_path / "model")
    for site, sae in saes.items():
        sae.save_pretrained(tmp_path / "saes" / site.slug, {"site": site})
    config = {
        "name": "tiny", "prompts": {"path": "none.txt"}, "model": {"path": "model"}, "saes": "saes",
        "generation": {"steps": 3, "guidance": 3.0, "blocks": list(BLOCKS), "t": [1.0, 0.0], "exact": False},
        "vocabulary": {"concepts": list(CONCEPTS)}, "detector": {"path": "none"}, "segmenter": {"path": "none"},
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    made = fingerprint_of(load_config(tmp_path / "tiny.yaml"))
    run = str(pipeline_run(tmp_path / "run", pipe, saes, made=made).path)
    common = [run, "--config", str(tmp_path / "tiny.yaml"), "--json"]
    plots = tmp_path / "plots"
    assert main(["layout", "evaluate", *common, "--stored", "--plots", str(plots)]) == 0
    assert {file.name for file in plots.glob("*.svg")} == {"miou.svg", "pointing.svg"}  # presence: nobody lacks a boat
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["left_out"]) == {"labels", "labels_winners", "attention"}  # the run has no labels
    assert set(result["miou"]) == {"1.00", "0.00"} and len(result["miou"]["1.00"]["gazetteer"]) == 3
    assert result["seconds"] > 0
    out = tmp_path / "out"
    predict = ["layout", "predict", *common, "--prompt", "a red house", "--out", str(out)]
    assert main(predict) == 2  # the run has no labels
    assert "no thing, stuff or part that goes with a feature of the cond branch" in capsys.readouterr().err
    assert main([*predict, "--calibrated"]) == 0
    steps = json.loads(capsys.readouterr().out.splitlines()[-1])["steps"]
    assert [row["t"] for row in steps] == [1.0, 0.5, 0.0] and set(steps[0]["shares"]) == {"house"}
    assert np.load(out / "layout.npz")["where"].shape == (3, 3, 4, 4) and (out / "picture.png").is_file()
    assert main(["layout", "evaluate", *common, "--set", "generation.guidance=4.0"]) == 2
    assert "these differ: generation.guidance" in capsys.readouterr().err
    assert main(["layout", "evaluate", *common, "--stored", "--exact", run]) == 2
