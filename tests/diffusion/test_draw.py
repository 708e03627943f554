"""Pictures that the safety checker paints over are told from drawn ones, and prompts that are cut are counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.draw import pictures_of, tokens_cut, warn_of_cut
from gazetteer.diffusion.generate import Generator
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

PROMPTS, SEEDS = ["a red house", "a dog at night", "two boats on the sea"], [5, 6, 7]
DRAW = {"num_inference_steps": 2, "guidance_scale": 3.0}
SETTINGS = {"steps": 2, "guidance": 3.0, "blocks": BLOCKS[1:], "branches": ("cond",), "t": (1.0,)}


def checker_of(pictures: np.ndarray, hidden: int) -> tuple[Any, Any]:
    """Stable Diffusion's safety checker, tiny and random, with its threshold just below the score of one picture."""
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision = small | {"image_size": 16, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=small, vision_config=vision, projection_dim=8)).eval()
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    seen = processor(list(pictures), return_tensors="pt").pixel_values
    with torch.no_grad():
        embedded = torch.nn.functional.normalize(checker.visual_projection(checker.vision_model(seen)[1]))
        for name in ("concept_embeds_weights", "special_care_embeds_weights"):
            getattr(checker, name).fill_(10.0)
        checker.concept_embeds[0] = embedded[hidden]
        others = (embedded @ embedded[hidden])[[i for i in range(len(pictures)) if i != hidden]]
        assert others.max() < 0.998, "the pictures must be told apart for this to test anything"
        checker.concept_embeds_weights[0] = (1.0 + others.max()) / 2
    return checker, processor


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    made = Generator(tiny_pipeline(), GenerationConfig(**SETTINGS))
    return np.concatenate([made.sample([p], [s], lambda *_: None) for p, s in zip(PROMPTS, SEEDS, strict=True)])


@pytest.mark.parametrize("exact", [True, False])
def test_the_picture_that_is_blacked_out_is_told_and_its_neighbours_stay(plain: np.ndarray, exact: bool) -> None:
    pipe = tiny_pipeline()
    pipe.safety_checker, pipe.feature_extractor = checker_of(plain, hidden=1)
    made = Generator(pipe, GenerationConfig(exact=exact, **SETTINGS))
    saes = {site: SparseAutoencoder(SAEConfig(32, 64, 4)).initialise(1) for site in made.config.sites}
    pictures = made.pictures(PROMPTS, SEEDS, saes)
    assert [picture.blacked_out for picture in pictures] == [False, True, False]
    assert not pictures[1].image.any() and plain[1].any()
    if exact:
        assert np.array_equal(pictures[0].image, plain[0]) and np.array_equal(pictures[2].image, plain[2])
    with pytest.raises(InputError, match=r"blacked out 1 of 3 pictures.*model.safety_checker=false"):
        made.sample(PROMPTS, SEEDS, lambda *_: None)
    with pytest.raises(InputError, match="blacked out 1 of 1 pictures"):
        pictures_of(
            pipe(PROMPTS[1], latents=made.noise(6), num_inference_steps=2, guidance_scale=3.0, output_type="np")
        )


def test_tokens_beyond_the_text_encoder_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The tiny tokenizer holds 32 tokens, two of which mark the beginning and the end."""
    pipe = tiny_pipeline()
    limit = pipe.tokenizer.model_max_length
    assert limit == 32
    prompts = [" ".join(["dog"] * words) for words in (1, 30, 31, 50)]
    assert tokens_cut(pipe, prompts) == [0, 0, 1, 20]
    assert (warn_of_cut(pipe, prompts[:2]), caplog.messages) == ([0, 0], [])
    assert warn_of_cut(pipe, prompts) == [0, 0, 1, 20]
    assert [text[:17] for text in caplog.messages] == ["2 of 4 prompts ar"] and "1 tokens are not read" in caplog.text
    pipe.tokenizer_2 = tiny_pipeline().tokenizer
    pipe.tokenizer_2.model_max_length = 12
    assert tokens_cut(pipe, prompts) == [0, 20, 21, 40]
    del pipe.tokenizer_2
    made = Generator(pipe, GenerationConfig(**SETTINGS))
    saes = {site: SparseAutoencoder(SAEConfig(32, 64, 4)).initialise(1) for site in made.config.sites}
    assert [picture.tokens_cut for picture in made.pictures(prompts[1:3], SEEDS[:2], saes)] == [0, 1]
