"""Inputs that a pipeline stacks beside the branches of guidance are taken for none of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPAGPipeline

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.noised import noised_updates
from gazetteer.labeling.layout.live import predict_layout
from gazetteer.labeling.layout.model import LayoutPredictor, fit_layout
from gazetteer.labeling.layout.run import open_run
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline
from tests.support.runs.layout_runs import pipeline_run, random_saes

PROMPTS = ["a red house", "a dog at night"]


class Custom(StableDiffusionPAGPipeline):
    """One of a user's own, under a name that is known, whose default is to perturb."""


Custom.__name__ = "StableDiffusionPipeline"


def perturbed() -> StableDiffusionPAGPipeline:
    pipe = Custom(**tiny_pipeline().components, requires_safety_checker=False, pag_applied_layers="mid")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generator() -> Generator:
    settings = {"steps": 3, "blocks": BLOCKS, "t": (1.0, 0.0), "branches": ("cond",)}
    return Generator(perturbed(), GenerationConfig(guidance=1.0, exact=False, **settings))  # type: ignore[arg-type]


def test_pipelines_that_perturb_are_refused_by_their_class() -> None:
    pipe = StableDiffusionPAGPipeline(
        **tiny_pipeline().components, requires_safety_checker=False, pag_applied_layers="mid"
    )
    with pytest.raises(InputError, match="takes pag_scale"):
        Generator(pipe, GenerationConfig(steps=3, blocks=BLOCKS))


@pytest.mark.parametrize(
    "listen",
    [
        lambda made, hear: made.sample(PROMPTS, [1, 2], hear, decode=False),
        lambda made, hear: noised_updates(made, [np.zeros((16, 16, 3), np.uint8)] * 2, PROMPTS, [1, 2], hear),
    ],
    ids=["sampled", "noised"],
)
def test_a_perturbed_half_is_not_the_prompts(listen: Callable[..., object]) -> None:
    heard: list[int] = []
    with pytest.raises(InputError, match="4 inputs for 2 pictures without guidance"):
        listen(generator(), lambda site, x, *_: heard.append(len(x)))
    assert not heard


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> LayoutPredictor:
    saes = random_saes()
    return fit_layout(open_run(pipeline_run(tmp_path_factory.mktemp("painted") / "run", tiny_pipeline(), saes)), saes)


@pytest.mark.parametrize(
    ("guidance", "images", "sentence"),
    [
        (1.0, 2, "U-Net 4 inputs for 2 pictures; layouts know pipelines that give one of each"),
        (3.0, 2, "U-Net 6 inputs for 2 pictures; layouts know .* an unconditional and a conditional one"),
        (3.0, 1, "is given 3 inputs, which are no two branches"),
    ],
)
def test_a_layout_is_not_read_off_a_perturbed_half(
    layout: LayoutPredictor, guidance: float, images: int, sentence: str
) -> None:
    def draw(pipe: StableDiffusionPAGPipeline, scale: float) -> None:
        noise = torch.randn(images, 4, 8, 8, generator=torch.Generator().manual_seed(3))
        pipe(
            prompt=PROMPTS[:images], latents=noise, num_inference_steps=3, guidance_scale=guidance, pag_scale=scale,
            output_type="latent",
        )  # fmt: skip

    pipe = perturbed()
    with predict_layout(pipe, layout) as live:
        draw(pipe, 0.0)
    assert live.latest.where.shape[0] == images
    with pytest.raises(InputError, match=sentence), predict_layout(pipe, layout):
        draw(pipe, 2.0)
