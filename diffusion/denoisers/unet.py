"""U-Nets of Stable Diffusion and its kin: blocks map [batch, channels, height, width], branches are stacked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.adapter import Adapter, BlockCall, BlockInfo, TokenGrid, meant_block, same_shape
from gazetteer.diffusion.denoisers.sizes import latent_size
from gazetteer.diffusion.denoisers.usual import default_of
from gazetteer.diffusion.denoisers.words import unread


class UNetAdapter(Adapter):
    """Any pipeline with a `UNet2DConditionModel`."""

    part = "unet"
    networks = ("UNet2DConditionModel",)
    kind = "U-Net"
    inputs = ("sample", "timestep")
    attributed = True

    def blocks(self, network: nn.Module) -> dict[str, BlockInfo]:
        """The cross-attention transformer blocks."""
        transformers = {n: m for n, m in network.named_modules() if type(m).__name__ == "Transformer2DModel"}
        return {name: BlockInfo(int(module.in_channels)) for name, module in transformers.items()}  # type: ignore[arg-type]

    def words(self, index: Mapping[str, Any]) -> int | None:
        """Of ChatGLM's, which reads far more."""
        return 256 if index.get("_class_name") == "KolorsPipeline" else None

    def find(self, network: nn.Module, path: str) -> BlockInfo:
        """Any module that keeps its channels, an attention block as a rule."""
        try:
            module = network.get_submodule(path)
        except AttributeError as error:
            raise InputError(f"The U-Net has no block {path!r}; {self._offered(network, path)}") from error
        width = getattr(module, "in_channels", None)
        if (
            module is network
            or not isinstance(width, int)
            or getattr(module, "out_channels", None) not in (None, width)
        ):
            raise InputError(f"The module {path!r} does not add an update to its input; {self._offered(network, path)}")
        return BlockInfo(width)

    def check(self, network: nn.Module, port: Port) -> int:
        """As of any; a convolution alone adds nothing to what it reads, even where it keeps its channels."""
        channels = super().check(network, port)
        if port.signal == "update" and isinstance(network.get_submodule(port.block), _ConvNd):
            raise InputError(
                f"{port.block} is a single convolution, which adds nothing to what it reads, so that output minus "
                "input means nothing. Set generation.signals=[output], or [input] for a transcoder."
            )
        return channels

    def _offered(self, network: nn.Module, path: str) -> str:
        """Which block may have been meant, and which there are: gone through only when one is missing."""
        offered = self.blocks(network)
        return f"{meant_block(path, offered)}its attention blocks: {', '.join(offered) or 'none'}."

    def layout(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TokenGrid:
        """Every block's own tensors say it."""
        return TokenGrid()

    def states(self, call: BlockCall, stream: str) -> tuple[Tensor, Tensor]:
        """The hidden states before and after; of a tuple or an output class the first."""
        return same_shape(call.argument("hidden_states", 0), call.state())

    def replaced(self, call: BlockCall, stream: str, after: Tensor) -> Any:
        """A tensor, a tuple or an output class of diffusers."""
        if isinstance(call.output, Tensor):
            return after
        return (after, *call.output[1:]) if isinstance(call.output, tuple) else type(call.output)(after)

    def told(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The timestep."""
        return kwargs["timestep"] if "timestep" in kwargs else args[1]

    def check_guidance(
        self, network: Mapping[str, Any], index: Mapping[str, Any], generation: GenerationConfig
    ) -> None:
        """Distilled U-Nets are told the guidance scale and run the prompt alone."""
        super().check_guidance(network, index, generation)
        if network.get("time_cond_proj_dim") is not None and "uncond" in generation.branches:
            raise InputError(
                "The U-Net is told the guidance scale (it is distilled, as LCM models are) and never runs without the "
                "prompt; set generation.branches=[cond]."
            )

    def latent_size(self, config: Mapping[str, Any], height: int, width: int, scale: int) -> tuple[int, int]:
        """By `sample_size`."""
        return latent_size(config, height, width, scale)

    def channels(self, config: Mapping[str, Any]) -> int:
        """As many as it reads."""
        return int(config["in_channels"])

    def unread(self, pipe: Any, prompt: str) -> int:
        """Of encoders side by side, by the one that reads least.

        CLIP reads as much as its tokenizer states, others what their pipeline lets them.
        """
        missing = 0
        for name in ("tokenizer", "tokenizer_2"):
            if (tokenizer := getattr(pipe, name, None)) is not None:
                let = None if type(tokenizer).__name__.startswith("CLIP") else default_of(pipe, "max_sequence_length")
                told = _told(pipe, tokenizer, prompt)
                missing = max(missing, unread(tokenizer, told, let or tokenizer.model_max_length))
        return missing


def _told(pipe: Any, tokenizer: Any, prompt: str) -> str:
    """A prompt with all tokens of the words that textual inversion taught as several."""
    words = tokenizer.get_added_vocab()
    told: str = pipe.maybe_convert_prompt(prompt, tokenizer) if any(f"{word}_1" in words for word in words) else prompt
    return told
