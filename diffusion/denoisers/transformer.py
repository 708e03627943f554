"""Transformers (DiTs): tokens on one grid, in blocks that take text beside the picture, or joined with it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.denoisers.adapter import (
    Adapter,
    BlockCall,
    BlockInfo,
    TokenGrid,
    meant_block,
    same_shape,
)
from gazetteer.diffusion.denoisers.sizes import latent_size
from gazetteer.diffusion.denoisers.usual import default_of


@dataclass(frozen=True)
class Streams:
    """Where the blocks of a list take and give their streams.

    Attributes:
        image: place of the image stream in what a block gives; None where it gives nothing else.
        text: place of the text stream, or None where the block adds no update to it; with no place of the image, the
            block reads and gives the text alone.
        joined: whether image and text are one sequence: empty (no), ``first`` (text first) or ``last``.
        parts: modules within the block that can be listened to as well, by their names there.
    """

    image: int | None = None
    text: int | None = None
    joined: str = ""
    parts: Mapping[str, Streams] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the streams that the block both reads and gives."""
        if self.joined:
            return ("image", "text") if self.joined == "first" else ("image",)
        if self.text is None:
            return ("image",)
        return ("image", "text") if self.image is not None else ("text",)

    def place(self, stream: str) -> int:
        """Of a stream in what a block gives."""
        return (self.text if stream == "text" and not self.joined else self.image) or 0


class TransformerAdapter(Adapter):
    """What transformers have in common.

    Attributes:
        lists: by the name of a list of blocks, how they take and give their streams.
        flows: whether its samplers are those of flow matching.
        packs: latent cells a side that the *pipeline* packs into one token.
        first_sample: latent cells a side of the model's own pictures, where the network's configuration does not say.
    """

    part = "transformer"
    seeds_steps: ClassVar[bool] = False
    lists: ClassVar[Mapping[str, Streams]]
    flows: ClassVar[bool] = True
    packs: ClassVar[int] = 1
    first_sample: ClassVar[int | None] = None

    def blocks(self, network: nn.Module) -> dict[str, BlockInfo]:
        """The blocks of every list, all of one width."""
        blocks: dict[str, BlockInfo] = {}
        for name, streams in self.lists.items():
            for number, block in enumerate(getattr(network, name)):
                blocks[f"{name}.{number}"] = BlockInfo(self.width(network), self._streams(block, streams))
        return blocks

    def find(self, network: nn.Module, path: str) -> BlockInfo:
        """A block, or a part within one whose streams are told apart; raises InputError for anything else."""
        name, _, rest = path.partition(".")
        number, _, part = rest.partition(".")
        block = f"{name}.{number}"
        if not part or block not in self.blocks(network):
            return super().find(network, path)
        known = {part: own for part, own in self.lists[name].parts.items() if _module(network, f"{block}.{part}")}
        if part not in known:
            raise InputError(
                f"Within {block} of the {self.kind} nothing is heard at {part!r}; {meant_block(part, known)}accepted "
                f"there: {', '.join(known) or 'nothing'}; or the whole block, {block}."
            )
        whole = self.blocks(network)[block].streams
        streams = tuple(stream for stream in known[part].names if stream in whole)
        return BlockInfo(self.width(network), streams, inside=True)

    def width(self, network: nn.Module) -> int:
        """Channels of a token inside."""
        return int(network.inner_dim)  # type: ignore[arg-type]

    def _streams(self, block: nn.Module, streams: Streams) -> tuple[str, ...]:
        return ("image",) if getattr(block, "context_pre_only", False) else streams.names

    # One call

    def states(self, call: BlockCall, stream: str) -> tuple[Tensor, Tensor]:
        """Tokens of a stream, as cells of the grid or as one row of words."""
        own = self._own(call.path)
        beside = stream == "text" and not own.joined and own.image is not None
        before = call.argument("encoder_hidden_states", 1) if beside else call.argument("hidden_states", 0)
        before, after = same_shape(before, call.state(own.place(stream)))
        return self._laid(before, stream, own, call.layout), self._laid(after, stream, own, call.layout)

    def replaced(self, call: BlockCall, stream: str, after: Tensor) -> Any:
        """The other stream, and what stands beside the streams, stay."""
        own, tokens = self._own(call.path), after.flatten(2).transpose(1, 2)
        old = call.state(own.place(stream))
        new = tokens.to(old.dtype)
        if own.joined:
            new = old.clone()
            for row, span in enumerate(self._spans(old, stream, own, call.layout)):
                new[row, span] = tokens[row].to(old.dtype)
        if isinstance(call.output, Tensor):
            return new
        return tuple(new if number == own.place(stream) else value for number, value in enumerate(call.output))

    def _laid(self, tokens: Tensor, stream: str, own: Streams, layout: TokenGrid) -> Tensor:
        """[batch, tokens, channels] -> [batch, channels, height, width]."""
        if own.joined:
            tokens = torch.stack(
                [tokens[row, span] for row, span in enumerate(self._spans(tokens, stream, own, layout))]
            )
        height, width = (1, tokens.shape[1]) if stream == "text" else (layout.height, layout.width)
        if tokens.shape[1] != height * width:
            raise InputError(
                f"The image stream of the {self.kind} holds {tokens.shape[1]} tokens where its grid has {height} x "
                f"{width}: something is beside the picture (a reference picture, a control) that cannot be told apart."
            )
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    def _spans(self, tokens: Tensor, stream: str, own: Streams, layout: TokenGrid) -> list[slice]:
        """Where a stream lies in each joined sequence of the batch."""
        cells = layout.height * layout.width
        if own.joined == "last":
            return [slice(0, cells)] * len(tokens)
        words = layout.words if len(layout.words) == len(tokens) else layout.words[:1] * len(tokens)
        if stream == "image":
            return [slice(count, count + cells) for count in words]
        if len(set(words)) > 1:
            raise InputError(
                "Prompts of several lengths stand in one batch, and words are heard of one prompt a call alone: call "
                "the pipeline with one prompt at a time (with a configuration, set generation.exact=true)."
            )
        return [slice(0, count) for count in words]

    def _own(self, path: str) -> Streams:
        """How a block, or a part within one, takes and gives its streams."""
        name, _, *part = path.split(".")
        return self.lists[name].parts[".".join(part)] if part else self.lists[name]

    def told(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The timestep."""
        return kwargs["timestep"] if "timestep" in kwargs else args[1]

    def layout(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TokenGrid:
        """Of a network that cuts latents [batch, channels, h, w] into patches itself."""
        latents = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        patch = int(network.config.patch_size)  # type: ignore[union-attr, arg-type]
        return TokenGrid(latents.shape[-2] // patch, latents.shape[-1] // patch)

    # A generation

    def latent_size(self, config: Mapping[str, Any], height: int, width: int, scale: int) -> tuple[int, int]:
        """A multiple of the patch, and not beyond the places that it knows."""
        patch, most = self.patch(config), self.places(config)
        return latent_size(config, height, width, scale, self.first_sample, patch, most)

    def places(self, config: Mapping[str, Any]) -> tuple[int | None, int | None]:
        """Tokens in height and width that it has places for; None: they are computed for as many as there are."""
        return None, None

    def patch(self, config: Mapping[str, Any]) -> int:
        """Latent cells a side of one token."""
        return self.packs if self.packs > 1 else int(config["patch_size"])

    def channels(self, config: Mapping[str, Any]) -> int:
        """Of the latents, before they are packed."""
        return int(config["in_channels"]) // self.packs**2

    def grid(self, config: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
        """Latent cells over the patch."""
        return height // self.patch(config), width // self.patch(config)

    @abstractmethod
    def example(self, network: nn.Module, height: int, width: int, words: int) -> dict[str, Any]:
        """What the network is called with for one picture of so many latent cells and words: tensors of no content."""

    def words(self, index: Mapping[str, Any]) -> int:
        """Words that a prompt takes at most, as the pipeline is called by default."""
        return 512

    def most(self, pipe: Any) -> int:
        """Places of its longest encoder, as the pipeline is called by default."""
        return int(default_of(pipe, "max_sequence_length"))


def _module(network: nn.Module, path: str) -> nn.Module | None:
    try:
        return network.get_submodule(path)
    except AttributeError:
        return None


def pack(latents: Tensor) -> Tensor:
    """[batch, channels, h, w] -> [batch, h/2 · w/2, 4 · channels], as FLUX and Qwen-Image take them."""
    batch, channels, height, width = latents.shape
    tokens = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return tokens.reshape(batch, (height // 2) * (width // 2), channels * 4)


def last_place(ids: Tensor, first: int) -> tuple[int, int]:
    """(height, width) of a grid from the places of its tokens [..., tokens, axes] in row-major order."""
    height, width = (int(place) + 1 for place in ids.reshape(-1, ids.shape[-1])[-1, first : first + 2].tolist())
    return height, width
