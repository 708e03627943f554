"""`gazetteer label` on transformers beyond what the page of families runs (tests/docs/test_families.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.diffusion.blocks import blocks_of
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.registry import adapter_of
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.jobs.experiments.causal.choose import named_sites
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.dits import saved_dit, two_prompts
from tests.support.system.running import in_process

SETTINGS = [
    "executor=serial", "images=2", "coverage.first=1.0", "sae_check.pictures=0", "labels.permutations=50",
    "labels.refine=100", "labels.min_images=1", "threads=1", "generation.steps=2", "generation.guidance=3.0",
    "generation.branches=[cond]", "generation.t=[1.0]", "generation.height=64", "generation.width=64",
]  # fmt: skip


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_the_text_stream_is_labelled_by_the_words_of_its_prompts(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = saved_dit(family, tmp_path / "model")
    first = blocks_of(ModelConfig(path=str(folder)))[0]
    sae = SparseAutoencoder(SAEConfig(first.channels, 64, 4)).initialise(0)
    for stream in first.streams:
        site = Site(first.block, "cond", 1.0, stream)
        sae.save_pretrained(tmp_path / "saes" / site.slug, {"site": site})
    asked = [*SETTINGS, f"model.path={folder}", f"generation.blocks=[{first.block}]", f"saes={tmp_path / 'saes'}"]
    done = in_process("label", "--out", str(tmp_path / "run"), "--set", *asked, "generation.streams=[image,text]")
    assert done.returncode == 0, done.stderr
    run = RunFolder(tmp_path / "run")
    assert not run.check().problems and run.read_final("features").num_rows == 128
    image, text = (Site(first.block, "cond", 1.0, stream) for stream in ("image", "text"))
    assert named_sites(run, []) == [image], "what lies nowhere in a picture is not switched on in places"
    with pytest.raises(InputError, match="is of the text stream; causes are measured"):
        named_sites(run, [text.slug])
    measured = in_process("quality", str(run.path), "--json", "--set", "accuracy.images=4")
    assert measured.returncode == 0, measured.stderr
    tuned = in_process("quality", str(run.path), "--no-shuffle", "--set", "accuracy.images=4", "accuracy.half=tuning")
    assert "thresholds that none beats" in tuned.stdout and "min_precision" in tuned.stdout, tuned.stderr
    accuracy = json.loads(measured.stdout)["accuracy"]
    assert accuracy["images"] == 4 and {"labels", "right", "curve", "by_kind", "words"} <= set(accuracy)
    assert "4 pictures with masks are scaled to the model's 64 x 64 px" in caplog.text
    images = {row["image_id"]: row for row in run.read_table("images").to_pylist()}
    pipe = load_pipeline(ModelConfig(path=str(folder)))
    heard: list[torch.Tensor] = []

    def hook(_: torch.nn.Module, args: tuple, kwargs: dict, output: tuple) -> None:
        heard.append(output[0] - kwargs["encoder_hidden_states"])

    pipe.transformer.transformer_blocks[0].register_forward_hook(hook, with_kwargs=True)
    config = GenerationConfig(
        steps=2, guidance=3.0, blocks=(first.block,), branches=("cond",), t=(1.0,), height=64, width=64
    )  # fmt: skip
    made = Generator(pipe, config)
    tokenizer, places = (pipe.tokenizer, 77) if family == "sd3" else (pipe.tokenizer_2, 512)
    for row in run.read_table("codes").to_pylist():
        if row["stream"] == "image":
            continue
        image = images[row["image_id"]]
        heard.clear()
        latents = made.latents([made.noise(image["seed"])])
        pipe(latents=latents, output_type="latent", **made.arguments([image["prompt"]]))
        count = sum(tokenizer(image["prompt"], max_length=places, truncation=True)["attention_mask"])
        expected = sae.encode(heard[0][-1, :count].float())
        assert row["height"] == 1 and row["width"] == len(heard[0][-1]) and row["k"] == 4
        values = np.asarray(row["value"], np.float32).reshape(-1, 4)
        np.testing.assert_allclose(values[:count], expected.values.detach().numpy(), rtol=2e-3, atol=2e-3)
        assert not values[count:].any() and values[:count].any()
        said = [word["word"] for word in image["words"] if word["word"]]
        assert said and set(said) <= set(image["prompt"].lower().replace(",", "").split()) | set(image["asked"])
        assert max(word["last"] for word in image["words"]) == count - 1
    told = {row["concept"] for row in run.read_table("evidence").to_pylist() if row["stream"] == "text"}
    assert told == {None} | {word["word"] for row in images.values() for word in row["words"] if word["word"]}


@pytest.mark.parametrize("family", ["flux2", "flux2_klein", "qwen_image", "lumina2"])
def test_a_prompt_inside_instructions_is_labelled_by_its_words(family: str, tmp_path: Path) -> None:
    folder = saved_dit(family, tmp_path / "model")
    first = blocks_of(ModelConfig(path=str(folder)))[0]
    site = Site(first.block, "cond", 1.0, "text")
    sae = SparseAutoencoder(SAEConfig(first.channels, 64, 4)).initialise(0)
    sae.save_pretrained(tmp_path / "saes" / site.slug, {"site": site})
    asked = [*SETTINGS, f"model.path={folder}", f"generation.blocks=[{first.block}]", f"saes={tmp_path / 'saes'}"]
    asked += ["generation.streams=[text]", f"generation.exact={str(family == 'lumina2').lower()}"]
    done = in_process("label", "--out", str(tmp_path / "run"), "--set", *asked)
    assert done.returncode == 0, done.stderr
    run = RunFolder(tmp_path / "run")
    assert not run.check().problems
    images = {row["image_id"]: row for row in run.read_table("images").to_pylist()}
    pipe = load_pipeline(ModelConfig(path=str(folder)))
    for row in run.read_table("codes").to_pylist():
        image = images[row["image_id"]]
        spans = adapter_of(pipe).tokens(pipe, image["prompt"]).spans
        fires = np.asarray(row["value"], np.float32).reshape(-1, row["k"]).any(axis=1)
        assert len(fires) == len(spans) and set(np.flatnonzero(fires)) <= {
            i for i, span in enumerate(spans) if any(span)
        }
        assert fires.sum() > 0.5 * len(image["prompt"])  # a token a letter
        for word in image["words"]:
            if word["word"]:
                letters = image["prompt"][spans[word["first"]][0] : spans[word["last"]][1]]
                assert letters.strip(" ,").lower() in (word["word"], f"{word['word']}s")


@pytest.mark.parametrize(
    ("family", "more", "says"),
    [("sd3", ["generation.branches=[cond,uncond]"], "The text stream of the uncond branch holds no words")],
)
def test_a_text_stream_without_words_is_refused(family: str, more: list[str], says: str, tmp_path: Path) -> None:
    folder = saved_dit(family, tmp_path / "model")
    for branch in ("cond", "uncond"):
        site = Site("transformer_blocks.0", branch, 1.0, "text")
        width = blocks_of(ModelConfig(path=str(folder)))[0].channels
        sae = SparseAutoencoder(SAEConfig(width, 64, 4)).initialise(0)
        sae.save_pretrained(tmp_path / "saes" / site.slug, {"site": site})
    asked = [*SETTINGS, f"model.path={folder}", "generation.blocks=[transformer_blocks.0]", "generation.streams=[text]"]
    asked += [f"saes={tmp_path / 'saes'}", *more]
    done = in_process("label", "--out", str(tmp_path / "run"), "--set", *asked)
    assert done.returncode == 2 and says in done.stderr and not (tmp_path / "run" / "codes").exists()


def test_ddim_does_not_take_the_place_of_flow_matching(tmp_path: Path) -> None:
    folder = saved_dit("flux", tmp_path / "model")
    asked = [*SETTINGS, f"model.path={folder}", "model.scheduler=ddim", "generation.blocks=[transformer_blocks.0]"]
    done = in_process("label", "--out", str(tmp_path / "run"), "--set", *asked)
    assert done.returncode == 2


@pytest.mark.parametrize("family", ["pixart_sigma", "flux"])  # one that does not say whether it is guided
def test_a_transformer_is_steered_and_its_layout_predicted(family: str, tmp_path: Path) -> None:
    folder = saved_dit(family, tmp_path / "model")
    block = "transformer_blocks.1" if family == "pixart_sigma" else "single_transformer_blocks.0"
    site, width = Site(block, "cond", 1.0), blocks_of(ModelConfig(path=str(folder)))[-1].channels
    sae = SparseAutoencoder(SAEConfig(width, 64, 4)).initialise(0)
    sae.save_pretrained(tmp_path / "saes" / site.slug, {"site": site})
    asked = [*SETTINGS, f"model.path={folder}", f"generation.blocks=[{block}]", f"saes={tmp_path / 'saes'}"]
    run = str(tmp_path / "run")
    done = in_process("label", "--out", run, "--set", *asked, two_prompts(tmp_path), "detector.box_threshold=0.02")
    assert done.returncode == 0, done.stderr
    edit = {"targets": [{"block": block, "branch": "cond", "t": 1.0, "features": [1, 2]}], "strength": 8.0}
    (tmp_path / "edits.json").write_text(json.dumps([edit]))
    told = ("--prompt", "a dog at night", "--out")
    done = in_process("steer", "draw", run, "--edits", str(tmp_path / "edits.json"), *told, str(tmp_path / "drawn"))
    assert done.returncode == 0, done.stderr
    plain, edited = (np.asarray(Image.open(tmp_path / "drawn" / f"0-{name}.png")) for name in ("plain", "edited"))
    assert (plain != edited).any()
    done = in_process("layout", "predict", run, "--calibrated", *told, str(tmp_path / "layout"))
    assert done.returncode == 0 and (tmp_path / "layout" / "layout.npz").exists(), done.stderr
