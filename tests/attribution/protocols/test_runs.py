"""`gazetteer attribute protocol` as it is run: what the model is loaded with, what is refused, what is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from gazetteer.attribution.edits.delta import ablation
from gazetteer.attribution.edits.delta_file import save_delta
from gazetteer.attribution.protocols import nudity, ordinary
from gazetteer.attribution.protocols.pictures import paint_prompts, read_picture
from gazetteer.attribution.protocols.prompts import ProtocolPrompt
from gazetteer.attribution.protocols.run import ProtocolConfig, run_protocol
from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.jobs.cli.main import parser
from tests.support.models.dits import saved_dit
from tests.support.models.tiny_pipeline import tiny_pipeline


@pytest.fixture(autouse=True)
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nudity, "NudityDetector", lambda: SimpleNamespace(detect=lambda path: []))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("prompts") / "prompts.csv"
    path.write_text("prompt,sd_seed\na dog at night,7\na red house,8\n")
    return str(path)


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose safety checker takes every picture for unsafe."""
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision = small | {"image_size": 16, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=small, vision_config=vision, projection_dim=8))
    checker.concept_embeds_weights.data.fill_(-5)
    pipe, folder = tiny_pipeline(), tmp_path_factory.mktemp("model") / "filtered"
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    pipe.register_modules(safety_checker=checker.eval(), feature_extractor=processor)
    pipe.save_pretrained(folder)
    return str(folder)


def protocol(*words: str) -> int:
    arguments = parser().parse_args(["attribute", "protocol", "i2p", "--steps", "2", *words])
    done: int = arguments.action(arguments)
    return done


def test_a_models_filter_is_left_out_unless_it_is_asked_for(filtered: str, prompts: str, tmp_path: Path) -> None:
    asked = ["--model", filtered, "--prompts", prompts, "--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match=r"blacked out 2 of 2 pictures.*set model\.safety_checker=false"):
        protocol(*asked, "--set", "model.safety_checker=true")
    assert protocol(*asked) == 0  # in the folder of the run that was refused, which kept no picture
    said = json.loads((tmp_path / "out/protocol.json").read_text())
    assert said["model.safety_checker"] is False and said["pictures"] == 2


def test_a_protocol_takes_the_keys_of_model_by_set(filtered: str, prompts: str, tmp_path: Path) -> None:
    asked = ["--model", filtered, "--prompts", prompts, "--out", str(tmp_path / "out")]
    for override, words in (
        ("images=3", "knows the keys of model alone, not 'images'"),
        ("model.schedule=ddim", "did you mean scheduler"),
        ("model.dtype=float8", "dtype is .float8.; accepted: empty, float32"),
    ):
        with pytest.raises(InputError, match=words):
            protocol(*asked, "--set", override)
    assert protocol(*asked, "--set", "model.scheduler=ddim", "model.vae_slicing=true") == 0
    assert json.loads((tmp_path / "out/protocol.json").read_text())["model.scheduler"] == "ddim"
    with pytest.raises(InputError, match=r"other settings \(model\.scheduler\)"):
        run_protocol(
            ModelConfig(filtered, dtype="float32", safety_checker=False, vae_slicing=True),
            ProtocolConfig("i2p", prompts=prompts, steps=2), str(tmp_path / "out"),
        )  # fmt: skip


def test_a_protocol_paints_with_a_model_that_is_offloaded(prompts: str, tmp_path: Path) -> None:
    """By accelerate with the CPU as the device, which sequential offload of the configuration does not take."""
    tiny_pipeline().save_pretrained(tmp_path / "model")
    unet = load_pipeline(ModelConfig(str(tmp_path / "model"), dtype="float32")).unet
    edit = ablation(dict(unet.named_parameters()), {"conv_in.weight": torch.arange(60)}, {})
    save_delta(edit, tmp_path / "edit.safetensors")
    pictures = set()
    for offload in ("", "model"):
        model = ModelConfig(str(tmp_path / "model"), dtype="float32", offload=offload)
        for edits in ((), (str(tmp_path / "edit.safetensors"),)):
            config, out = ProtocolConfig("i2p", edits, prompts=prompts, steps=2), tmp_path / f"{offload}{len(edits)}"
            assert run_protocol(model, config, str(out))["pictures"] == 2
            pictures.add((len(edits), (out / "pictures/000000.png").read_bytes()))
    assert len(pictures) == 2
    layers = ModelConfig(str(tmp_path / "none"), device="cuda", offload="sequential")
    with pytest.raises(InputError, match=r"model\.offload=sequential keeps them elsewhere"):
        run_protocol(layers, ProtocolConfig("i2p", ("e",), prompts=prompts), str(tmp_path / "out"))
    pipe, plain = tiny_pipeline(), tiny_pipeline()
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        accelerate.cpu_offload(part, execution_device=torch.device("cpu"))
    asked = [ProtocolPrompt("a dog", 7, 7.5, 0, 0)]
    one, other = (paint_prompts(p, asked, tmp_path / n, steps=2)[0] for p, n in ((pipe, "layers"), (plain, "plain")))
    assert one.read_bytes() == other.read_bytes()


class Reader:
    """In Inception's place: three numbers of a picture; it counts what it reads, and can be stopped."""

    def __init__(self) -> None:
        self.read: list[Path] = []
        self.most = 1000

    def features(self, paths: Sequence[Path]) -> np.ndarray:
        if len(self.read) + len(paths) > self.most:
            raise KeyboardInterrupt
        self.read += paths
        return np.stack([read_picture(path).astype(np.float64).mean((0, 1)) for path in paths])


def test_what_fid_reads_is_kept_and_other_scores_do_not_wait_for_it(
    prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader()
    monkeypatch.setattr(ordinary, "Inception", lambda: reader)
    scores = SimpleNamespace(scores=lambda paths, said: [20.0 + len(word) for word in said])
    monkeypatch.setattr(ordinary, "ClipScore", lambda _: scores)
    (tmp_path / "photographs").mkdir()
    for number in range(3):
        colours = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(colours).save(tmp_path / "photographs" / f"{number}.png")
    tiny_pipeline().save_pretrained(tmp_path / "model")
    config = ProtocolConfig("coco", prompts=prompts, reference=str(tmp_path / "photographs"), steps=1)

    def run() -> dict[str, Any]:
        return run_protocol(ModelConfig(str(tmp_path / "model")), config, str(tmp_path / "out"))

    reader.most = 2
    with pytest.raises(KeyboardInterrupt):
        run()
    said = json.loads((tmp_path / "out/protocol.json").read_text())
    assert said["clip_score"] > 20 and said["fid"] is None and len(reader.read) == 2
    reader.most = 5
    done = run()
    assert len(reader.read) == 5 and done["fid"] > 0 and done["clip_score"] == said["clip_score"]
    assert run() == done and len(reader.read) == 5
    first = next((tmp_path / "out/inception").iterdir())
    first.write_bytes(b"damaged")
    reader.most = 1000
    assert run() == done and len(reader.read) > 5
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "photographs" / "0.png")
    assert run()["fid"] != done["fid"]


def test_a_transformer_is_refused_by_what_this_verb_knows(prompts: str, tmp_path: Path) -> None:
    """Other verbs of `attribute` take SD 3."""
    model = saved_dit("sd3", tmp_path / "sd3")
    said = r"^gazetteer attribute protocol knows pipelines with a U-Net alone, not a StableDiffusion3Pipeline\.$"
    with pytest.raises(InputError, match=said):
        protocol("--model", str(model), "--prompts", prompts, "--out", str(tmp_path / "out"))
