"""Attribution: scores, selections and estimators against hand-computed values, on toys and a real tiny pipeline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from benchmarks.attribution.cost import published
from gazetteer.attribution.edits.tune import gradient_steps
from gazetteer.attribution.objective.objectives import Amplify, Anchor, Distance, Erase, FeatureActivation
from gazetteer.attribution.objective.problem import Problem, diffusion_problem
from gazetteer.attribution.objective.samples import Samples, freeze_target
from gazetteer.attribution.objective.trajectory import generate_latents, noised_images, trajectory
from gazetteer.attribution.scores.estimators import ESTIMATORS, Options, estimate
from gazetteer.attribution.scores.faithfulness import ablation_study
from gazetteer.attribution.scores.groups import Groups, row_groups
from gazetteer.attribution.scores.score import ScoreConfig
from gazetteer.attribution.scores.selection import (
    PRESETS,
    Selection,
    Supply,
    count,
    jaccard,
    random_like,
    scope_weights,
    select,
    supply,
)
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline


class Toy(nn.Module):
    """J = f(w · x): what one weight does can depend on what the others do."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([weights]))


def toy(weights: list[float], f: Callable[[Tensor], Tensor]) -> Problem:
    model = Toy(weights)
    return Problem(model, dict(model.named_parameters()), (lambda: f(model.w.sum()).reshape(1),))


def test_on_a_linear_model_every_estimator_in_units_of_j_is_exact() -> None:
    weights = [1.0, -2.0, 3.0]
    for name in ("cad", "integrated", "expected"):
        problem = toy(weights, lambda s: 2 * s)
        torch.testing.assert_close(estimate(name, problem)["w"], torch.tensor([[2.0, -4.0, 6.0]]))
        assert problem.weights["w"].tolist() == [weights] and not problem.weights["w"].grad


def test_a_saturated_sigmoid_blinds_the_gradient_and_a_step_blinds_all_gradients() -> None:
    """One large and one small weight under sigmoid(20 (s − 1)): J changes only once the large one goes."""
    weights = [4.0, 0.5]

    def j(s: Tensor) -> Tensor:
        return torch.sigmoid(20 * (s - 1))

    local = estimate("cad", toy(weights, j))["w"]
    assert local.abs().max() < 1e-6  # J falls by 1 without the first weight: the gradient sees nothing of it
    path = estimate("integrated", toy(weights, j), Options(points=400))["w"]
    assert float(path.sum()) == pytest.approx(1.0, abs=0.01)  # completeness: J(w) − J(0)
    assert path[0, 0] / path[0, 1] == pytest.approx(8.0)  # the path to zero shares by size
    model = nn.ParameterDict({"a": nn.Parameter(torch.tensor([[4.0]])), "b": nn.Parameter(torch.tensor([[0.5]]))})
    step = Problem(
        model, dict(model.named_parameters()), (lambda: ((model["a"] + model["b"]).sum() > 1).float().reshape(1),)
    )
    groups = Groups({"a": torch.Size([1, 1]), "b": torch.Size([1, 1])}, (("a", 0, 1), ("b", 0, 1)))
    exact = estimate("finite", step, Options(groups=groups))
    assert (exact["a"].item(), exact["b"].item()) == (1.0, 0.0)
    regressed = estimate("coar", step, Options(groups=groups, fraction=0.5, ablations=200, ridge=0.0))
    assert regressed["a"].item() == pytest.approx(1.0, abs=0.01) and abs(regressed["b"].item()) < 0.01
    with pytest.raises(RuntimeError):  # a step has no gradient at all
        step.gradient()


def test_selections_by_row_by_layer_and_over_all_and_their_signs() -> None:
    scores = {"a": torch.tensor([[4.0, 3.0, -9.0, 1.0], [0.0, -1.0, -2.0, -3.0]]), "b": torch.tensor([[2.0, 8.0]])}

    def taken(fraction: float, per: str, sign: str = "positive") -> dict[str, list[int]]:
        return {name: index.tolist() for name, index in select(scores, Selection(fraction, per, sign)).items()}

    assert taken(0.5, "row") == {"a": [0, 1], "b": [1]}  # the second row of a has nothing above zero
    assert taken(0.5, "layer") == {"a": [0, 1, 3], "b": [1]}
    assert taken(0.3, "global") == {"a": [0, 1], "b": [1]}
    assert taken(0.25, "layer", "negative") == {"a": [2, 7]}
    assert taken(0.1, "global", "both") == {"a": [2]}
    cad = PRESETS["cad"].selection
    wide = {"a": torch.ones(2, 1280), "b": torch.ones(2, 640)}
    assert count(select(wide, cad)) == 2  # int(0.001 · 1280) = 1 a row, int(0.001 · 640) = 0
    chosen = select(scores, Selection(0.5, "row"))
    control = random_like(chosen, scores, seed=3)
    assert {name: len(index) for name, index in control.items()} == {"a": 2, "b": 1}
    assert jaccard(chosen, chosen) == 1.0 and jaccard(chosen, {}) == 0.0
    with pytest.raises(InputError, match="per is 'column'"):
        Selection(0.1, "column")


def residual_toy(weights: list[float], aim: float) -> Problem:
    """J = (Σ w − aim)²."""
    problem = toy(weights, lambda s: (s - aim) ** 2)
    model = problem.model
    return replace(problem, residuals=(lambda: (model.w.sum() - aim).reshape(1, 1),))  # type: ignore[operator]


def test_curvature_sees_a_step_that_overshoots_and_damage_around_a_minimum() -> None:
    for weights, aim in (([1.0, 0.5], 1.0), ([1.0, 0.5, -3.0], -1.5)):
        problem = residual_toy(weights, aim)
        whole, scores = problem.value(), estimate("curved", problem, Options(points=2))["w"][0]
        for i, alpha in enumerate(scores.tolist()):
            with problem.scaled({"w": torch.tensor([[float(j != i) for j in range(len(weights))]])}):
                assert alpha == pytest.approx(whole - problem.value(), abs=1e-5)
    at_minimum = residual_toy([1.0, 0.5, -3.0], -1.5)
    assert not estimate("cad", at_minimum)["w"].any() and (estimate("curved", at_minimum)["w"] < 0).all()
    with pytest.raises(InputError, match="squared distance"):
        estimate("curved", toy([1.0], lambda s: s))


def test_iterated_attribution_takes_one_of_two_weights_that_do_the_same() -> None:
    problem = residual_toy([1.0, 0.9], 1.0)  # without either the aim is (nearly) met, without both it is missed again
    whole = Selection(1.0, "global")
    assert count(select(estimate("cad", problem), whole)) == 2
    chosen = select(estimate("iterated", problem, Options(fraction=1.0, rounds=20, points=1)), whole)
    assert count(chosen) == 1
    assert problem.value() == pytest.approx(0.81)  # the weights are as they were


@pytest.fixture(scope="module")
def pipe() -> object:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def samples(pipe: object) -> Samples:
    return trajectory(pipe, ["a red house", "a dog at night"], [1, 2], steps=4)


def test_one_trajectory_gives_the_inputs_that_running_anew_for_every_step_gives(pipe: object) -> None:
    """The reference runs t steps anew for each t; with the same noise every x_t is bit-identical, at 4 calls for 10."""
    calls = []
    handle = pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))  # type: ignore[attr-defined]
    once = trajectory(pipe, ["a dog"], [7], steps=4, pairing="published")
    handle.remove()
    assert len(calls) <= 4 + 2  # and one call each to learn the conditioning of prompt and base
    pipe.scheduler.set_timesteps(4)  # type: ignore[attr-defined]
    for step in range(4):
        x = anew(pipe, "a dog", 7, step + 1)
        assert torch.equal(once.x[step], x[0])
        assert once.timestep[step] == pipe.scheduler.timesteps[step]  # type: ignore[attr-defined]


def test_the_benchmark_s_published_scheme_pairs_the_same_states_and_timesteps(pipe: object) -> None:
    theirs = published(pipe, "a dog", [7] * 3, 3, 3.0)
    ours = trajectory(pipe, ["a dog"], [7], steps=3, pairing="published")
    assert torch.equal(theirs.x, ours.x) and torch.equal(theirs.timestep, ours.timestep)
    assert len(theirs) == len(theirs.cond["encoder_hidden_states"]) == 3


@torch.no_grad()
def anew(pipe: object, prompt: str, seed: int, steps: int) -> Tensor:
    """The latents after the first `steps` of 4 DDIM steps, stopped by the pipeline's own callback."""
    seen: list[Tensor] = []

    def stop(_: object, step: int, __: object, values: dict[str, Tensor]) -> dict[str, Tensor]:
        if step == steps - 1:
            seen.append(values["latents"].clone())
        return values

    generator = torch.Generator("cpu").manual_seed(seed)
    pipe(  # type: ignore[operator]
        prompt=prompt, latents=torch.randn(1, 4, 8, 8, generator=generator), num_inference_steps=4,
        guidance_scale=3.0, output_type="latent", callback_on_step_end=stop,
    )  # fmt: skip
    return seen[0]


def test_the_gradient_matches_differences_and_the_stopped_one_misses_the_base(pipe: object, samples: Samples) -> None:
    """J moves with both branches; only the gradient without sg, or the frozen base's, predicts what a change does."""
    unet = pipe.unet  # type: ignore[attr-defined]
    name, weight = next(iter(scope_weights(unet, "ff").items()))
    place, size = 5, 1e-2

    def slopes(objective: object, on: Samples) -> tuple[float, float]:
        problem = diffusion_problem(unet, objective, on, {name: weight}, batch=3)  # type: ignore[arg-type]
        gradient = float(problem.gradient()[name].view(-1)[place])
        around = []
        for sign in (1, -1):
            shift = torch.zeros_like(weight)
            shift.view(-1)[place] = sign * size
            with problem.scaled({name: 1.0}), torch.no_grad():
                weight.add_(shift)
                around.append(problem.value())
        return gradient, (around[0] - around[1]) / (2 * size)

    for objective, on in ((Erase(stop_gradient=False), samples), (Distance(), freeze_target(unet, samples))):
        found, true = slopes(objective, on)
        assert found == pytest.approx(true, rel=0.02)
    stopped, true = slopes(Erase(), samples)
    assert abs(stopped - true) > 0.1 * abs(true)


def test_amplify_and_feature_objectives_give_one_number_per_sample(pipe: object, samples: Samples) -> None:
    latents = generate_latents(pipe, ["a dog", "a red house"], [1, 2], steps=2)
    noised = noised_images(pipe, latents, ["a dog", "a red house"], steps=4, only=[0, 2])
    unet = pipe.unet  # type: ignore[attr-defined]
    with torch.no_grad():
        j = Amplify()(unet, noised)
        perfect = Amplify()(unet, Samples(noised.x, noised.timestep, noised.cond, target=_prediction(unet, noised)))
    assert noised.base is not None and len(noised.base["encoder_hidden_states"]) == 4
    assert j.shape == (4,) and (j < 0).all() and torch.equal(perfect, torch.zeros(4))
    sae = SparseAutoencoder(SAEConfig(d=32, n=64, k=64)).initialise(0)
    feature = FeatureActivation(Port(BLOCKS[1]), 3, sae)
    problem = diffusion_problem(unet, feature, samples, scope_weights(unet, "all"))
    gradient = problem.gradient()
    later = [name for name in gradient if name.startswith("up_blocks")]
    assert problem.value() > 0 and later and not any(gradient[name].any() for name in later)
    assert gradient["mid_block.attentions.0.proj_out.weight"].any()


def _prediction(unet: nn.Module, samples: Samples) -> Tensor:
    return unet(samples.x, samples.timestep, **samples.cond).sample


def test_concept_ablation_pulls_the_concept_to_the_anchor_and_holds_the_anchor(pipe: object) -> None:
    unet = pipe.unet  # type: ignore[attr-defined]
    latents = generate_latents(pipe, ["a dog", "a red house"], [1, 2], steps=2)
    on = noised_images(pipe, latents, ["a dog", "a red house"], steps=4, only=[0, 2], base=["a house", "a dog"])
    numbers = on.x[0].numel()
    with torch.no_grad():
        away = Anchor(prior=0)(unet, on)
        assert torch.allclose(away, Erase()(unet, on) / numbers)
        swapped = replace(on, cond=on.base or {})  # the concept is the anchor: only the denoising loss is left
        held = -Amplify()(unet, swapped)
        assert torch.allclose(Anchor(prior=0.5)(unet, swapped), 0.5 * held)
        assert torch.allclose(Anchor(prior=0.5)(unet, on), away + 0.5 * held)
    weights = scope_weights(unet, "cross")
    ours = diffusion_problem(unet, Anchor(prior=0), on, weights).gradient()
    stopped = diffusion_problem(unet, Erase(), on, weights).gradient()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, stopped[name] / numbers)


def test_a_renewed_problem_sees_the_model_as_it_is_and_as_it_was() -> None:
    """J = (w − aim)² where the aim is where w was before any step, less 1: only that is independent of the steps."""
    problem = toy([3.0], lambda s: s)
    model, seen = problem.model, []

    def renew(step: int, as_before: Callable[[], AbstractContextManager[None]]) -> Problem:
        now = model.w.item()  # type: ignore[operator,union-attr]
        with as_before():
            aim = model.w.item() - 1  # type: ignore[operator,union-attr]
        assert model.w.item() == now  # type: ignore[operator,union-attr]
        seen.append((step, now, aim))
        return replace(problem, parts=(lambda: (model.w - aim).reshape(1) ** 2,))  # type: ignore[operator]

    edit = gradient_steps(problem, {"w": torch.tensor([0])}, steps=60, rate=0.05, renew=renew, every=20)
    assert [step for step, _, _ in seen] == [0, 20, 40] and {aim for _, _, aim in seen} == {2.0}
    assert seen[0][1] == 3.0 > seen[1][1]
    assert edit.changes["w"].new.item() == pytest.approx(2.0, abs=0.05) and model.w.item() == 3.0  # type: ignore[operator,union-attr]


def test_every_estimator_runs_on_a_pipeline_and_leaves_it_untouched(pipe: object, samples: Samples) -> None:
    unet = pipe.unet  # type: ignore[attr-defined]
    before = {name: w.detach().clone() for name, w in unet.named_parameters()}
    weights = scope_weights(unet, "ff")
    groups = row_groups(weights, 10)
    problem = diffusion_problem(unet, Erase(stop_gradient=False), samples.at(slice(0, 4)), weights)
    options = Options(points=2, ablations=20, rounds=4, groups=groups)
    scores = {name: estimate(name, problem, options) for name in ESTIMATORS}
    for one in scores.values():
        assert {n: s.shape for n, s in one.items()} == {n: w.shape for n, w in weights.items()}
    assert all(torch.equal(before[name], w) and not w.requires_grad for name, w in unet.named_parameters())
    rows = ablation_study(problem, scores, [0.02], 30, seed=9, resamples=50)
    r = {row["estimator"]: row["pearson"][0] for row in rows}
    assert r["cad"] > 0.9 and r["cad"] > r["random"]
    rows = ablation_study(problem, scores, [0.1], 30, groups=groups, seed=9, resamples=50)
    assert {row["estimator"]: row["pearson"][0] for row in rows}["finite"] > 0.9


def test_bad_input_is_a_sentence(pipe: object, samples: Samples) -> None:
    unet = pipe.unet  # type: ignore[attr-defined]
    for wrong, words in (
        (lambda: trajectory(pipe, ["a", "b"], [1]), "one seed per prompt"),
        (lambda: trajectory(pipe, ["a"], [1], steps=2, only=[2]), "Steps lie in 0..1"),
        (lambda: trajectory(pipe, ["a"], [1], pairing="odd"), "accepted: matched, published"),
        (lambda: scope_weights(unet, "bias"), "accepted: ff, cross"),
        (lambda: Amplify()(unet, samples), "target"),
        (lambda: estimate("guess", toy([1.0], lambda s: s)), "Unknown estimator"),
        (lambda: estimate("coar", toy([1.0], lambda s: s)), "groups"),
    ):
        with pytest.raises(InputError, match=words):
            wrong()


def test_a_fraction_that_asks_for_more_than_has_the_sign_says_so() -> None:
    """Of [3, -1, 2, -2] nine tenths are int(3.6) = 3 weights, of which two have a positive score."""
    scores = {"w": torch.tensor([[3.0, -1.0], [2.0, -2.0]])}
    selection = Selection(0.9, "layer")
    found = supply(scores, selection, select(scores, selection))
    assert (found.asked, found.eligible, found.taken) == (3, 2, 2)
    assert found.short == "asked for 3 weights, takes 2: only weights of positive score are taken, and 2 have one"
    uneven = Selection(1.0, "row")  # of two rows with two weights each
    assert supply({"w": torch.tensor([[3.0, -1.0], [2.0, 1.0]])}, uneven, {"w": torch.tensor([0])}).short.endswith(
        "and 3 have one, but too few in some rows or layers"
    )
    rows = Selection(0.5, "row")
    assert supply(scores, rows, select(scores, rows)) == Supply(2, 2, 2, "positive")
    both = Selection(1.0, "global", "both")
    assert supply(scores, both, select(scores, both)).short == ""
    for wrong in (0.0, 1.5, -0.1, float("nan")):
        with pytest.raises(InputError, match="fraction must be"):
            ScoreConfig(concept="dog", fraction=wrong)
