"""A text-to-image model is read from a folder or a single file, held as configured, or refused in one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, EulerAncestralDiscreteScheduler

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.diffusion.blocks import blocks_of
from gazetteer.diffusion.capture import attention_blocks
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.jobs.operate.doctor import examine
from tests.support.models.dits import saved_dit
from tests.support.models.original_models import random_segmenter
from tests.support.models.single_file import write_single_file
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline
from tests.support.system.running import ROOT, in_process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline().save_pretrained(path)
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "pipeline")
    return tmp_path / "pipeline"


def generator(model: ModelConfig, **settings: object) -> Generator:
    options = {"steps": 3, "guidance": 3.0, "blocks": BLOCKS, "t": (1.0,)} | settings
    return Generator(load_pipeline(model), GenerationConfig(**options))  # type: ignore[arg-type]


def picture(made: Generator) -> np.ndarray:
    image = made.sample(["a red house"], [5], lambda *_: None)
    assert image is not None
    return image


def test_a_single_file_is_the_same_model_as_the_folder(folder: Path, tmp_path: Path) -> None:
    file = write_single_file(tiny_pipeline(), tmp_path / "model.safetensors")
    one = ModelConfig(path=str(file), config=str(folder), scheduler="ddim")
    assert np.array_equal(picture(generator(one)), picture(generator(ModelConfig(path=str(folder), scheduler="ddim"))))
    assert blocks_of(one) == blocks_of(ModelConfig(path=str(folder)))


@pytest.mark.parametrize("own", ["EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep", "LMSDiscrete", "PNDM"])
def test_ddim_in_the_place_of_another_sampler_cuts_no_latents(copied: Path, own: str) -> None:
    """DDIM cuts to -1..1 by default, and most samplers' configurations do not speak of it."""
    kind = getattr(diffusers, f"{own}Scheduler")
    kind.from_config(load_pipeline(ModelConfig(path=str(copied))).scheduler.config).save_pretrained(
        copied / "scheduler"
    )
    index = json.loads((copied / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", kind.__name__]
    (copied / "model_index.json").write_text(json.dumps(index))
    (copied / "scheduler" / "scheduler_config.json").write_text(json.dumps({
        key: value for key, value in json.loads((copied / "scheduler" / "scheduler_config.json").read_text()).items()
        if key != "clip_sample"  # which this one has from the sampler that it was made from
    }))  # fmt: skip
    latents: list[float] = []
    made = generator(ModelConfig(path=str(copied), scheduler="ddim"))
    assert type(made.pipe.scheduler).__name__ == "DDIMScheduler" and not made.pipe.scheduler.config.clip_sample
    call = {**made.arguments(["a red house"]), "latents": 3 * torch.ones(1, 4, 8, 8), "output_type": "latent"}
    made.pipe(**call, callback_on_step_end=lambda _, __, ___, values: (
        latents.append(float(values["latents"].abs().max())), values)[1])  # fmt: skip
    assert max(latents) > 1.5


@pytest.mark.parametrize(
    ("settings", "close"),
    [
        ({"offload": "model"}, 0), ({"attention_slicing": True}, 1),
        ({"vae_slicing": True}, 1), ({"vae_tiling": True}, 255), ({"dtype": "bfloat16"}, 255),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)  # fmt: skip
def test_memory_settings_change_how_and_not_what(folder: Path, settings: dict, close: int) -> None:
    plain = picture(generator(ModelConfig(path=str(folder)))).astype(int)
    other = picture(generator(ModelConfig(path=str(folder), **settings))).astype(int)
    assert np.abs(plain - other).max() <= close


def test_settings_reach_the_pipeline(folder: Path) -> None:
    pipe = load_pipeline(ModelConfig(path=str(folder), vae_slicing=True, vae_tiling=True, dtype="float16"))
    assert pipe.vae.use_slicing and pipe.vae.use_tiling
    assert {p.dtype for p in pipe.unet.parameters()} == {torch.float16}


def test_blocks_are_found_without_weights(folder: Path, copied: Path) -> None:
    (copied / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    blocks = blocks_of(ModelConfig(path=str(copied)))
    assert [one.block for one in blocks] == attention_blocks(tiny_pipeline().unet)
    assert [(one.height, one.width, one.channels) for one in blocks if one.block in BLOCKS] == [(4, 4, 32)] * 2
    report = examine(ModelConfig(path=str(folder)))
    assert report["blocks"][0] == {"block": BLOCKS[0], "height": 4, "width": 4, "channels": 32, "streams": ("image",)}
    assert report["disk_free_gb"] > 0 and report["memory_gb"] > 0


def test_the_doctor_takes_a_model_by_path_or_by_configuration(folder: Path) -> None:
    by_path = in_process("doctor", "--model", str(folder), "--json")
    by_config = in_process("doctor", "--set", f"model.path={folder}", "--json")
    found, same = (json.loads(done.stdout) for done in (by_path, by_config))
    assert found["blocks"] == same["blocks"] and found["model"] == same["model"] == str(folder)
    both = in_process("doctor", "--model", str(folder), "--config", "flux-schnell")
    assert both.returncode == 2 and "The model is named twice" in both.stderr


def test_the_doctor_shows_the_grids_of_the_size_that_is_asked_for(folder: Path, tmp_path: Path) -> None:
    transformer = saved_dit("sd3", tmp_path / "sd3")
    for model in (folder, transformer):
        grids = []
        for size in ([], ["generation.height=64", "generation.width=96"]):
            by_path = in_process("doctor", "--model", str(model), "--json", *(["--set", *size] if size else []))
            by_config = in_process("doctor", "--json", "--set", f"model.path={model}", *size)
            assert (by_path.returncode, by_config.returncode) == (0, 0), by_path.stderr + by_config.stderr
            found, same = (json.loads(done.stdout)["blocks"] for done in (by_path, by_config))
            assert found == same
            grids.append({(block["height"], block["width"]) for block in found})
        assert grids[0] != grids[1] and max(grids[1])[1] * 2 == max(grids[1])[0] * 3
    generation = GenerationConfig(
        steps=1, guidance=1.0, height=64, width=96, blocks=("transformer_blocks.0",), branches=("cond",), t=(1.0,)
    )
    heard: set[tuple[int, int]] = set()
    made = Generator(load_pipeline(ModelConfig(path=str(transformer))), generation)
    made.sample(["a"], [0], lambda _site, _x, height, width: heard.add((height, width)), decode=False)
    assert grids[1] == heard, "of the transformer, the last"
    wrong = in_process("doctor", "--model", str(folder), "--set", "generation.height=17")
    assert wrong.returncode == 2 and "generation.height is 17" in wrong.stderr
    other = in_process("doctor", "--model", str(folder), "--set", "generation.height=64", "images=3")
    assert other.returncode == 2 and "generation.height and generation.width alone" in other.stderr


def test_blocks_seen_by_the_doctor_are_those_of_a_run(folder: Path) -> None:
    made = generator(ModelConfig(path=str(folder)), branches=("cond",), guidance=1.0)
    seen: dict[str, tuple[int, int, int]] = {}
    made.sample(["a"], [0], lambda s, x, h, w: seen.update({s.block: (h, w, x.shape[-1])}), decode=False)
    assert seen == {
        one.block: (one.height, one.width, one.channels)
        for one in blocks_of(ModelConfig(path=str(folder)))
        if one.block in BLOCKS
    }


def test_noise_of_ancestral_samplers_belongs_to_the_seed_too(folder: Path) -> None:
    made = generator(ModelConfig(path=str(folder)), exact=False)
    made.pipe.scheduler = EulerAncestralDiscreteScheduler()
    prompts, seeds = ["a red house", "a dog at night"], [5, 6]
    together = made.sample(prompts, seeds, lambda *_: None)
    for place in (1, 0):
        torch.manual_seed(place)
        alone = made.sample(prompts[place : place + 1], seeds[place : place + 1], lambda *_: None)
        assert np.abs(alone[0].astype(int) - together[place].astype(int)).max() <= 1
    other = made.sample(prompts[:1], [7], lambda *_: None)
    assert not np.array_equal(other[0], together[0])


def refused(model: ModelConfig, *fragments: str) -> None:
    with pytest.raises(InputError) as error:
        load_pipeline(model)
    said = str(error.value)
    assert "\n" not in said
    for fragment in fragments:
        assert fragment in said, said


def test_a_half_downloaded_folder_is_named_before_anything_is_read(copied: Path) -> None:
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    for broken, said in [
        (content[:-10], f"is cut short ({len(content) - 10} of {len(content)} bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "is a git-lfs pointer"),
        (b"not weights at all", "is not a readable safetensors file"),
    ]:
        weights.write_bytes(broken)
        refused(ModelConfig(path=str(copied)), str(weights), said)
    weights.unlink()
    refused(ModelConfig(path=str(copied)), "incomplete", str(weights.parent), "no .safetensors weights")
    index = weights.parent / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": "part-2.safetensors"}}))
    refused(ModelConfig(path=str(copied)), "lacks part-2.safetensors")
    shutil.rmtree(copied / "unet")
    refused(ModelConfig(path=str(copied)), "incomplete", str(copied / "unet"))


def test_pickles_are_refused(copied: Path, tmp_path: Path) -> None:
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    refused(ModelConfig(path=str(copied)), "is a pickle (diffusion_pytorch_model.bin)", "safetensors")
    torch.save({"w": torch.ones(1)}, tmp_path / "sd-v1-4.ckpt")
    refused(ModelConfig(path=str(tmp_path / "sd-v1-4.ckpt")), "is a pickle file", "refused")


def test_the_wrong_kind_of_checkpoint_is_refused(folder: Path, copied: Path, tmp_path: Path) -> None:
    segmenter = random_segmenter(tmp_path / "sam")
    refused(ModelConfig(path=str(segmenter)), "is not a diffusers pipeline folder", "model_index.json")
    file = segmenter / "model.safetensors"
    refused(ModelConfig(path=str(file)), "is a single file", "model.config")
    refused(ModelConfig(path=str(file), config=str(segmenter)), "has no model_index.json")
    refused(ModelConfig(path=str(file), config=str(folder)), f"{file} could not be loaded as {folder} describes it")
    refused(ModelConfig(path=str(tmp_path / "nowhere.safetensors"), config=str(folder)), "does not exist")
    index = json.loads((copied / "model_index.json").read_text())
    index["transformer"] = index.pop("unet")
    (copied / "model_index.json").write_text(json.dumps(index | {"_class_name": "CogView4Pipeline"}))
    (copied / "unet").rename(copied / "transformer")
    refused(ModelConfig(path=str(copied)), "A CogView4Pipeline cannot be listened to", "FluxPipeline")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "int8"}, "model.dtype is 'int8'"),
        ({"offload": "disk"}, "accepted: empty, model, sequential"),
        ({"device_map": "auto"}, "accepted: empty, balanced"),
        ({"device_map": "balanced", "offload": "model"}, "exclude each other"),
        ({"offload": "sequential"}, "model.device is cpu"),
        ({"config": "x"}, "belongs to a single .safetensors file"),
    ],
)
def test_wrong_settings_get_a_sentence(settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ModelConfig(path="owner/name", **settings)


def test_an_unusable_device_gets_a_sentence(folder: Path) -> None:
    refused(ModelConfig(path=str(folder), device="nonsense"), "cannot be used here")


def test_out_of_memory_names_the_batch_size_to_try(folder: Path) -> None:
    """An allocation that no machine can serve: a picture of 2**26 x 2**26 px."""
    made = generator(ModelConfig(path=str(folder)), height=2**26, width=2**26)
    with pytest.raises(
        GazetteerError, match=r"Out of memory while sampling pictures \(4 at once\); try batch_size=2\."
    ):
        made.sample(["a"] * 4, [1, 2, 3, 4], lambda *_: None)
    with pytest.raises(GazetteerError, match=r"try model\.dtype=float16"):
        made.sample(["a"], [1], lambda *_: None)


def test_a_filter_is_left_out_when_asked(folder: Path, copied: Path) -> None:
    index = json.loads((copied / "model_index.json").read_text())
    index |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "requires_safety_checker": True}
    (copied / "model_index.json").write_text(json.dumps(index))
    refused(ModelConfig(path=str(copied)), "incomplete", "safety_checker")
    pipe: DiffusionPipeline = load_pipeline(ModelConfig(path=str(copied), safety_checker=False))
    assert pipe.safety_checker is None


def test_the_embedded_model_draws_with_no_argument() -> None:
    """As its users load it in their own programs: no dtype, no device, nothing of ours."""
    script = (
        "import sys\n"
        "from diffusers import StableDiffusionPipeline\n"
        "pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1])\n"
        "print(pipe('a dog on grass', num_inference_steps=1).images[0].size)\n"
    )
    command = [sys.executable, "-c", script, str(ROOT / "data" / "scenes" / "models" / "text_to_image")]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.stdout.strip() == "(128, 128)", made.stderr[-500:]
