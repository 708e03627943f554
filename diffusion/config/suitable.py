"""Whether a model can be labelled at all, decided from its configurations in seconds instead of picture by picture."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import TEXT
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.adapter import Adapter
from gazetteer.diffusion.schedule import samples_flows, states_betas

CALLED_WITH = ("prompt", "latents", "generator", "num_inference_steps", "guidance_scale", "output_type")
"""What a pipeline is called with; one that takes less draws its own noise, or draws from something else than text."""

FURTHER = {"pag_scale": "perturbed attention", "sag_scale": "self-attention guidance"}
"""Guidance by passes of the denoiser that are no branch, by what pipelines with it take."""


def lacking(kind: Any) -> str:
    """Which libraries a class of diffusers needs that are not installed, as pip takes them; empty where it is whole."""
    from diffusers.utils.import_utils import BACKENDS_MAPPING

    wanted = vars(kind).get("_backends", ())  # of what stands in the place of classes that cannot be imported
    return " ".join(name for name in wanted if name in BACKENDS_MAPPING and not BACKENDS_MAPPING[name][0]())


def check_class(name: str) -> None:
    """Raise InputError unless the pipeline class of this name in diffusers draws pictures from text and noise alone."""
    import diffusers

    kind = getattr(diffusers, name, None)
    if kind is None:
        raise InputError(f"The model's pipeline is a {name}, which this version of diffusers does not have.")
    absent = lacking(kind)
    if absent:
        raise InputError(f"The model's pipeline is a {name}, which needs {absent}: pip install {absent}.")
    takes = inspect.signature(kind.__call__).parameters
    if "image" in takes:
        raise InputError(
            f"The model's pipeline is a {name}, which starts from a picture (inpainting, image to image, ControlNet "
            "and the like); features are labelled on pictures drawn from text alone: name the text-to-image model of "
            "the same family."
        )
    further = next((word for word in FURTHER if word in takes), None)
    if further is not None:
        raise InputError(
            f"The model's pipeline is a {name}, which takes {further}: with {FURTHER[further]} its denoiser runs on "
            "more than the branches of guidance; name the model without it (_class_name in its model_index.json)."
        )
    missing = [word for word in CALLED_WITH if word not in takes]
    if missing:
        raise InputError(f"The model's pipeline is a {name}, which takes no {', '.join(missing)}; it cannot be used.")


def check_unet(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    """Raise InputError for a U-Net that wants more than noisy latents, time and text.

    Args:
        unet, vae: configurations.
    """
    channels, latent = unet.get("in_channels"), vae.get("latent_channels")
    if latent is not None and channels != latent:
        raise InputError(
            f"The U-Net reads {channels} channels and the VAE makes {latent}: it was trained to continue from a "
            "picture (inpainting, editing, upscaling), and features are labelled on pictures drawn from text alone."
        )
    if unet.get("class_embed_type") is not None or unet.get("num_class_embeds") is not None:
        raise InputError("The U-Net wants a class or noise level beside the text, which no prompt can give it.")
    if unet.get("encoder_hid_dim_type") not in (None, "text_proj"):
        raise InputError(
            f"The U-Net wants {unet['encoder_hid_dim_type']} beside the text, which no prompt can give it."
        )
    if unet.get("addition_embed_type") not in (None, "text", "text_time"):
        raise InputError(f"The U-Net wants {unet['addition_embed_type']} beside the text, which no prompt can give it.")


def check_pipeline(
    name: str, index: Mapping[str, Any], network: Mapping[str, Any], vae: Mapping[str, Any], adapter: Adapter,
    generation: GenerationConfig | None = None,
) -> None:  # fmt: skip
    """Raise InputError for a pipeline that cannot be listened to, or not as `generation` asks.

    Args:
        name: of its class.
        index, network, vae: configurations of the pipeline, its denoiser and its VAE.
    """
    if name not in adapter.pipelines:  # those of transformers are known by name, and draw from text alone
        check_class(name)
        check_unet(network, vae)
    if generation is not None:
        adapter.check_guidance(network, {"_class_name": name, **index}, generation)


def check_batches(adapter: Adapter, generation: GenerationConfig) -> None:
    """Raise InputError where words are to be heard of batches whose prompts have text streams of several lengths."""
    if adapter.ragged and TEXT in generation.streams and not generation.exact:
        raise InputError(
            f"The text stream of a {adapter.kind} is as long as its prompt, so that words are heard of one prompt a "
            "call alone; set generation.exact=true beside generation.streams=[text]."
        )


def check_scheduler(scheduler: str, index: Mapping[str, Any], adapter: Adapter) -> None:
    """Raise InputError where DDIM is asked for in the place of a sampler whose noise schedule it cannot have."""
    import diffusers

    own = str((index.get("scheduler") or ("", ""))[1])
    if scheduler != "ddim":
        return
    if samples_flows(own) or getattr(adapter, "flows", False):
        raise InputError(
            f"model.scheduler=ddim does not fit a {index.get('_class_name')}, which is sampled by flow matching "
            f"({own}); leave model.scheduler empty."
        )
    if (kind := getattr(diffusers, own, None)) is not None and not states_betas(kind):
        raise InputError(
            f"model.scheduler=ddim takes over a noise schedule of betas, and {own} has none: its model was trained on "
            "another; leave model.scheduler empty."
        )
