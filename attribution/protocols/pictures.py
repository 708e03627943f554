"""Pictures of a protocol: one PNG per prompt and seed, painted once, so that a run that was stopped goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gazetteer.attribution.objective.trajectory import begin
from gazetteer.attribution.protocols.prompts import ProtocolPrompt
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import require_file
from gazetteer.diffusion.denoisers.registry import device_of
from gazetteer.diffusion.draw import expect_all_drawn


def check_sizes(pipe: Any, prompts: Sequence[ProtocolPrompt]) -> None:
    """Raise InputError, before anything is painted, for a size that the pipeline cannot paint."""
    unit = max(8, int(getattr(pipe, "vae_scale_factor", 8)))  # the pipelines themselves ask for multiples of 8
    for number, prompt in enumerate(prompts, start=1):
        if prompt.width % unit or prompt.height % unit:
            raise InputError(
                f"Prompt {number} asks for {prompt.width} × {prompt.height} pixels; this model paints multiples of "
                f"{unit}: name another size with --size."
            )


@torch.no_grad()
def paint_prompts(
    pipe: Any, prompts: Sequence[ProtocolPrompt], folder: str | Path, *, steps: int, batch: int = 4
) -> list[Path]:
    """``FOLDER/<number>.png`` of every prompt, from its own seed, at its guidance and size; what is there is kept.

    Raises:
        InputError: a size that the pipeline cannot paint.
    """
    check_sizes(pipe, prompts)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:06d}.png" for number in range(len(prompts))]
    alike: dict[tuple[float, int, int], list[int]] = {}
    for number, prompt in enumerate(prompts):
        if not paths[number].exists():
            alike.setdefault((prompt.guidance, prompt.width, prompt.height), []).append(number)
    for (guidance, width, height), missing in alike.items():
        for start in range(0, len(missing), batch):
            part = missing[start : start + batch]
            made = _paint(pipe, [prompts[number] for number in part], steps, guidance, width, height)
            for number, picture in zip(part, made, strict=True):
                staged = paths[number].with_suffix(".partial")
                picture.save(staged, format="PNG")
                staged.replace(paths[number])
    return paths


def _paint(
    pipe: Any, prompts: Sequence[ProtocolPrompt], steps: int, guidance: float, width: int, height: int
) -> list[Image.Image]:
    """Pictures of one guidance and size; size 0 is the model's own."""
    scale = int(getattr(pipe, "vae_scale_factor", 8))
    grid = (height // scale, width // scale) if width else None
    latents, generators = begin(pipe, [prompt.seed for prompt in prompts], grid)
    output = pipe(
        prompt=[prompt.prompt for prompt in prompts], latents=latents.to(device_of(pipe), pipe.unet.dtype),
        generator=generators, num_inference_steps=steps, guidance_scale=guidance, output_type="pil",
        **({"width": width, "height": height} if width else {}),
    )  # fmt: skip
    expect_all_drawn(output)
    pictures: list[Image.Image] = output.images
    return pictures


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]; raises InputError for a file that is not a picture."""
    require_file("The picture", path)
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except OSError as error:
        raise InputError(f"{path} is not a picture that can be read.") from error
