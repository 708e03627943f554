"""Transformers whose blocks carry picture and text side by side: SD 3, FLUX.1, Chroma, Qwen-Image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.adapter import TokenGrid
from gazetteer.diffusion.denoisers.calls import TwoCalls
from gazetteer.diffusion.denoisers.instructions import Instructed, Instructions
from gazetteer.diffusion.denoisers.latents import latents_of
from gazetteer.diffusion.denoisers.shift import linear_shift, linear_sigmas
from gazetteer.diffusion.denoisers.transformer import Streams, TransformerAdapter, last_place, pack
from gazetteer.diffusion.denoisers.usual import Usual
from gazetteer.diffusion.denoisers.words import PromptTokens, padding, tokens_of, unread

WORDS = Streams(text=0)
BOTH = Streams(image=0, text=1)
"""Attention inside such blocks, which gives (picture, text)."""

BESIDE = Streams(image=1, text=0, parts={"attn": BOTH, "ff": Streams(), "ff_context": WORDS})
"""Blocks that give (text, picture)."""

T5_PLACES = 256
"""Of SD 3's pipeline, as it is called by default."""


class SD3Adapter(TransformerAdapter):
    """Stable Diffusion 3 and 3.5: stacked guidance; the last block adds nothing to the text."""

    pipelines = ("StableDiffusion3Pipeline",)
    networks = ("SD3Transformer2DModel",)
    kind = "SD 3 transformer"
    attributed = True
    lists = MappingProxyType({"transformer_blocks": BESIDE})

    def places(self, config: Mapping[str, Any]) -> tuple[int | None, int | None]:
        """A table from whose middle it cuts as many as a picture needs."""
        side = config.get("pos_embed_max_size")
        return side, side

    def timesteps(self, scheduler: Any, steps: int, config: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """Shifted by the number of tokens where the scheduler asks for it."""
        rows, columns = self.grid(config, *size)
        shift = linear_shift(scheduler, rows * columns) if scheduler.config.get("use_dynamic_shifting") else {}
        return {"num_inference_steps": steps, **shift}

    def words(self, index: Mapping[str, Any]) -> int:
        """77 of CLIP's and 256 of T5's, which is left out at times but for its place."""
        return 77 + T5_PLACES

    def tokens(self, pipe: Any, prompt: str, branch: str = "cond") -> PromptTokens:
        """CLIP's, then T5's; both encoders of CLIP's share their places."""
        clip = tokens_of(pipe.tokenizer, prompt, pipe.tokenizer_max_length)
        if pipe.text_encoder_3 is None:
            return clip + padding(T5_PLACES)
        return clip + tokens_of(pipe.tokenizer_3, prompt, T5_PLACES)

    def unread(self, pipe: Any, prompt: str) -> int:
        """T5 decides where it is there: CLIP gives the gist. Without it, the CLIP that reads less of it."""
        if pipe.text_encoder_3 is not None:
            return unread(pipe.tokenizer_3, prompt, self.most(pipe))
        both = (pipe.tokenizer, pipe.tokenizer_2)
        return max(unread(tokenizer, prompt, pipe.tokenizer_max_length) for tokenizer in both)

    def example(self, network: nn.Module, height: int, width: int, words: int) -> dict[str, Any]:
        """With the pooled text beside the words."""
        c: Any = network.config
        return {
            "hidden_states": torch.empty(1, c.in_channels, height, width), "timestep": torch.zeros(1),
            "encoder_hidden_states": torch.empty(1, words, c.joint_attention_dim),
            "pooled_projections": torch.empty(1, c.pooled_projection_dim),
        }  # fmt: skip


class PackedAdapter(TwoCalls, TransformerAdapter):
    """Latents that the pipeline packs two by two into tokens; the branches of guidance are calls of their own."""

    packs = 2
    first_sample = 128

    def time(self, pipe: Any, timestep: float) -> float:
        """In thousandths of the sampler's."""
        return timestep / 1000

    def latents(self, pipe: Any, noise: Tensor) -> Tensor:
        """Packed."""
        return pack(super().latents(pipe, noise))

    def timesteps(self, scheduler: Any, steps: int, config: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """Sigmas in equal steps, shifted by the number of tokens."""
        rows, columns = self.grid(config, *size)
        return {**linear_sigmas(scheduler, steps), **linear_shift(scheduler, rows * columns)}


class FluxAdapter(PackedAdapter):
    """FLUX.1: guidance is distilled into the model, or (schnell) there is none; true guidance takes a second call."""

    pipelines = ("FluxPipeline",)
    networks = ("FluxTransformer2DModel",)
    kind = "FLUX transformer"
    shared = ("txt_ids", "img_ids")
    attributed = True
    lists = MappingProxyType({"transformer_blocks": BESIDE, "single_transformer_blocks": replace(BESIDE, parts={})})

    def layout(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TokenGrid:
        """From the places of the tokens."""
        return TokenGrid(*last_place(kwargs["img_ids"], 1))

    def check_guidance(
        self, network: Mapping[str, Any], index: Mapping[str, Any], generation: GenerationConfig
    ) -> None:
        """The prompt alone, unless true guidance is asked for."""
        if "uncond" in generation.branches and generation.true_guidance <= 1.0:
            raise InputError(
                "FLUX.1 carries its guidance inside (it is distilled) and never runs without the prompt; set "
                "generation.branches=[cond], or generation.true_guidance above 1."
            )

    def usual(self, network: Mapping[str, Any], index: Mapping[str, Any]) -> Usual:
        """Four steps without guidance where the network is told no scale (schnell)."""
        return super().usual(network, index) if network.get("guidance_embeds") else Usual(4, 0.0)

    def tokens(self, pipe: Any, prompt: str, branch: str = "cond") -> PromptTokens:
        """T5's."""
        return tokens_of(pipe.tokenizer_2, prompt, self.most(pipe))

    def unread(self, pipe: Any, prompt: str) -> int:
        """T5 decides: CLIP gives the gist."""
        return unread(pipe.tokenizer_2, prompt, self.most(pipe))

    def evaluations(self, index: Mapping[str, Any], generation: GenerationConfig) -> int:
        """Two with true guidance."""
        return 2 if generation.true_guidance > 1.0 else 1

    def arguments(self, pipe: Any, prompts: Sequence[str], generation: GenerationConfig) -> dict[str, Any]:
        """True guidance with an empty prompt against the given."""
        true = generation.true_guidance
        against = {"negative_prompt": [""] * len(prompts), "true_cfg_scale": true} if true > 1.0 else {}
        return {**super().arguments(pipe, prompts, generation), **against}

    def example(self, network: nn.Module, height: int, width: int, words: int) -> dict[str, Any]:
        """Tokens, their places and the pooled text."""
        c: Any = network.config
        rows, columns = height // 2, width // 2
        return {
            "hidden_states": torch.empty(1, rows * columns, c.in_channels), "timestep": torch.zeros(1),
            "encoder_hidden_states": torch.empty(1, words, c.joint_attention_dim),
            "pooled_projections": torch.empty(1, c.pooled_projection_dim),
            "guidance": torch.zeros(1) if c.guidance_embeds else None,
            "txt_ids": torch.zeros(words, 3), "img_ids": torch.zeros(rows * columns, 3),
        }  # fmt: skip


class JoinedAdapter(PackedAdapter):
    """Blocks of both streams, then blocks of one sequence in which text comes before the picture."""

    lists = MappingProxyType({"transformer_blocks": BESIDE, "single_transformer_blocks": Streams(joined="first")})

    def layout(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TokenGrid:
        """From the places of the tokens; all prompts of a call have as many words."""
        return TokenGrid(*last_place(kwargs["img_ids"], 1), (kwargs["encoder_hidden_states"].shape[1],))


class ChromaAdapter(JoinedAdapter):
    """Chroma: FLUX's blocks with guidance of its own; in the single blocks text comes before the picture."""

    pipelines = ("ChromaPipeline",)
    networks = ("ChromaTransformer2DModel",)
    kind = "Chroma transformer"

    def tokens(self, pipe: Any, prompt: str, branch: str = "cond") -> PromptTokens:
        """T5's."""
        return tokens_of(pipe.tokenizer, prompt, self.most(pipe))

    def unread(self, pipe: Any, prompt: str) -> int:
        """Of T5's."""
        return unread(pipe.tokenizer, prompt, self.most(pipe))

    def example(self, network: nn.Module, height: int, width: int, words: int) -> dict[str, Any]:
        """Tokens and their places."""
        c: Any = network.config
        rows, columns = height // 2, width // 2
        return {
            "hidden_states": torch.empty(1, rows * columns, c.in_channels), "timestep": torch.zeros(1),
            "encoder_hidden_states": torch.empty(1, words, c.joint_attention_dim),
            "txt_ids": torch.zeros(words, 3), "img_ids": torch.zeros(rows * columns, 3),
        }  # fmt: skip


class QwenImageAdapter(Instructed, PackedAdapter):
    """Qwen-Image: true guidance in two calls, with a space for the prompt that is not given."""

    pipelines = ("QwenImagePipeline",)
    networks = ("QwenImageTransformer2DModel",)
    kind = "Qwen-Image transformer"
    lists = MappingProxyType(
        {
            "transformer_blocks": replace(BESIDE, parts={"attn": BOTH, "img_mlp": Streams(), "txt_mlp": WORDS}),
        }
    )

    def instructions(self, pipe: Any, branch: str = "cond") -> Instructions:
        """A text whose beginning the stream leaves out."""
        whole, first = pipe.prompt_template_encode.format, pipe.prompt_template_encode_start_idx
        return Instructions(pipe.tokenizer, whole, self.most(pipe), skipped=first, padded=False)

    def scale(self, vae: Mapping[str, Any]) -> int:
        """By the halvings of its VAE."""
        return int(2 ** len(vae["temperal_downsample"]))

    def layout(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TokenGrid:
        """As the call states it."""
        shapes = kwargs["img_shapes"][0]
        first = shapes[0] if isinstance(shapes, list) else shapes
        return TokenGrid(int(first[1]), int(first[2]))

    def encoded(self, vae: Any, pixels: Tensor) -> Tensor:
        """One frame of a video, normalised channel by channel."""
        latents = latents_of(vae, pixels[:, :, None])[:, :, 0]
        stated = (vae.config.latents_mean, vae.config.latents_std)
        mean, deviation = (torch.tensor(values).view(1, -1, 1, 1).to(latents) for values in stated)
        return (latents - mean) / deviation

    def decoded(self, latents: Tensor) -> Tensor:
        """One frame of a video."""
        return latents.unsqueeze(2)

    def arguments(self, pipe: Any, prompts: Sequence[str], generation: GenerationConfig) -> dict[str, Any]:
        """Guidance above 1 runs against a space, as its authors advise."""
        if generation.guidance <= 1.0:
            return {"prompt": list(prompts), "true_cfg_scale": 1.0}
        return {
            "prompt": list(prompts), "negative_prompt": [" "] * len(prompts), "true_cfg_scale": generation.guidance
        }  # fmt: skip

    def example(self, network: nn.Module, height: int, width: int, words: int) -> dict[str, Any]:
        """Tokens with the shape of their grid."""
        c: Any = network.config
        rows, columns = height // 2, width // 2
        return {
            "hidden_states": torch.empty(1, rows * columns, c.in_channels), "timestep": torch.zeros(1),
            "encoder_hidden_states": torch.empty(1, words, c.joint_attention_dim),
            "encoder_hidden_states_mask": None, "img_shapes": [[(1, rows, columns)]],
        }  # fmt: skip
