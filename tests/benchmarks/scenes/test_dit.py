"""The training of the small transformer of the Scenes world: at toy size, resumed, exported and labelled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from benchmarks.scenes.autoencoder.model import build_autoencoder
from benchmarks.scenes.text_to_image.latents import LATENT_SHAPE
from benchmarks.scenes.text_to_image.tokens import MAX_LENGTH, encode, save_legacy, scenes_tokenizer
from benchmarks.scenes.text_to_image_dit import model
from benchmarks.scenes.text_to_image_dit import train as dit
from benchmarks.scenes.text_to_image_dit.attention import JointAttention
from benchmarks.scenes.text_to_image_dit.model import assemble, build_text_encoder, build_transformer, conditioning
from gazetteer.diffusion.blocks import blocks_of
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from tests.support.system.running import ROOT

SHIPPED = ROOT / "data/scenes/models/text_to_image"


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rows of noise with captions, and an autoencoder of random weights beside them."""
    folder = tmp_path_factory.mktemp("latents")
    tokenizer = scenes_tokenizer(captions=300)
    save_legacy(tokenizer, folder / "tokenizer")
    torch.manual_seed(0)
    build_autoencoder().save_pretrained(folder / "vae")
    np.random.default_rng(0).normal(size=(12, *LATENT_SHAPE)).astype(np.float16).tofile(folder / "latents.f16")
    ids = np.array(encode(tokenizer, ["a dog on the grass"] * 12), np.int16)
    ids.tofile(folder / "tokens.i16")
    (folder / "ready").write_text("12")
    return folder


def options(out: Path, latents: Path, steps: int, *more: str) -> list[str]:
    return ["--out", str(out), "--latents", str(latents), "--vae", str(latents / "vae"), "--steps", str(steps),
            "--batch", "2", "--sheets", "0", "--resume", *more]  # fmt: skip


def test_it_has_at_most_fifteen_million_parameters() -> None:
    tokenizer = scenes_tokenizer(captions=300)
    with torch.device("meta"):
        parts = [build_transformer(16, 16), build_text_encoder(tokenizer), build_text_encoder(tokenizer)]
    assert 8e6 < sum(p.numel() for part in parts for p in part.parameters()) <= 15e6


def test_text_reaches_it_in_training_as_in_the_pipeline() -> None:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    tokenizer = scenes_tokenizer(captions=300)
    encoders = tuple(build_text_encoder(tokenizer).eval() for _ in range(2))
    transformer = build_transformer(12, 16).eval()
    pipeline = assemble(AutoencoderKL.from_pretrained(SHIPPED / "vae"), encoders, tokenizer, transformer)
    prompts = ["a dog on the grass", "a boat"]
    with torch.no_grad():
        words, pooled = conditioning(encoders, torch.tensor(encode(tokenizer, prompts)))
        theirs = pipeline.encode_prompt(prompts, prompts, prompts, do_classifier_free_guidance=False)
    assert torch.allclose(words, theirs[0], atol=1e-6) and torch.allclose(pooled, theirs[2], atol=1e-6)


def test_a_run_goes_on_where_it_stood_and_its_pipeline_is_heard(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "LAYERS", 2)
    monkeypatch.setattr(model, "NO_T5", 8)
    dit.main(options(tmp_path / "two", latents, 2))
    dit.main(options(tmp_path / "two", latents, 3, "--export", str(tmp_path / "model")))
    (row,) = (json.loads(line) for line in (tmp_path / "two/curve.jsonl").read_text().splitlines()[-1:])
    assert row["step"] == 3 and row["pictures"] == 6 and np.isfinite(row["held_out"])
    found = blocks_of(ModelConfig(path=str(tmp_path / "model")))
    assert [one.block for one in found][:2] == ["transformer_blocks.0", "transformer_blocks.1"]
    assert (found[0].height, found[0].width) == (8, 8)
    pipe = load_pipeline(ModelConfig(path=str(tmp_path / "model")))
    picture = pipe(
        ["a dog"], num_inference_steps=1, generator=torch.Generator().manual_seed(0), output_type="np"
    ).images
    assert picture.shape == (1, 128, 128, 3) and np.isfinite(picture).all()


def test_one_empty_place_stands_for_all_of_them() -> None:
    torch.manual_seed(0)
    tokenizer = scenes_tokenizer(captions=300)
    encoders = tuple(build_text_encoder(tokenizer).eval() for _ in range(2))
    transformer = build_transformer(12, 8)
    for parameter in transformer.parameters():  # what begins at zero would hide what it multiplies
        parameter.data += 0.05 * torch.randn_like(parameter)
    tokens = torch.tensor(encode(tokenizer, ["a dog on the grass", "a boat"]))
    noisy, time = torch.randn(2, 12, 8, 8), torch.tensor([700.0, 20.0])

    def answer(empty: int) -> tuple[torch.Tensor, torch.Tensor]:
        words, pooled = conditioning(encoders, tokens, empty)
        words.retain_grad()
        given = transformer(noisy, words, pooled, time, return_dict=False)[0]
        given.square().sum().backward()
        assert words.grad is not None
        return given.detach(), words.grad[:, :MAX_LENGTH]

    theirs = answer(model.NO_T5)  # diffusers' own attention
    transformer.set_attn_processor(JointAttention(model.NO_T5))
    for ours in (answer(1), answer(model.NO_T5)):
        assert torch.allclose(ours[0], theirs[0], atol=1e-4) and torch.allclose(
            ours[1], theirs[1], rtol=1e-3, atol=1e-4
        )


def test_other_numbers_of_empty_places_compile_nothing_anew() -> None:
    torch.manual_seed(0)
    transformer = build_transformer(12, 8)
    for parameter in transformer.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    transformer.set_attn_processor(attention := JointAttention(1))
    noisy, time, words = torch.randn(2, 12, 8, 8), torch.tensor([700.0, 20.0]), torch.randn(2, 33, 192)
    pooled = torch.randn(2, 192)
    plain = transformer(noisy, words, pooled, time, return_dict=False)[0]
    compiled = CompileCounter()
    for block in transformer.transformer_blocks:
        block.compile(dynamic=False, backend=compiled)
    same = transformer(noisy, words, pooled, time, return_dict=False)[0]
    programs = compiled.frame_count
    attention.empty.fill_(200)
    other = transformer(noisy, words, pooled, time, return_dict=False)[0]
    assert programs > 0 and compiled.frame_count == programs
    assert torch.allclose(same, plain, atol=1e-5) and not torch.allclose(other, plain, atol=1e-3)
