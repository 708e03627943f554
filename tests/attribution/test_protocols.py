"""The published protocols, with their real packages where these come with weights, on a tiny real pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from gazetteer.attribution.edits.delta import ablation
from gazetteer.attribution.edits.delta_file import save_delta
from gazetteer.attribution.protocols import imagenette, nudity, ordinary
from gazetteer.attribution.protocols.pictures import paint_prompts, read_picture
from gazetteer.attribution.protocols.prompts import ProtocolPrompt, read_prompt_file
from gazetteer.attribution.protocols.run import ProtocolConfig, run_protocol
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import LIST
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from tests.support.models.tiny_pipeline import tiny_pipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return ModelConfig(str(folder))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("prompts") / "prompts.csv"
    path.write_text("prompt,evaluation_seed\na dog at night,7\na red house,8\n")
    return str(path)


def test_nudenet_finds_the_face_in_a_portrait_and_nothing_to_count() -> None:
    portrait = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    found = nudity.NudityDetector().detect(portrait)
    assert max(found, key=lambda one: one[1])[0] == "FACE_FEMALE"
    assert nudity.tally([found, []]) == {
        "labels": dict.fromkeys(nudity.LABELS, 0),
        "total": 0,
        "images": 0,
        "pictures": 2,
    }


def test_what_counts_as_nudity() -> None:
    found = [
        [("BELLY_EXPOSED", 0.9), ("BELLY_EXPOSED", 0.6), ("FACE_MALE", 0.9)],
        [("FEET_EXPOSED", 0.5)],  # the threshold itself does not count
        [("BUTTOCKS_EXPOSED", 0.51), ("BUTTOCKS_COVERED", 0.9)],
    ]
    counted = nudity.tally(found)
    assert counted["total"] == 3 and counted["images"] == 2 and counted["labels"]["BELLY_EXPOSED"] == 2


def test_i2p_runs_resumes_and_refuses_other_settings(model: ModelConfig, prompts: str, tmp_path: Path) -> None:
    config = ProtocolConfig("i2p", prompts=prompts, steps=2)
    done = run_protocol(model, config, str(tmp_path))
    assert done["pictures"] == 2 and done["total"] == 0 and done["prompts_cut"] == 0
    assert done["conventions"] == {
        "seed": "the file's column evaluation_seed", "guidance": "7.5 for all prompts: the file has none",
        "width": "the model's own", "height": "the model's own",
    }  # fmt: skip
    first, second = sorted((tmp_path / "pictures").glob("*.png"))
    kept, lost = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    (tmp_path / LIST).unlink()  # as before commands claimed their folders
    assert run_protocol(model, config, str(tmp_path)) == done
    assert first.stat().st_mtime_ns == kept and second.read_bytes() == lost
    with pytest.raises(InputError, match="other settings \\(steps\\)"):
        run_protocol(model, ProtocolConfig("i2p", prompts=prompts, steps=3), str(tmp_path))
    with pytest.raises(InputError, match=r"other settings \(model\.dtype\)"):
        run_protocol(replace(model, dtype="bfloat16"), config, str(tmp_path))
    (tmp_path / "settings.json").write_text('["mine"]')
    with pytest.raises(InputError, match=r"settings\.json is there already and is not what gazetteer left there"):
        run_protocol(model, config, str(tmp_path))


def test_files_that_changed_under_the_same_name_are_other_settings(
    model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nudity, "NudityDetector", lambda: SimpleNamespace(detect=lambda path: []))
    prompts, edits = tmp_path / "prompts.csv", [tmp_path / f"{name}.safetensors" for name in "ab"]
    prompts.write_text("prompt\na dog\n")
    weights = dict(load_pipeline(model).unet.named_parameters())
    for path, first in zip(edits, (0, 200), strict=True):
        save_delta(ablation(weights, {"conv_in.weight": torch.arange(first, first + 200)}, {}), path)
    config = ProtocolConfig("i2p", tuple(str(path) for path in edits), prompts=str(prompts), steps=1)

    def picture(folder: str, config: ProtocolConfig = config) -> bytes:
        run_protocol(model, config, str(tmp_path / folder))
        return (tmp_path / folder / "pictures" / "000000.png").read_bytes()

    assert picture("out") == picture("out")
    fewer = {f"{n} edits": picture(f"{n}", replace(config, edit=config.edit[:n])) for n in (0, 1)}
    assert len({picture("out"), *fewer.values()}) == 3
    save_delta(ablation(weights, {"conv_in.weight": torch.tensor([2])}, {}), edits[1])
    with pytest.raises(InputError, match=r"other settings \(edit_digests\)"):
        run_protocol(model, config, str(tmp_path / "out"))
    prompts.write_text("prompt\na red house\n")
    with pytest.raises(InputError, match=r"\(edit_digests, prompts_digest\)"):
        run_protocol(model, config, str(tmp_path / "out"))
    settings = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert len(settings["edit_digests"]) == 2 and settings["model_digest"]


def test_imagenette_is_tallied_by_class_and_the_classifier_reads_a_file(tmp_path: Path) -> None:
    things = imagenette.prompts(2, seed=5)
    assert len(things) == 20 and things[0] == ProtocolPrompt("an image of a tench", 5, about="tench")
    right = [imagenette.CLASSES[one.about] for one in things]
    right[0] = right[2] = 999  # a tench and an English springer are missed
    assert imagenette.tally(things, right, "tench") == {"target": 0.5, "others": 17 / 18, "pictures": 20}
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    network = squeezenet1_1(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / "grey.png")
    found = imagenette.ImageNetClassifier("squeezenet1_1", str(tmp_path / "weights.pt")).top1([tmp_path / "grey.png"])
    assert 0 <= found[0] < 1000
    with pytest.raises(InputError, match="cannot be had"):
        imagenette.ImageNetClassifier("resnet50", str(tmp_path / "weights.pt"))
    with pytest.raises(InputError, match="not a class of Imagenette"):
        imagenette.tally(things, right, "dog")


def test_clip_scores_are_cosines_of_picture_and_prompt(tmp_path: Path, model: ModelConfig) -> None:
    from transformers import (
        AutoTokenizer,
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTextConfig,
        CLIPVisionConfig,
    )

    tokenizer = AutoTokenizer.from_pretrained(f"{model.path}/tokenizer")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "max_position_embeddings": 16,
    }
    text = CLIPTextConfig(**ends, **size).to_dict()
    vision = CLIPVisionConfig(image_size=32, patch_size=16, **size).to_dict()
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(tmp_path / "clip")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, value in zip(paths, (20, 200), strict=True):
        Image.fromarray(np.full((40, 50, 3), value, np.uint8)).save(path)
    clip, said = ordinary.ClipScore(str(tmp_path / "clip")), ["a dog", "a red house at night"]
    together = clip.scores(paths, said)
    alone = [clip.scores([path], [prompt])[0] for path, prompt in zip(paths, said, strict=True)]
    assert together == pytest.approx(alone, abs=1e-3) and all(0 <= score <= 100 for score in together)
    with pytest.raises(InputError, match="cannot be read"):
        ordinary.ClipScore(str(tmp_path))


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.mark.full
def test_fid_reads_pictures_as_pytorch_fid_does(
    tmp_path: Path, photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's own network and reader; its weights cannot be had offline, so random ones lie where it looks."""
    from pytorch_fid import inception
    from pytorch_fid.fid_score import get_activations
    from torchvision.models import inception_v3

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    for layer in network.modules():  # so that what comes in still shows in what comes out
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    torch.save(network.state_dict(), tmp_path / "hub/checkpoints" / inception.FID_WEIGHTS_URL.rpartition("/")[2])
    found = ordinary.Inception().features(photographs)
    model = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
    theirs = get_activations([str(path) for path in photographs], model, batch_size=1, num_workers=0)
    assert found.shape == (3, 2048) and found.std(0).max() > 0.01 * found.max() > 1e-3
    assert np.allclose(found, theirs, atol=1e-4 * found.max())
    assert ordinary.Fid(tmp_path).distance(photographs[:2], tmp_path / "kept") > 0


@pytest.mark.full
def test_imagenette_asks_the_resnet_50_of_torchvision(tmp_path: Path, photographs: list[Path]) -> None:
    from torchvision.models import ResNet50_Weights, resnet50

    torch.manual_seed(0)
    network = resnet50(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    transforms = ResNet50_Weights.IMAGENET1K_V2.transforms()
    with torch.no_grad():
        theirs = [int(network(transforms(Image.open(path).convert("RGB"))[None]).argmax()) for path in photographs]
    assert imagenette.ImageNetClassifier("resnet50", str(tmp_path / "weights.pt")).top1(photographs) == theirs


I2P = "prompt,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height\na dog,7,4.5,16,24\na house,3000000000,9,24,16\n"


def test_i2p_takes_seed_guidance_and_size_from_its_own_columns(tmp_path: Path) -> None:
    (tmp_path / "i2p.csv").write_text("\ufeff" + I2P)
    path = str(tmp_path / "i2p.csv")
    own = read_prompt_file(path, "prompt")
    assert own.prompts == [ProtocolPrompt("a dog", 7, 4.5, 16, 24), ProtocolPrompt("a house", 3000000000, 9.0, 24, 16)]
    assert own.conventions == {
        "seed": "the file's column sd_seed", "guidance": "the file's column sd_guidance_scale",
        "width": "the file's column sd_image_width", "height": "the file's column sd_image_height",
    }  # fmt: skip
    asked = read_prompt_file(path, "prompt", seed=0, guidance=7.5, size=64, limit=1)
    assert asked.prompts == [ProtocolPrompt("a dog", 0, 7.5, 64, 64)]
    assert asked.conventions["seed"] == "0 for all prompts, as asked, not the file's sd_seed"
    (tmp_path / "bare.csv").write_text("caption,width,seed\na dog,640,5.0\n")  # a photograph's width
    bare = read_prompt_file(str(tmp_path / "bare.csv"), "caption")
    assert bare.prompts == [ProtocolPrompt("a dog", 5)] and bare.conventions["width"] == "the model's own"


def test_every_prompt_is_painted_at_its_own_guidance_size_and_noise(tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    asked = [
        ProtocolPrompt("a dog", 7, 4.5, 16, 24), ProtocolPrompt("a dog", 8, 4.5, 16, 24),
        ProtocolPrompt("a dog", 7, 1.0, 16, 24), ProtocolPrompt("a dog", 7, 4.5),
    ]  # fmt: skip
    paths = paint_prompts(pipe, asked, tmp_path / "all", steps=2)
    pictures = [read_picture(path) for path in paths]
    own = pipe.unet.config.sample_size * pipe.vae_scale_factor
    assert [p.shape for p in pictures] == [(24, 16, 3)] * 3 + [(own, own, 3)]
    assert len({p.tobytes() for p in pictures}) == 4  # seed and guidance both tell
    grid = (24 // pipe.vae_scale_factor, 16 // pipe.vae_scale_factor)
    noise = torch.randn((1, pipe.unet.config.in_channels, *grid), generator=torch.Generator().manual_seed(8))
    said = {"prompt": "a dog", "latents": noise, "num_inference_steps": 2, "guidance_scale": 4.5}
    plain = pipe(**said, height=24, width=16, output_type="np").images[0]
    assert np.abs((plain * 255).round() - pictures[1].astype(float)).max() <= 1
    with pytest.raises(InputError, match="Prompt 2 asks for 20 × 16 pixels; this model paints multiples of 8"):
        paint_prompts(pipe, [asked[0], ProtocolPrompt("a dog", 0, 1.0, 20, 16)], tmp_path / "none", steps=2)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prompt,seed\na dog,x\n", "prompt 1: seed is 'x', not a whole number"),
        ("prompt,seed\na dog,1\na cat,\n", "prompt 2: seed is '', not a whole number"),
        ("prompt,seed\na dog,1.5\n", "'1.5', not a whole number"),
        ("prompt,seed\na dog,99999999999999999999\n", "not a seed"),
        ("prompt,sd_guidance_scale\na dog,nan\n", "not a guidance scale"),
        ("prompt,sd_image_width,sd_image_height\na dog,0,512\n", "not a number of pixels"),
        ("prompt,sd_image_width\na dog,512\n", "a width or a height without the other"),
        ("prompt,prompt\na dog,a cat\n", "two columns 'prompt'"),
        ("prompt,seed\na dog, a cat,1\n", "line 2 has 3 values for 2 columns"),
        ("prompt,seed\n", "lack the column 'prompt'; there is prompt, seed"),
        ("", "there is no row"),
    ],
)
def test_a_file_of_prompts_that_is_not_what_it_should_be_is_a_sentence(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_prompt_file(str(tmp_path / "bad.csv"), "prompt")


def test_what_fid_lacks_is_said_before_anything_is_painted(
    tmp_path: Path, prompts: str, photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards it would be hours too late: a folder of pictures of another reference is refused."""
    monkeypatch.setattr(ordinary, "ClipScore", lambda _: None)
    monkeypatch.setattr(ordinary, "Inception", lambda: None)
    (tmp_path / "none").mkdir()
    none, one = ModelConfig(str(tmp_path / "none")), f"{tmp_path}/one.csv"
    Path(one).write_text("prompt\na dog\n")
    for file, folder, words in ((prompts, "none", "fewer than 2 pictures"), (one, "", "asks for 1")):
        config = ProtocolConfig("coco", prompts=file, reference=f"{tmp_path}/{folder}")
        with pytest.raises(InputError, match=words):
            run_protocol(none, config, str(tmp_path / "out"))

    def missing() -> None:
        raise InputError("FID needs the package pytorch-fid")

    monkeypatch.setattr(ordinary, "Inception", missing)
    with pytest.raises(InputError, match="needs the package pytorch-fid"):
        run_protocol(none, ProtocolConfig("coco", prompts=prompts, reference=str(tmp_path)), str(tmp_path / "out"))


def test_prompts_and_pictures_that_do_not_fit_are_a_sentence(tmp_path: Path, prompts: str) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("prompt,seed\na dog,x\n")
    for wrong, words in (
        (lambda: read_prompt_file(prompts, "caption"), "lack the column .caption"),
        (lambda: read_prompt_file(str(tmp_path / "none.csv"), "prompt"), "file of prompts .* does not exist"),
        (lambda: ProtocolConfig("i2p", prompts=prompts, guidance=float("nan")), "guidance must be"),
        (lambda: ProtocolConfig("p4d"), "accepted: imagenette"),
        (lambda: ProtocolConfig("coco"), "needs --prompts"),
        (lambda: ordinary.Fid(tmp_path), "fewer than 2 pictures"),
        (lambda: read_picture(bad), "not a picture"),
    ):
        with pytest.raises(InputError, match=words):
            wrong()
