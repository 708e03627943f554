"""The adapter: what must be known of a pipeline to listen to its denoiser, whatever kind of network that is.

Everything else speaks of blocks, streams and branches and sees values as [batch, channels, height, width]: cells of
the picture's grid, or with the stream ``text`` one row of words.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.latents import latents_of
from gazetteer.diffusion.denoisers.usual import Usual, usual_of
from gazetteer.diffusion.denoisers.words import PromptTokens

Config = Mapping[str, Any]
"""A configuration of diffusers: of a pipeline, a network, a VAE."""

STACKED = ("uncond", "cond")
"""The order in which most pipelines stack the branches of guidance into one call."""


def meant_block(wrong: str, known: Iterable[str]) -> str:
    """What was meant by a block's name, if something is close."""
    close = difflib.get_close_matches(wrong, list(known), 1, 0.6)
    return f"did you mean {close[0]}? " if close else ""


@dataclass(frozen=True)
class TokenGrid:
    """How the tokens of one call of a denoiser lie.

    Attributes:
        height, width: cells of the picture's grid; 0 where the tensors themselves say it.
        words: tokens of text in the joined sequence of each input of the batch; empty where none are joined.
    """

    height: int = 0
    width: int = 0
    words: tuple[int, ...] = ()


@dataclass(frozen=True)
class BlockInfo:
    """A block that can be listened to.

    Attributes:
        channels: of each of its tokens.
        streams: that it both reads and writes, so that it adds an update to each.
        inside: whether it is a part within a block, which reads other states than those it adds to.
    """

    channels: int
    streams: tuple[str, ...] = ("image",)
    inside: bool = False


@dataclass(frozen=True)
class BlockCall:
    """One call of a block.

    Attributes:
        path, block: where it stands in the denoiser, and the module.
        args, kwargs: what it was called with.
        output: what it gives; None before it has run.
        layout: how the tokens of the denoiser's call lie.
    """

    path: str
    block: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    layout: TokenGrid

    def argument(self, name: str, place: int) -> Any:
        """One of the arguments, by name or by place."""
        return self.kwargs[name] if name in self.kwargs else self.args[place]

    def state(self, place: int = 0) -> Tensor:
        """What it gives: a tensor, or the one at this place of several."""
        given: Tensor = self.output if isinstance(self.output, Tensor) else self.output[place]
        return given


class Adapter(ABC):
    """One family of denoisers.

    Attributes:
        part: of the pipeline, by its name there: ``unet`` or ``transformer``.
        pipelines: classes of diffusers that draw with it.
        networks: classes of the network.
        kind: in sentences.
        inputs: the names under which the network is called with latents and time.
        shared: further arguments that all inputs of a batch have in common.
        attributed: whether attribution knows its objectives.
        ragged: whether prompts of a batch have text streams of several lengths, so that words need calls of one prompt.
        seeds_steps: whether its pipelines hand the pictures' generators to the sampler's steps.
    """

    part: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]] = ()
    networks: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = "denoiser"
    inputs: ClassVar[tuple[str, str]] = ("hidden_states", "timestep")
    shared: ClassVar[tuple[str, ...]] = ()
    attributed: ClassVar[bool] = False
    ragged: ClassVar[bool] = False
    seeds_steps: ClassVar[bool] = True

    # Blocks

    @abstractmethod
    def blocks(self, network: nn.Module) -> dict[str, BlockInfo]:
        """Every block that is offered, by its path, in module order."""

    def find(self, network: nn.Module, path: str) -> BlockInfo:
        """What is known of the block at a path; raises InputError when there is none, which lists those there are."""
        known = self.blocks(network)
        if path not in known:
            listed = f"its blocks: {', '.join(known) or 'none'}."
            raise InputError(f"The {self.kind} has no block {path!r}; {meant_block(path, known)}{listed}")
        return known[path]

    def check(self, network: nn.Module, port: Port) -> int:
        """Channels of what is heard at a port; raises InputError for a block or stream that is not there."""
        info = self.find(network, port.block)
        if port.stream not in info.streams:
            raise InputError(
                f"The block {port.block} of the {self.kind} has no {port.stream} stream of its own; "
                f"accepted: {', '.join(info.streams)}."
            )
        if info.inside and port.signal == "update":
            raise InputError(
                f"{port.block} is a part within a block: it reads states that were normalised for it and gives what "
                "the block adds, so that output minus input means nothing. Set generation.signals=[output], or [input] "
                "for a transcoder."
            )
        return info.channels

    # One call

    @abstractmethod
    def layout(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TokenGrid:
        """How the tokens of a call lie."""

    @abstractmethod
    def states(self, call: BlockCall, stream: str) -> tuple[Tensor, Tensor]:
        """A stream [batch, channels, height, width] before and after a block.

        Raises:
            InputError: they differ in shape, so that the block adds no update.
        """

    @abstractmethod
    def replaced(self, call: BlockCall, stream: str, after: Tensor) -> Any:
        """A block's output with another state of a stream in it; what it gave itself is left as it was."""

    @abstractmethod
    def told(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The time that a call is told, as it is told: a number or a tensor of equal ones."""

    def time(self, pipe: Any, timestep: float) -> float:
        """What the network is told where the sampler is at `timestep`."""
        return timestep

    # Guidance

    def order(self, context: str | None, calls: int) -> tuple[str, ...]:
        """The branches that a call holds if it holds all it can, in the order of its batch.

        Args:
            context: as the network's own cache was told, if it was.
            calls: of this step before this one.
        """
        return STACKED

    def guided(self, pipe: Any) -> bool:
        """Whether the branches of the pipeline's present generation are stacked into one call."""
        known = getattr(pipe, "do_classifier_free_guidance", None)
        if known is None:
            raise InputError(f"{type(pipe).__name__} does not say whether it uses guidance; pass guided=True or False.")
        return bool(known)

    def evaluations(self, index: Mapping[str, Any], generation: GenerationConfig) -> int:
        """How many branches are evaluated a step."""
        return 2 if generation.guidance > 1.0 else 1

    # A generation

    def check_guidance(
        self, network: Mapping[str, Any], index: Mapping[str, Any], generation: GenerationConfig
    ) -> None:
        """Raise InputError for a branch that a network of this configuration, in a pipeline of that, does not run, or a
        scale of guidance that it does not hear."""
        if generation.true_guidance > 1.0:
            raise InputError(
                f"generation.true_guidance is heard by FLUX.1 alone; for a {self.kind} set generation.guidance."
            )

    def usual(self, network: Mapping[str, Any], index: Mapping[str, Any]) -> Usual:
        """Steps and guidance of a network of this configuration where nothing is asked for."""
        return usual_of(str(index["_class_name"]))

    @abstractmethod
    def latent_size(self, config: Mapping[str, Any], height: int, width: int, scale: int) -> tuple[int, int]:
        """Latent (height, width) of pictures of a size in px, 0 for the model's own; `scale`: px a latent cell."""

    @abstractmethod
    def channels(self, config: Mapping[str, Any]) -> int:
        """Channels of the latents that noise is drawn for."""

    def scale(self, vae: Mapping[str, Any]) -> int:
        """Px a latent cell, from the VAE's configuration."""
        return int(2 ** (len(vae.get("block_out_channels", (0,) * 4)) - 1))

    def latents(self, pipe: Any, noise: Tensor) -> Tensor:
        """Noise [batch, channels, h, w] as the pipeline takes it for ``latents``."""
        dtype: Any = network_of(pipe, self).dtype
        return noise.to(dtype)

    def words(self, index: Mapping[str, Any]) -> int | None:
        """Words that a prompt takes at most, as the pipeline is called by default; None: what its encoders read."""
        return None

    def tokens(self, pipe: Any, prompt: str, branch: str = "cond") -> PromptTokens:
        """What the places of a branch's text stream hold of a prompt; raises InputError where that is not known."""
        raise InputError(
            f"Which words the text stream of a {self.kind} holds is not known; set generation.streams=[image]."
        )

    @abstractmethod
    def unread(self, pipe: Any, prompt: str) -> int:
        """How many tokens of a prompt its text encoders do not read, as the pipeline is called by default."""

    def stepped(self, pipe: Any, latents: Tensor) -> Tensor:
        """Latents [batch, channels, h, w] as the sampler's step is given them and gives them back."""
        return self.latents(pipe, latents)

    def encoded(self, vae: Any, pixels: Tensor) -> Tensor:
        """Pictures [batch, 3, H, W] of -1 to 1 as the latents [batch, channels, h, w] that the denoiser is trained on;
        raises AttributeError for a VAE that encodes nothing, or whose configuration does not state its scale."""
        latents = latents_of(vae, pixels)
        stated = [getattr(vae.config, name, None) for name in ("latents_mean", "latents_std")]
        if None not in stated:  # channel by channel, as SDXL's pipeline undoes it
            mean, deviation = (torch.tensor(values).view(1, -1, 1, 1).to(latents) for values in stated)
            return (latents - mean) * vae.config.scaling_factor / deviation
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        scaled: Tensor = (latents - shift) * vae.config.scaling_factor
        return scaled

    def decoded(self, latents: Tensor) -> Tensor:
        """Latents [batch, channels, h, w] as the VAE's decoder takes them."""
        return latents

    def resumable(self, pipe: Any, sample: Tensor, size: tuple[int, int]) -> Tensor:
        """What the sampler's step was given, of latents of a size, as the pipeline takes it for ``latents``."""
        return sample

    def arguments(self, pipe: Any, prompts: Sequence[str], generation: GenerationConfig) -> dict[str, Any]:
        """How the pipeline is told of prompts and guidance."""
        return {"prompt": list(prompts), "guidance_scale": generation.guidance}

    def stacked(self, generation: GenerationConfig) -> bool:
        """Whether generations of this configuration hold both branches in every call."""
        return generation.guidance > 1.0

    def timesteps(self, scheduler: Any, steps: int, config: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """How the pipeline sets a scheduler's timesteps for latents of a size."""
        return {"num_inference_steps": steps}

    def grid(self, config: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
        """Cells of the grid of every block that are the latents' (height, width); for networks of one grid."""
        return height, width


def network_of(pipe: Any, adapter: Adapter) -> nn.Module:
    """The denoiser whose modules run, of a pipeline or inside the wrapper of torch.compile."""
    whole = getattr(pipe, adapter.part, pipe)
    inner: nn.Module = getattr(whole, "_orig_mod", whole)
    return inner


def same_shape(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Both; raises InputError when they differ in shape, so that the block adds no update."""
    if before.shape != after.shape:
        raise InputError(
            f"A block that is listened to makes {list(after.shape)} of {list(before.shape)}; it needs to add an update "
            "to its input, as attention blocks do."
        )
    return before, after
