"""Embedding inversion: instead of words, what the text encoder would give is optimised until the concept is back.

As textual inversion against erased models (Pham et al. 2308.01508), but on the whole conditioning at once, so that
nothing between words and U-Net limits it: whether the U-Net can still draw the concept when asked in the best way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gazetteer.attribution.attacks.words import NoAttackError
from gazetteer.attribution.objective.samples import Samples, predict
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Count, Positive, settings
from gazetteer.diffusion.denoisers.registry import UNET, adapter_of
from gazetteer.diffusion.watch import patched


@settings("")
class Inversion:
    """How hard is searched.

    Attributes:
        steps: of Adam.
        rate: of Adam, in units of the embedding.
        batch: samples a step.
    """

    steps: Count = 40
    rate: Positive = 0.05
    batch: Count = 9


def inverted(pipe: Any, samples: Samples, inversion: Inversion = Inversion()) -> tuple[Tensor, list[float]]:
    """The embedding that leads the pipeline as it stands (edited) to the samples' targets (of the intact model).

    It starts at the empty prompt's, so that nothing but the targets says what is wanted.

    Args:
        samples: with targets, in an order in which every stretch has some of each kind.

    Returns:
        [1, tokens, width] of the type that the text encoder gives, and the loss at every step.

    Raises:
        NoAttackError: a U-Net that reads no text embedding of its own.
        InputError: samples without targets.
    """
    if samples.target is None:
        raise InputError("An inversion needs samples with targets.")
    read = "encoder_hidden_states" in samples.cond and hasattr(pipe, "encode_prompt")
    if not read or adapter_of(pipe) is not UNET:
        raise NoAttackError("Embedding inversion needs a pipeline whose U-Net reads what encode_prompt gives.")
    once = {"device": pipe.unet.device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    start = pipe.encode_prompt([""], **once)[0].detach()
    embedding = start.float().clone().requires_grad_(True)
    adam, losses = torch.optim.Adam([embedding], lr=inversion.rate), []
    parts = list(samples.chunks(inversion.batch))
    for step in range(inversion.steps):
        part = parts[step % len(parts)]
        said = embedding.to(start.dtype).expand(len(part), -1, -1)
        with torch.enable_grad():
            guess = predict(pipe.unet, part, {**part.cond, "encoder_hidden_states": said})
            loss = ((guess - torch.as_tensor(part.target)) ** 2).mean()
            (embedding.grad,) = torch.autograd.grad(loss, [embedding])
        adam.step()
        losses.append(loss.detach())
    return embedding.detach().to(start.dtype), torch.stack(losses).tolist()


@contextmanager
def said(pipe: Any, embedding: Tensor) -> Iterator[None]:
    """While open, whatever prompt the pipeline is given, its U-Net reads this embedding [1, tokens, width] instead.

    Pooled embeddings, where a pipeline has them, and the negative prompt's stay those of the prompt.
    """

    def around(usual: Any, *args: Any, **kwargs: Any) -> Any:
        plain, *rest = usual(*args, **kwargs)
        return (embedding.to(plain).expand(len(plain), -1, -1), *rest)

    with patched(pipe, "encode_prompt", around):
        yield
