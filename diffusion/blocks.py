"""Which blocks a model offers to listen at, with grid and width, found without loading a single weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import BRANCHES, Port
from gazetteer.diffusion.capture import attention_blocks, updates
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.config.stated import Stated, built, understood
from gazetteer.diffusion.config.suitable import check_batches, check_pipeline, check_scheduler
from gazetteer.diffusion.denoisers.adapter import Adapter
from gazetteer.diffusion.denoisers.registry import UNET, adapter_of_index
from gazetteer.diffusion.denoisers.sizes import latent_size, text_width
from gazetteer.diffusion.denoisers.usual import Usual
from gazetteer.diffusion.load import WHAT, ModelConfig, loading, read_index
from gazetteer.diffusion.schedule import rehearsed


@dataclass(frozen=True)
class Block:
    """A block of a denoiser: its diffusers path, grid in cells, channels and streams.

    Attributes:
        streams: to each of which it adds an update; those of ``text`` have as many words as the prompt, no grid.
    """

    block: str
    height: int
    width: int
    channels: int
    streams: tuple[str, ...] = ("image",)


@dataclass(frozen=True)
class Offer:
    """A model by its configurations: where it can be listened to, and how it is usually drawn from.

    Attributes:
        pipeline, kind: its class in diffusers, and what denoises.
        blocks: in module order.
        branches: of guidance that it can run.
        dtype: that its weights are usually held in on a GPU.
        named: channels of the blocks that were asked for; None of one that the model does not have.
    """

    pipeline: str
    kind: str
    blocks: list[Block]
    usual: Usual
    branches: tuple[str, ...]
    dtype: str
    named: dict[str, int | None]


@dataclass(frozen=True)
class Skeleton:
    """A pipeline by its configurations alone.

    Attributes:
        network: its denoiser on the meta device, without weights.
        index, inside, vae: configurations of the pipeline, its denoiser and its VAE.
        source, options: where its configurations lie, and what to ask for them with.
        asked: what was asked of the configurations so far.
    """

    adapter: Adapter
    network: Any
    index: Stated
    inside: Stated
    vae: Stated
    source: str
    options: dict[str, str]
    asked: list[tuple[str, str, Any]]

    @contextmanager
    def read(self) -> Iterator[None]:
        """While open, what cannot be understood of the configurations is an InputError that says what they state."""
        with understood(WHAT, self.source, self.asked):
            yield

    def size(self, height: int = 0, width: int = 0) -> tuple[int, int]:
        """Latent (height, width) of pictures of a size in px, 0 for the model's own."""
        scale = self.adapter.scale(self.vae)
        if scale < 1:
            raise ValueError("it leaves less than a pixel to a latent cell")
        return self.adapter.latent_size(self.inside, height, width, scale)


def blocks_of(config: ModelConfig) -> list[Block]:
    """The blocks that the model at `config.path` offers, in module order, with grids at its own picture size.

    Raises:
        InputError: the path does not hold a diffusers pipeline with a U-Net or a known transformer.
    """
    whole = skeleton(config, weights=False)
    with whole.read():
        return _blocks(whole)


def offer_of(config: ModelConfig, size: tuple[int, int] = (0, 0), blocks: Sequence[str] = ()) -> Offer:
    """What the model at `config.path` offers; raises InputError as `blocks_of`, and for a size that it cannot draw.

    Args:
        size: (height, width) in px of the pictures that the grids are of, 0 for the model's own.
        blocks: to look for.
    """
    whole = skeleton(config, weights=False)
    adapter = whole.adapter
    with whole.read():
        offered, usual = _blocks(whole, *size), adapter.usual(whole.inside, whole.index)
        named = {block: _channels(whole, block) for block in blocks}
        guided = GenerationConfig(guidance=max(usual.guidance, 2.0), branches=BRANCHES)
        try:
            adapter.check_guidance(whole.inside, whole.index, guided)
            branches: tuple[str, ...] = BRANCHES
        except InputError:
            branches = BRANCHES[:1]
    dtype, name = "float16" if adapter is UNET else "bfloat16", str(whole.index["_class_name"])
    return Offer(name, adapter.kind, offered, usual, branches, dtype, named)


def _channels(whole: Skeleton, block: str) -> int | None:
    """Of any block or part that can be listened to; None where there is none."""
    try:
        return whole.adapter.find(whole.network, block).channels
    except InputError:
        return None


def _blocks(whole: Skeleton, height: int = 0, width: int = 0) -> list[Block]:
    """With grids of pictures of a size in px, 0 for the model's own."""
    if whole.adapter is UNET:
        return describe(whole.network, whole.size(height, width))
    grid = whole.adapter.grid(whole.inside, *whole.size(height, width))
    known = whole.adapter.blocks(whole.network)
    if not known:
        raise InputError(
            f"The {WHAT} {whole.source} cannot be listened to: its {whole.adapter.part}/config.json describes a "
            f"{type(whole.network).__name__} without a single block."
        )
    return [Block(path, *grid, info.channels, info.streams) for path, info in known.items()]


def check_model(config: ModelConfig, generation: GenerationConfig) -> dict[str, int]:
    """What can be known from its configurations of whether a model draws and is heard as `generation` asks.

    Returns:
        the channels of every block.

    Raises:
        InputError: as `blocks_of`; a path that is no block, or one that writes no update; a size the model cannot
            draw, a branch it does not run, words in batches, or a sampler that does not fit or takes fewer steps.
    """
    import diffusers

    whole = skeleton(config, generation)
    adapter = whole.adapter
    check_scheduler(config.scheduler, whole.index, adapter)
    check_batches(adapter, generation)
    with loading(config):
        kind = (
            diffusers.DDIMScheduler if config.scheduler == "ddim" else getattr(diffusers, whole.index["scheduler"][1])
        )
        scheduler = kind.from_pretrained(whole.source, subfolder="scheduler", **whole.options)
    with whole.read():
        size = whole.size(generation.height, generation.width)
        setting = adapter.timesteps(scheduler, generation.steps, whole.inside, size)
        unseeded = "" if adapter.seeds_steps else str(whole.index["_class_name"])
        rehearsed(scheduler, generation.steps, adapter is UNET, unseeded, **setting)
        ports = dict.fromkeys(site.port for site in generation.sites)
        return {port.block: adapter.check(whole.network, Port(*port)) for port in ports}


def skeleton(config: ModelConfig, generation: GenerationConfig | None = None, weights: bool = True) -> Skeleton:
    """A pipeline by its configurations; raises InputError where it cannot be listened to, as `generation` asks.

    weights: whether they have to be there too.
    """
    import diffusers
    import torch

    with loading(config):
        index = read_index(config, weights)
        source = config.config if config.single_file else config.path
        options = {"revision": config.revision} if config.revision and not config.single_file else {}
        adapter = adapter_of_index(index, source)
        # the reader of any model takes the configuration of any VAE
        vae = dict(diffusers.AutoencoderKL.load_config(source, subfolder="vae", **options))
        kind = diffusers.UNet2DConditionModel if adapter is UNET else getattr(diffusers, index[adapter.part][1])
        settings = kind.load_config(source, subfolder=adapter.part, **options)
        check_pipeline(str(index["_class_name"]), index, settings, vae, adapter, generation)
        with torch.device("meta"):
            network = built(kind, settings, f"{WHAT} {source}", f"{adapter.part}/config.json")
    asked: list[tuple[str, str, Any]] = []
    stated = (("model_index.json", index), (f"{adapter.part}/config.json", network.config), ("vae/config.json", vae))
    index, inside, vae = (Stated(file, values, asked) for file, values in stated)
    return Skeleton(adapter, network.eval(), index, inside, vae, source, options, asked)


def describe(unet: Any, size: tuple[int, int] | None = None) -> list[Block]:
    """The blocks of a U-Net whose weights are on the meta device: one call with shapes and no numbers.

    size: of the latents, (height, width); None for its own.
    """
    import torch

    settings = unet.config
    height, width = size or latent_size(settings)
    latents = torch.empty(1, settings.in_channels, height, width, device="meta")
    states = torch.empty(1, 77, text_width(settings), device="meta")
    more: dict[str, Any] = {}
    if settings.addition_embed_type == "text_time":
        # SDXL: six numbers say size and crop, the rest of the width is the pooled text
        pooled = settings.projection_class_embeddings_input_dim - 6 * settings.addition_time_embed_dim
        more["added_cond_kwargs"] = {
            "text_embeds": torch.empty(1, pooled, device="meta"), "time_ids": torch.empty(1, 6, device="meta"),
        }  # fmt: skip
    whole: dict[str, Block] = {}

    def on_update(block: str, update: Any) -> None:
        _, channels, rows, columns = update.shape
        whole[block] = Block(block, rows, columns, channels)

    paths = attention_blocks(unet)
    with torch.no_grad(), updates(unet.eval(), paths, on_update):
        unet(latents, 1, encoder_hidden_states=states, **more)
    return [whole[path] for path in paths]
