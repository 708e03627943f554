"""Edits of a model that was read into a smaller type than its files have: they fit both, and undo is exact in both."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from gazetteer.attribution.edits.checkpoint_edit import as_stored, edit_model
from gazetteer.attribution.edits.delta import Change, Delta, ablation, applied
from gazetteer.attribution.edits.delta_file import load_delta, save_delta
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.protocols import nudity
from gazetteer.attribution.protocols.run import ProtocolConfig, run_protocol
from gazetteer.attribution.scores.score import ScoreConfig
from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.jobs.config.schema import RunConfig, load_config
from gazetteer.jobs.experiments.attribute_edit import EditConfig, make_edit
from gazetteer.jobs.experiments.attribute_score import apply_edit, score
from gazetteer.jobs.experiments.attribute_sheet import write_sheet
from tests.attribution.test_weight_edits import digests
from tests.support.models.dits import saved_dit
from tests.support.models.tiny_pipeline import tiny_pipeline

NAME = "mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In float32, as Stable Diffusion's folders ship, in shards, with weights that float16 does not hold."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_pipeline().save_pretrained(folder, max_shard_size="40KB")
    return folder


def run_on(model: Path, dtype: str) -> RunConfig:
    run = load_config(None, [f"model.path={model}", f"model.dtype={dtype}"])
    return dataclasses.replace(run, generation=dataclasses.replace(run.generation, steps=2))


def fits_and_is_undone(edit: str, model: Path, out: Path, dtype: str) -> None:
    """The files and the model as it was read are both edited and both come back, bit for bit."""
    apply_edit(str(model), [edit], str(out / "edited"))
    apply_edit(str(out / "edited"), [edit], str(out / "back"), undo=True)
    assert digests(out / "edited") != digests(model) == digests(out / "back")
    read = load_pipeline(ModelConfig(str(model), dtype=dtype)).unet
    before = {name: weight.clone() for name, weight in read.named_parameters()}
    after = dict(load_pipeline(ModelConfig(str(out / "edited"), dtype=dtype)).unet.named_parameters())
    with applied(read, load_delta(edit)):
        assert all(torch.equal(weight, after[name]) for name, weight in read.named_parameters())
        assert any(not torch.equal(weight, before[name]) for name, weight in read.named_parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in read.named_parameters())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_edit_made_in_less_than_the_files_hold_fits_them(model: Path, dtype: str, tmp_path: Path) -> None:
    done = score(run_on(model, dtype), ScoreConfig(concept="dog", fraction=0.02, steps=2), str(tmp_path / "score"))
    assert "the edit holds the values of the files, which are float32" in done["said"]
    fits_and_is_undone(done["edit"], model, tmp_path, dtype)
    stored = {n: w for file in (model / "unet").glob("*.safetensors") for n, w in load_file(file).items()}
    for name, change in load_delta(done["edit"]).changes.items():
        assert torch.equal(change.old, stored[name].reshape(-1)[change.index])
    shown = write_sheet(run_on(model, dtype), [done["edit"]], 1, str(tmp_path / "sheet"), others=0)
    assert shown["pictures"] == 1  # also where a CPU computes float16 weights in float32


@pytest.mark.parametrize(("stored", "read_in"), [("float16", "bfloat16"), ("bfloat16", "float16")])
def test_files_of_a_type_that_neither_holds_nor_is_held_by_the_one_read_in(
    stored: str, read_in: str, tmp_path: Path
) -> None:
    """Of float16 and bfloat16 the one has more digits, the other a larger range."""
    tiny_pipeline().to(dtype=getattr(torch, stored)).save_pretrained(tmp_path / "model")
    config = ScoreConfig(concept="dog", fraction=0.02, steps=2)
    done = score(run_on(tmp_path / "model", read_in), config, str(tmp_path / "score"))
    assert f"the edit holds the values of the files, which are {stored}" in done["said"]
    fits_and_is_undone(done["edit"], tmp_path / "model", tmp_path, read_in)
    beyond = Change(torch.arange(1), torch.ones(1).bfloat16(), torch.full((1,), 1e6).bfloat16())
    save_file({"w": torch.ones(1).half()}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"new values of w are beyond what torch\.float16 holds"):
        as_stored(Delta({"w": beyond}), tmp_path)


def test_so_does_an_edit_of_trained_weights(model: Path, tmp_path: Path) -> None:
    methods = MethodConfig(steps=2, context=1, context_steps=1, tune_steps=1)
    config = EditConfig("dog", fraction=0.1, sheet=0, pool=40)
    done = make_edit(run_on(model, "float16"), methods, config, str(tmp_path / "edit"))
    assert "which are float32" in done["said"]
    fits_and_is_undone(done["edit"], model, tmp_path, "float16")


def paint(model: Path, edit: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A published protocol under an edit, on one prompt and without its detector."""
    monkeypatch.setattr(nudity, "NudityDetector", lambda: SimpleNamespace(detect=lambda _: []))
    (folder / "prompts.csv").write_text("prompt\na dog\n")
    config = ProtocolConfig("i2p", prompts=str(folder / "prompts.csv"), steps=2, edit=(edit,))
    run_protocol(ModelConfig(str(model), dtype="float32"), config, str(folder / "protocol"))


def test_an_edit_that_holds_rounded_values_alone_says_so(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = load_pipeline(ModelConfig(str(model), dtype="float16")).unet
    edit = ablation(dict(rounded.named_parameters()), {NAME: torch.arange(3)}, {})
    with pytest.raises(InputError, match=r"these weights rounded to torch\.float16 .* make it anew from this model"):
        edit_model(model, tmp_path / "edited", edit)
    with (
        pytest.raises(InputError, match="could not be taken out again"),
        applied(load_pipeline(ModelConfig(str(model))).unet, edit),
    ):
        pass
    save_delta(Delta(edit.changes, {"config": {"concept": "dog", "goal": "erase"}}), tmp_path / "edit.safetensors")
    with pytest.raises(InputError, match="could not be taken out again"):
        write_sheet(run_on(model, "float32"), [str(tmp_path / "edit.safetensors")], 1, str(tmp_path / "sheet"))
    with pytest.raises(InputError, match="could not be taken out again"):
        paint(model, str(tmp_path / "edit.safetensors"), tmp_path, monkeypatch)
    other = Delta({NAME: Change(torch.arange(1), torch.ones(1).half(), torch.zeros(1).half())})
    with pytest.raises(InputError, match="it is for another model, or another edit is in place"):
        edit_model(model, tmp_path / "edited", other)
    assert as_stored(other, model / "unet").changes[NAME].old.dtype == torch.float16  # nothing of these files


def test_the_files_of_the_variant_are_those_that_were_read(tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    pipe.unet.save_pretrained(tmp_path)
    exact = pipe.unet.state_dict()[NAME].reshape(-1)[:1].clone()
    pipe.to(torch.float16).unet.save_pretrained(tmp_path, variant="fp16")
    edit = Delta({NAME: Change(torch.arange(1), exact.half(), torch.zeros(1).half())})
    assert as_stored(edit, tmp_path).changes[NAME].old == exact
    assert as_stored(edit, tmp_path, "fp16").changes[NAME].old.dtype == torch.float16
    assert as_stored(edit, tmp_path / "none") == edit


def test_a_transformer_read_into_less_is_edited_too(tmp_path: Path) -> None:
    model = saved_dit("sd3", tmp_path / "model")
    run = load_config(None, [f"model.path={model}", "model.dtype=bfloat16"])
    done = score(run, ScoreConfig(concept="boat", fraction=0.02, steps=2), str(tmp_path / "score"))
    apply_edit(str(model), [done["edit"]], str(tmp_path / "edited"))
    apply_edit(str(tmp_path / "edited"), [done["edit"]], str(tmp_path / "back"), undo=True)
    assert digests(Path(model)) == digests(tmp_path / "back")
