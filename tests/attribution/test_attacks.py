"""Attacks on edits by embedding, words before the prompt and training, on a tiny real pipeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from gazetteer.attribution.attacks.embedding import Inversion, inverted, said
from gazetteer.attribution.attacks.names import ATTACKS
from gazetteer.attribution.attacks.relearning import Relearning, relearned
from gazetteer.attribution.attacks.words import Attack, adversarial_words, said_with
from gazetteer.attribution.edits.delta import ablation, applied
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.evaluation.cases import REPORT, Case
from gazetteer.attribution.evaluation.evaluators import Evaluators, Images, painter
from gazetteer.attribution.evaluation.pairs import PicturePairs
from gazetteer.attribution.evaluation.resistance import Resistance, ResistanceConfig
from gazetteer.attribution.evaluation.suite import attacked_by, quick
from gazetteer.attribution.objective.prompts import without
from gazetteer.attribution.objective.samples import Samples, freeze_target, predict, shuffled
from gazetteer.attribution.objective.trajectory import conditioning, noised_images, trajectory
from gazetteer.attribution.scores.selection import scope_weights
from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.generate import GenerationConfig
from gazetteer.jobs.experiments.attribute_report import print_attacks
from tests.support.models.sdxl import SMALL, tiny_sdxl
from tests.support.models.tiny_pipeline import tiny_pipeline


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline()


def wanted(pipe: Any, prompt: str) -> Samples:
    found = trajectory(pipe, [prompt] * 2, [1, 2], steps=2)
    return shuffled(freeze_target(pipe.unet, replace(found, base=None), 1.0), 0)


def test_inversion_begins_at_the_empty_prompt_of_two_encoders() -> None:
    """SDXL's `encode_prompt` takes a second prompt where Stable Diffusion's takes the device."""
    pipe = tiny_sdxl(SMALL)
    samples = trajectory(pipe, ["a dog"], [1], steps=2)
    samples = freeze_target(pipe.unet, replace(samples, base=None), 1.0)
    embedding, losses = inverted(pipe, samples, Inversion(steps=2, batch=2))
    assert embedding.shape[-1] == pipe.unet.config.cross_attention_dim and len(losses) == 2


def distance(pipe: Any, samples: Samples, embedding: torch.Tensor) -> float:
    with torch.no_grad():
        read = {**samples.cond, "encoder_hidden_states": embedding.expand(len(samples), -1, -1)}
        return float(((predict(pipe.unet, samples, read) - samples.target) ** 2).mean())


def test_inversion_comes_from_the_empty_prompt_nearer_to_what_is_wanted(pipe: Any) -> None:
    samples = wanted(pipe, "a dog at night")
    empty = conditioning(pipe, [""])["encoder_hidden_states"]
    own = conditioning(pipe, ["a dog at night"])["encoder_hidden_states"]
    embedding, losses = inverted(pipe, samples, Inversion(steps=30, batch=4))
    assert losses[0] == pytest.approx(distance(pipe, samples, empty), rel=1e-4)
    assert distance(pipe, samples, own) < 1e-9 < distance(pipe, samples, embedding) < 0.5 * losses[0]
    assert embedding.shape == empty.shape and not embedding.requires_grad
    with pytest.raises(InputError, match="samples with targets"):
        inverted(pipe, replace(samples, target=None))
    for wrong in ({"steps": 0}, {"rate": 0.0}, {"rate": float("nan")}):
        with pytest.raises(InputError, match=r"must be (at least 1|above 0|a finite number)"):
            Inversion(**wrong)


def test_what_is_said_replaces_the_prompt_and_nothing_else(pipe: Any) -> None:
    paint = painter(pipe, GenerationConfig(steps=2))
    own = pipe.encode_prompt(["a dog at night"], pipe.device, 1, False)[0]
    right = paint(["a dog at night"] * 2, [3, 4])
    with said(pipe, own):
        for pictures in (paint(["", "a red house"], [3, 4]), paint(["two boats"] * 2, [3, 4])):
            assert all((a == b).all() for a, b in zip(pictures, right, strict=True))
    assert any((a != b).any() for a, b in zip(paint(["", "a red house"], [3, 4]), right, strict=True))


def test_words_before_the_prompt_lower_the_denoising_loss(pipe: Any) -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    samples = replace(noised_images(pipe, latents, ["a dog"], steps=2, only=[0, 1]), base=None)
    words, losses = adversarial_words(pipe, ["a dog"], samples, Attack(words=1, rounds=1, tried=4, before=True))
    assert said_with(["a dog"], [words], True) == [f"{words} a dog"]
    read = conditioning(pipe, [f"{words} a dog"])["encoder_hidden_states"]
    assert losses[-1] == pytest.approx(distance(pipe, samples, read), rel=1e-4)


def test_relearning_lowers_the_loss_and_leaves_the_model_as_it_was(pipe: Any) -> None:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    samples = replace(noised_images(pipe, latents, ["a dog", "a house"], steps=2), base=None)
    before = [p.detach().clone() for p in pipe.unet.parameters()]
    half = {n: torch.arange(w.numel() // 2) for n, w in scope_weights(pipe.unet, "ff").items()}
    with applied(pipe.unet, ablation(scope_weights(pipe.unet, "ff"), half, {})):
        own = conditioning(pipe, ["a dog", "a house"])["encoder_hidden_states"].repeat(2, 1, 1)
        edited = distance(pipe, samples, own)
        trained = relearned(pipe, samples, Relearning(steps=6, rate=0.01, batch=4))
        assert set(trained.changes) > set(half)  # all weights take part
        with applied(pipe.unet, trained):
            assert distance(pipe, samples, own) < edited
    assert all(torch.equal(a, b) for a, b in zip(before, pipe.unet.parameters(), strict=True))
    with pytest.raises(InputError, match="rate must be above 0"):
        Relearning(rate=-1.0)
    with pytest.raises(InputError, match=r"attacks\[0\] is .x.; accepted: named, paraphrase"):
        ResistanceConfig(("x",))


def test_every_attack_is_counted_above_the_floor_of_the_empty_prompt(
    pipe: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = ["a dog", "a dog at night", "a house"]
    cases = [Case(p, i, frozenset(w for w in ("dog", "house") if w in p), REPORT) for i, p in enumerate(prompts)]
    config = MethodConfig(steps=2, context=1, context_steps=1, tune_steps=1)
    source = {"a dog and a house": frozenset({"dog", "house"}), "a red house": frozenset({"house"})}
    methods = Methods(pipe, config, ["dog", "house"], source, without)
    usual = painter(pipe, GenerationConfig(steps=2))
    asked: list[list[str]] = []

    def paint(prompts: Any, seeds: Any) -> Images:
        asked.append(list(prompts))
        return usual(prompts, seeds)

    def detect(images: Images) -> list[dict[str, float]]:  # everything shows the dog but what the empty prompt gave
        return [{} if asked[-1] == ["", ""] else {"dog": 0.5} for _ in images]

    pairs = PicturePairs(methods, Evaluators(paint, detect), cases, 2)
    tried = ResistanceConfig(
        words=Attack(words=1, rounds=1, tried=1), inversion=Inversion(steps=2, batch=2),
        relearning=Relearning(steps=1, batch=2),
    )  # fmt: skip
    found = Resistance(pairs, tried, (50, 0)).run({"cad": 0.05}, ["dog"])
    assert set(found) == {"intact", "cad"} and set(found["cad"]) == set(ATTACKS)
    assert set(found["intact"]) == {"empty", *ATTACKS}
    assert found["intact"]["empty"]["shown"] == [0.0, 0.0, pytest.approx(3.8415 / (2 + 3.8415), rel=1e-3)]  # Wilson
    for one in found["cad"].values():
        assert one["shown"][0] == 1.0 == one["above_floor"][0] and one["shown"][1] < 1.0
        assert one["classifier"] == [None] * 3 and one["by_concept"] == {"dog": 1.0}
    assert found["cad"]["paraphrase"]["pictures"] == 2 and found["cad"]["embedding"]["pictures"] == 2
    print_attacks(found)
    assert "relearn_other" in capsys.readouterr().out
    made = len(asked)
    again = Resistance(pairs, tried, (50, 0)).run({"cad": 0.05}, ["dog"])
    assert again == found and len(asked) == made  # all of it was kept
    alone = attacked_by(replace(quick(2, 3.0, 0), resistance=tried), ["empty"]).resistance
    floor = Resistance(pairs, alone, (50, 0)).run({"cad": 0.05}, ["dog"])
    assert floor == {"intact": {"empty": found["intact"]["empty"]}}
    assert attacked_by(quick(2, 3.0, 0), ["named", "empty"]).resistance.attacks == ("named",)


def test_zeroed_weights_stay_zero_and_cross_attention_is_trained_on_what_is_held(pipe: Any) -> None:
    config = MethodConfig(steps=2, context=2, context_steps=1, tune_steps=6)
    source = {"a dog and a house": frozenset({"dog"}), "a red house": frozenset(), "two boats": frozenset()}
    methods = Methods(pipe, config, ["dog", "house"], source, without)
    held = methods.problems.held("dog")
    assert held.value() == pytest.approx(0.0, abs=1e-9)  # the intact model does what is wanted
    chosen, edit = (make("erase", "repaired", "dog", 0.1) for make in (methods.choose, methods.edit))
    assert chosen.keys() == methods.choose("erase", "cad", "dog", 0.1).keys()
    for name, index in chosen.items():
        change = edit.changes[name]
        assert torch.equal(change.index, index) and (change.new == 0).all()
    assert edit.changes.keys() - chosen.keys() == methods.wide.keys()
    with applied(pipe.unet, ablation(methods.weights, chosen, {})):
        damaged = held.value()
    with applied(pipe.unet, edit):
        assert held.value() < damaged
    with pytest.raises(InputError, match="changes no weights"):
        methods.edit("erase", "sae_ablate", "dog", 0.1)
