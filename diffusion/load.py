"""Load a diffusers text-to-image pipeline by folder, hub id or single file, or say in one sentence why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.files.regular import require_file
from gazetteer.data.core.hub.reach import within_reach
from gazetteer.data.core.precision import DTYPES, dtype_on, use_tensor_cores
from gazetteer.data.core.settings import Effect, OneOf, device_setting, setting, settings
from gazetteer.data.inputs.model_files import (
    PICKLES,
    check_pipeline_folder,
    check_safetensors,
    looks_like_folder,
    why_not_loaded,
)
from gazetteer.diffusion.runtime.memory import is_out_of_memory
from gazetteer.diffusion.runtime.notices import without_notices

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

OFFLOADS = ("", "model", "sequential")
WHAT = "text-to-image model"


@settings("model")
class ModelConfig:
    """Which text-to-image model, and how to hold it."""

    path: str = setting(
        Effect.PICTURES,
        "A folder in diffusers format, a hub id, or a single ``.safetensors`` file in the layout of the "
        "original Stable Diffusion code.",
        path=True,
    )
    config: str = setting(
        Effect.PICTURES,
        "With a single file, the folder or hub id of a pipeline of the same kind; of it only the "
        "configurations and tokenizers are read, no weights.",
        default="",
        path=True,
    )
    revision: str = setting(Effect.PICTURES, "Hub revision to pin, empty for the default.", default="")
    variant: str = setting(Effect.PICTURES, "Weight variant, e.g. ``fp16``, empty for none.", default="")
    dtype: Annotated[str, OneOf(("", *DTYPES))] = setting(
        Effect.PICTURES,
        "Number type of the networks' weights; empty: float16 on ``cuda``, elsewhere float32. Most transformers need "
        "bfloat16.",
        default="",
    )
    device: str = device_setting(Effect.PICTURES, default="cpu")
    scheduler: Annotated[str, OneOf(("", "ddim"))] = setting(
        Effect.PICTURES,
        "``ddim`` replaces the model's scheduler by DDIM with the same noise schedule (the paper's sampler), if that "
        "is one of betas; empty keeps the model's own.",
        default="",
    )
    safety_checker: bool = setting(
        Effect.PICTURES,
        "Keep the model's filter, if it has one, which blacks out pictures it takes for unsafe.",
        default=True,
    )
    device_map: Annotated[str, OneOf(("", "balanced"))] = setting(
        Effect.NOTHING,
        "``balanced`` spreads the networks over all accelerators; `device` is then the autoencoders'.",
        default="",
    )
    offload: Annotated[str, OneOf(OFFLOADS)] = setting(
        Effect.NOTHING,
        "Keep networks in main memory while they do not work: ``model`` moves one whole network at a time to "
        "`device`, ``sequential`` one layer at a time (slow, least memory).",
        default="",
    )
    compile: Annotated[str, OneOf(("", "inductor", "eager"))] = setting(
        Effect.PICTURES,
        "Compile the denoiser's blocks by torch.compile: `inductor` is its own compiler, which takes minutes at the "
        "first picture; `eager` only traces. What cannot be compiled runs as written, which is said.",
        default="",
        late=True,
        last_bits=True,
    )
    channels_last: bool = setting(
        Effect.PICTURES,
        "Keep the weights of convolutions channels last, which tensor cores read faster.",
        default=False,
        late=True,
        last_bits=True,
    )
    attention_slicing: bool = setting(
        Effect.PICTURES, "Compute attention in parts: less memory, slower.", default=False
    )
    vae_slicing: bool = setting(Effect.PICTURES, "Decode pictures of a batch one by one.", default=False)
    vae_tiling: bool = setting(
        Effect.PICTURES, "Decode a picture in overlapping tiles: less memory, slightly different pixels.", default=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", dtype_on(self.device, self.dtype))
        if self.device_map and self.offload:
            raise InputError("model.device_map and model.offload exclude each other; set one of them.")
        if self.offload == "sequential" and self.device == "cpu":
            raise InputError("model.offload=sequential moves layers to an accelerator, and model.device is cpu.")
        if self.offload == "sequential" and self.compile:
            raise InputError("model.offload=sequential moves weights while blocks run, so model.compile must be empty.")
        if self.config and not self.single_file:
            raise InputError("model.config belongs to a single .safetensors file; a folder or hub id has its own.")

    @property
    def single_file(self) -> bool:
        """Whether `path` names a checkpoint file rather than a folder or hub id."""
        return Path(self.path).suffix == ".safetensors"


def load_pipeline(config: ModelConfig) -> DiffusionPipeline:
    """The pipeline in evaluation mode on its device, safetensors only, progress bars off.

    Raises:
        InputError: the path does not hold a diffusers pipeline of a known kind, whole and in safetensors, or the
            device cannot be used.
    """
    import torch

    from gazetteer.diffusion.runtime.compiling import compile_blocks, use_channels_last

    with loading(config):
        pipe: Any = _read(config)
    if config.scheduler == "ddim":
        pipe.scheduler = _ddim(pipe.scheduler.config)
    if config.attention_slicing:
        pipe.enable_attention_slicing()
    if config.vae_slicing:
        pipe.vae.enable_slicing()
    if config.vae_tiling:
        pipe.vae.enable_tiling()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    try:
        _place(pipe, config)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise InputError(
                f"The {WHAT} {config.path} does not fit on {config.device}; try model.dtype=float16, "
                "model.offload=model or a device with more memory."
            ) from error
        raise InputError(f"model.device {config.device!r} cannot be used here: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    if config.channels_last:
        use_channels_last(pipe)
    if config.compile:
        compile_blocks(pipe, config.compile)
    return pipe


def _ddim(config: Mapping[str, Any]) -> Any:
    """DDIM with the noise schedule of another sampler.

    Latents are cut to -1..1 only where that sampler says it does: DDIM's own default, of models of pixels, would cut
    those of every sampler that has no such setting (Euler's, DPM-Solver's).
    """
    from diffusers import DDIMScheduler

    # Given, not left in the configuration: what that says by its own class's default, diffusers leaves out.
    return DDIMScheduler.from_config(config, clip_sample=bool(config.get("clip_sample", False)))


def read_index(config: ModelConfig, weights: bool = True) -> dict[str, Any]:
    """``model_index.json`` of the pipeline (of `config.config`, for a single file): its class and its parts.

    weights: whether they have to be there too.

    Raises:
        InputError: there is none, the folder is not whole, no adapter knows the pipeline, or a part that draws is not
            named.
    """
    from diffusers import DiffusionPipeline

    from gazetteer.diffusion.denoisers.registry import adapter_of_index

    check_path(config, weights)
    source = config.config if config.single_file else config.path
    options = {"revision": config.revision} if config.revision and not config.single_file else {}
    index: dict[str, Any] = dict(DiffusionPipeline.load_config(source, **options))
    adapter = adapter_of_index(index, source)
    for name in (adapter.part, "vae", "scheduler"):
        part = index.get(name)
        if not (isinstance(part, list | tuple) and len(part) == 2 and all(isinstance(word, str) for word in part)):
            raise InputError(
                f"The model_index.json of the {WHAT} {source} must name the library and the class of its {name}, "
                f"not {part!r}."
            )
    return index


def check_path(config: ModelConfig, weights: bool = True) -> None:
    """Raise InputError for a path that cannot be loaded, before any library opens it; see `read_index`."""
    path = Path(config.path)
    if path.suffix in PICKLES:
        raise InputError(
            f"The {WHAT} {path} is a pickle file, which can run code when opened and is refused; "
            "accepted: a diffusers folder, a hub id, or a .safetensors file."
        )
    if not config.single_file:
        if looks_like_folder(config.path):
            leave_out = frozenset() if config.safety_checker else frozenset({"safety_checker"})
            check_pipeline_folder(path, leave_out, weights)
        return
    require_file(f"The {WHAT}", path, "a folder, a hub id, or a .safetensors file")
    check_safetensors(WHAT, path)
    if not config.config:
        raise InputError(
            f"The {WHAT} {path} is a single file; set model.config to a folder or hub id of the same kind of "
            "pipeline (e.g. CompVis/stable-diffusion-v1-4), whose configurations and tokenizer are used."
        )
    if looks_like_folder(config.config) and not (Path(config.config) / "model_index.json").is_file():
        raise InputError(
            f"model.config {config.config} has no model_index.json; accepted: a pipeline folder or hub id."
        )


@contextmanager
def loading(config: ModelConfig) -> Iterator[None]:
    """Turn what diffusers throws while it fetches and reads a model into one sentence, without its progress bars."""
    from diffusers.utils import logging

    logging.disable_progress_bar()
    try:
        with without_notices(), within_reach(config.config if config.single_file else config.path):
            yield
    except GazetteerError:
        raise
    except Exception as error:  # whatever the libraries may throw at files that are not what they expect
        doing = f"loaded as {config.config} describes it" if config.single_file else "loaded"
        raise InputError(why_not_loaded(WHAT, config.path, error, doing)) from error


def _read(config: ModelConfig) -> Any:
    """The pipeline on the CPU, or on its accelerators under `device_map`."""
    import diffusers
    import torch

    from gazetteer.diffusion.config.suitable import check_scheduler
    from gazetteer.diffusion.denoisers.registry import adapter_of_index

    index = read_index(config)
    check_scheduler(config.scheduler, index, adapter_of_index(index, config.path))
    options: dict[str, Any] = {name: getattr(config, name) for name in ("revision", "variant", "device_map")}
    options = {name: value for name, value in options.items() if value} | {"dtype": getattr(torch, config.dtype)}
    if "safety_checker" in index and not config.safety_checker:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    # an encoder that the pipeline was saved without must be left out by name (SD 3 without T5)
    absent = (name for name, part in index.items() if part in ([None, None], (None, None)))
    options |= {name: None for name in absent if name.startswith(("text_encoder", "tokenizer"))}
    if not config.single_file:
        return diffusers.DiffusionPipeline.from_pretrained(config.path, use_safetensors=True, **options)
    kind: Any = getattr(diffusers, str(index["_class_name"]), None)
    if not hasattr(kind, "from_single_file"):
        raise InputError(f"model.config {config.config} is a {index['_class_name']}, which no single file can fill.")
    if "device_map" in options:
        raise InputError("model.device_map needs a folder or hub id; a single file goes to one device.")
    # the file holds no filter, and the library would look for one
    if "safety_checker" in index:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    options = {name: value for name, value in options.items() if name not in ("revision", "variant")}
    return kind.from_single_file(config.path, config=config.config, **options)


def _place(pipe: Any, config: ModelConfig) -> None:
    use_tensor_cores()
    if config.offload == "model":
        pipe.enable_model_cpu_offload(device=config.device)
    elif config.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=config.device)
    elif not config.device_map:
        pipe.to(config.device)
