"""The parts of the Scenes training scripts: tokenizer, budget, averages, losses, resuming."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.scenes.autoencoder.model import build_autoencoder
from benchmarks.scenes.classifiers import concepts as concept_classifier
from benchmarks.scenes.classifiers import styles as style_classifier
from benchmarks.scenes.text_to_image import latents
from benchmarks.scenes.text_to_image import model as text_to_image_model
from benchmarks.scenes.text_to_image import train as text_to_image
from benchmarks.scenes.text_to_image.latents import LATENT_SHAPE, open_files
from benchmarks.scenes.text_to_image.tokens import MAX_LENGTH, encode, save_legacy, scenes_tokenizer
from benchmarks.scenes.training import loop
from benchmarks.scenes.training.loop import Average, Budget, Resumable, cosine_rate, spread
from gazetteer.data.scenes.prompts import prompt_pool
from gazetteer.data.scenes.render import render
from gazetteer.data.scenes.style_classifier import LABELS, StyleClassifier, load, save
from gazetteer.data.scenes.world import EVAL_SEEDS, VIEWS


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_legacy(scenes_tokenizer(captions=1500), folder)
    return folder


@pytest.mark.parametrize("names", [None, ("vocab.json", "merges.txt")])
def test_a_reloaded_tokenizer_knows_its_words(
    tokenizer_folder: Path, tmp_path: Path, names: tuple[str, ...] | None
) -> None:
    from transformers import CLIPTokenizer

    folder = tokenizer_folder
    if names:
        folder = tmp_path
        for name in names:
            (folder / name).write_bytes((tokenizer_folder / name).read_bytes())
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    ids = tokenizer("a dog on the grass, two zebras")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in ids[1:-1]
    words = [tokenizer.convert_ids_to_tokens(token) for token in ids[1:8]]
    assert words == [w + "</w>" for w in ("a", "dog", "on", "the", "grass", ",", "two")]
    assert tokenizer.decode(ids[1:6]).strip() == "a dog on the grass"


def test_every_prompt_fits_with_one_token_per_word(tokenizer_folder: Path) -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    for prompt in prompt_pool(200, 3):
        words = len(prompt.replace(",", " ,").split())
        assert len(tokenizer(prompt)["input_ids"]) == words + 2 <= MAX_LENGTH


def test_a_budget_ends_by_whichever_comes_first() -> None:
    budget = Budget(minutes=1.0, steps=4)
    assert budget.fraction == 0
    budget.tick()
    assert budget.fraction == pytest.approx(0.25, abs=0.01)
    budget.seconds = 45
    assert budget.fraction == 0.75
    with pytest.raises(ValueError, match="minutes or steps"):
        Budget(None, None)


def test_a_stopped_process_spends_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of 3 s, one during which the process was stopped for an hour, one more."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    budget = Budget(minutes=1, steps=None)
    budget.restart_clock()
    for seconds in (3.0, 3.0, 3603.0, 3.0):
        clock[0] += seconds
        budget.tick()
    assert (budget.step, budget.seconds, budget.fraction) == (4, 12.0, 0.2)


def test_the_rate_warms_up_and_falls() -> None:
    budget = Budget(None, steps=100)
    rates = []
    for _ in range(101):
        rates.append(cosine_rate(1.0, budget, warmup=10))
        budget.step += 1
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] > 0.95
    assert rates[-1] == pytest.approx(0.02)


@pytest.mark.parametrize("count", [1, 2, 16, 64])
def test_spread_numbers_fall_one_into_each_part(count: int) -> None:
    torch.manual_seed(0)
    for numbers in (spread(count) for _ in range(20)):
        assert float(numbers.min()) >= 0 and float(numbers.max()) < 1
        assert sorted((numbers.double() * count).long().tolist()) == list(range(count))


def test_spread_numbers_are_uniform_and_in_any_order() -> None:
    torch.manual_seed(0)
    drawn = torch.stack([spread(4) for _ in range(4000)])
    # Means of 4,000 uniform numbers: a standard error of 0.0046.
    assert drawn.mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.02)
    assert drawn.var(0).tolist() == pytest.approx([1 / 12] * 4, abs=0.005)


def test_averages_follow_the_parameters_and_swap_back() -> None:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.0)
        average = Average([layer], decay=0.5)
        layer.weight.fill_(1.0)
    average.update(step=1000)
    assert average.shadow[0].item() == 0.5
    average.swap()
    assert layer.weight.item() == 0.5
    average.swap()
    assert layer.weight.item() == 1.0


def latent_folder(folder: Path, tokenizer_folder: Path) -> Path:
    """Random latents of 8 scenes with real captions."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    save_legacy(tokenizer, folder / "tokenizer")
    files = open_files(folder, "w+", 8)
    files.latents[:] = np.random.default_rng(0).normal(size=(8, *LATENT_SHAPE))
    files.tokens[:] = encode(tokenizer, prompt_pool(8))
    (folder / "ready").write_text("8")
    return folder


def test_weights_of_steps_fall_where_hardly_any_noise_is() -> None:
    signal = torch.tensor([0.0, 0.5, 5 / 6, 0.99])  # ratios of signal to noise 0, 1, 5, 99
    weights = text_to_image.snr_weights(signal)
    assert weights.tolist() == pytest.approx([1.0, 1.0, 1.0, 6 / 100], rel=1e-4)


def test_no_cell_counts_more_than_another(tmp_path: Path, tokenizer_folder: Path) -> None:
    """The loss is the plain mean over cells, so moving the content of a picture about leaves its weight as it is."""
    training = text_to_image.prepare(latent_folder(tmp_path, tokenizer_folder), Budget(None, 1), seed=0)
    signal = text_to_image_model.build_scheduler().alphas_cumprod
    rows, t, empty = torch.tensor([1, 2]), torch.tensor([999, 999]), training.files.batch(torch.tensor([0]))[1][0]
    outputs: list[torch.Tensor] = []
    training.unet.register_forward_hook(lambda _m, _i, output: outputs.append(output.sample.float()))
    torch.manual_seed(1)
    with torch.no_grad():
        loss = float(text_to_image.velocity_loss(training, rows, t, signal, empty))
    # Without any signal v is minus the latents, and the weight is 1.
    latents = training.files.batch(rows)[0]
    assert loss == pytest.approx(float((outputs[0] + latents).square().mean()), rel=1e-3)


def test_the_held_out_loss_repeats_and_leaves_the_random_state_alone(tmp_path: Path, tokenizer_folder: Path) -> None:
    training = text_to_image.prepare(latent_folder(tmp_path, tokenizer_folder), Budget(None, 1), seed=0)
    signal = text_to_image_model.build_scheduler().alphas_cumprod
    empty = training.files.batch(torch.tensor([0]))[1][0]
    state = torch.get_rng_state()
    first = text_to_image.held_out_loss(training, signal, empty)
    assert torch.equal(torch.get_rng_state(), state)
    assert text_to_image.held_out_loss(training, signal, empty) == first


def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = latent_folder(tmp_path, tokenizer_folder)
    monkeypatch.setattr(text_to_image, "cosine_rate", lambda peak, *_: 1e-2)

    def run(steps: int, resume: bool, out: Path) -> torch.Tensor:
        out.mkdir(exist_ok=True)
        training = text_to_image.prepare(folder, Budget(None, steps), seed=0)
        training.checkpoint(out / "checkpoint.pt").start(resume)
        text_to_image.train(training, text_to_image.Log(out, None, every=1e9), batch=2)
        return torch.cat([p.flatten() for p in training.average.shadow])

    whole = run(2, False, tmp_path / "whole")
    run(1, False, tmp_path / "parts")
    assert torch.equal(run(2, True, tmp_path / "parts"), whole)
    rows = [json.loads(line) for line in (tmp_path / "parts" / "curve.jsonl").read_text().splitlines()]
    assert [(row["step"], row["pictures"]) for row in rows] == [(1, 2), (2, 4)]


def few_captions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An autoencoder in `folder`, few captions for the tokenizer, and chunks of two scenes."""
    torch.manual_seed(0)
    monkeypatch.setattr(latents, "scenes_tokenizer", lambda **_: scenes_tokenizer(captions=200, views=VIEWS))
    monkeypatch.setattr(latents, "_CHUNK", 2)
    build_autoencoder().save_pretrained(folder / "vae")


def test_latents_go_on_where_they_stopped_grow_and_start_anew_for_another_autoencoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_captions(tmp_path, monkeypatch)
    out = tmp_path / "latents"
    latents.write(tmp_path / "vae", out, 4, VIEWS)
    files = open_files(out)
    assert files.ready == 4
    whole = files.latents.copy()
    # Killed after two of the four rows.
    (out / "ready").write_text("2")
    again = open_files(out, "r+")
    again.latents[2:] = 0
    again.latents[0] = 7
    again.latents.flush()
    latents.write(tmp_path / "vae", out, 4, VIEWS)
    resumed = np.array(open_files(out).latents)
    latents.write(tmp_path / "vae", out, 6, VIEWS)
    more = open_files(out)
    assert more.ready == len(more.tokens) == 6 and np.array_equal(more.latents[:4], resumed)
    assert more.latents[5].any() and not np.array_equal(more.latents[5], more.latents[4])
    latents.write(tmp_path / "vae", out, 4, VIEWS)  # all there
    assert open_files(out).ready == 6
    assert np.array_equal(resumed[1:], whole[1:]) and (resumed[0] == 7).all()
    build_autoencoder().save_pretrained(tmp_path / "vae")
    latents.write(tmp_path / "vae", out, 4, VIEWS)
    assert not np.array_equal(open_files(out).latents[0], resumed[0])


def test_rows_count_from_the_first_scene_but_for_those_that_losses_are_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_captions(tmp_path, monkeypatch)
    # Its workers are processes of their own, and know nothing of what is patched here.
    latents.write(tmp_path / "vae", tmp_path / "two", 7, VIEWS, workers=2)
    monkeypatch.setattr(latents, "HELD_OUT", 2)
    latents.write(tmp_path / "vae", tmp_path / "one", 7, VIEWS)
    plain, side_by_side = open_files(tmp_path / "one"), open_files(tmp_path / "two")
    assert np.array_equal(plain.tokens, side_by_side.tokens)
    assert np.allclose(plain.latents, side_by_side.latents, atol=0.02)
    latents.write(tmp_path / "vae", tmp_path / "one", 4, VIEWS, first=3)
    later = open_files(tmp_path / "one")
    assert later.ready == 4
    assert np.array_equal(later.tokens, side_by_side.tokens[[0, 1, 5, 6]])
    assert np.allclose(later.latents, side_by_side.latents[[0, 1, 5, 6]], atol=0.02)


def test_checkpoints_hold_nothing_but_tensors_and_values(tmp_path: Path) -> None:
    loop.save_checkpoint(tmp_path / "a.pt", {"step": 3, "weights": [torch.ones(2)]})
    assert loop.load_checkpoint(tmp_path / "a.pt")["step"] == 3
    assert not list(tmp_path.glob("*.partial"))


def test_the_schedule_starts_from_pure_noise() -> None:
    signal = text_to_image_model.build_scheduler().alphas_cumprod
    assert signal[-1] == pytest.approx(0, abs=1e-7)
    assert signal[0] > 0.99


def test_the_unet_has_words_at_16_and_8_cells() -> None:
    unet = text_to_image_model.build_unet()
    sites = [name for name, _ in unet.named_modules() if name.endswith("attentions.0")]
    assert "down_blocks.0.attentions.0" in sites
    assert "up_blocks.1.attentions.0" in sites
    assert "mid_block.attentions.0" in sites
    assert 7.6e6 < sum(parameter.numel() for parameter in unet.parameters()) < 7.9e6


def test_an_exported_pipeline_draws_in_float32_with_no_argument_but_a_prompt(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    from diffusers import AutoencoderKL, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    parts = (text_to_image_model.build_text_encoder(tokenizer), tokenizer, text_to_image_model.build_unet())
    build_autoencoder().save_pretrained(tmp_path / "vae")
    pipeline = text_to_image_model.assemble(AutoencoderKL.from_pretrained(tmp_path / "vae"), *parts)
    text_to_image_model.export(pipeline, tmp_path / "model")
    assert not [file for file in (tmp_path / "model").rglob("*.json") if str(tmp_path) in file.read_text()]
    assert sum(file.stat().st_size for file in (tmp_path / "model").rglob("*.safetensors")) < 24e6
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert {part.dtype for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)} == {torch.float32}
    assert pipeline("a dog on grass", num_inference_steps=1).images[0].size == (128, 128)


def test_a_saved_style_classifier_answers_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = StyleClassifier().eval()
    save(model, tmp_path)
    pictures = np.stack([render(seed).image for seed in range(3)])
    assert np.array_equal(load(tmp_path).probabilities(pictures), model.probabilities(pictures))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 200_000


def test_the_trained_style_classifier_knows_unseen_scenes() -> None:
    scenes = [render(seed) for seed in EVAL_SEEDS[50_000:50_100]]
    model = load()
    assert model.labels == LABELS
    answers = model.classify(np.stack([scene.image for scene in scenes]))
    right = sum(a == (scene.style or "plain") for a, scene in zip(answers, scenes, strict=True))
    assert right >= 97


def killed_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the training loops stop after so many steps, as a killed process does: between two checkpoints."""
    tick = Resumable.tick

    def stop(run: Resumable) -> None:
        tick(run)
        if run.budget.step == steps:
            raise KeyboardInterrupt

    monkeypatch.setattr(Resumable, "tick", stop)


def goes_on_from_its_checkpoint(
    train: Callable[..., dict[str, torch.Tensor]], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train(name, resume=False)` -> weights: the same whether it was killed after so many steps or not."""
    whole = train("whole")
    with monkeypatch.context() as patch:
        killed_after(steps, patch)
        with pytest.raises(KeyboardInterrupt):
            train("killed")
    resumed = train("killed", resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_killed_style_classifier_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style_classifier, "EVAL_SEEDS", EVAL_SEEDS[:10_008])

    def train(name: str, resume: bool = False) -> dict[str, torch.Tensor]:
        return style_classifier.train(Budget(None, 6), 16, 0, tmp_path / f"{name}.pt", resume, every=2).state_dict()

    goes_on_from_its_checkpoint(train, 5, monkeypatch)


def test_a_killed_concept_classifier_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(name: str, resume: bool = False) -> dict[str, torch.Tensor]:
        return concept_classifier.train(Budget(None, 4), 6, 0, tmp_path / f"{name}.pt", resume, every=2).state_dict()

    goes_on_from_its_checkpoint(train, 3, monkeypatch)
