"""`gazetteer sae train` on a tiny pipeline: from disk and from a stream, to the same folders, measured and reported."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gazetteer.data.core.digests import digest_bytes
from gazetteer.data.core.errors import InputError, LockedError
from gazetteer.data.core.files.own_files import LIST, claim_folder
from gazetteer.data.core.hub.cache import Snapshot
from gazetteer.data.storage.local import LocalFiles
from gazetteer.data.storage.runlock import run_lock
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.executors.sources import Source
from gazetteer.jobs.sae import capture, recover
from gazetteer.jobs.sae.train import train_site_saes
from gazetteer.sae.model.checkpoint import load_site_saes
from gazetteer.sae.report.report import site_configs
from tests.support.models.dits import saved_dit
from tests.support.runs.sae_runs import overrides, tiny_config
from tests.support.system.noflock import without_flock
from tests.support.system.running import ROOT


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return overrides(tiny_config(tmp_path_factory.mktemp("model")))


def no_model(*_: object) -> None:
    raise AssertionError("a finished run loaded a model")


@pytest.mark.parametrize("mode", [[], ["--stream"]])
def test_one_command_trains_measures_and_reports_every_site(
    tmp_path: Path, settings: list[str], mode: list[str], capsys, monkeypatch: pytest.MonkeyPatch
):
    command = ["sae", "train", "--out", str(tmp_path), "--json", *mode, "--set", *settings]
    assert main(command) == 0
    said = capsys.readouterr()
    result = json.loads(said.out.splitlines()[-1])
    assert "40 pictures of 3 prompts: held-out ones are of other noise" in said.err
    assert len(result["sites"]) == 8
    assert (tmp_path / "activations").exists() != bool(mode)
    assert not list((tmp_path / "saes").glob("_stream*"))
    table = pd.read_parquet(tmp_path / "saes" / "metrics.parquet")
    # 38 or so pictures of 16 cells: 9 batches of 64; two pictures at least are held out.
    assert set(table.steps) <= {8, 9}
    assert (table.vectors >= 16).all()
    assert (table.noise_pictures >= 1).all()
    assert table[["noise_error", "noise_error_sae", "noise_error_zero", "noise_error_mean"]].gt(0).all(axis=None)
    assert len(pd.read_parquet(tmp_path / "saes" / "history.parquet")) >= 8 * 4
    assert "loss recovered" in (tmp_path / "saes" / "index.html").read_text()

    monkeypatch.setattr(capture, "load_pipeline", no_model)
    monkeypatch.setattr(recover, "load_pipeline", no_model)
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result

    assert main(["sae", "report", "--saes", str(tmp_path / "saes"), "--out", str(tmp_path / "page"), "--json"]) == 0
    out, prose = capsys.readouterr()
    row = result["sites"][0]
    assert f"{row['scaled_mse']:.4f} / {100 * row['explained_variance']:.1f}" in prose
    assert re.search(r"^branch +block +t = 1\.00 +t = 0\.00$", prose, re.MULTILINE)
    assert len(json.loads(out)["sites"]) == 8
    assert (tmp_path / "page" / "index.html").exists()


def test_a_stream_that_was_stopped_goes_on(tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch):
    wanted = [*settings, "sae.stream=true", "sae.recover=0"]
    config = load_config(None, wanted)
    train_site_saes(config, tmp_path / "whole")
    worker = capture.CaptureWorker
    seen: list[int] = []

    def run(self, items):
        seen.append(len(items))
        if sum(seen) > 20:
            raise KeyboardInterrupt
        return original(self, items)

    original = worker.run
    monkeypatch.setattr(worker, "run", run)
    with pytest.raises(KeyboardInterrupt):
        train_site_saes(config, tmp_path / "stopped")
    monkeypatch.setattr(worker, "run", original)
    train_site_saes(load_config(None, [*wanted, "shard_size=5"]), tmp_path / "stopped")
    for site in site_configs(tmp_path / "whole" / "saes"):
        files = [tmp_path / name / "saes" / site.slug / "model.safetensors" for name in ("whole", "stopped")]
        assert files[0].read_bytes() == files[1].read_bytes()


KILLS = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from gazetteer.diffusion.load import load_pipeline
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.sae.train import train_site_saes

root, config = Path(sys.argv[1]), load_config(None, sys.argv[2:])
load_pipeline(config.model)  # what it imports, each process below has from here

def started(out):
    child = os.fork()
    if child == 0:
        train_site_saes(config, out)
        os._exit(0)
    return child

def records():
    return len(list((root / "killed" / "activations" / "_shards").glob("[!.]*.json")))

assert os.waitpid(started(root / "whole"), 0)[1] == 0
kills = 0
while True:
    child, wanted = started(root / "killed"), records() + random.randint(1, 3)
    while records() < min(wanted, 8):
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        assert ended is None or ended.si_status == 0
        time.sleep(0.001)
    if wanted > 8:
        break
    time.sleep(random.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
assert os.waitpid(child, 0)[1] == 0
print(kills)
"""


def test_kill_9_at_random_moments_of_the_capture_then_resume_gives_the_same_bytes(tmp_path: Path, settings: list[str]):
    # Eight shards of two sites, and a kill some moments after every first, second or third shard.
    wanted = [*settings, "shard_size=5", "sae.recover=0", "generation.t=[1.0]", "generation.branches=[cond]"]
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), *wanted], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) >= 2
    whole, killed = (contents(tmp_path / name) for name in ("whole", "killed"))
    assert sum("activations" in name for name in whole) == 1 + 8 + 8 * 2  # the index, the records, a file a site each
    assert sum(name.endswith("model.safetensors") for name in whole) == 2
    assert whole == killed


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder, by its name there."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "_meta"]
    return {str(path.relative_to(folder)): digest_bytes(path.read_bytes()) for path in files}


def test_a_damaged_shard_stops_the_training_by_name_until_it_is_captured_again(
    tmp_path: Path, settings: list[str], capsys
):
    command = ["sae", "train", "--out", str(tmp_path), "--set", *settings, "sae.recover=0", "generation.t=[1.0]"]
    assert main(command) == 0
    shutil.rmtree(tmp_path / "saes")
    (tmp_path / LIST).unlink()  # as before commands claimed their folders
    shard = sorted((tmp_path / "activations").glob("mid*/*.safetensors"))[2]
    content = shard.read_bytes()
    shard.write_bytes(content[:-7] + b"damaged")
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr().err
    assert f"Activation shard {shard} is damaged" in said
    assert "The other 3 of 4 are finished and stay." in said
    assert len(list((tmp_path / "saes").glob("*/config.json"))) == 3
    assert "Traceback" not in said
    (tmp_path / "activations" / "_shards" / f"{shard.stem}.json").unlink()
    assert main(command) == 0
    assert shard.read_bytes() == content


def test_two_t_of_one_step_are_refused_before_a_picture_is_captured(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
):
    two = ["generation.steps=3", "generation.t=[0.6, 0.5]"]
    assert main(["sae", "train", "--out", str(tmp_path / "out"), "--set", *settings, *two]) == 2
    assert "holds 0.6 and 0.5, which both fall on step 2 of 3 (t = 0.50)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_activations_of_other_settings_that_lie_there_are_not_trained_on(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
):
    """Stopped after the capture, and begun again with another guidance, and then with fewer pictures."""
    few = [*settings, "sae.recover=0", "generation.t=[1.0]"]

    def train(out: str, *more: str) -> dict[str, str]:
        assert main(["sae", "train", "--out", str(tmp_path / out), "--set", *few, *more]) == 0
        return {name: digest for name, digest in contents(tmp_path / out / "saes").items() if "safetensors" in name}

    train("used")
    shutil.rmtree(tmp_path / "used" / "saes")
    assert train("used", "generation.guidance=1.5") == train("fresh", "generation.guidance=1.5")
    shutil.rmtree(tmp_path / "used" / "saes")
    assert train("used", "sae.images=20") == train("fewer", "sae.images=20")


def test_other_settings_than_those_of_what_is_trained_are_refused_before_a_picture_is_captured(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """As a stream refuses them; with the activations deleted, as one may when the training is done."""
    few = [*settings, "sae.recover=0", "generation.t=[1.0]", "sae.stream=false"]
    train = ["sae", "train", "--out", str(tmp_path), "--set", *few]
    assert main(train) == 0
    before = contents(tmp_path / "saes")
    shutil.rmtree(tmp_path / "activations")
    monkeypatch.setattr(capture, "load_pipeline", no_model)
    for other, said in (
        ("sae.train.k=2", "config.k ("),
        ("sae.images=41", "pictures ("),
        ("generation.guidance=1.5", "pictures ("),
        ("seed=1", "pictures ("),
    ):
        capsys.readouterr()
        assert main([*train, other]) == 2
        error = capsys.readouterr().err
        assert "belongs to another training run; differing: " in error and said in error
    assert contents(tmp_path / "saes") == before
    site = next(place for place in (tmp_path / "saes").iterdir() if (place / "config.json").is_file())
    state = json.dumps({"identity": json.loads((site / "config.json").read_text())["training"]})
    (site / "config.json").unlink()
    save_file({"x": torch.zeros(1)}, site / "training.safetensors", {"state": state})
    assert main([*train, "sae.train.k=2"]) == 2
    assert "config.k (" in capsys.readouterr().err


def test_two_at_once_are_kept_apart(tmp_path: Path, settings: list[str]):
    claim_folder(tmp_path)
    with run_lock(LocalFiles(tmp_path)), pytest.raises(LockedError, match=f"Another process .* holds {tmp_path}"):
        train_site_saes(load_config(None, settings), tmp_path)


def test_on_a_file_system_without_locks_a_lease_keeps_them_apart(tmp_path: Path, settings: list[str]):
    script = (
        "import sys, pathlib\n"
        "from gazetteer.data.core.files.own_files import claim_folder\n"
        "from gazetteer.data.storage.runlock import run_lock\n"
        "from gazetteer.data.storage.local import LocalFiles\n"
        "claim_folder(sys.argv[1])\n"
        "with run_lock(LocalFiles(pathlib.Path(sys.argv[1]))):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    environment = {**os.environ, **without_flock(tmp_path, errno.ENOLCK)}
    command = [sys.executable, "-c", script, str(tmp_path / "work")]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        words = ["sae", "train", "--out", str(tmp_path / "work"), "--set", *settings]
        done = subprocess.run(
            [sys.executable, "-m", "gazetteer", *words], cwd=ROOT, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 75, done.stderr
        assert "holds" in done.stderr
        holder.communicate()


def test_tensorboard_is_an_extra(tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch):
    config = load_config(None, [*settings, "sae.tensorboard=true", "sae.recover=0", "generation.t=[1.0]"])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'gazetteer\[tensorboard\]'"):
        train_site_saes(config, tmp_path)
    monkeypatch.undo()
    train_site_saes(config, tmp_path)
    for site, stated in site_configs(tmp_path / "saes").items():
        curves = EventAccumulator(str(tmp_path / "tensorboard" / site.slug)).Reload()
        for name in ("loss", "mse", "auxk", "dead", "lr"):
            history = stated["training"]["outcome"]["history"]
            points = [(point.step, point.value) for point in curves.Scalars(name)]
            assert points == [(entry["step"], pytest.approx(entry[name], rel=1e-6)) for entry in history]


@pytest.mark.parametrize("mode", [[], ["--stream"]])
def test_it_trains_on_outputs_and_its_autoencoders_say_so(tmp_path: Path, settings: list[str], mode: list[str], capsys):
    wanted = ["generation.signals=[output]", "generation.t=[1.0]", "generation.branches=[cond]"]
    assert main(["sae", "train", "--out", str(tmp_path), *mode, "--set", *settings, *wanted]) == 0
    assert "not measured" not in capsys.readouterr().err
    sites = load_config(None, [*settings, *wanted]).generation.sites
    assert {site.signal for site in sites} == {"output"}
    for site, sae in load_site_saes(tmp_path / "saes", sites).items():
        assert sae.signal == "output"
        stated = json.loads((tmp_path / "saes" / site.slug / "config.json").read_text())
        assert (stated["signal"], stated["site"]["signal"]) == ("output", "output")
        assert stated["metrics"]["explained_variance"] <= 1 and stated["metrics"]["noise_error_sae"] > 0
        with pytest.raises(InputError, match="was trained at"):
            load_site_saes({"*": str(tmp_path / "saes" / site.slug)}, [dataclasses.replace(site, signal="update")])


def test_it_trains_on_every_stream_and_signal_of_a_transformer(tmp_path: Path, capsys):
    config = tiny_config(tmp_path / "unused")
    config["model"] = {"path": str(saved_dit("sd3", tmp_path / "sd3"))}
    config["generation"] = {
        "steps": 2, "guidance": 3.0, "t": [1.0], "branches": ["cond"], "blocks": ["transformer_blocks.0"],
        "streams": ["image", "text"], "signals": ["update", "output"],
    }  # fmt: skip
    config["sae"] |= {"images": 12, "train": {"k": 3, "n": 48, "batch_size": 32}}
    usual = {**config, "generation": {key: of for key, of in config["generation"].items() if key != "branches"}}
    for verb in ("train", "threshold"):  # both branches, where none is named
        assert main(["sae", verb, "--out", str(tmp_path / "work"), "--set", *overrides(usual)]) == 2
        assert "The text stream of the uncond branch holds no words of the prompt" in capsys.readouterr().err
    assert main(["sae", "train", "--stream", "--out", str(tmp_path / "work"), "--set", *overrides(config)]) == 2
    said = capsys.readouterr().err
    assert "leave out --stream (sae.stream=false), or the text stream" in said and "stream: 0" not in said
    assert not (tmp_path / "work").exists(), "said from the configuration alone"
    assert main(["sae", "train", "--out", str(tmp_path / "work"), "--set", *overrides(config)]) == 0
    said = capsys.readouterr().err
    assert "not measured for 2 sites of inputs or text; it is of updates and outputs of the image stream" in said
    sites = load_config(None, overrides(config)).generation.sites
    for record in (tmp_path / "work" / "activations" / "_shards").glob("*.json"):
        for slug, file in json.loads(record.read_text())["sites"].items():
            places = file["rows"] / len(json.loads(record.read_text())["image_ids"])
            assert (places < 10) == ("-text" in slug), "the words of the prompts and their ends, and no padding"
    saes = load_site_saes(tmp_path / "work" / "saes", sites)
    assert {(site.stream, site.signal): sae.signal for site, sae in saes.items()} == {
        (stream, signal): signal for stream in ("image", "text") for signal in ("update", "output")
    }


def test_an_autoencoder_states_its_model_by_digest_or_by_the_name_in_a_hub(settings: list[str]):
    config = load_config(None, [*settings, "model.path=org/model"])
    copy = Source("model.path", "org/model", copy=Snapshot("1", Path(), {}))
    assert capture.model_digest(config, [copy]) == "org/model"
    assert capture.model_digest(config, [Source("model.path", "there", "sha256:1")]) == "sha256:1"
