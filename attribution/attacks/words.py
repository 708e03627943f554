"""Prompts optimised against an edit: words after a prompt that make the edited model predict what the intact one did.

The objective is P4D's (Chin et al. 2309.06135): ‖ Φ(x_t, prompt + words, t; edited) − Φ(x_t, prompt, t; intact) ‖².
With `before` and samples of noised pictures of the concept (`noised_images`) it is UnlearnDiffAtk's (Zhang et al.
2310.11868): words before the prompt under which the edited model denoises pictures that the intact one painted.
Here the same words serve several prompts, so that they can be tried on others. They are searched greedily, one at a
time: the gradient at a token's embedding ranks the vocabulary (HotFlip, 1712.06751), the first few are tried.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from gazetteer.attribution.objective.samples import Samples, predict
from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Count, settings


class NoAttackError(InputError):
    """A pipeline or prompts that these attacks do not fit, which says nothing about the edit."""


@settings("")
class Attack:
    """How hard is searched.

    Attributes:
        words: appended to every prompt.
        rounds: each tries to change one word, from the first to the last and again.
        tried: words per round.
        forbidden: words that must not be used.
        before: they stand before every prompt instead of after it.
    """

    words: Count = 3
    rounds: Count = 6
    tried: Count = 12
    forbidden: tuple[str, ...] = ()
    before: bool = False

    @property
    def name(self) -> str:
        """Under which what it found is kept: another one for an attack of other settings."""
        return digest_json(asdict(self))[:8]


def adversarial_words(pipe: Any, prompts: Sequence[str], samples: Samples, attack: Attack) -> tuple[str, list[float]]:
    """Words that lead the pipeline as it stands (edited) back to the samples' targets (of the intact model).

    Args:
        pipe: with one tokenizer and one text encoder.
        samples: of `prompts`, as `trajectory` orders them (all prompts of a step, then the next), with targets.

    Returns:
        the words, none where the best that were found do no better than none, and the loss without them and after
        each round: it never rises once there are words.

    Raises:
        NoAttackError: a pipeline with two text encoders, or prompts that leave no room.
        InputError: samples without targets.
    """
    if getattr(pipe, "text_encoder_2", None) is not None or getattr(pipe, "tokenizer", None) is None:
        raise NoAttackError("Adversarial prompts need a pipeline with one tokenizer and one text encoder.")
    if samples.target is None or len(samples) % len(prompts):
        raise InputError("Adversarial prompts need samples of all prompts, with targets.")
    ids, texts = vocabulary(pipe.tokenizer, attack.forbidden)
    ends = [len(pipe.tokenizer(p).input_ids) - 1 for p in prompts]  # the end token makes room
    starts = [1] * len(prompts) if attack.before else ends
    longest = max(ends) + attack.words + 1
    if longest > pipe.tokenizer.model_max_length:
        raise NoAttackError(
            f"A prompt has no room for {attack.words} more words: {pipe.tokenizer.model_max_length} at most."
        )
    with torch.no_grad():
        losses = [float(_loss(pipe, prompts, samples))]
        now = texts[:1] * attack.words
        best = _with(pipe, prompts, now, samples, attack.before)
    for nth in range(attack.rounds):
        place = nth % attack.words
        slopes = _slopes(pipe, said_with(prompts, now, attack.before), samples)
        along = torch.stack([slopes[i, start + place] for i, start in enumerate(starts)]).sum(0)
        table = pipe.text_encoder.get_input_embeddings().weight.detach().float().cpu()[ids]
        ranked = (table @ along).argsort(stable=True)[: attack.tried].tolist()
        with torch.no_grad():
            for word in (texts[i] for i in ranked):
                new = [*now[:place], word, *now[place + 1 :]]
                if (loss := _with(pipe, prompts, new, samples, attack.before)) < best:
                    best, now = loss, new
        losses.append(best)
    return " ".join(now) if best < losses[0] else "", losses


def vocabulary(tokenizer: Any, forbidden: Collection[str] = ()) -> tuple[list[int], list[str]]:
    """Tokens that are words of their own: their ids and texts, in the order of ids."""
    special = set(tokenizer.all_special_ids)
    ids, texts = [], []
    for number in range(len(tokenizer)):
        if number in special:
            continue
        text = tokenizer.decode([number]).strip()
        if text.isalpha() and text not in forbidden and tokenizer(text).input_ids[1:-1] == [number]:
            ids.append(number)
            texts.append(text)
    if not ids:
        raise InputError("The tokenizer knows no whole word.")
    return ids, texts


def said_with(prompts: Sequence[str], words: Sequence[str], before: bool = False) -> list[str]:
    """The prompts with words after them, or before."""
    if not (more := " ".join(words)):
        return list(prompts)
    return [f"{more} {prompt}" if before else f"{prompt} {more}" for prompt in prompts]


def _with(pipe: Any, prompts: Sequence[str], words: Sequence[str], samples: Samples, before: bool) -> float:
    return float(_loss(pipe, said_with(prompts, words, before), samples))


def _loss(pipe: Any, prompts: Sequence[str], samples: Samples) -> Tensor:
    """Mean squared distance of the predictions under these prompts to the targets."""
    many = len(samples) // len(prompts)
    encoded = pipe.encode_prompt(list(prompts), pipe.unet.device, 1, False)[0]
    cond = {**samples.cond, "encoder_hidden_states": torch.cat([encoded] * many)}
    noise = predict(pipe.unet, samples, cond)
    return ((noise - torch.as_tensor(samples.target)) ** 2).mean()


def _slopes(pipe: Any, prompts: Sequence[str], samples: Samples) -> Tensor:
    """d loss / d token embedding, [prompts, positions, width] float32 on the CPU."""
    with torch.enable_grad(), _embeddings(pipe) as seen:
        loss = _loss(pipe, prompts, samples)
        return torch.autograd.grad(loss, seen[0])[0].float().cpu()


@contextmanager
def _embeddings(pipe: Any) -> Iterator[list[Tensor]]:
    """While open, what the token embedding gives is a leaf that gradients reach, and is kept."""
    seen: list[Tensor] = []

    def hook(_: Any, __: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_(True))
        return seen[-1]

    handle = pipe.text_encoder.get_input_embeddings().register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()
