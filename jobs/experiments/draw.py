"""Draw one picture, plain or with edits, and write pictures that say what was done to them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import Edit
from gazetteer.sae.model.autoencoder import SparseAutoencoder

if TYPE_CHECKING:
    from gazetteer.diffusion.generate import Generator
    from gazetteer.jobs.config.schema import RunConfig

KEY = "gazetteer"
"""Of a picture's PNG text."""


def draw(config: RunConfig, prompt: str, seed: int = 0, edits: Sequence[Edit] = ()) -> Image.Image:
    """The picture of a prompt and seed, as `gazetteer steer draw` draws it.

    The model is loaded anew each time; for many pictures use `gazetteer.load_pipeline` and `gazetteer.steer`.

    Args:
        edits: with targets (`gazetteer.resolve`).

    Raises:
        InputError: a model, autoencoder, edit or seed that cannot be used.
    """
    from gazetteer.data.core.threads import use_threads
    from gazetteer.diffusion.generate import Generator
    from gazetteer.diffusion.load import load_pipeline
    from gazetteer.sae.model.checkpoint import load_site_saes

    if not 0 <= seed < 2**63:
        raise InputError(f"seed must be a whole number from 0 to 2^63 - 1, not {seed!r}.")
    use_threads(config.threads)
    generator = Generator(load_pipeline(config.model), config.generation)
    sites = {target.site for edit in edits for target in edit.targets if target.features}
    saes = load_site_saes(config.saes, sites, config.model.device, signal=config.sae_check.signal)
    return Image.fromarray(sample(generator, prompt, seed, edits, saes))


def sample(
    generator: Generator, prompt: str, seed: int, edits: Sequence[Edit], saes: Mapping[Site, SparseAutoencoder]
) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]: the picture of a prompt and seed with these edits."""
    from gazetteer.diffusion.steer import steer

    with steer(generator.pipe, edits, saes, guided=generator.guided):
        made = generator.sample([prompt], [seed], lambda *_: None)
    assert made is not None
    picture: NDArray[np.uint8] = made[0]
    return picture


def png_with(pixels: NDArray[np.uint8], record: Mapping[str, Any]) -> bytes:
    """A PNG that carries how it came about in its text, under `KEY`."""
    text = PngInfo()
    text.add_text(KEY, json.dumps(record, sort_keys=True))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", pnginfo=text)
    return stream.getvalue()
