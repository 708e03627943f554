"""What is missing is said before a picture is sampled, a worker started or Ray imported, and locks no folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.blocks import blocks_of
from gazetteer.diffusion.load import ModelConfig
from gazetteer.jobs.config.schema import DEFAULT_CONFIG, load_config
from gazetteer.labeling.pipeline.checks import check_devices, check_inputs
from gazetteer.labeling.pipeline.config import StageConfig
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.dits import saved_dit
from tests.support.system.running import ROOT, SMALL, in_process

MODELS = DEFAULT_CONFIG.parent / "models"
MID = "mid_block.attentions.0"


def damaged_sae(root: Path, site: str, fault: str) -> None:
    """A folder of sites with one embedded autoencoder whose weights are cut short or hold a NaN."""
    shutil.copytree(MODELS / "saes" / site, root / site)
    path = root / site / "model.safetensors"
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
        return
    tensors = load_file(path)
    tensors["encoder"][3, 5] = float("nan")
    save_file(tensors, path)


def stages(*overrides: str) -> StageConfig:
    return load_config(None, overrides).stages


def test_the_embedded_world_passes() -> None:
    check_inputs(stages())


def test_a_cluster_has_models_and_devices_of_its_own() -> None:
    config = stages("model.path=/only/on/the/nodes", "model.device=cuda", "detector.path=/there/too")
    check_inputs(config, here=False)
    with pytest.raises(InputError, match="cuda"):
        check_inputs(config)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["generation.blocks=[mid_block.attention.0]"], "no block .*; did you mean mid_block.attentions.0"),
        (["generation.blocks=[transformer_blocks.1]"], r"no block 'transformer_blocks.1'; its attention blocks: down"),
        (["generation.blocks=[mid_block.resnets.0]"], "has no SAE for 6 of 6 sites"),
        (
            ["saes=nowhere"],
            r"nowhere has no SAE for 24 of 24 sites \(looked for nowhere/.*gazetteer sae train --out FOLDER makes",
        ),
        (["model.path=/nowhere"], "/nowhere is not a diffusers pipeline folder"),
        (["detector.path=/nowhere"], "/nowhere"),
        (["segmenter.path=/nowhere"], "/nowhere"),
        (["segmenter.library=segment_anything", "segmenter.path=/nowhere.pth"], r"/nowhere.pth does not exist"),
        (["model.device=nonsense"], "model.device is 'nonsense', which is no device"),
        (["detector.device=cuda:99"], "detector.device 'cuda:99' cannot be used here"),
        (["vocabulary.path=/nowhere.txt"], "/nowhere.txt"),
        (["vocabulary.ask=both", "vocabulary.nouns=nowhere:nouns"], "nowhere"),
        (["vocabulary.concepts=[dog,dóg]"], "To the detector 'dóg' and 'dog' are the same words"),
        (["vocabulary.concepts=[dog,猫]"], "'猫' has no word that the detector's tokenizer knows"),
    ],
)
def test_what_is_wrong_is_one_sentence(overrides: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_inputs(stages(*overrides))


def test_saes_one_folder_further_down_are_pointed_out(tmp_path: Path) -> None:
    """As `gazetteer sae train --out mine` leaves them: in mine/saes."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "saes").symlink_to(MODELS / "saes")
    with pytest.raises(InputError, match=rf"they are in {tmp_path}/mine/saes: set saes to that folder\)"):
        check_inputs(stages(f"saes={tmp_path}/mine"))
    check_inputs(stages(f"saes={tmp_path}/mine/saes"))


def test_blocks_and_widths_are_known_without_weights(tmp_path: Path) -> None:
    """Of two blocks the autoencoders are exchanged; they are of other widths."""
    wide, narrow = f"{MID}-cond-t0.50", "up_blocks.1.attentions.0-cond-t0.50"
    shutil.copytree(MODELS / "saes" / narrow, tmp_path / wide)
    one = [f"generation.blocks=[{MID}]", "generation.branches=[cond]", "generation.t=[0.5]", f"saes={tmp_path}"]
    with pytest.raises(InputError, match=f"was trained at {narrow}"):
        check_inputs(stages(*one))
    config = json.loads((tmp_path / wide / "config.json").read_text())
    (tmp_path / wide / "config.json").write_text(json.dumps(config | {"site": None}))
    width = json.loads((MODELS / "saes" / wide / "config.json").read_text())["d"]
    assert width != config["d"]
    with pytest.raises(InputError, match=f"expects {config['d']} channels, but {MID} has {width}"):
        check_inputs(stages(*one))


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize(
    ("fault", "says"),
    [("cut", "is not a readable safetensors file; it is damaged"), ("nan", "encoder holds values that are not finite")],
)
def test_damaged_weights_are_known_before_a_model_is_loaded(tmp_path: Path, fault: str, says: str, here: bool) -> None:
    site = f"{MID}-cond-t0.50"
    damaged_sae(tmp_path, site, fault)
    one = [f"generation.blocks=[{MID}]", "generation.branches=[cond]", "generation.t=[0.5]", f"saes={tmp_path}"]
    with pytest.raises(InputError, match=f"{tmp_path}/{site}/model.safetensors.*{says}"):
        check_inputs(stages(*one), here)


def test_the_doctor_says_it_too_and_what_is_not_there_yet(tmp_path: Path) -> None:
    named = [f"generation.blocks=[{MID}]", "generation.t=[0.5]"]
    damaged_sae(tmp_path / "saes", f"{MID}-cond-t0.50", "nan")
    refused = in_process("doctor", "--set", *named, f"saes={tmp_path}/saes")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "encoder holds values that are not finite numbers" in refused.stderr and MID in refused.stdout
    for saes, read in (
        (MODELS / "saes", 2), (tmp_path / "none", 0), ('{"*": "nobody/has-this"}', 0),
        (f'{{"*-cond": "{MODELS}/saes", "*-uncond": "nobody/has-this"}}', 1),
    ):  # fmt: skip
        done = in_process("doctor", "--json", "--set", *named, f"saes={saes}")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["saes"] == {"sites": 2, "read": read}
        assert f"autoencoders: those of {read} of 2 sites are on this machine" in done.stderr


def test_the_doctor_compares_autoencoders_with_their_sites_as_plan_does(tmp_path: Path) -> None:
    model = saved_dit("sd3", tmp_path / "sd3")
    width = blocks_of(ModelConfig(path=str(model)))[0].channels
    one = [
        f"model.path={model}", "generation.blocks=[transformer_blocks.0]", "generation.branches=[cond]",
        "generation.t=[1.0]",
    ]  # fmt: skip
    for name, d, about in (
        ("fits", width, {"signal": "update"}), ("wide", width + 8, {"signal": "update"}),
        ("text", width, {"signal": "output", "stream": "text", "block": "transformer_blocks.0"}),
    ):  # fmt: skip
        SparseAutoencoder(SAEConfig(d, 32, 4)).initialise(0).save_pretrained(tmp_path / name, about)
    for name, says in (
        ("fits", ""), ("wide", f"expects {width + 8} channels, but transformer_blocks.0 has {width}"),
        ("text", "reads the text stream, not the image"),
    ):  # fmt: skip
        settings = [*one, f'saes={{"*": {tmp_path / name}}}']
        doctor, plan = (in_process(verb, "--set", *settings) for verb in ("doctor", "plan"))
        assert doctor.returncode == plan.returncode == (2 if says else 0), doctor.stderr + plan.stderr
        assert says in doctor.stderr and doctor.stderr == plan.stderr
    done = in_process("doctor", "--set", f"model.path={model}", f"generation.blocks=[{MID}]", "saes=none")
    assert done.returncode == 0 and f"not in this model, though generation.blocks names them: {MID}" in done.stdout
    alone = in_process("doctor", "--set", f"model.path={model}")
    assert alone.returncode == 0 and "autoencoders" not in alone.stdout, "the embedded ones are of another"
    twice = in_process("doctor", "--set", *one, "generation.steps=3", "generation.t=[0.6, 0.5]", "saes=none")
    assert twice.returncode == 2 and "both fall on step 2 of 3" in twice.stderr


@pytest.mark.alone  # it names the executor ray; were the check late, Ray would start
def test_a_lack_of_cuda_is_known_at_once_and_the_next_try_may_differ(tmp_path: Path) -> None:
    script = (
        "import sys, torch\n"
        "torch.cuda.device_count = lambda: 0\n"
        "from gazetteer.jobs.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "assert 'ray' not in sys.modules\n"
        "sys.exit(code)\n"
    )
    run = str(tmp_path / "run")
    words = ["label", "--out", run, "--set", *SMALL, "executor=ray", "model.device=cuda"]
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "model.device 'cuda' cannot be used here" in done.stderr
    again = in_process("label", "--out", run, "--set", *SMALL, "executor=serial", "segmenter.path=/nowhere")
    assert again.returncode == 2
    assert "/nowhere" in again.stderr, "not that the run was started with other settings"


def test_devices_that_are_there_pass() -> None:
    check_devices({"model.device": "cpu", "sae.device": "cpu:0"})
