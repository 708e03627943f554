"""What a model shows of some pictures at chosen steps: dense updates and cross-attention, kept on disk while needed.

`sampled` repeats the sampling of a run's own pictures (same prompts and seeds, so the run's masks hold for them);
`noised` takes finished pictures with known masks, adds the scheduler's noise of each step and passes them once through
the U-Net (arXiv 2504.15473 evaluates on sampled pictures only; here the annotator's error is out).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.diffusion.attention import capture_attention, token_places
from gazetteer.diffusion.capture import capture_updates, cells, split_branches
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.registry import UNET, adapter_of
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.schedule import rehearsed
from gazetteer.diffusion.watch import Call
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.layout.calibration import enlarge
from gazetteer.labeling.layout.live import stack_codes
from gazetteer.labeling.vocabulary.words import spellings
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.maps import encode_maps


@dataclass
class PassRecord:
    """What was seen of N pictures.

    Attributes:
        image_ids: [N], ascending.
        updates: float16 [N, cells, d] on disk, by the place they were seen at (a `Site`, its t the step's own).
        grids: grid of every port, as text.
        attention: float32 [N, cells, C] on disk, on `attention_grid`, by t; 0 for concepts the prompt does not name.
    """

    image_ids: tuple[str, ...]
    folder: Path
    updates: dict[Site, NDArray[np.float16]] = field(default_factory=dict)
    grids: dict[str, Grid] = field(default_factory=dict)
    attention: dict[float, NDArray[np.float32]] = field(default_factory=dict)
    attention_grid: Grid = (1, 1)

    def take(self, place: Site, images: slice, update: Tensor) -> None:
        """Keep updates [images, cells, d] seen at `place`."""
        if place not in self.updates:
            shape = (len(self.image_ids), *update.shape[1:])
            path = self.folder / f"{place.port}-{place.branch}-{place.t:.6f}.npy"
            self.updates[place] = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        self.updates[place][images] = update.clamp(-65504.0, 65504.0).to(torch.float16).cpu().numpy()

    def part(self, images: slice) -> PassRecord:
        """What was seen of some of the pictures; nothing is read from disk yet."""
        return replace(
            self, image_ids=self.image_ids[images],
            updates={place: update[images] for place, update in self.updates.items()},
            attention={t: maps[images] for t, maps in self.attention.items()},
        )  # fmt: skip

    def codes(self, place: Site, site: Site, sae: SparseAutoencoder) -> SiteCodes:
        """The codes of what was seen at `place`, by the autoencoder of `site`."""
        device = sae.encoder.device
        height, width = self.grids[str(place.port)]
        vectors = (torch.from_numpy(np.asarray(update, np.float32)).to(device) for update in self.updates[place])
        encoded = [encode_maps(sae, update[None], height, width) for update in vectors]
        return stack_codes(site, list(self.image_ids), [maps.fetched()[0] for maps in encoded])


class _Words:
    """Where each concept stands in each tokenised prompt."""

    def __init__(self, tokenizer: Any, prompts: Sequence[str], concepts: Sequence[str]) -> None:
        self.places = [[token_places(tokenizer, prompt, spellings(c)) for c in concepts] for prompt in prompts]

    def maps(self, attention: Tensor, images: range) -> NDArray[np.float32]:
        """Attention [images, cells, tokens] -> summed over each concept's tokens [images, cells, C]."""
        out = np.zeros((*attention.shape[:2], len(self.places[0])), np.float32)
        values = attention.cpu().numpy()
        for row, image in enumerate(images):
            for number, places in enumerate(self.places[image]):
                if places:
                    out[row, :, number] = values[row][:, places].sum(axis=1)
        return out


class _Listener:
    """Collects one batch's attention and adds its mean over layers to what was seen."""

    def __init__(self, seen: PassRecord, words: _Words, latent: Grid, t_of: dict[int, float]) -> None:
        """t_of: the `t` asked for by the place of the U-Net call that shows it."""
        self.seen, self.words, self.latent, self.t_of = seen, words, latent, t_of
        self.layers: dict[float, list[tuple[Grid, NDArray[np.float32]]]] = {}
        self.images = range(0)

    def __call__(self, layer: str, call: Call, maps: Tensor) -> None:
        half = split_branches(maps, len(self.images))["cond"]
        factor = round((self.latent[0] * self.latent[1] / half.shape[1]) ** 0.5)
        grid = (-(-self.latent[0] // factor), -(-self.latent[1] // factor))
        self.layers.setdefault(self.t_of[call.place], []).append((grid, self.words.maps(half, self.images)))

    def flush(self) -> None:
        """Mean over layers, on the finest of their grids."""
        for t, layers in self.layers.items():
            grid = max((size for size, _ in layers), key=lambda g: g[0] * g[1])
            mean = np.mean([enlarge(maps, own, grid) for own, maps in layers], axis=0)
            if t not in self.seen.attention:
                shape = (len(self.seen.image_ids), *mean.shape[1:])
                path = self.seen.folder / f"attention-{t:.6f}.npy"
                self.seen.attention[t] = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
                self.seen.attention_grid = grid
            self.seen.attention[t][self.images.start : self.images.stop] = mean
        self.layers.clear()


def sampled(
    pipe: Any,
    generation: GenerationConfig,
    t: Sequence[float],
    pictures: Sequence[tuple[str, str, int]],
    concepts: Sequence[str],
    folder: Path,
    batch_size: int = 8,
) -> PassRecord:
    """Sample pictures again and keep what the model shows at the steps of `t`.

    Args:
        pictures: (image id, prompt, seed), ids ascending.
        folder: for the updates; to be removed by the caller.
    """
    generator = Generator(pipe, replace(generation, t=tuple(t)))
    t_of = {generator.schedule.place(site.t): site.t for site in generator.moments}
    seen = PassRecord(tuple(picture[0] for picture in pictures), folder)
    words = _Words(pipe.tokenizer, [picture[1] for picture in pictures], concepts)
    latent = tuple(generator.noise(0).shape[2:])
    listener = _Listener(seen, words, (latent[0], latent[1]), t_of)
    for start in range(0, len(pictures), batch_size):
        batch = pictures[start : start + batch_size]
        listener.images = range(start, start + len(batch))

        def on_site(site: Site, x: Tensor, height: int, width: int, images: range = listener.images) -> None:
            seen.grids[str(site.port)] = (height, width)
            seen.take(site, slice(images.start, images.stop), x)

        with capture_attention(pipe, listener, lambda call: call.place in t_of):
            generator.sample(
                [picture[1] for picture in batch], [picture[2] for picture in batch], on_site, decode=False
            )
        listener.flush()
    return seen


@torch.inference_mode()
def noised(
    pipe: Any,
    generation: GenerationConfig,
    t: Sequence[float],
    pictures: Sequence[tuple[str, str, NDArray[np.uint8]]],
    concepts: Sequence[str],
    folder: Path,
    seed: int = 0,
    attention: bool = True,
) -> PassRecord:
    """Noise finished pictures to the steps of `t` and pass each once through the U-Net with its caption.

    Args:
        pictures: (image id, caption, uint8 [H, W, 3]), ids ascending.
        attention: whether cross-attention is wanted too.
        seed: of the noise; each picture and step draws its own, on the CPU.
    Raises:
        InputError: no U-Net, or one that wants more than the caption (SDXL).
    """
    if adapter_of(pipe) is not UNET or {*generation.signals, *generation.streams} != {"update", "image"}:
        raise InputError("Exact masks are measured on updates of U-Nets alone.")
    unet, scheduler = pipe.unet, pipe.scheduler
    if getattr(unet.config, "addition_embed_type", None) is not None:
        raise InputError("Exact masks are measured on models whose U-Net is told the caption alone, as SD 1 and 2 are.")
    schedule = rehearsed(scheduler, generation.steps)
    t_of = {schedule.place(moment): moment for moment in t}
    seen = PassRecord(tuple(picture[0] for picture in pictures), folder)
    words = _Words(pipe.tokenizer, [picture[1] for picture in pictures], concepts)
    branches = tuple(b for b in ("uncond", "cond") if b in generation.branches)
    listener = _Listener(seen, words, (1, 1), t_of)
    for number, (_, caption, image) in enumerate(pictures):
        pixels = torch.tensor(image).to(unet.device, unet.dtype).permute(2, 0, 1)[None] / 127.5 - 1.0
        coded = pipe.vae.encode(pixels).latent_dist
        latents = coded.mode() * pipe.vae.config.scaling_factor
        listener.latent, listener.images = (latents.shape[2], latents.shape[3]), range(number, number + 1)
        cond, uncond = pipe.encode_prompt(caption, unet.device, 1, True)[:2]
        text = torch.cat([uncond, cond])

        def on_update(block: str, call: Call, update: Tensor, number: int = number) -> None:
            seen.grids[block] = (update.shape[2], update.shape[3])
            for branch, half in split_branches(update, 1).items():
                if branch in branches:
                    seen.take(Site(block, branch, t_of[call.place]), slice(number, number + 1), cells(half))

        with (
            capture_updates(pipe, generation.blocks, on_update),
            capture_attention(pipe, listener) if attention else nullcontext(),
        ):
            for place, moment in t_of.items():
                scheduler.set_timesteps(generation.steps)  # anew: samplers that scale by σ remember where they are
                if hasattr(scheduler, "set_begin_index"):  # several steps may share a timestep
                    scheduler.set_begin_index(place)
                timestep = scheduler.timesteps[place]
                random = torch.Generator("cpu").manual_seed((seed * 1_000_003 + number) * 1009 + round(1000 * moment))
                noise = torch.randn(latents.shape, generator=random).to(latents)
                noisy = scheduler.add_noise(latents, noise, timestep[None].to(latents.device))
                unet(scheduler.scale_model_input(torch.cat([noisy] * 2), timestep), timestep, text)
        listener.flush()
    return seen
