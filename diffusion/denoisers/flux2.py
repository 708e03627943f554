"""FLUX.2 and FLUX.2 klein, whose encoder is a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.instructions import Instructed, Instructions, chat
from gazetteer.diffusion.denoisers.joint import JoinedAdapter
from gazetteer.diffusion.denoisers.latents import latents_of
from gazetteer.diffusion.denoisers.shift import linear_sigmas
from gazetteer.diffusion.denoisers.usual import Usual


class Flux2Adapter(Instructed, JoinedAdapter):
    """FLUX.2: dev carries its guidance inside, as a klein does that is distilled."""

    pipelines = ("Flux2Pipeline",)
    networks: ClassVar[tuple[str, ...]] = ("Flux2Transformer2DModel",)
    kind = "FLUX.2 transformer"

    def instructions(self, pipe: Any, branch: str = "cond") -> Instructions:
        """A conversation after the system's message, made into tokens by the tokenizer of a processor of pictures."""
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input

        processor = pipe.tokenizer
        tokenizer = getattr(processor, "tokenizer", processor)

        def whole(prompt: str) -> str:
            (conversation,) = format_input([prompt], pipe.system_message)
            said: str = processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=False)
            return said

        # a tokenizer alone adds no mark to a conversation, a processor none to one that begins with it
        marked = tokenizer is not processor and not whole("").startswith(tokenizer.bos_token or "\0")
        return Instructions(tokenizer, whole, self.most(pipe), marked=marked)

    def check_guidance(
        self, network: Mapping[str, Any], index: Mapping[str, Any], generation: GenerationConfig
    ) -> None:
        """The prompt alone in dev, and in a klein that is distilled."""
        super().check_guidance(network, index, generation)
        if "uncond" in generation.branches and self._inside(index):
            raise InputError(
                "This FLUX.2 carries its guidance inside (it is distilled) and never runs without the prompt; set "
                "generation.branches=[cond]."
            )

    def evaluations(self, index: Mapping[str, Any], generation: GenerationConfig) -> int:
        """One where guidance is inside."""
        return 1 if self._inside(index) else super().evaluations(index, generation)

    def usual(self, network: Mapping[str, Any], index: Mapping[str, Any]) -> Usual:
        """Four steps without guidance where it is distilled (klein)."""
        return Usual(4, 1.0) if index.get("is_distilled") else super().usual(network, index)

    def _inside(self, index: Mapping[str, Any]) -> bool:
        return index.get("_class_name") == "Flux2Pipeline" or bool(index.get("is_distilled"))

    def latents(self, pipe: Any, noise: Tensor) -> Tensor:
        """Patches as channels, not yet in a row: [batch, 4 · channels, h/2, w/2]."""
        rows, columns = noise.shape[-2] // 2, noise.shape[-1] // 2
        return super().latents(pipe, noise).transpose(1, 2).unflatten(2, (rows, columns))

    def stepped(self, pipe: Any, latents: Tensor) -> Tensor:
        """In a row."""
        return super().latents(pipe, latents)

    def encoded(self, vae: Any, pixels: Tensor) -> Tensor:
        """Normalised patch by patch, by what the VAE has counted."""
        latents = latents_of(vae, pixels)
        mean = vae.bn.running_mean.view(1, -1, 1, 1).to(latents)
        variance = vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps
        patches = torch.nn.functional.pixel_unshuffle(latents, 2)
        return torch.nn.functional.pixel_shuffle((patches - mean) / variance.sqrt().to(latents), 2)

    def resumable(self, pipe: Any, sample: Tensor, size: tuple[int, int]) -> Tensor:
        """Out of the row again."""
        return sample.transpose(1, 2).unflatten(2, (size[0] // 2, size[1] // 2))

    def timesteps(self, scheduler: Any, steps: int, config: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """Sigmas in equal steps, shifted by the numbers of tokens and of steps."""
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        rows, columns = self.grid(config, *size)
        return {**linear_sigmas(scheduler, steps), "mu": compute_empirical_mu(rows * columns, steps)}

    def example(self, network: nn.Module, height: int, width: int, words: int) -> dict[str, Any]:
        """Tokens and their places on four axes."""
        c: Any = network.config
        rows, columns = height // 2, width // 2
        return {
            "hidden_states": torch.empty(1, rows * columns, c.in_channels), "timestep": torch.zeros(1),
            "encoder_hidden_states": torch.empty(1, words, c.joint_attention_dim),
            "guidance": torch.zeros(1) if c.get("guidance_embeds", True) else None,
            "txt_ids": torch.zeros(1, words, 4), "img_ids": torch.zeros(1, rows * columns, 4),
        }  # fmt: skip


class KleinAdapter(Flux2Adapter):
    """FLUX.2 klein: both branches, unless it is distilled."""

    pipelines = ("Flux2KleinPipeline",)
    networks = ()

    def instructions(self, pipe: Any, branch: str = "cond") -> Instructions:
        """A conversation in which nobody thinks."""
        return Instructions(pipe.tokenizer, chat(pipe.tokenizer, enable_thinking=False), self.most(pipe))
