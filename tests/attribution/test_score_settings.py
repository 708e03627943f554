"""What `attribute score` is told is heard: objectives, bases, signs, steps and samplers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, HeunDiscreteScheduler, UniPCMultistepScheduler
from torch import nn

from gazetteer import load_components
from gazetteer.attribution.objective.context import Context, context_samples
from gazetteer.attribution.objective.problem import Problem, diffusion_problem
from gazetteer.attribution.objective.samples import Samples
from gazetteer.attribution.objective.trajectory import begin, conditioning, noised_images, trajectory
from gazetteer.attribution.scores import score
from gazetteer.attribution.scores.components import component_rows, require_room, write_components
from gazetteer.attribution.scores.controls import CONTROLS
from gazetteer.attribution.scores.score import OBJECTIVES, ScoreConfig, _selection, score_weights
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.tables.provenance import provenance, read_provenance
from gazetteer.diffusion.capture import capture_updates, cells
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments.attribute_score import score as write_scores
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.sdxl import SMALL, tiny_sdxl
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

PROMPT = ("a dog at night",)


def test_objectives_and_bases_that_would_not_be_heard_are_refused() -> None:
    feature = {"feature": "mid_block.attentions.0-cond-t0.50:3", "prompts": ("a boat",)}
    assert ScoreConfig(**feature).objective == "erase" and ScoreConfig(**feature, objective="amplify").feature
    for wrong, words in (
        ({**feature, "objective": "no-such:thing"}, "A feature is its own objective"),
        ({"concept": "dog", "objective": "amplify", "base": "cat"}, "amplify compares with no base concept"),
    ):
        with pytest.raises(InputError, match=words):
            ScoreConfig(**wrong)


@pytest.mark.parametrize("estimator", CONTROLS)
def test_controls_take_weights_to_amplify_as_to_erase(estimator: str) -> None:
    signs = {goal: _selection(ScoreConfig("dog", objective=goal, estimator=estimator))[1].sign for goal in OBJECTIVES}
    assert set(signs.values()) == {"positive"}
    assert _selection(ScoreConfig("dog", objective="amplify"))[1].sign == "negative"


def test_rounds_of_iterated_see_early_and_late_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight pictures of four steps: parts of eight samples would each be one step's."""
    made: list[list[set[int]]] = []

    def recorded(unet: nn.Module, objective: object, samples: Samples, weights: object, batch: int = 8) -> Problem:
        made.append([set(part.timestep.tolist()) for part in samples.chunks(batch)])
        return diffusion_problem(unet, objective, samples, weights, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(score, "diffusion_problem", recorded)
    config = ScoreConfig("dog", estimator="iterated", objective="erase-live", fraction=0.05, steps=4, seeds=8, points=2)
    pipe = tiny_pipeline()
    score_weights(pipe, replace(config, by_step=True))
    mixed, by_step = made
    assert len(mixed) == len(by_step) == 4 and min(map(len, mixed)) > 1
    assert [len(part) for part in by_step] == [1] * 4 and len(set.union(*by_step)) == 4
    score_weights(pipe, replace(config, estimator="cad", points=None))
    assert made[2] == by_step


def test_samplers_with_several_calls_a_step_are_refused_whatever_is_measured() -> None:
    tried = tiny_pipeline()
    latents = torch.zeros(1, 4, 8, 8)
    tried.scheduler = HeunDiscreteScheduler.from_config(tried.scheduler.config, prediction_type="epsilon")
    with pytest.raises(InputError, match="HeunDiscreteScheduler calls the denoiser 7 times for 4 steps"):
        noised_images(tried, latents, ["a dog"], steps=4)
    tried.scheduler = UniPCMultistepScheduler.from_config(tried.scheduler.config, prediction_type="v_prediction")
    with pytest.raises(InputError, match="UniPCMultistepScheduler does not say what a velocity is"):
        noised_images(tried, latents, ["a dog"], steps=4)


@pytest.mark.parametrize("model", [tiny_pipeline, lambda: tiny_sdxl(SMALL, DDIMScheduler())], ids=["sd", "sdxl"])
def test_a_feature_of_the_uncond_branch_is_scored_on_what_that_branch_is_given(
    model: Callable[[], Any], tmp_path: Path
) -> None:
    """Of SDXL that is not what it makes of the empty prompt."""
    pipe, heard = model(), list[torch.Tensor]()
    site = Site(BLOCKS[1], "uncond", 1.0)
    sae = SparseAutoencoder(SAEConfig(d=32, n=64, k=64)).initialise(0)
    sae.save_pretrained(tmp_path / site.slug, {"site": site})
    latents, _ = begin(pipe, [0])
    with torch.no_grad(), capture_updates(pipe, [site.block], lambda _, __, update: heard.append(cells(update)[0])):
        pipe(prompt=list(PROMPT), latents=latents, num_inference_steps=2, guidance_scale=3.0, output_type="latent")
    codes = sae.encode(heard[0])
    feature = int(codes.indices[0, 0])
    config = ScoreConfig(feature=f"{site.slug}:{feature}", prompts=PROMPT, steps=2, fraction=0.05)
    own = float((codes.values * (codes.indices == feature)).sum(1).mean().detach())
    assert score_weights(pipe, config, str(tmp_path)).value == pytest.approx(own, rel=1e-4)
    with pytest.raises(InputError, match="runs no uncond branch at guidance 1"):
        score_weights(pipe, replace(config, guidance=1.0), str(tmp_path))


@pytest.mark.parametrize(("guidance", "zero"), [(3.0, True), (1.0, False)])
def test_an_edit_in_context_holds_what_the_other_half_of_guidance_is_told(guidance: float, zero: bool) -> None:
    """Zeros with SDXL; where no such half runs, the empty prompt."""
    pipe = tiny_sdxl(SMALL, DDIMScheduler())
    context = Context(("a dog on grass",), ("grass",), ("a boat", "the sea"))

    def walk(prompts: Sequence[str], only: Sequence[int]) -> Samples:
        return trajectory(pipe, list(prompts), range(len(prompts)), steps=2, guidance=guidance, only=only)

    samples = context_samples(pipe, context, 0.0, walk, early=[0], only=[0, 1], guidance=guidance)
    told = samples.cond["encoder_hidden_states"]
    empty = conditioning(pipe, [""], guidance)["encoder_hidden_states"]
    held = torch.zeros_like(empty) if zero else empty
    # Of four x_t that other prompts walk through every second.
    assert int((told == held).all(dim=2).all(dim=1).sum()) == 2
    assert int((told == empty).all(dim=2).all(dim=1).sum()) == (0 if zero else 2)


def test_what_is_wrong_with_a_feature_is_known_before_anything_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, site = tiny_pipeline(), Site(BLOCKS[1], "cond", 0.0)
    SparseAutoencoder(SAEConfig(d=32, n=64, k=4)).initialise(0).save_pretrained(tmp_path / "fit" / site.slug)
    SparseAutoencoder(SAEConfig(d=16, n=64, k=4)).initialise(0).save_pretrained(tmp_path / "narrow" / site.slug)
    monkeypatch.setattr(score, "trajectory", lambda *_, **__: pytest.fail("sampled first"))
    for folder, feature, words in (
        ("fit", f"{site.slug}:64", r"features 0\.\.63, not 64"),
        ("fit", f"{site.slug}", "accepted: SITE:N"),
        ("narrow", f"{site.slug}:3", f"expects 16 channels, but {site.block} has 32"),
        ("nowhere", f"{site.slug}:3", "has no SAE for 1 of 1 sites"),
    ):
        with pytest.raises(InputError, match=words):
            score_weights(pipe, ScoreConfig(feature=feature, prompts=PROMPT, steps=2), str(tmp_path / folder))


def test_the_autoencoder_of_a_feature_is_where_the_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a model on a GPU hands it what it cannot multiply with."""
    pipe, site = tiny_pipeline(), Site(BLOCKS[1], "cond", 0.0)
    sae = SparseAutoencoder(SAEConfig(d=32, n=64, k=64)).initialise(0)

    def loaded(_: object, sites: list[Site], device: torch.device, *, signal: str) -> dict[Site, SparseAutoencoder]:
        assert device == pipe.unet.device and not signal
        return dict.fromkeys(sites, sae)

    monkeypatch.setattr(score, "load_site_saes", loaded)
    assert score_weights(pipe, ScoreConfig(feature=f"{site.slug}:3", prompts=PROMPT, steps=2, fraction=0.05)).chosen


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_scores_stand_side_by_side_in_one_folder(tmp_path: Path) -> None:
    """Another concept adds rows; the same one is replaced by the same alone, and said before a model is read."""
    folder = tmp_path / "model"
    tiny_pipeline().save_pretrained(folder)
    run, out = load_config(None, [f"model.path={folder}"]), tmp_path / "out"
    dog = ScoreConfig(concept="dog", fraction=0.02, steps=2)
    first = write_scores(run, dog, str(out))
    alone = (out / "components.parquet").read_bytes()
    write_scores(run, dog, str(out))
    assert (out / "components.parquet").read_bytes() == alone
    edit = Path(first["edit"]).read_bytes()
    write_scores(run, replace(dog, concept="boat", seeds=2), str(out))
    by_chance = write_scores(run, replace(dog, estimator="random"), str(out))
    assert {file.name for file in out.glob("*.safetensors")} == {
        "dog-erase.safetensors", "boat-erase.safetensors", "dog-erase-random.safetensors",
    }  # fmt: skip
    assert Path(by_chance["edit"]).name == "dog-erase-random.safetensors"
    assert Path(first["edit"]).read_bytes() == edit
    rows = load_components(out).group_by(["concept", "estimator"]).aggregate([([], "count_all")]).to_pylist()
    assert [(row["concept"], row["estimator"]) for row in rows] == [("dog", "cad"), ("boat", "cad"), ("dog", "random")]
    assert len({row["count_all"] for row in rows}) == 1
    made = read_provenance(out / "components.parquet")["config"]
    assert [call["concept"] for call in made["others"]] == ["dog", "boat"] and made["estimator"] == "random"
    before = contents(out)
    nowhere = load_config(None, [f"model.path={folder}", "model.device=cuda:99", "model.dtype=float32"])
    for wrong, said in (
        (replace(dog, fraction=0.1), r"dog-erase.safetensors is there already .*\(fraction: 0.02 there, 0.1 now\)"),
        (replace(dog, seed=3), "seed: 0 there, 3 now"),
        (replace(dog, estimator="random", per="global"), "per: layer there, global now"),
    ):
        with pytest.raises(InputError, match=said):
            write_scores(nowhere, wrong, str(out))
    (out / "dog-erase.safetensors").unlink()
    with pytest.raises(InputError, match=r"components.parquet is there already .*steps: 2 there, 3 now"):
        write_scores(nowhere, replace(dog, steps=3), str(out))
    (out / "boat-erase.safetensors").write_text("somebody's notes")
    with pytest.raises(InputError, match="cannot be read"):
        write_scores(nowhere, replace(dog, concept="boat", seeds=2), str(out))
    names = {"boat-erase.safetensors", "dog-erase.safetensors"}
    assert all(contents(out)[name] == content for name, content in before.items() if name not in names)
    (out / "boat-erase.safetensors").unlink()
    with pytest.raises(InputError, match=r"components.parquet is of another command or version"):
        require_room(out, provenance({}, {"run": "runs/scenes"}), ())


def test_calls_side_by_side_add_their_rows_one_at_a_time(tmp_path: Path) -> None:
    """Twelve write at once: every one finds the rows of those before it; other settings of the same are refused."""
    barrier = threading.Barrier(12)

    def write(number: int) -> None:
        rows = component_rows(
            {"a.weight": torch.ones(2, 2)}, {}, estimator="cad", objective="erase", concept=f"c{number}"
        )
        barrier.wait()
        write_components(tmp_path, rows, provenance({}, {"concept": f"c{number}", "steps": 2}), ("concept",))

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(write, range(12)))
    assert set(load_components(tmp_path)["concept"].to_pylist()) == {f"c{number}" for number in range(12)}
    assert [file.name for file in tmp_path.iterdir()] == ["components.parquet"]
    with pytest.raises(InputError, match="steps: 2 there, 3 now"):
        write_components(tmp_path, [], provenance({}, {"concept": "c3", "steps": 3}), ("concept",))
