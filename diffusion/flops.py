"""Floating-point operations of a text-to-image model, counted on its real modules without their weights.

The modules are built from their configurations on the meta device and run once under torch's counter, which counts
two operations a multiplication and addition in matrix products, convolutions and attention, and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.inputs.model_files import why_not_loaded
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.config.stated import built
from gazetteer.diffusion.config.suitable import check_batches, check_scheduler
from gazetteer.diffusion.denoisers.registry import UNET, adapter_of_index
from gazetteer.diffusion.denoisers.sizes import text_width
from gazetteer.diffusion.load import ModelConfig, check_path
from gazetteer.diffusion.runtime.notices import without_notices

Grids = dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class ModelCost:
    """What one picture costs the model.

    Attributes:
        denoiser: operations of one evaluation of the U-Net or transformer (one picture, one branch).
        text: of one prompt through every text encoder.
        decode: of one picture through the VAE's decoder.
        calls: evaluations a branch: sampler steps, plus what the sampler adds to them.
        height, width: of the picture in px.
        words: places of a text stream, as many tokens as a prompt takes at most.
        blocks: block -> (grid height, grid width, channels).
        find: the same of any block or part that can be listened to; raises InputError for what is none.
        branches: how many branches are evaluated a step with a configuration.
        estimated: whether `denoiser` was not counted but estimated from the weights of the blocks.
    """

    denoiser: int
    text: int
    decode: int
    calls: int
    height: int
    width: int
    words: int
    blocks: Grids
    find: Callable[[str], tuple[int, int, int]] = field(compare=False)
    branches: Callable[[GenerationConfig], int] = field(compare=False)
    check: Callable[[GenerationConfig], None] = field(compare=False)
    estimated: bool = False


def model_cost(config: ModelConfig, steps: int, height: int = 0, width: int = 0) -> ModelCost:
    """Count a model; its configurations are read (of a single file, those of `config.config`), its weights are not.

    Args:
        steps: sampler steps.
        height, width: of the picture in px; 0 takes the model's own.

    Raises:
        InputError: the folder or hub id holds no such configurations, or a single file has none beside it.
    """
    import diffusers

    path, options = config.path, {"revision": config.revision} if config.revision else {}
    check_path(config, weights=False)
    if config.single_file:
        path, options = config.config, {}
    try:
        index: Any = diffusers.DiffusionPipeline.load_config(path, **options)
        parts = {name: value[1] for name, value in index.items() if isinstance(value, (list, tuple)) and value[1]}
        adapter = adapter_of_index(index, path)
        check_scheduler(config.scheduler, index, adapter)
        with without_notices(), torch.device("meta"):
            pair = ((name, getattr(diffusers, parts[name])) for name in (adapter.part, "vae"))
            network, vae = (_part(kind, path, name, options) for name, kind in pair)
        name = "DDIMScheduler" if config.scheduler == "ddim" else parts["scheduler"]
        sampler = getattr(diffusers, name).from_pretrained(path, subfolder="scheduler", **options)
        encoders = {part: kind for part, kind in parts.items() if part.startswith("text_encoder")}
        texts = [_text(path, part, options, adapter.words(index), kind) for part, kind in encoders.items()]
        scale = adapter.scale(vae.config)
        rows, columns = adapter.latent_size(network.config, height, width, scale)
        sampler.set_timesteps(**adapter.timesteps(sampler, steps, network.config, (rows, columns)))
        latent = torch.empty(1, adapter.channels(network.config), rows, columns, device="meta")
        tokens = max((length for _, length in texts), default=77)
        evaluate = _evaluate_unet if adapter is UNET else _evaluate_transformer
        operations, grids, estimated = evaluate(adapter, network, latent, tokens)
        decoding = count(lambda: vae.decode(adapter.decoded(latent)))
    except GazetteerError:
        raise
    except Exception as error:  # whatever is thrown at configurations that are not what is expected, or not here
        raise InputError(why_not_loaded("text-to-image model", path, error, "read from its configurations")) from error

    def find(path: str) -> tuple[int, int, int]:
        channels = adapter.find(network, path).channels
        whole = next((block for block in grids if f"{path}.".startswith(f"{block}.")), "")
        grid = grids.get(path) or grids.get(whole)
        if grid is None:
            raise InputError(f"On how many cells {path} works is not known without running it, so it is not priced.")
        return grid[0], grid[1], channels

    def check(generation: GenerationConfig) -> None:
        check_batches(adapter, generation)
        adapter.check_guidance(network.config, index, generation)
        for port in dict.fromkeys(site.port for site in generation.sites):
            adapter.check(network, port)

    return ModelCost(
        denoiser=operations, text=sum(operations for operations, _ in texts), decode=decoding,
        calls=len(sampler.timesteps), height=rows * scale, width=columns * scale, words=tokens, blocks=grids,
        find=find, branches=lambda generation: adapter.evaluations(index, generation), check=check, estimated=estimated,
    )  # fmt: skip


def _evaluate_unet(adapter: Any, unet: Any, latent: Tensor, tokens: int) -> tuple[int, Grids, bool]:
    """Operations of one evaluation, the grids that it shows, and whether they are estimated, which they never are."""
    grids: Grids = {}
    for block, module in unet.named_modules():
        if block and isinstance(getattr(module, "in_channels", None), int):
            module.register_forward_hook(_grid_hook(grids, block))
    return count(lambda: unet(latent, torch.zeros(1, device="meta"), **_conditions(unet, tokens))), grids, False


def _evaluate_transformer(adapter: Any, network: Any, latent: Tensor, words: int) -> tuple[int, Grids, bool]:
    """Operations of one evaluation: counted, or where it asks tensors for their content, from its blocks' weights.

    The estimate: 2 P N for the products of N tokens with the P weights of the blocks, and 4 N² d a block for attention.
    """
    rows, columns = latent.shape[2:]
    height, width = adapter.grid(network.config, rows, columns)
    known = adapter.blocks(network)
    grids = {block: (height, width, info.channels) for block, info in known.items()}
    try:
        with torch.device("meta"):
            example = adapter.example(network, rows, columns, words)
            return count(lambda: network(**example)), grids, False
    except (NotImplementedError, RuntimeError):  # as lengths of prompts that are read from masks
        tokens = height * width + words
        weights = sum(p.numel() for block in known for p in network.get_submodule(block).parameters())
        attention = sum(4 * tokens**2 * info.channels for info in known.values())
        return 2 * weights * tokens + attention, grids, True


def count(run: Any) -> int:
    """Operations of a call."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _part(cls: Any, path: str, name: str, options: dict[str, str]) -> Any:
    settings = cls.load_config(path, subfolder=name, **options)
    return built(cls, settings, f"text-to-image model {path}", f"{name}/config.json").eval().requires_grad_(False)


def _conditions(unet: Any, tokens: int) -> dict[str, Any]:
    """What a U-Net is given beside latents and time, of the right shapes for one picture."""
    given: dict[str, Any] = {"encoder_hidden_states": torch.empty(1, tokens, text_width(unet.config), device="meta")}
    if unet.config.addition_embed_type == "text_time":  # SDXL
        times = 6 * unet.config.addition_time_embed_dim
        pooled = unet.config.projection_class_embeddings_input_dim - times
        given["added_cond_kwargs"] = {
            "text_embeds": torch.empty(1, pooled, device="meta"), "time_ids": torch.empty(1, 6, device="meta"),
        }  # fmt: skip
    return given


def _text(path: str, name: str, options: dict[str, str], most: int | None, kind: str) -> tuple[int, int]:
    """(operations, tokens) of a prompt in a transformer of width d, L layers and feed-forward width f, T tokens.

    2 T L (4 d^2 + 2 d f) for the products with weights and 4 L T^2 d for the attention.

    most: tokens that the pipeline lets through; None: as many as the encoder reads.
    kind: its class.
    """
    from transformers import AutoConfig

    if kind == "ChatGLMModel":  # Kolors', which transformers does not know
        from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig

        own = ChatGLMConfig.from_pretrained(path, **{"subfolder": name, **options})  # type: ignore[arg-type]
        t, d, f, layers = most or own.seq_length, own.hidden_size, own.ffn_hidden_size, own.num_layers
        return _transformer(t, d, f, layers), t
    config = AutoConfig.from_pretrained(path, trust_remote_code=False, subfolder=name, **options)
    config = getattr(config, "text_config", config)
    t = min(getattr(config, "max_position_embeddings", most or 512), most or sys.maxsize)
    wide = getattr(config, "d_ff", None) or config.intermediate_size  # of T5
    d, f, layers = config.hidden_size, wide, config.num_hidden_layers
    return _transformer(t, d, f, layers), t


def _transformer(t: int, d: int, f: int, layers: int) -> int:
    return 2 * t * layers * (4 * d * d + 2 * d * f) + 4 * layers * t * t * d


def _grid_hook(grids: Grids, block: str) -> Any:
    def hook(_: nn.Module, given: tuple[Tensor, ...], output: Any) -> None:
        if given and given[0].dim() == 4:
            channels, height, width = given[0].shape[1:]
            grids[block] = (height, width, channels)

    return hook
