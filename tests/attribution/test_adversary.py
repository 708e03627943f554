"""Words optimised against an edit, on a tiny real pipeline."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gazetteer.attribution.attacks.words import Attack, adversarial_words, said_with, vocabulary
from gazetteer.attribution.edits.delta import Delta, ablation, applied
from gazetteer.attribution.evaluation import resistance as resistance_module
from gazetteer.attribution.evaluation import robustness
from gazetteer.attribution.evaluation.cache import ResultCache
from gazetteer.attribution.evaluation.cases import REPORT, Case
from gazetteer.attribution.evaluation.evaluate import EditEvaluation, EvaluationConfig
from gazetteer.attribution.evaluation.evaluators import Evaluators, Images
from gazetteer.attribution.evaluation.resistance import Resistance, ResistanceConfig
from gazetteer.attribution.objective.prompts import fits
from gazetteer.attribution.objective.samples import Samples, freeze_target, predict
from gazetteer.attribution.objective.trajectory import conditioning, trajectory
from gazetteer.attribution.scores.selection import random_like, scope_weights
from gazetteer.data.core.errors import InputError
from gazetteer.jobs.experiments.attribute_report import print_evaluation
from tests.support.models.dits import tiny_dit
from tests.support.models.tiny_pipeline import tiny_pipeline

PROMPTS = ("a red house", "a dog at night")


@pytest.fixture(scope="module")
def pipe() -> object:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def samples(pipe: object) -> Samples:
    found = trajectory(pipe, PROMPTS, [1, 2], steps=2)
    return freeze_target(pipe.unet, replace(found, base=None), 1.0)  # type: ignore[attr-defined]


def loss(pipe: object, samples: Samples, words: str) -> float:
    said = conditioning(pipe, [f"{prompt} {words}" for prompt in PROMPTS])["encoder_hidden_states"]
    with torch.no_grad():
        found = predict(pipe.unet, samples, {**samples.cond, "encoder_hidden_states": said.repeat(2, 1, 1)})  # type: ignore[attr-defined]
    return float(((found - samples.target) ** 2).mean())


def test_words_are_found_that_undo_an_edit_best(pipe: object, samples: Samples) -> None:
    """Every single word is tried where the vocabulary is small enough: the best one must be found."""
    unet, ids = pipe.unet, vocabulary(pipe.tokenizer)[1]  # type: ignore[attr-defined]
    assert {"house", "boats", "night"} <= set(ids)
    weights = scope_weights(unet, "cross")
    every = {name: torch.arange(w.numel()) for name, w in weights.items()}
    half = {name: index[: len(index) // 2] for name, index in random_like(every, weights, 0).items()}
    with applied(unet, ablation(weights, half, {})):
        words, losses = adversarial_words(pipe, PROMPTS, samples, Attack(words=1, rounds=1, tried=len(ids)))
        assert losses[-1] == pytest.approx(loss(pipe, samples, words))
        assert losses[-1] == pytest.approx(min(loss(pipe, samples, word) for word in ids))
        more, losses = adversarial_words(pipe, PROMPTS, samples, Attack(2, rounds=3, tried=3, forbidden=(words,)))
        assert words not in more.split() and len(more.split()) == 2
        assert all(later <= earlier for earlier, later in itertools.pairwise(losses[1:]))


def test_words_that_do_no_better_than_none_are_not_kept(pipe: object, samples: Samples) -> None:
    """The intact model does what is wanted when nothing is added: filler could only lead away from it."""
    words, losses = adversarial_words(pipe, PROMPTS, samples, Attack(words=2, rounds=2, tried=3))
    assert words == "" and losses[0] < 1e-9 < losses[-1]
    for before in (False, True):
        assert said_with(PROMPTS, [words], before) == list(PROMPTS)


def test_what_cannot_be_attacked_is_a_sentence(pipe: object, samples: Samples) -> None:
    for prompts, on, attack, words in (
        (PROMPTS, replace(samples, target=None), Attack(), "with targets"),
        (PROMPTS[:1] * 3, samples, Attack(), "of all prompts"),
        (PROMPTS, samples, Attack(words=40), "no room for 40 more words"),
    ):
        with pytest.raises(InputError, match=words):
            adversarial_words(pipe, prompts, on, attack)
    with pytest.raises(InputError, match="rounds must be at least 1"):
        Attack(rounds=0)


def test_prompts_that_the_tokenizer_would_cut_are_left_out_and_a_name_is_no_attack(
    pipe: object, capsys: pytest.CaptureFixture[str]
) -> None:
    room = pipe.tokenizer.model_max_length - 2  # type: ignore[attr-defined]
    assert fits(pipe, " ".join(["house"] * room)) and not fits(pipe, " ".join(["house"] * (room + 1)))
    short = Case("a dog", 0, frozenset({"dog"}), REPORT)
    long = Case(" ".join(["house"] * (room - 1)), 1, frozenset({"dog"}), REPORT)
    painted: list[str] = []

    def paint(prompts: list[str], _: list[int]) -> Images:
        painted.extend(prompts)
        return [np.zeros((2, 2, 3), np.uint8) for _ in prompts]

    def attacked(cases: list[Case], words: str) -> tuple[dict[str, Any], dict[str, Any]]:
        cache, none = ResultCache(), Delta({})
        cache.json(("erase", "steps", "dog", 0.1, "words", Attack().name), lambda: words)
        methods = SimpleNamespace(pipe=pipe, denoiser=pipe.unet, edit=lambda *_: none)  # type: ignore[attr-defined]
        evaluators = Evaluators(paint, lambda images: [{"dog": 1.0} for _ in images])
        evaluation = EditEvaluation(methods, evaluators, cases, EvaluationConfig((), (), resamples=5), cache=cache)  # type: ignore[arg-type]
        both = (
            robustness.attacked(evaluation.pairs, "steps", ["dog"], 0.1, Attack(), evaluation.draws),
            robustness.paraphrased(evaluation.pairs, "erase", "steps", ["dog"], 0.1, evaluation.draws),
        )
        return both

    words, said = attacked([short, long], "boats dogs night")
    assert (words["left_out"], words["names_it"], words["target"][0]) == (1, ["dog"], 1.0)
    assert said["left_out"] == 1 and said["target"][0] == 1.0
    assert set(painted) == {"a dog", "a dog boats dogs night", "a dog, dog"}
    reported = {
        "steps": {**dict.fromkeys(("target", "classifier", "others", "distance"), [None] * 3), "attacked": words}
    }
    print_evaluation({"faithfulness_rows": [], "erase": reported})
    assert capsys.readouterr().out.splitlines()[-1].endswith("  1 prompts too long; words name dog")
    none, _ = attacked([short], "")
    assert (none["words"], none["names_it"], painted[-1]) == ({"dog": ""}, [], "a dog, dog")
    reported["steps"]["attacked"] = none
    print_evaluation({"faithfulness_rows": [], "erase": reported})
    assert capsys.readouterr().out.splitlines()[-1].endswith("  no words beat none for dog")
    words, _ = attacked([short], "boats dogma night")
    assert (words["left_out"], words["names_it"], words["target"][0]) == (0, [], 1.0)
    nobody, _ = attacked([long], "boats boats night")
    assert nobody["left_out"] == 1 and nobody["target"] == [None] * 3


def test_ways_to_say_one_prompt_are_one_case_to_the_intervals(pipe: object) -> None:
    """Two concepts of one prompt each, said in two ways: two noises, in which all that is asked for is shown."""
    cases = [Case(f"a {c} and a house", i, frozenset({c}), REPORT) for i, c in enumerate(("dog", "boat"))]
    evaluators = Evaluators(
        lambda prompts, _: [np.zeros((2, 2, 3), np.uint8) for _ in prompts],
        lambda images: [{"dog": 1.0, "boat": 1.0}] * len(images), lambda images: [frozenset({"dog"})] * len(images),
    )  # fmt: skip
    methods = SimpleNamespace(pipe=pipe, denoiser=pipe.unet, edit=lambda *_: Delta({}))  # type: ignore[attr-defined]
    evaluation = EditEvaluation(methods, evaluators, cases, EvaluationConfig((), (), resamples=9))  # type: ignore[arg-type]
    two = pytest.approx([1.0, 2 / (2 + 1.959964**2), 1.0], abs=1e-4)  # Wilson's, of 2 of 2; of 4 of 4 it begins at 0.51
    said = robustness.paraphrased(evaluation.pairs, "erase", "steps", ["dog", "boat"], 0.1, evaluation.draws)
    assert said["target"] == two
    resistance = Resistance(evaluation.pairs, ResistanceConfig(attacks=("paraphrase",)), (9, 0))
    shown = resistance.run({}, ["dog", "boat"])["intact"]["paraphrase"]
    assert shown["pictures"] == 4 and shown["shown"] == two and shown["above_floor"][0] == 0.0
    assert shown["classifier"][0] == 0.5


def test_what_an_attack_cannot_get_from_the_intact_model_or_names_itself_is_set_aside(
    pipe: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four concepts the attack fails on the boat, intact too, and names the car: the dog comes back, the sun not."""

    def attacked(self: Resistance, method: str, concept: str, dose: float, attack: str) -> dict[str, Any]:
        back = {"dog", "car"} if attack == "words" else set()
        shown = concept in (back | {"sun"} if method == "intact" and attack == "words" else back) or attack == "named"
        return {"found": np.full(2, float(shown)), "read": np.zeros(0), "place": np.arange(2), "left_out": np.array(0)}

    monkeypatch.setattr(Resistance, "_attacked", attacked)
    evaluation = EditEvaluation(
        SimpleNamespace(pipe=pipe, denoiser=pipe.unet),
        Evaluators(None, None),
        [],
        EvaluationConfig((), ()),  # type: ignore
    )
    resistance = Resistance(evaluation.pairs, ResistanceConfig(attacks=("words",)), (9, 0))
    concepts = ["dog", "boat", "sun", "car"]
    monkeypatch.setattr(Resistance, "_words", lambda *_: {"words": dict.fromkeys(concepts, ""), "names_it": ["car"]})
    words = resistance.run({"steps": 0.1}, concepts)["steps"]["words"]
    assert words["failed_control"] == ["boat"] and words["names_it"] == ["car"]
    assert (words["shown"][0], words["proper"][0]) == (0.5, 0.5)  # of four two, of the two that it can do one
    assert words["proper"][2] > words["shown"][2]


def test_words_are_kept_apart_by_how_hard_was_searched(pipe: object, monkeypatch: pytest.MonkeyPatch) -> None:
    painted: list[str] = []

    def paint(prompts: list[str], _: list[int]) -> Images:
        painted.extend(prompts)
        return [np.zeros((2, 2, 3), np.uint8) for _ in prompts]

    def searched(_: Any, __: Any, ___: Any, attack: Attack) -> tuple[str, list[float]]:
        return f"{'before' if attack.before else 'after'}{attack.rounds}", []

    monkeypatch.setattr(robustness, "adversarial_words", searched)
    monkeypatch.setattr(resistance_module, "adversarial_words", searched)
    problems = SimpleNamespace(unedited=lambda *_: ((), None), pictured=lambda *_: ((), None))
    methods = SimpleNamespace(pipe=pipe, denoiser=pipe.unet, edit=lambda *_: Delta({}), problems=problems)  # type: ignore[attr-defined]
    cases = [Case("a dog", 0, frozenset({"dog"}), REPORT)]
    evaluators = Evaluators(paint, lambda images: [{"dog": 1.0}] * len(images))
    evaluation = EditEvaluation(methods, evaluators, cases, EvaluationConfig((), ()))  # type: ignore[arg-type]
    for attack in (Attack(rounds=2), Attack(rounds=3), Attack(rounds=2, before=True)):
        robustness.attacked(evaluation.pairs, "steps", ["dog"], 0.1, attack, (0, 0))
    for words in (Attack(rounds=2), Attack(rounds=4)):
        config = ResistanceConfig(attacks=("words",), words=words)
        Resistance(evaluation.pairs, config, (0, 0))._worded("steps", "dog", 0.1, cases)
    assert set(painted) == {"a dog", "a dog after2", "a dog after3", "before2 a dog", "a dog after4"}
    config = ResistanceConfig(attacks=("words", "unlearndiffatk", "named"), words=Attack(rounds=4))
    monkeypatch.setattr(resistance_module, "adversarial_words", lambda *_: ("dogs night", []))
    attacks = Resistance(evaluation.pairs, config, (0, 0)).run({"steps": 0.1}, ["dog"])["steps"]
    assert (attacks["words"]["words"], attacks["words"]["names_it"]) == ({"dog": "after4"}, [])
    assert (attacks["unlearndiffatk"]["words"], attacks["unlearndiffatk"]["names_it"]) == (
        {"dog": "dogs night"},
        ["dog"],
    )
    assert "words" not in attacks["named"]


def test_beside_clip_the_encoder_that_reads_further_says_what_fits():
    """CLIP reads 77 of FLUX.1's prompts, T5 512, of which the end takes one and the space before a word none."""
    pipe = tiny_dit("flux")
    assert fits(pipe, " ".join(["house"] * 511)) and not fits(pipe, " ".join(["house"] * 512))
