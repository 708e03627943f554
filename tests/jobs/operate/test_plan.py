"""What a plan says is what happens: calls and operations exactly, bytes within a fifth."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, SamModel

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.flops import model_cost
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.jobs.config.schema import DEFAULT_CONFIG, load_config
from gazetteer.jobs.operate.plan import PART_BYTES, plan
from gazetteer.jobs.operate.rates import PEAK_TFLOPS, UTILISATION, Rates, card_of, stage_rates
from gazetteer.jobs.operate.tables_cost import MASK_SECONDS, tables_cost
from gazetteer.labeling.detect.grounding_dino.settings import PUBLISHED
from gazetteer.labeling.detect.grounding_dino.settings import config_of as groundingdino_config
from gazetteer.labeling.pipeline.flops import caption_tokens, detector_flops, segmenter_flops
from gazetteer.labeling.rules.run_reduce import stretches
from gazetteer.labeling.segment.protocol import SegmenterConfig
from gazetteer.labeling.segment.segment_anything_original import build_sam, config_of, published_sizes, read_sizes
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_site_saes
from tests.support.models.dits import saved_dit
from tests.support.models.original_models import original_detector, original_weights, random_segmenter, settings_of
from tests.support.models.sam_keys import SAM
from tests.support.models.single_file import write_single_file
from tests.support.models.tiny_pipeline import tiny_pipeline
from tests.support.runs.runs import evidence, failures
from tests.support.system.running import ROOT, SMALL, gazetteer, label


def test_operations_and_calls_are_those_of_a_real_picture() -> None:
    config = load_config(None, ["generation.steps=3"])
    pipe = load_pipeline(config.model)
    calls: list[int] = []
    grids: dict[str, tuple[int, int, int]] = {}
    pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    counter = FlopCounterMode(display=False)

    def on_site(site, x, height, width) -> None:
        grids[site.block] = (height, width, x.shape[-1])

    with sdpa_kernel(SDPBackend.MATH), counter:  # the CPU's fused attention is not counted
        image = Generator(pipe, config.generation).sample(["a dog on grass"], [0], on_site)
    cost = model_cost(config.model, 3)
    assert cost.calls == len(calls)
    assert {block: cost.blocks[block] for block in grids} == grids
    assert image is not None and image.shape == (1, cost.height, cost.width, 3)
    by_part = counter.get_flop_counts()
    sampled = sum(by_part[type(pipe.unet).__name__].values())
    assert sampled == 2 * cost.calls * cost.denoiser, "two branches a step, counted with the weights and without"
    total = counter.get_total_flops()
    assert sampled + cost.decode < total <= (sampled + cost.decode + 2 * cost.text) * 1.02


def test_the_detector_and_the_segmenter_are_counted_as_they_run() -> None:
    import numpy as np

    from gazetteer.labeling.detect.load import load_detector
    from gazetteer.labeling.segment.load import load_segmenter

    config = load_config(None)
    picture = np.zeros((128, 128, 3), np.uint8)
    detector, segmenter = load_detector(config.detector), load_segmenter(config.segmenter)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as found:
        detector.detect([picture], [["sky", "tree"]])
    assert detector_flops(config.detector, 128, 128, [6]) == pytest.approx(found.get_total_flops(), rel=0.05)
    boxes = [(0.0, 0.0, 40.0, 40.0), (9.0, 9.0, 60.0, 60.0)]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as cut:
        segmenter.segment([picture], [boxes])
    assert sum(segmenter_flops(config.segmenter, 2)) == pytest.approx(cut.get_total_flops(), rel=0.05)


def test_a_single_file_costs_what_its_folder_does(tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    pipe.save_pretrained(tmp_path / "folder")
    file = write_single_file(pipe, tmp_path / "model.safetensors")
    one = ModelConfig(path=str(file), config=str(tmp_path / "folder"))
    assert model_cost(one, 3) == model_cost(ModelConfig(path=str(tmp_path / "folder")), 3)
    with pytest.raises(InputError, match=r"set model\.config"):
        model_cost(ModelConfig(path=str(file)), 3)


def test_checkpoints_in_the_authors_formats_cost_what_their_folders_do(tmp_path: Path) -> None:
    """The same weights, as transformers folders and as .pth files: the same captions, the same operations."""
    config = load_config(None)
    original = original_detector(Path(config.detector.path), tmp_path / "original")
    segmenter = random_segmenter(tmp_path / "sam")
    torch.save(original_weights(segmenter, SAM), tmp_path / "sam.pth")
    save_file(original_weights(segmenter, SAM), tmp_path / "sam.safetensors")
    groups = [["sky", "hot air balloon"], ["tree"]]
    tokens = caption_tokens(config.detector, groups)
    assert caption_tokens(original, groups) == tokens and len(tokens) == 2
    assert detector_flops(original, 128, 128, tokens) == detector_flops(config.detector, 128, 128, tokens) > 0
    cut = segmenter_flops(SegmenterConfig(path=str(segmenter)), 3)
    for file in ("sam.pth", "sam.safetensors"):
        path = str(tmp_path / file)
        assert segmenter_flops(SegmenterConfig(path=path, library="segment_anything"), 3) == cut
    with pytest.raises(InputError, match="does not exist"):
        segmenter_flops(SegmenterConfig(path="nowhere.pth", library="segment_anything"), 3)


def test_published_networks_are_known_without_their_checkpoints() -> None:
    """Sizes of the published files: sam_vit_b_01ec64.pth 375 MB, sam_vit_l_0b3195.pth 1.25 GB, sam_vit_h_4b8939.pth
    2.56 GB; the settings of Grounding DINO go to transformers and come back."""
    for name, megabytes in {"vit_b": 375, "vit_l": 1249, "vit_h": 2564}.items():
        with torch.device("meta"):
            model = SamModel(config_of(published_sizes(name))).to("meta")
            assert read_sizes(build_sam(published_sizes(name)).state_dict()) == published_sizes(name)
        assert sum(p.numel() for p in model.parameters()) * 4e-6 == pytest.approx(megabytes, abs=1)
    absent = SegmenterConfig(path="sam_vit_b_01ec64.pth", library="segment_anything", model_type="vit_b")
    encode, decode = segmenter_flops(absent, 6)
    assert 0.7e12 < encode < 1.1e12 and decode < encode / 10, "two operations for each of 370 G multiply-adds or more"
    for settings in PUBLISHED.values():
        there = settings_of(groundingdino_config(settings, BertConfig()))
        assert there == dataclasses.replace(settings, decoder_dim_feedforward=settings.dim_feedforward)


def test_a_plan_needs_no_autoencoder_that_is_yet_to_be_trained() -> None:
    there = plan(load_config(None), Rates())
    before = plan(load_config(None, ["saes=nowhere"]), Rates())
    assert before["assumed"] == [
        *there["assumed"][:2],
        "autoencoders as sae.train makes them, for nowhere has none yet",
    ]
    assert {**before, "assumed": 0} == {**there, "assumed": 0}
    with pytest.raises(InputError, match="nowhere has no SAE for 24 of 24 sites"):
        plan(load_config(None, ["saes=nowhere", "sae=null"]), Rates())


def test_a_plan_refuses_autoencoders_that_label_refuses(tmp_path: Path) -> None:
    mid = "mid_block.attentions.0"
    site, one = Site(mid, "cond", 0.5), tmp_path / "one"
    config = load_config(None)
    width = load_site_saes(config.saes, config.generation.sites)[site].config.d
    SparseAutoencoder(SAEConfig(width, 256, 4)).initialise(0).save_pretrained(one, {"site": site})
    narrow = tmp_path / "narrow"
    SparseAutoencoder(SAEConfig(64, 256, 4)).initialise(0).save_pretrained(narrow, {"site": site})
    for settings, said in (
        ([f'saes={{"nothing.*": "{one}"}}'], "the pattern 'nothing.*' matches none of the sites"),
        ([f"saes={one}"], f"it is an SAE itself, of {mid}"),
        ([f'saes={{"*": "{one}"}}'], f"was trained at {site.slug}, not at"),
        ([f'saes={{"{mid}": "{narrow}"}}', f"generation.blocks=[{mid}]"], f"{narrow}, of {mid}-cond-t0.00, expects 64"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            plan(load_config(None, settings), Rates())
    advised = plan(load_config(None, [f'saes={{"{mid}": "{one}"}}', f"generation.blocks=[{mid}]"]), Rates())
    assert advised["features"] == 256 * advised["sites"]
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "ABSENT.txt").write_text("train them so")
    with pytest.raises(InputError, match="is not there: train them so"):
        plan(load_config(None, [f"model.path={tmp_path / 'absent'}"]), Rates())


def test_bytes_of_another_run_are_foretold_within_a_fifth(scenes_run: Path, tmp_path: Path) -> None:
    """From a run of 16 pictures to one of 12 others, with other seeds."""
    settings = ["images=12", "seed=7", "coverage.first=1.0", "executor=serial"]
    result = plan(load_config(None, [*SMALL, *settings]), Rates(like=str(scenes_run)))
    done = label(tmp_path / "run", *settings)
    assert done.returncode == 0, done.stderr
    commits = RunFolder(tmp_path / "run").committed().values()
    assert len(commits) == result["shards"]
    assert sum(commit.info["images"] for commit in commits) == result["images"] == 12
    for table in ("images", "codes", "evidence", "segments"):
        real = sum(commit.tables[table]["bytes"] for commit in commits)
        assert result["bytes"][table] == pytest.approx(real, rel=0.2), table


def test_constants_fit_the_run_they_were_measured_on(scenes_run: Path) -> None:
    result = plan(load_config(None, SMALL), Rates())
    commits = RunFolder(scenes_run).committed().values()
    for table in ("images", "codes"):
        real = sum(commit.tables[table]["bytes"] for commit in commits)
        assert result["bytes"][table] == pytest.approx(real, rel=0.2), table
    assert result["bytes"]["evidence"] >= sum(commit.tables["evidence"]["bytes"] for commit in commits)
    assert result["assumed"]


def test_seconds_hours_and_money_follow_from_the_rate(scenes_run: Path) -> None:
    config = load_config(None, SMALL)
    stated = plan(config, Rates(tflops=2.0, devices=4, price=3.0))
    assert stated["device_hours"] == pytest.approx(sum(stated["flops"].values()) / 2e12 / 3600)
    assert stated["hours"] == stated["device_hours"] / 4
    assert stated["money"] == stated["device_hours"] * 3.0
    low, high = stated["hours_range"]
    assert low < stated["hours"] < high
    on_h200 = plan(config, Rates(tflops=stage_rates("h200")))
    for stage, count in on_h200["flops"].items():
        assert on_h200["seconds"][stage] == pytest.approx(count / (PEAK_TFLOPS["h200"] * UTILISATION[stage] * 1e12))
    assert set(stage_rates("3090", 0.5).values()) == {PEAK_TFLOPS["3090"] * 0.5}
    whole = stage_rates("h200", None, {"segment": "float32", "detect": "bfloat16"})
    assert {stage: whole[stage] / rate for stage, rate in stage_rates("h200").items()} == {
        "generate": 1.0, "detect": 1.0, "segment": 0.5, "sample": 1.0, "train": 1.0,
    }  # fmt: skip
    assert stated["sae"]["images"] == 800
    measured = plan(config, Rates(like=str(scenes_run)))
    commits = RunFolder(scenes_run).committed().values()
    real = sum(commit.info["seconds"]["generate"] for commit in commits)
    assert measured["seconds"]["generate"] == pytest.approx(real, rel=1e-6), "the same job takes the same seconds"
    longer = plan(load_config(None, [*SMALL, "images=32", "generation.steps=8"]), Rates(like=str(scenes_run)))
    assert longer["seconds"]["generate"] == pytest.approx(4 * real, rel=1e-6)
    assert longer["seconds"]["detect"] == pytest.approx(2 * measured["seconds"]["detect"], rel=1e-6)
    assert longer["counts"]["denoiser_evaluations"] == 32 * 8 * 2
    assert plan(config, Rates())["device_hours"] is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [(["generation.t=[0.5]"], "generation.t"), (["vocabulary.concepts=[sky]"], "vocabulary.concepts")],
)
def test_a_run_of_something_else_is_no_measure(scenes_run: Path, settings: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        plan(load_config(None, [*SMALL, *settings]), Rates(like=str(scenes_run)))


def test_wrong_arguments_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures"):
        plan(load_config(None), Rates(like=str(tmp_path)))
    with pytest.raises(InputError, match="has no block"):
        plan(load_config(None, ["generation.blocks=[mid_block.attentions.7]"]), Rates())
    with pytest.raises(InputError, match="at least 1"):
        Rates(devices=0)
    done = gazetteer("plan", "--device", "abacus")
    assert done.returncode == 2 and "a100" in done.stderr


def test_a_run_that_is_measured_by_is_only_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may be on its way from another machine, records first: a plan forgets nothing that is missing there."""
    run = RunFolder(tmp_path / "run").open_or_create({"config": "of another run"})
    for shard in ("a", "b"):
        run.commit_shard(shard, {"failures": failures(shard), "evidence": evidence(1)}, {"images": 2}, {})
    (tmp_path / "run/evidence/part-a.parquet").unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="made with other models or sites"):
        plan(load_config(None, SMALL), Rates(like=str(tmp_path / "run")))
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    assert "Shard a does not count: evidence/part-a.parquet is missing" in caplog.text


def test_what_label_refuses_is_not_priced(tmp_path: Path) -> None:
    cost = model_cost(ModelConfig(path=str(saved_dit("flux", tmp_path))), steps=2)
    asked = {"blocks": ("transformer_blocks.0",), "branches": ("cond",)}
    cost.check(GenerationConfig(**asked, streams=("image", "text")))
    for more, says in (
        ({"blocks": ("transformer_blocks.0.ff",)}, "output minus input means nothing"),
        ({"branches": ("uncond",)}, "never runs without the prompt"),
        ({"blocks": ("transformer_blocks.0.ff",), "streams": ("text",), "signals": ("output",)}, "no text stream"),
    ):
        with pytest.raises(InputError, match=says):
            cost.check(GenerationConfig(**asked | more))


def test_a_text_stream_is_priced_by_its_words(tmp_path: Path) -> None:
    """Codes, encoding, tables and training go by tokens: here 512 of them beside 64 cells."""
    settings = [
        f"model.path={saved_dit('flux', tmp_path / 'model')}", f"saes={tmp_path / 'none'}", "generation.steps=2",
        "generation.blocks=[transformer_blocks.0]", "generation.branches=[cond]", "generation.t=[0.5]",
        "generation.height=16", "generation.width=16", "images=32", "shard_size=16", "sae.stream=false",
        "sae.train.steps=null",
    ]  # fmt: skip
    image, text = (
        plan(load_config(None, [*settings, f"generation.streams=[{s}]"]), Rates()) for s in ("image", "text")
    )
    cost = model_cost(ModelConfig(path=str(tmp_path / "model")), 2, 16, 16)
    height, width, _ = cost.find("transformer_blocks.0")
    share = cost.words / (height * width)
    assert cost.words == 512 and share != 1
    parts = 2 * PART_BYTES
    assert text["bytes"]["codes"] - parts == pytest.approx(share * (image["bytes"]["codes"] - parts), rel=1e-3)
    for of in (lambda plan: plan["sae"]["flops"]["train"], lambda plan: plan["sae"]["bytes"]["activations"]):
        assert of(text) == pytest.approx(share * of(image))
    slots = [plan["tables"]["reduce"]["cpu_seconds"] - 32 * MASK_SECONDS for plan in (image, text)]
    assert slots[1] == pytest.approx(share * slots[0])
    assert (text["flops"]["generate"] > image["flops"]["generate"]) == (share > 1)
    assert "text streams of 512 tokens a prompt, the most that the model reads" in text["assumed"]
    assert not any("text streams" in said for said in image["assumed"])


def test_what_the_page_on_prompts_and_cost_shows_works(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "reference" / "prompts.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    embedded = yaml.safe_load(DEFAULT_CONFIG.read_text(encoding="utf-8"))
    mine = yaml.safe_load(shown)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({**embedded, **mine}))
    config = load_config(tmp_path / "my.yaml")
    assert config.sae is not None
    assert (config.prompts.side, config.sae.prompts.side) == ("dictionary", "sae")
    (command,) = re.findall(r"```sh\ngazetteer (.*?)\n```", text)
    done = gazetteer(*shlex.split(command), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["images"] == 40
    assert result["money"] > 0
    assert "TFLOP" in done.stderr


def test_a_card_is_known_by_the_name_its_driver_gives() -> None:
    names = {
        "NVIDIA H100 80GB HBM3": "h100", "NVIDIA L40S": "l40s", "NVIDIA L4": "l4", "NVIDIA A100-SXM4-80GB": "a100",
        "NVIDIA GeForce RTX 3090": "3090", "Tesla V100-SXM2-16GB": "v100", "AMD Instinct MI300X": "mi300x", "cpu": None,
    }  # fmt: skip
    assert {name: card_of(name) for name in names} == names


def test_tables_are_priced_by_slots_or_by_a_run_that_made_some(scenes_run: Path) -> None:
    site = Site("mid_block.attentions.0", "cond", 0.5)
    small = tables_cost({site: 10**6}, {site: 64}, 10, 100, 10**7)
    large = tables_cost({site: 10**8}, {site: 5120}, 80, 40_000, 10**10)
    assert small["reduce"]["tasks"] == 1 and large["reduce"]["tasks"] == len(stretches(site, 5120, 10**8, 80)) > 1
    assert small["reduce"]["cpu_seconds"] < large["reduce"]["cpu_seconds"] / 90
    assert large["compact"]["cpu_seconds"] == pytest.approx(1000 * small["compact"]["cpu_seconds"])
    manifest = json.loads((scenes_run / "_meta" / "manifest.json").read_text())
    like = tables_cost({site: 10**6}, {site: 64}, 10, 3 * manifest["images"], 0, str(scenes_run))
    assert like["reduce"]["wall_seconds"] == pytest.approx(3 * manifest["seconds"]["reduce"])
    assert "cpu_seconds" not in like["reduce"], "how long its driver waited, whoever worked"
