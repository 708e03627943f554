"""Transformers with one sequence: the picture alone (PixArt, Sana), or joined with its text (Lumina 2, Z-Image)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.adapter import TokenGrid
from gazetteer.diffusion.denoisers.calls import TwoCalls
from gazetteer.diffusion.denoisers.instructions import Instructed, Instructions, chat
from gazetteer.diffusion.denoisers.shift import linear_shift
from gazetteer.diffusion.denoisers.sizes import latent_size, table_of
from gazetteer.diffusion.denoisers.transformer import Streams, TransformerAdapter
from gazetteer.diffusion.denoisers.usual import default_of
from gazetteer.diffusion.denoisers.words import unread

HUNYUAN_PLACES = 256
"""Of T5's, which HunyuanDiT's pipeline lets nobody set."""

SANA_PX = 32
"""Sides of Sana's pictures are multiples of so many px."""

FIRST, LAST = Streams(joined="first"), Streams(joined="last")
INSIDE = {"attn1": Streams(), "attn2": Streams(), "ff": Streams()}
"""Attention to the picture and to the text, and what follows."""

ALONE = MappingProxyType({"transformer_blocks": Streams(parts=INSIDE)})


class PixArtAdapter(TransformerAdapter):
    """PixArt-α and -Σ: stacked guidance, text by cross-attention alone."""

    pipelines = ("PixArtSigmaPipeline", "PixArtAlphaPipeline")
    networks = ("PixArtTransformer2DModel",)
    kind = "PixArt transformer"
    seeds_steps = True
    lists = ALONE
    flows = False

    def arguments(self, pipe: Any, prompts: Sequence[str], generation: GenerationConfig) -> dict[str, Any]:
        """Pictures of the size that is asked for, not of the nearest known one; prompts as they are given."""
        told = super().arguments(pipe, prompts, generation)
        return {**told, "use_resolution_binning": False, "clean_caption": False}

    def width(self, network: nn.Module) -> int:
        """By its heads."""
        c: Any = network.config
        return int(c.num_attention_heads * c.attention_head_dim)

    def words(self, index: Mapping[str, Any]) -> int:
        """Of T5's."""
        return 300 if index.get("_class_name") == "PixArtSigmaPipeline" else 120

    def unread(self, pipe: Any, prompt: str) -> int:
        """Of T5's, which is given prompts in small letters."""
        return unread(pipe.tokenizer, _plain(prompt), self.most(pipe))

    def example(self, network: nn.Module, height: int, width: int, words: int) -> dict[str, Any]:
        """With resolution and ratio where the network asks for them."""
        c: Any = network.config
        more = {"resolution": None, "aspect_ratio": None}
        if network.use_additional_conditions:
            more = {"resolution": torch.zeros(1, 2), "aspect_ratio": torch.zeros(1, 1)}  # type: ignore[dict-item]
        return {
            "hidden_states": torch.empty(1, c.in_channels, height, width), "timestep": torch.zeros(1),
            "encoder_hidden_states": torch.empty(1, words, c.caption_channels), "added_cond_kwargs": more,
        }  # fmt: skip


class HunyuanAdapter(TransformerAdapter):
    """HunyuanDiT: stacked guidance, text by cross-attention; later blocks are given what earlier ones gave beside."""

    pipelines = ("HunyuanDiTPipeline",)
    networks = ("HunyuanDiT2DModel",)
    kind = "HunyuanDiT transformer"
    seeds_steps = True
    lists = MappingProxyType({"blocks": Streams(parts=INSIDE)})
    flows = False

    def scale(self, vae: Mapping[str, Any]) -> int:
        """Eight, as its pipeline has it."""
        return 8

    def arguments(self, pipe: Any, prompts: Sequence[str], generation: GenerationConfig) -> dict[str, Any]:
        """Pictures of the size that is asked for, not of the nearest known one."""
        return {**super().arguments(pipe, prompts, generation), "use_resolution_binning": False}

    def words(self, index: Mapping[str, Any]) -> int:
        """77 of CLIP's and those of T5's."""
        return 77 + HUNYUAN_PLACES

    def unread(self, pipe: Any, prompt: str) -> int:
        """T5 decides: CLIP's 77 places are the beginning of what it reads."""
        return unread(pipe.tokenizer_2, prompt, HUNYUAN_PLACES)

    def example(self, network: nn.Module, height: int, width: int, words: int) -> dict[str, Any]:
        """Both texts with their masks, size and style, and the places of the cells."""
        c: Any = network.config
        cells = (height // c.patch_size) * (width // c.patch_size)
        return {
            "hidden_states": torch.empty(1, c.in_channels, height, width), "timestep": torch.zeros(1),
            "encoder_hidden_states": torch.empty(1, c.text_len, c.cross_attention_dim),
            "text_embedding_mask": torch.ones(1, c.text_len),
            "encoder_hidden_states_t5": torch.empty(1, c.text_len_t5, c.cross_attention_dim_t5),
            "text_embedding_mask_t5": torch.ones(1, c.text_len_t5), "image_meta_size": torch.zeros(1, 6),
            "style": torch.zeros(1, dtype=torch.long),
            "image_rotary_emb": (torch.empty(cells, c.attention_head_dim), torch.empty(cells, c.attention_head_dim)),
        }  # fmt: skip


class SanaAdapter(TransformerAdapter):
    """Sana: linear attention on the latents of a VAE that halves five times; stacked guidance."""

    pipelines = ("SanaPipeline",)
    networks = ("SanaTransformer2DModel",)
    kind = "Sana transformer"
    seeds_steps = True
    lists = MappingProxyType(
        {"transformer_blocks": Streams(parts={"attn1": Streams(), "attn2": Streams()})}  # what follows is convolutions
    )

    def arguments(self, pipe: Any, prompts: Sequence[str], generation: GenerationConfig) -> dict[str, Any]:
        """Pictures of the size that is asked for, not of the nearest known one."""
        return {**super().arguments(pipe, prompts, generation), "use_resolution_binning": False}

    def width(self, network: nn.Module) -> int:
        """By its heads."""
        c: Any = network.config
        return int(c.num_attention_heads * c.attention_head_dim)

    def scale(self, vae: Mapping[str, Any]) -> int:
        """By the levels of its VAE."""
        return int(2 ** (len(vae["encoder_block_out_channels"]) - 1))

    def latent_size(self, config: Mapping[str, Any], height: int, width: int, scale: int) -> tuple[int, int]:
        """A multiple of 32 px, whatever the VAE."""
        return latent_size(config, height, width, scale, patch=max(int(config["patch_size"]), SANA_PX // scale))

    def time(self, pipe: Any, timestep: float) -> float:
        """Times what the network states."""
        return timestep * float(pipe.transformer.config.timestep_scale)

    def latents(self, pipe: Any, noise: Tensor) -> Tensor:
        """In single precision, whatever the network's."""
        return noise

    def words(self, index: Mapping[str, Any]) -> int:
        """Of Gemma's."""
        return 300

    def unread(self, pipe: Any, prompt: str) -> int:
        """Gemma reads instructions before the prompt, which make room for themselves, less two places."""
        told = default_of(pipe, "complex_human_instruction")
        before, most = "\n".join(told or ()), self.most(pipe)
        if told:
            most += len(pipe.tokenizer.encode(before)) - 2
        return Instructions(pipe.tokenizer, lambda text: before + _plain(text), most).unread(prompt)

    def example(self, network: nn.Module, height: int, width: int, words: int) -> dict[str, Any]:
        """Latents and text."""
        c: Any = network.config
        return {
            "hidden_states": torch.empty(1, c.in_channels, height, width), "timestep": torch.zeros(1),
            "encoder_hidden_states": torch.empty(1, words, c.caption_channels),
        }  # fmt: skip


class Lumina2Adapter(TwoCalls, Instructed, TransformerAdapter):
    """Lumina-Image 2.0: text before the picture in one sequence; time runs from 0 to 1; two calls a step."""

    pipelines = ("Lumina2Pipeline",)
    networks = ("Lumina2Transformer2DModel",)
    kind = "Lumina 2 transformer"
    ragged = True
    lists = MappingProxyType({"layers": Streams(joined="first", parts={"attn": FIRST, "feed_forward": FIRST})})

    def instructions(self, pipe: Any, branch: str = "cond") -> Instructions:
        """The prompt after the system's, as far as they go; what it is guided against stands alone."""
        before = f"{pipe.system_prompt} <Prompt Start> " if branch == "cond" else ""
        return Instructions(pipe.tokenizer, before.__add__, self.most(pipe), padded=False)

    def places(self, config: Mapping[str, Any]) -> tuple[int | None, int | None]:
        """Rotations made for so many."""
        return table_of(config)

    def width(self, network: nn.Module) -> int:
        """As it states."""
        return int(network.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def scale(self, vae: Mapping[str, Any]) -> int:
        """Eight, as its pipeline has it."""
        return 8

    def time(self, pipe: Any, timestep: float) -> float:
        """From noise to picture."""
        return 1 - timestep / float(pipe.scheduler.config.num_train_timesteps)

    def layout(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TokenGrid:
        """As many words as each prompt's mask has."""
        grid = super().layout(network, args, kwargs)
        return TokenGrid(grid.height, grid.width, tuple(kwargs["encoder_attention_mask"].sum(dim=1).tolist()))

    def timesteps(self, scheduler: Any, steps: int, config: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """Its pipeline takes the channels for the number of tokens."""
        import numpy as np

        return {"sigmas": np.linspace(1.0, 1 / steps, steps), **linear_shift(scheduler, int(config["in_channels"]))}

    def words(self, index: Mapping[str, Any]) -> int:
        """Of Gemma's."""
        return 256

    def example(self, network: nn.Module, height: int, width: int, words: int) -> dict[str, Any]:
        """Latents and text."""
        c: Any = network.config
        return {
            "hidden_states": torch.empty(1, c.in_channels, height, width), "timestep": torch.zeros(1),
            "encoder_hidden_states": torch.empty(1, words, c.cap_feat_dim),
            "encoder_attention_mask": torch.ones(1, words, dtype=torch.bool),
        }  # fmt: skip


class ZImageAdapter(TransformerAdapter):
    """Z-Image: the picture before its text in one sequence, filled up to whole 32s; cond is stacked before uncond."""

    pipelines = ("ZImagePipeline",)
    networks = ("ZImageTransformer2DModel",)
    kind = "Z-Image transformer"
    lists = MappingProxyType({"layers": Streams(joined="last", parts={"attention": LAST, "feed_forward": LAST})})
    packs = 2
    first_sample = 128

    def places(self, config: Mapping[str, Any]) -> tuple[int | None, int | None]:
        """Rotations made for so many."""
        return table_of(config)

    def width(self, network: nn.Module) -> int:
        """As it states."""
        return int(network.config.dim)  # type: ignore[union-attr, arg-type]

    def channels(self, config: Mapping[str, Any]) -> int:
        """The network packs them itself."""
        return int(config["in_channels"])

    def order(self, context: str | None, calls: int) -> tuple[str, ...]:
        """The other way round than elsewhere."""
        return ("cond", "uncond")

    def time(self, pipe: Any, timestep: float) -> float:
        """From noise to picture."""
        return (1000 - timestep) / 1000

    def arguments(self, pipe: Any, prompts: Sequence[str], generation: GenerationConfig) -> dict[str, Any]:
        """Any scale above 0 turns guidance on; here it takes more than 1, as elsewhere."""
        scale = generation.guidance if generation.guidance > 1.0 else 0.0
        return {"prompt": list(prompts), "guidance_scale": scale}

    def latents(self, pipe: Any, noise: Tensor) -> Tensor:
        """In single precision, whatever the network's."""
        return noise

    def unread(self, pipe: Any, prompt: str) -> int:
        """Its language model reads the prompt in a conversation, before it thinks."""
        return Instructions(pipe.tokenizer, chat(pipe.tokenizer, enable_thinking=True), self.most(pipe)).unread(prompt)

    def layout(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TokenGrid:
        """Of a list of latents [channels, frames, h, w]."""
        first = (kwargs["x"] if "x" in kwargs else args[0])[0]
        return TokenGrid(first.shape[-2] // 2, first.shape[-1] // 2)

    def told(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Its second argument."""
        return kwargs["t"] if "t" in kwargs else args[1]

    def timesteps(self, scheduler: Any, steps: int, config: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """Sigmas of its own, shifted by the number of tokens."""
        from diffusers.pipelines.z_image.pipeline_z_image import get_default_z_image_sigmas

        rows, columns = self.grid(config, *size)
        return {"sigmas": get_default_z_image_sigmas(steps), **linear_shift(scheduler, rows * columns)}

    def example(self, network: nn.Module, height: int, width: int, words: int) -> dict[str, Any]:
        """Lists of latents and of texts."""
        c: Any = network.config
        return {
            "x": [torch.empty(c.in_channels, 1, height, width)], "t": torch.zeros(1),
            "cap_feats": [torch.empty(words, c.cap_feat_dim)],
        }  # fmt: skip


def _plain(prompt: str) -> str:
    """A prompt as PixArt's and Sana's encoders are given it."""
    return prompt.lower().strip()
