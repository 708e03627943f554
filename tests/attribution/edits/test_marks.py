"""What shapes an edit or its scores stands in its provenance, and other settings of it replace nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from gazetteer.attribution.edits.delta import Change, Delta
from gazetteer.attribution.edits.delta_file import load_delta, require_same, save_delta
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.scores.score import ScoreConfig
from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.tables.provenance import read_provenance
from gazetteer.jobs.config.schema import RunConfig, load_config
from gazetteer.jobs.experiments.attribute_edit import EditConfig, make_edit
from gazetteer.jobs.experiments.attribute_score import score
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

METHODS = MethodConfig(steps=2, context=1, context_steps=1, tune_steps=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return str(folder)


def run_on(model: str, *overrides: str) -> RunConfig:
    run = load_config(None, [f"model.path={model}", "model.dtype=float32", *overrides])
    return dataclasses.replace(run, generation=dataclasses.replace(run.generation, steps=2))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.dtype=bfloat16", "model.dtype: float32 there, bfloat16 now"),
        ("model.scheduler=ddim", "model.scheduler: empty there, ddim now"),
        ("model.variant=fp16", "model.variant: empty there, fp16 now"),
    ],
)
def test_scores_of_a_model_read_otherwise_replace_nothing(model: str, override: str, said: str, tmp_path: Path) -> None:
    config = ScoreConfig(concept="dog", fraction=0.02, steps=2)
    done = score(run_on(model), config, str(tmp_path))
    held = {path: Path(path).read_bytes() for path in (done["edit"], done["components"])}
    made_from = load_delta(done["edit"]).provenance
    nowhere = run_on(model, "model.device=cuda:99", override)  # refused before a model is read
    for edit in (Path(done["edit"]), Path(done["components"])):
        with pytest.raises(InputError, match=f"{edit.name} is there already and of other settings .{said}"):
            score(nowhere, config, str(tmp_path))
        edit.unlink()
    for path, content in held.items():
        Path(path).write_bytes(content)
    score(run_on(model, "model.safety_checker=false", "model.vae_slicing=true"), config, str(tmp_path))
    assert Path(done["components"]).read_bytes() == held[done["components"]]
    assert load_delta(done["edit"]).provenance == made_from


def test_an_edit_from_other_prompts_or_concepts_replaces_nothing(model: str, tmp_path: Path) -> None:
    config, out = EditConfig("dog", method="cad", fraction=0.02, sheet=0, pool=40), str(tmp_path)
    done = make_edit(run_on(model), METHODS, config, out)
    (tmp_path / "prompts.txt").write_text("a dog on grass\na dog and a boat\na boat on the sea\na dog at night\n")
    for override, key in (
        (f"prompts.path={tmp_path / 'prompts.txt'}", "prompts"),
        ("vocabulary.concepts=[dog,boat]", r"prompts: \w+ there, \w+ now; vocabulary.concepts"),
        ("model.scheduler=ddim", "model.scheduler"),
    ):
        with pytest.raises(InputError, match=f"of other settings .{key}: "):
            make_edit(run_on(model, override, "model.device=cuda:99"), METHODS, config, out)
    assert make_edit(run_on(model), METHODS, config, out) == done
    made_from = load_delta(done["edit"]).provenance["fingerprint"]
    assert made_from.keys() >= {"model", "model.dtype", "model.scheduler", "prompts", "vocabulary.concepts"}


def test_a_feature_of_other_autoencoders_replaces_nothing(model: str, tmp_path: Path) -> None:
    site, out = Site(BLOCKS[1], "cond", 0.0), str(tmp_path / "out")
    for seed in (0, 1):
        autoencoder = SparseAutoencoder(SAEConfig(d=32, n=64, k=64)).initialise(seed)
        autoencoder.save_pretrained(tmp_path / str(seed) / site.slug)
    config = ScoreConfig(feature=f"{site.slug}:3", prompts=("a dog",), steps=2, fraction=0.05)
    done = score(run_on(model, f"saes={tmp_path / '0'}"), config, out)
    with pytest.raises(InputError, match=r"of other settings \(saes: sha256:"):
        score(run_on(model, f"saes={tmp_path / '1'}", "model.device=cuda:99"), config, out)
    score(run_on(model), ScoreConfig(concept="dog", fraction=0.02, steps=2), out)  # which reads none
    Path(done["edit"]).unlink()
    with pytest.raises(InputError, match=r"components.parquet is there already and of other settings \(saes"):
        score(run_on(model, f"saes={tmp_path / '1'}", "model.device=cuda:99"), config, out)
    others = read_provenance(done["components"])["config"]["others"]
    assert [call["saes"] for call in others] == [digest_path(str(tmp_path / "0"))]


def test_score_and_edit_replace_nothing_of_each_other(model: str, tmp_path: Path) -> None:
    """Both name an edit by concept, goal and how its weights were chosen."""
    scored = ScoreConfig(concept="dog", estimator="iterated", fraction=0.02, steps=2, points=2)
    edited = EditConfig("dog", method="iterated", fraction=0.02, sheet=0, pool=40)
    quick = dataclasses.replace(METHODS, rounds=2)
    nowhere = run_on(model, "model.device=cuda:99")  # refused before a model is read
    done = score(run_on(model), scored, str(tmp_path / "a"))
    held = Path(done["edit"]).read_bytes()
    with pytest.raises(InputError, match=r"made by gazetteer attribute score, and this is gazetteer attribute edit; g"):
        make_edit(nowhere, quick, edited, str(tmp_path / "a"))
    assert Path(done["edit"]).read_bytes() == held
    assert score(run_on(model), scored, str(tmp_path / "a")) == done
    done = make_edit(run_on(model), quick, edited, str(tmp_path / "b"))
    with pytest.raises(InputError, match=r"made by gazetteer attribute edit, and this is gazetteer attribute score; g"):
        score(nowhere, scored, str(tmp_path / "b"))
    assert make_edit(run_on(model), quick, edited, str(tmp_path / "b")) == done


def test_a_setting_that_only_one_of_two_edits_has_is_a_difference(tmp_path: Path) -> None:
    change = Change(torch.arange(1), torch.ones(1), torch.zeros(1))
    path, now = tmp_path / "e.safetensors", {"fingerprint": {"model": "m"}, "config": {"scope": "ff", "by_step": True}}
    for stored, said in (
        ({**now, "config": {}}, "scope: nothing there, ff now"),
        ({**now, "config": {"scope": "ff", "per": ""}}, "per: empty there, nothing now"),
        ({"config": now["config"]}, "model: nothing there, m now"),
        ({}, "model: nothing there, m now; scope: nothing there, ff now"),
    ):
        save_delta(Delta({"w": change}, stored), path)
        with pytest.raises(InputError, match=rf"is there already and of other settings \({said}\)"):
            require_same(path, now)
    save_delta(Delta({"w": change}, {**now, "config": {"scope": "ff", "fraction": 0.1}}), path)
    require_same(path, now, unsettled=["fraction"])
