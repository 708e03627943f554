"""What a block adds to a picture's tokens, told by plain hooks of torch that know each family's blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

UNET = "unet"
"""The family of Stable Diffusion 1.x and SDXL."""
UNBINNED = {"use_resolution_binning": False}
CALLED = {
    "pixart_sigma": {**UNBINNED, "clean_caption": False}, "sana": {**UNBINNED, "clean_caption": False},
    "hunyuan": UNBINNED, "qwen_image": {"negative_prompt": " "}, UNET: {"negative_prompt": ""},
}  # fmt: skip
"""What a family's pipeline is told besides: the size that was asked for, and captions as they are."""

ABSENT = {"sd3": {"text_encoder_3": None, "tokenizer_3": None}, UNET: {"safety_checker": None}}
"""Parts that the tiny pipelines of a family lack."""


def image_tokens(
    family: str, cells: int, words: list[int], args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> tuple[Tensor, Tensor]:
    """Image tokens [batch, cells, channels] before and after a block, written out family by family.

    words: of every prompt of the batch, for Lumina 2.
    """
    if family == UNET:
        return args[0].flatten(2).mT, output[0].flatten(2).mT
    if family in ("sd3", "flux", "qwen_image"):
        return kwargs["hidden_states"], output[1]
    if family in ("pixart_sigma", "sana", "hunyuan"):
        return args[0] if args else kwargs["hidden_states"], output
    if family == "z_image":
        return args[0][:, :cells], output[:, :cells]
    before = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    if family == "lumina2":  # text comes first, and prompts are of different lengths
        spans = [slice(length, length + cells) for length in words]
        return tuple(torch.stack([row[s] for row, s in zip(one, spans, strict=True)]) for one in (before, output))  # type: ignore[return-value]
    return before[:, -cells:], output[:, -cells:]


@torch.inference_mode()
def added_to_the_picture(
    folder: str, family: str, block: str, cells: int, prompt: str, seed: int, guidance: float, size: tuple[int, int]
) -> Tensor:
    """What a block adds in the first call with the prompt, while the library's own pipeline draws: [cells, channels].

    folder: a pipeline in diffusers format. size: (height, width) in px.
    """
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, **ABSENT.get(family, {}))
    pipe.set_progress_bar_config(disable=True)
    network = pipe.unet if family == UNET else pipe.transformer
    heard: list[Tensor] = []
    words: list[int] = []

    def begin(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        words[:] = kwargs["encoder_attention_mask"].sum(dim=1).tolist() if family == "lumina2" else []

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        before, after = image_tokens(family, cells, words, args, kwargs, output)
        heard.append(after - before)

    network.register_forward_pre_hook(begin, with_kwargs=True)
    network.get_submodule(block).register_forward_hook(hook, with_kwargs=True)
    given: dict[str, Any] = dict(CALLED.get(family, {}))
    if family == "flux2_klein":  # the library would draw its noise in another order than that of a picture
        side = pipe.vae_scale_factor
        noise = torch.randn(
            1,
            network.config.in_channels // 4,
            size[0] // side,
            size[1] // side,
            generator=torch.Generator().manual_seed(seed),
        )
        given["latents"] = pipe._patchify_latents(noise)
    scale = {"true_cfg_scale": guidance} if family == "qwen_image" else {"guidance_scale": guidance}
    pipe(
        prompt=prompt, num_inference_steps=1, height=size[0], width=size[1], output_type="latent",
        generator=torch.Generator().manual_seed(seed), **scale, **given,
    )  # fmt: skip
    # Where one call does both branches the prompt's comes last, but for Z-Image; where there are two calls it is first.
    return heard[0][0 if family == "z_image" else -1].float()
