"""Weights of SD 3 and FLUX.1: objectives of the velocity, gradients held to ones written by hand, edits of files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gazetteer.attribution.attacks.embedding import inverted
from gazetteer.attribution.attacks.relearning import Relearning, relearned
from gazetteer.attribution.attacks.words import Attack, NoAttackError, adversarial_words
from gazetteer.attribution.edits.closed_form import POOLED, WORDS, concept_edit
from gazetteer.attribution.edits.delta import applied
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.edits.problems import ConceptProblems, MethodConfig
from gazetteer.attribution.features import erasing
from gazetteer.attribution.features.erasing import FeatureErasers
from gazetteer.attribution.objective.objectives import Amplify, Erase, FeatureActivation
from gazetteer.attribution.objective.problem import diffusion_problem
from gazetteer.attribution.objective.samples import freeze_target, predict
from gazetteer.attribution.objective.trajectory import begin, noised_images, trajectory
from gazetteer.attribution.scores.overlap import block_of, kind_of
from gazetteer.attribution.scores.score import ScoreConfig, score_weights
from gazetteer.attribution.scores.selection import scope_weights
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port, Site
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments.attribute_edit import EditConfig, make_edit
from gazetteer.jobs.experiments.attribute_sheet import write_sheet
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.dits import flux, saved_dit, tiny_dit
from tests.support.system.running import in_process

CONCEPT, STEPS = "a red house", 2
BLOCK = "transformer_blocks.0"


@pytest.fixture(scope="module", params=["sd3", "flux"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pipe(family: str) -> Any:
    return tiny_dit(family)


def told(pipe: Any, prompt: str) -> dict[str, Any]:
    """What the transformer is told of one prompt, by the pipeline's own encoders alone."""
    if type(pipe).__name__.startswith("Stable"):
        words, _, pooled, _ = pipe.encode_prompt(prompt, prompt, prompt, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": words, "pooled_projections": pooled}
    words, pooled, places = pipe.encode_prompt(prompt, prompt)
    rows, columns = 8, 8
    ids = torch.zeros(rows, columns, 3)
    ids[..., 1], ids[..., 2] = torch.arange(rows)[:, None], torch.arange(columns)[None, :]
    return {
        "encoder_hidden_states": words, "pooled_projections": pooled, "txt_ids": places, "img_ids": ids.reshape(-1, 3)
    }  # fmt: skip


def velocity(pipe: Any, x: Tensor, t: Tensor, prompt: str) -> Tensor:
    found: Tensor = pipe.transformer(hidden_states=x, timestep=t, return_dict=False, **told(pipe, prompt))[0]
    return found


def calls_of(pipe: Any, family: str) -> list[tuple[Tensor, Tensor]]:
    """(x, t) of every step of a plain run of the pipeline, by a hook."""
    heard: list[tuple[Tensor, Tensor]] = []

    def hook(_: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        heard.append((kwargs["hidden_states"][-1:].clone(), kwargs["timestep"][-1:].clone()))

    handle = pipe.transformer.register_forward_pre_hook(hook, with_kwargs=True)
    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(3))
    if family == "flux":
        noise = noise.view(1, 4, 8, 2, 8, 2).permute(0, 2, 4, 1, 3, 5).reshape(1, 64, 16)
    size = {"height": 32, "width": 32, "num_inference_steps": STEPS}
    pipe(CONCEPT, latents=noise, guidance_scale=3.0, output_type="latent", **size)
    handle.remove()
    return heard


def samples_of(pipe: Any) -> Any:
    return trajectory(pipe, [CONCEPT], [3], steps=STEPS, guidance=3.0)


@pytest.fixture(autouse=True)
def sized(pipe: Any, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny FLUX's own pictures would measure 128 latent cells a side."""
    from gazetteer.diffusion.denoisers.joint import PackedAdapter

    monkeypatch.setattr(PackedAdapter, "first_sample", 16)


def test_a_trajectory_is_what_a_plain_hook_sees(pipe: Any, family: str) -> None:
    found, heard = samples_of(pipe), calls_of(pipe, family)
    assert len(found) == len(heard) == STEPS
    for number, (x, t) in enumerate(heard):
        assert torch.equal(found.x[number : number + 1], x) and float(found.timestep[number]) == float(t)
    assert begin(pipe, [3])[0].shape == (1, 4, 16, 16)


def test_the_erase_gradient_is_the_one_written_out(pipe: Any, family: str) -> None:
    samples = samples_of(pipe)
    weights = scope_weights(pipe.transformer, "ff")
    problem = diffusion_problem(pipe.transformer, Erase(), samples, weights)
    name = f"{BLOCK}.ff.net.2.weight"
    weight, total, parts = weights[name], torch.zeros(()), []
    weight.requires_grad_(True)
    for x, t in calls_of(pipe, family):
        with torch.no_grad():
            base = velocity(pipe, x, t, "")
        parts.append(((base - velocity(pipe, x, t, CONCEPT)) ** 2).sum())
        total = total + parts[-1] / STEPS
    (expected,) = torch.autograd.grad(total, [weight])
    weight.requires_grad_(False)
    assert problem.value() == pytest.approx(float(total.detach()), rel=1e-4) and float(expected.abs().max()) > 0
    torch.testing.assert_close(problem.gradient()[name], expected, rtol=2e-3, atol=1e-7)


def test_amplify_is_minus_the_loss_of_the_velocity(pipe: Any, family: str) -> None:
    clean = torch.randn(1, 64, 16) if family == "flux" else torch.randn(1, 4, 16, 16)
    samples = noised_images(pipe, clean, [CONCEPT], steps=STEPS, seed=7)
    problem = diffusion_problem(pipe.transformer, Amplify(), samples, scope_weights(pipe.transformer, "ff"))
    generator, losses = torch.Generator().manual_seed(7), []
    for number in range(STEPS):
        sigma = float(pipe.scheduler.sigmas[number])
        noise = torch.randn(clean.shape, generator=generator)
        x = (1 - sigma) * clean + sigma * noise
        told_time = sigma * (1 if family == "flux" else 1000)
        assert float(samples.timestep[number]) == pytest.approx(told_time, rel=1e-5)
        with torch.no_grad():
            found = velocity(pipe, x, torch.tensor([told_time]), CONCEPT)
        losses.append(float(((noise - clean) - found).square().mean()))
    assert problem.value() == pytest.approx(-float(np.mean(losses)), rel=1e-4)


def test_a_features_gradient_flows_through_what_its_site_hears(pipe: Any) -> None:
    sae = SparseAutoencoder(SAEConfig(pipe.transformer.inner_dim, 24, 4)).initialise(0)
    samples = samples_of(pipe)
    values = [
        diffusion_problem(pipe.transformer, FeatureActivation(Port(BLOCK, signal=signal), 3, sae), samples, {}).value()
        for signal in ("update", "output")
    ]
    assert values[0] != values[1]
    with pytest.raises(InputError, match="of the image stream"):
        FeatureActivation(Port(BLOCK, "text"), 3, sae)


def test_scopes_are_parts_of_joint_blocks(pipe: Any, family: str) -> None:
    names = {scope: set(scope_weights(pipe.transformer, scope)) for scope in ("ff", "cross", "self", "all")}
    assert f"{BLOCK}.ff_context.net.0.proj.weight" in names["ff"]
    assert f"{BLOCK}.attn.add_k_proj.weight" in names["cross"]
    assert f"{BLOCK}.attn.to_k.weight" in names["self"] and not names["self"] & (names["cross"] | names["ff"])
    assert ("single_transformer_blocks.0.proj_mlp.weight" in names["ff"]) == (family == "flux")
    for name in names["cross"]:
        kind = kind_of(pipe.transformer, name, torch.zeros(1, 1))
        assert (kind, block_of(name).partition(".")[0]) == ("cross", "transformer_blocks")


def test_scores_find_the_weights_and_refuse_other_families(pipe: Any) -> None:
    config = ScoreConfig(concept=CONCEPT, steps=STEPS, scope="ff", fraction=0.01, by_step=True)
    scored = score_weights(pipe, config)
    assert sum(map(len, scored.chosen.values())) > 0 and sum(scored.steps) == pytest.approx(1.0)
    held = {name: weight.detach().clone() for name, weight in scored.weights.items()}
    with torch.no_grad():
        for name, index in scored.chosen.items():
            scored.weights[name].view(-1)[index] = 0.0
    samples = samples_of(pipe)
    after = diffusion_problem(pipe.transformer, Erase(stop_gradient=False), samples, scored.weights).value()
    with torch.no_grad():
        for name, weight in held.items():
            scored.weights[name].copy_(weight)
    before = diffusion_problem(pipe.transformer, Erase(stop_gradient=False), samples, scored.weights).value()
    assert after != before


def test_an_edit_of_a_model_folder_comes_and_goes(tmp_path: Path) -> None:
    folder = saved_dit("sd3", tmp_path / "model")
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    told_more = ["--set", f"model.path={folder}", "vocabulary.concepts=[]", "vocabulary.nouns=hanta"]
    told_more += ["vocabulary.ask=prompt", "threads=1"]
    done = in_process(
        "attribute", "score", "--concept", "house", "--steps", "2", "--fraction", "0.01", "--out",
        str(tmp_path / "scores"), "--json", *told_more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    edit = json.loads(done.stdout.splitlines()[-1])
    assert edit["weights"] > 0
    new_model = str(tmp_path / "new")
    made = in_process("attribute", "apply", "--model", str(folder), "--edit", edit["edit"], "--out", new_model)
    assert made.returncode == 0, made.stderr
    old, new = load_file(weights), load_file(tmp_path / "new" / "transformer" / weights.name)
    changed = sum(int((old[name] != new[name]).sum()) for name in old)
    assert 0 < changed <= edit["weights"] and hashlib.sha256(weights.read_bytes()).hexdigest() == digest
    back = in_process(
        "attribute", "apply", "--model", str(tmp_path / "new"), "--edit", edit["edit"], "--undo", "--out",
        str(tmp_path / "back"),
    )  # fmt: skip
    assert back.returncode == 0, back.stderr
    assert hashlib.sha256((tmp_path / "back" / "transformer" / weights.name).read_bytes()).hexdigest() == digest


def test_other_families_are_refused_by_name(tmp_path: Path) -> None:
    folder = saved_dit("sana", tmp_path / "model")
    for verb in ("score", "edit"):
        asked = ("attribute", verb, "--concept", "dog", "--out", str(tmp_path / "out"), "--set", f"model.path={folder}")
        done = in_process(*asked)
        assert done.returncode == 2, done.stdout
        assert "knows pipelines with a U-Net, FluxPipeline and StableDiffusion3Pipeline, not a SanaPipe" in done.stderr


PROMPTS = {"a red house": frozenset({"house"}), "a dog": frozenset({"dog"}), "a boat": frozenset({"boat"})}
WAYS = ("steps", "cad", "cad_random", "uce", "repaired", "published", "contrast", "esd", "ca")


def without(prompt: str, concept: str) -> str:
    return prompt.replace(f"a red {concept}", "a red").replace(f"a {concept}", "nothing")


def test_every_way_to_edit_changes_the_velocity_and_goes_again(pipe: Any) -> None:
    config = MethodConfig(steps=STEPS, tune_steps=1, repair_steps=1, context=2, context_steps=1, rounds=2)
    methods = Methods(pipe, config, ["house", "dog", "boat"], PROMPTS, without)
    samples = samples_of(pipe)
    before = predict(pipe.transformer, samples, samples.cond)
    for goal, ways in (("erase", WAYS), ("amplify", ("steps", "cad"))):
        for way in ways:
            with applied(pipe.transformer, methods.edit(goal, way, "house", 0.05)):
                assert not torch.equal(predict(pipe.transformer, samples, samples.cond), before), way
            assert torch.equal(predict(pipe.transformer, samples, samples.cond), before), way


def test_in_closed_form_what_embeds_a_name_gives_what_it_gave_of_the_base(pipe: Any, family: str) -> None:
    edit = concept_edit(pipe, {}, "dog", "", ["house", "boats"], ridge=1e-6)
    assert set(edit.changes) == {WORDS, POOLED}
    words = {name: told(pipe, name)["encoder_hidden_states"][0] for name in ("dog", "", "house")}
    pooled = {name: told(pipe, name)["pooled_projections"][0] for name in words}
    tokenizer = pipe.tokenizer if family == "sd3" else pipe.tokenizer_2
    read = {name: of[max(0, len(tokenizer(name).input_ids) - 2)] for name, of in words.items()}  # before the end token
    embed, embed_pooled = pipe.transformer.context_embedder, pipe.transformer.time_text_embed.text_embedder.linear_1
    for layer, of in ((embed, read), (embed_pooled, pooled)):
        was = {name: layer(vector) for name, vector in of.items()}
        with applied(pipe.transformer, edit):
            torch.testing.assert_close(layer(of["dog"]), was[""], atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(layer(of["house"]), was["house"], atol=1e-3, rtol=1e-3)
        assert (was["dog"] - was[""]).norm() > 0.05 * was["dog"].norm()


def test_features_are_erased_at_the_step_that_their_site_is_nearest_to(pipe: Any) -> None:
    sae = SparseAutoencoder(SAEConfig(pipe.transformer.inner_dim, 24, 4)).initialise(0)
    problems = ConceptProblems(pipe, MethodConfig(steps=STEPS, context=2), PROMPTS, without)
    usual = samples_of(pipe)
    for t, steps in ((1.0, (False, True)), (0.0, (False, True))):
        erasers = FeatureErasers(problems, {Site(BLOCK, "cond", t): sae})
        with erasers.erased("sae_ablate", "house", 1.0):
            changed = samples_of(pipe)
        # What goes into the first step is noise; what goes into the second says that the first was changed.
        assert [not torch.equal(a, b) for a, b in zip(changed.x, usual.x, strict=True)] == list(steps)
    moments = erasing._Moments(problems)
    handle = pipe.transformer.register_forward_pre_hook(moments.hear, with_kwargs=True)
    predict(pipe.transformer, usual, usual.cond)
    handle.remove()
    assert moments.now.tolist() == [1.0, 0.0]


def test_attacks_by_embeddings_and_words_say_that_they_do_not_fit(pipe: Any) -> None:
    aimed = freeze_target(pipe.transformer, samples_of(pipe), 0.0)
    with pytest.raises(NoAttackError, match="whose U-Net reads"):
        inverted(pipe, aimed)
    with pytest.raises(NoAttackError, match="one tokenizer"):
        adversarial_words(pipe, [CONCEPT], aimed, Attack(words=1, rounds=1, tried=1))
    assert relearned(pipe, aimed, Relearning(steps=1)).changes


def test_guidance_that_is_an_input_is_the_same_for_concept_and_base() -> None:
    """As FLUX.1 dev has it: with the concept as its own base nothing is left to tell apart."""
    pipe = flux(guidance_embeds=True)
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    samples = trajectory(pipe, [CONCEPT], [3], steps=STEPS, guidance=3.5, base=CONCEPT)
    assert samples.base is not None
    for given in (samples.cond, samples.base):
        assert torch.equal(given["guidance"], torch.full_like(given["guidance"], 3.5))
    torch.testing.assert_close(Erase()(pipe.transformer, samples), torch.zeros(len(samples)))
    noised = noised_images(pipe, samples.x[-1:], [CONCEPT], steps=STEPS, guidance=3.5)
    assert torch.equal(noised.cond["guidance"], torch.full_like(noised.cond["guidance"], 3.5))


def test_an_edit_is_made_and_shown_by_the_commands(tmp_path: Path) -> None:
    folder = saved_dit("sd3", tmp_path / "model")
    settings = ["generation.steps=2", f"generation.blocks=[{BLOCK}]", "generation.t=[1.0]"]
    run = load_config(None, [f"model.path={folder}", *settings])
    methods = MethodConfig(steps=2, context=1, context_steps=1, tune_steps=1)
    edits = [make_edit(run, methods, EditConfig("dog", method=way, sheet=1, pool=40), str(tmp_path / "out"))
             for way in ("steps", "uce")]  # fmt: skip
    for edit in edits:
        assert edit["weights"] > 0 and Path(edit["before"]).read_bytes() != Path(edit["after"]).read_bytes()
    sheet = write_sheet(run, [edit["edit"] for edit in edits], 1, str(tmp_path / "sheet"), others=0)
    assert sheet["columns"] == ["original", "erased", "erased by uce"]
    pictures = {path.read_bytes() for path in (tmp_path / "sheet").rglob("*") if path.name != "weights.json"}
    assert len({p for p in pictures if p}) >= 3, "three pictures that differ"
