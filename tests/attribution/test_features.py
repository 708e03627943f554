"""Weights and features: activity, attribution patching and ablation of features, against direct computation."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch import nn

from gazetteer import load_components, load_labels
from gazetteer.attribution.edits.delta import difference
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.evaluation import features as features_module
from gazetteer.attribution.evaluation.cases import REPORT, draw_cases
from gazetteer.attribution.evaluation.features import (
    FeaturesConfig,
    _patching,
    _silenced,
    _written,
    ablating_edits,
)
from gazetteer.attribution.features.activity import activity, patching
from gazetteer.attribution.objective.objectives import Distance, FeatureActivation
from gazetteer.attribution.objective.problem import diffusion_problem
from gazetteer.attribution.objective.samples import Samples, freeze_target, join, shuffled
from gazetteer.attribution.objective.trajectory import trajectory
from gazetteer.attribution.scores.selection import scope_weights
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port, Site
from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import LABELS
from gazetteer.diffusion.capture import replaced_update
from gazetteer.diffusion.steer import steer
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments import attribute_evaluate
from gazetteer.jobs.experiments.attribute_evaluate import relate_features
from gazetteer.jobs.experiments.attribute_report import print_features
from gazetteer.labeling.tables import load_candidates
from gazetteer.labeling.vocabulary.concepts import Vocabulary
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_site_saes
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

SITE = Site(BLOCKS[1], "cond", 0.5)


@pytest.fixture(scope="module")
def pipe() -> object:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def samples(pipe: object) -> Samples:
    return trajectory(pipe, ["a red house", "a dog"], [1, 2], steps=4, only=[1])


@pytest.fixture(scope="module")
def sae() -> SparseAutoencoder:
    return SparseAutoencoder(SAEConfig(d=32, n=64, k=6)).initialise(0)


def test_attribution_patching_is_the_first_order_effect_of_a_feature(
    pipe: object, samples: Samples, sae: SparseAutoencoder
) -> None:
    unet = pipe.unet  # type: ignore[attr-defined]
    aimed = freeze_target(unet, samples)
    alphas = patching(unet, Distance(), aimed, SITE, sae)
    active = activity(unet, aimed, SITE, sae)
    assert alphas.shape == (64,) and not alphas[active == 0].any()
    feature, little = int(alphas.abs().argmax()), 1e-2

    def dimmed(update: torch.Tensor) -> torch.Tensor:
        vectors = update.flatten(2).transpose(1, 2)
        codes = sae.encode(vectors.flatten(0, 1))
        z = (codes.values * (codes.indices == feature)).sum(1).view(vectors.shape[:2])
        part = z.unsqueeze(2) * sae.decoder[feature]
        return update - little * part.transpose(1, 2).reshape(update.shape)

    with torch.no_grad():
        before = Distance()(unet, aimed).double().mean()
        with replaced_update(unet, SITE.block, dimmed):
            after = Distance()(unet, aimed).double().mean()
    assert float(after - before) / little == pytest.approx(-float(alphas[feature]), rel=0.05)


def test_patching_reads_what_the_autoencoder_was_trained_on(
    pipe: object, samples: Samples, sae: SparseAutoencoder
) -> None:
    unet = pipe.unet  # type: ignore[attr-defined]
    aimed, site = freeze_target(unet, samples), dataclasses.replace(SITE, signal="output")
    alphas, active = patching(unet, Distance(), aimed, site, sae), activity(unet, aimed, site, sae)
    assert (alphas != 0).sum() > 3 and not alphas[active == 0].any()
    assert not torch.equal(alphas, patching(unet, Distance(), aimed, SITE, sae))
    with pytest.raises(InputError, match="Features of what a block is given"):
        patching(unet, Distance(), aimed, dataclasses.replace(SITE, signal="input"), sae)


def test_ablated_features_fall_silent_in_their_branch_alone(pipe: object, sae: SparseAutoencoder) -> None:
    seen: list[torch.Tensor] = []
    run = {"prompt": "a dog", "num_inference_steps": 2, "output_type": "latent"}

    def record() -> torch.Tensor:
        seen.clear()
        handle = pipe.unet.conv_norm_out.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))  # type: ignore[attr-defined]
        out = pipe(**run, generator=torch.Generator().manual_seed(0)).images  # type: ignore[operator]
        handle.remove()
        return out

    plain = record()
    first = seen[0].clone()
    with steer(pipe, ablating_edits({SITE: range(64)}), {SITE: sae}):
        quiet = record()
    assert torch.allclose(seen[0][0], first[0], atol=1e-5)  # uncond, first step
    assert not torch.allclose(seen[0][1], first[1], atol=1e-5)
    assert not torch.allclose(plain, quiet)
    assert torch.equal(record(), plain)
    with steer(pipe, ablating_edits({SITE: []}), {SITE: sae}):
        assert torch.equal(record(), plain)
    with pytest.raises(InputError, match="no autoencoder"), steer(pipe, ablating_edits({SITE: [1]}), {}):
        pass


def test_the_site_nearest_in_t_ablates_each_step() -> None:
    early, middle, late = (Site("block", "cond", t) for t in (1.0, 0.5, 0.0))
    edits = ablating_edits({early: [1], middle: [2], late: [3], Site("block", "uncond", 0.5): [4]})
    for t, wanted in ((1.0, [1]), (0.8, [1]), (0.75, [2]), (0.3, [2]), (0.25, [3]), (0.1, [3]), (0.0, [3])):
        now = [edit.targets[0].features[0] for edit in edits if edit.active(t) and edit.branch == "cond"]
        assert now == wanted, t
        assert [e.targets[0].features for e in edits if e.active(t) and e.branch == "uncond"] == [(4,)]


def test_a_change_that_is_heard_twice_is_taken_out_once() -> None:
    """Update and output of a block are one change; of an output alone that is what is taken out."""
    both = {Site("block", "cond", 0.5, signal=signal): [number] for number, signal in enumerate(("output", "update"))}
    assert [edit.targets[0].features for edit in ablating_edits(both)] == [(1,)]
    assert [edit.targets[0].features for edit in ablating_edits(dict(reversed(both.items())))] == [(1,)]
    assert [
        edit.targets[0].features for edit in ablating_edits({Site("block", "cond", 0.5, signal="output"): [0]})
    ] == [(0,)]


def test_joined_samples_keep_what_all_of_them_have(pipe: object, samples: Samples) -> None:
    unet = pipe.unet  # type: ignore[attr-defined]
    doubled = freeze_target(unet, samples, 2.0)
    none, own = (freeze_target(unet, samples, factor) for factor in (0.0, 1.0))
    assert none.target is not None and own.target is not None and doubled.target is not None
    assert torch.allclose(doubled.target, 2 * own.target - none.target, atol=1e-5)
    both = join(samples, own)
    assert len(both) == 4 and both.target is None and both.base is not None
    mixed = shuffled(join(none, own), 3)
    assert sorted(mixed.target.flatten(1).sum(1).tolist()) == pytest.approx(  # type: ignore[union-attr]
        sorted([*none.target.flatten(1).sum(1).tolist(), *own.target.flatten(1).sum(1).tolist()])
    )


class Writer(nn.Module):
    """A block that adds c · W x to x [N, 3, 1, 1], c the conditioning."""

    in_channels = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[2.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 8.0]]) + 0.01)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return x + c.view(-1, 1, 1, 1) * torch.einsum("fc,nchw->nfhw", self.weight, x)


class Planted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Writer()

    def forward(self, x: torch.Tensor, _: torch.Tensor, *, c: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        return (self.block(x, c),)


@pytest.fixture
def planted() -> tuple[Planted, dict[float, Samples], dict[Site, SparseAutoencoder], Site]:
    """Feature f is channel f of what the block writes: about 2, 4 and 8, by row f of its weights alone."""
    same = SparseAutoencoder(SAEConfig(d=3, n=3, k=3))
    with torch.no_grad():
        same.encoder.copy_(torch.eye(3))
        same.decoder.copy_(torch.eye(3))
    ones, site = torch.ones(2, 3, 1, 1), Site("block", "cond", 0.5)
    samples = Samples(ones, torch.zeros(2), {"c": torch.ones(2)}, {"c": torch.zeros(2)})
    return Planted(), {0.5: samples}, {site: same}, site


def test_silenced_is_edited_over_intact_of_own_other_and_remaining_features(planted: Any) -> None:
    unet, samples, saes, site = planted
    before = {name: w.detach().clone() for name, w in unet.named_parameters()}
    after = {name: w * torch.tensor([[0.25], [0.5], [2.0]]) for name, w in before.items()}
    methods = SimpleNamespace(denoiser=unet, edit=lambda *_: difference(before, after, {}))
    labelled = {"dog": {site: [0]}, "cat": {site: [1]}, "sky": {site: [2]}}
    found = _silenced(methods, "dog", {"cat"}, labelled, labelled, samples, saes, FeaturesConfig())  # type: ignore[arg-type]
    assert found == {"own": pytest.approx(0.25), "other": pytest.approx(0.5), "rest": pytest.approx(2.0)}
    every = {**labelled, "cat": {site: [1, 2]}}  # a label beyond the best is still no silence of the rest
    found = _silenced(methods, "dog", {"cat"}, labelled, every, samples, saes, FeaturesConfig())  # type: ignore[arg-type]
    assert np.isnan(found["rest"])
    every = {**labelled, "dog": {site: [0, 1]}}  # nor is a feature of the dog's another's alone
    found = _silenced(methods, "dog", {"cat"}, labelled, every, samples, saes, FeaturesConfig())  # type: ignore[arg-type]
    assert np.isnan(found["other"]) and found["own"] == pytest.approx(0.25)


def test_patching_ranks_features_by_what_their_absence_takes_from_j(planted: Any) -> None:
    """J is the squared length of what is written: α_f = 2 u_f², so feature 2 comes first and feature 0 last."""
    unet, samples, saes, site = planted
    for own, hits, chance in (([2], 1.0, 1 / 3), ([0, 2], 0.5, 2 / 3), ([0], 0.0, 1 / 3)):
        found = _patching(SimpleNamespace(denoiser=unet), "dog", {site: own}, samples, saes)  # type: ignore[arg-type]
        assert found == {"labelled": pytest.approx(hits), "chance": pytest.approx(chance)}


def test_written_compares_the_concept_s_weights_with_the_writers_of_its_own_features(
    planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The method takes row 0, which writes the dog's feature; all weights say row 1, which writes the cat's."""
    unet, samples, saes, site = planted
    elsewhere = diffusion_problem(
        unet, FeatureActivation(Port("block"), 1, saes[site]), samples[0.5], scope_weights(unet, "all")
    )
    monkeypatch.setattr(features_module, "whole_problem", lambda *_: elsewhere)
    row = {"block.weight": torch.arange(3)}
    methods = SimpleNamespace(denoiser=unet, scores=lambda *_: {"block.weight": torch.eye(3)}, choose=lambda *_: row)
    # A bird's feature elsewhere is written by other layers, whoever is compared with it.
    labelled = {"bird": {dataclasses.replace(site, block="elsewhere"): [2]}, "cat": {site: [1]}, "dog": {site: [0]}}
    config = FeaturesConfig(fraction=1 / 3, written=1)
    found, rows = _written(methods, "dog", labelled, samples, saes, config, 0)  # type: ignore[arg-type]
    assert found == {"written": {"own": 1.0, "other": 0.0}, "written_all": {"own": 0.0, "other": 1.0}}
    chosen = {(row["feature"], row["row"]): row["chosen"] for row in rows}
    assert chosen == {(f, r): 3 * (r == 0) for f in (None, 0) for r in range(3)}
    # A feature of the dog's that is silent here has no writers, and the next site's takes its place.
    silent, mute = dataclasses.replace(site, branch="uncond"), SparseAutoencoder(SAEConfig(d=3, n=3, k=3))
    with torch.no_grad():
        mute.encoder.copy_(-torch.eye(3))
        mute.decoder.copy_(torch.eye(3))
    labelled["dog"] = {silent: [0], site: [0]}
    again = _written(methods, "dog", labelled, samples, {**saes, silent: mute}, config, 0)  # type: ignore[arg-type]
    assert again == (found, rows)
    labelled["dog"] = {silent: [0]}
    found, rows = _written(methods, "dog", labelled, samples, {silent: mute}, config, 0)  # type: ignore[arg-type]
    assert np.isnan(found["written"]["own"]) and {row["feature"] for row in rows} == {None}


def loaded_on(saes: str, sites: set[Site], device: str, *, signal: str) -> dict[Site, SparseAutoencoder]:
    """Autoencoders have to be told where the model is, or one on a GPU could not use them."""
    return load_site_saes(saes, sites, device, signal=signal)


def test_a_run_s_labels_are_tied_to_the_weights_of_its_concepts(
    scenes_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(scenes_run, tmp_path / "run")
    tested = load_candidates(run, branch="cond", min_iou=0.0)
    often = tested.filter(pc.greater_equal(tested["images_both"], 5))  # what fires in one may be silent in another
    best = often.sort_by([("dataset_iou", "descending")]).slice(0, 20)
    # Sixteen pictures earn hardly any trust: take the best of what was tested as if they had.
    labels = best.drop_columns(["trusted"])
    for name, value in (("rank", pa.array([1] * len(best), pa.int32())), ("kind", pa.array(["thing"] * len(best)))):
        labels = labels.set_column(labels.schema.get_field_index(name), name, value)
    folder = RunFolder(run)
    folder.write_final("labels", labels.cast(LABELS), {"by": "hand"})
    folder.finish({"shards": folder.shard_ids()})
    labels = load_labels(run).to_pylist()
    concept = labels[0]["concept"]
    methods = MethodConfig(steps=4, guidance=4.0, context=1, context_steps=1, tune_steps=2)
    config = FeaturesConfig(fraction=0.05, top=2, written=1, prompts=1)
    asked, measured = load_config(None, ["generation.steps=4"]), list[tuple[str, int]]()

    def recorded(pipe: Any, prompts: list[str], seeds: list[int], **rest: Any) -> Samples:
        measured.extend(zip(prompts, seeds, strict=True))
        return trajectory(pipe, prompts, seeds, **rest)

    monkeypatch.setattr(attribute_evaluate, "load_site_saes", loaded_on)
    monkeypatch.setattr(features_module, "trajectory", recorded)
    found = relate_features(asked, str(run), [concept], config, methods, str(tmp_path / "features"), pool=32, most=1)
    vocabulary = Vocabulary(asked.vocabulary)
    drawn = draw_cases(read_prompts(asked.prompts), vocabulary, sorted(vocabulary.concepts), (), 32, asked.seed)
    reported = {(case.prompt, case.seed) for case in drawn if case.half == REPORT and concept in case.named}
    assert measured and set(measured) <= reported  # nothing that an edit was made from
    table = load_components(found["components"])
    of_concept = load_components(found["components"], concept=concept)
    assert 0 < of_concept.num_rows < table.num_rows
    features = table.filter(pc.is_valid(table["feature"]))
    assert set(features["objective"].to_pylist()) == {"feature"} and set(features["branch"].to_pylist()) == {"cond"}
    known = {(row["block"], row["feature"]) for row in labels if row["concept"] == concept}
    assert set(zip(features["block"].to_pylist(), features["feature"].to_pylist(), strict=True)) <= known
    writers = {row["module"] for row in features.to_pylist() if row["chosen"]}
    # The layers that write the update are no part of cross-attention, which the concept's weights are chosen from.
    assert any(module.endswith(("proj_out", "ff.net.2")) for module in writers)
    assert {row["estimator"] for row in of_concept.to_pylist()} == {"gradient"}
    assert {row["objective"] for row in of_concept.to_pylist()} == {"context"}
    assert min(of_concept["score"].to_pylist()) >= 0  # |dJ/dw|, as the name says
    assert set(found["silenced"]) == {"own", "other", "rest"} and found["silenced"]["rest"][0] is not None
    assert 0 <= found["written_all"]["own"][0] <= 1
    assert found["silenced"]["own"][0] is not None and found["silenced"]["own"][0] >= 0
    assert 0 <= found["patching"]["labelled"][0] <= 1 and 0 < found["patching"]["chance"][0] <= 1
    assert set(found["erase"]) == {"weights", "features"}
    assert found["steps"] == methods.steps and found["configured_steps"] == asked.generation.steps
    print_features(found)
    other = dataclasses.replace(asked, generation=dataclasses.replace(asked.generation, guidance=2.0))
    with pytest.raises(InputError, match=r"these differ: generation\.guidance"):
        relate_features(other, str(run), [concept], config, methods, str(tmp_path))
    with pytest.raises(InputError, match="not a finished run"):
        relate_features(asked, str(tmp_path / "none"), [concept], config, methods, str(tmp_path))
    with pytest.raises(InputError, match=r"'unicorn' is not in vocabulary\.concepts"):
        relate_features(asked, str(run), ["unicorn"], config, methods, str(tmp_path))
    refused_and_left_out(asked, run, config, methods, table.slice(0, 1).to_pylist(), monkeypatch)


def refused_and_left_out(
    asked: Any, run: Path, config: FeaturesConfig, methods: MethodConfig, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path = run.parent
    known = sorted(Vocabulary(asked.vocabulary).concepts)
    with pytest.raises(InputError, match="method is 'esd'; accepted: cad, steps"):
        FeaturesConfig(method="esd")
    monkeypatch.setattr(attribute_evaluate, "labelled_features", lambda *_: {c: {} for c in known})
    with pytest.raises(InputError, match="labels no feature in the cond branch with a concept that a prompt names"):
        relate_features(asked, str(run), [], config, methods, str(tmp_path))
    monkeypatch.setattr(attribute_evaluate, "labelled_features", lambda *_: {c: {SITE: [1]} for c in known})
    monkeypatch.setattr(attribute_evaluate, "named_in", lambda *_: {"dog"})
    with pytest.raises(InputError, match="No prompt of the evaluation names 'boat'"):  # before anything is painted
        relate_features(asked, str(run), ["dog", "boat"], config, methods, str(tmp_path))
    given: list[list[str]] = []
    monkeypatch.setattr(attribute_evaluate, "load_site_saes", lambda *_, **__: {})
    monkeypatch.setattr(attribute_evaluate, "load_detector", lambda *_: None)
    monkeypatch.setattr(attribute_evaluate, "relate", lambda *args: given.append(list(args[3])) or ({}, rows))
    rest = relate_features(asked, str(run), [], config, methods, str(tmp_path / "again"), pool=32)["left_out"]
    assert given == [["dog"]] and "boat" in rest and "dog" not in rest
