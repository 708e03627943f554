"""A copy with edited weights holds no unedited ones unsaid, and what was rounded is said; sheets refuse early."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gazetteer.attribution.edits.checkpoint_edit import edit_model, left_out
from gazetteer.attribution.edits.delta import Change, Delta, ablation, compose
from gazetteer.attribution.edits.delta_file import save_delta
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import require_own_folder
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments import attribute_sheet
from gazetteer.jobs.experiments.attribute_score import apply_edit
from gazetteer.jobs.experiments.attribute_sheet import write_sheet
from tests.attribution.test_edit_files import NAME, edit_of
from tests.attribution.test_weight_edits import digests
from tests.support.models.tiny_pipeline import tiny_pipeline

PLACES = torch.tensor([0, 17, 500])


def test_weights_in_other_formats_are_left_out_of_the_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe, model = tiny_pipeline(), tmp_path / "model"
    pipe.save_pretrained(model)
    save_delta(edit_of(model), tmp_path / "e.safetensors")
    pipe.unet.save_pretrained(model / "unet", safe_serialization=False)
    others = ["sd.ckpt", "unet/diffusion_pytorch_model.bin", "unet/old/model.safetensors"]
    (model / "unet/old").mkdir()
    for name in (others[0], others[2]):
        (model / name).write_bytes(b"weights")
    kept = [path for path in model.rglob("*") if path.is_file() and str(path.relative_to(model)) not in others]
    assert left_out(model, "unet") == others
    command = ["attribute", "apply", "--model", str(model), "--edit", str(tmp_path / "e.safetensors")]
    assert main([*command, "--out", str(tmp_path / "edited")]) == 0
    assert f"left out of the copy, as they hold the weights unedited: {', '.join(others)}" in capsys.readouterr().out
    copied = [path for path in (tmp_path / "edited").rglob("*") if path.is_file()]
    assert {p.relative_to(tmp_path / "edited") for p in copied} == {p.relative_to(model) for p in kept}


def test_a_model_without_one_of_its_files_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    tiny_pipeline().save_pretrained(model, max_shard_size="40KB")
    delta = edit_of(model)
    index = next((model / "unet").glob("*.index.json"))
    files = json.loads(index.read_text())["weight_map"]
    other = next(file for file in files.values() if file != files[NAME])
    (model / "unet" / other).unlink()
    with pytest.raises(InputError, match=f"names {other}, which is not there: the model is not whole"):
        edit_model(model, tmp_path / "edited", delta)
    for damaged in ("[]", "{", '{"weight_map": {"a": 3}}'):
        index.write_text(damaged)
        with pytest.raises(InputError, match="is not a readable index of weights"):
            edit_model(model, tmp_path / "edited", delta)
    assert not (tmp_path / "edited").exists()


def test_old_values_that_a_copy_holds_rounded_are_counted(tmp_path: Path) -> None:
    """An edit of the float16 model on a copy of it in bfloat16, which has fewer digits."""
    pipe = tiny_pipeline().to(dtype=torch.float16)
    weights = dict(pipe.unet.named_parameters())
    save_delta(ablation(weights, {NAME: PLACES}, {}), tmp_path / "e.safetensors")
    exact = weights[NAME].detach().reshape(-1)[PLACES]
    rounded = int((exact.bfloat16().half() != exact).sum())
    assert rounded
    pipe.to(dtype=torch.bfloat16).save_pretrained(tmp_path / "model")
    edit = [str(tmp_path / "e.safetensors")]
    done = apply_edit(str(tmp_path / "model"), edit, str(tmp_path / "edited"))
    assert done["old_rounded"] == rounded
    assert f"; {rounded} old values too, for the model holds those of the edit rounded" in done["rounding"]
    undone = apply_edit(str(tmp_path / "edited"), edit, str(tmp_path / "back"), undo=True)
    assert digests(tmp_path / "back") == digests(tmp_path / "model") != digests(tmp_path / "edited")
    assert not {"cast", "rounded", "lost", "old_rounded"} & undone.keys()


def test_edits_of_one_model_in_different_types_compose_where_they_agree() -> None:
    half = Change(torch.arange(2), torch.tensor([0.1, 0.2]).half(), torch.tensor([0.0, 0.5]).half())
    wide = Change(torch.arange(1, 3), torch.tensor([0.2]).half().float().repeat(2), torch.tensor([0.5, 0.3]))
    for order in ((half, wide), (wide, half)):
        both = compose([Delta({"w": change}) for change in order]).changes["w"]
        assert both.index.tolist() == [0, 1, 2] and both.old.dtype == torch.float32
        assert torch.equal(both.old[:2], half.old.float()) and torch.equal(both.new[1:], wide.new)
    other = Change(wide.index, wide.old, torch.tensor([0.5001, 0.3]))
    with pytest.raises(InputError, match="want different values of the same weights"):
        compose([Delta({"w": half}), Delta({"w": other})])
    mixed = Change(half.index, half.old.bfloat16(), half.new.bfloat16())
    with pytest.raises(InputError, match="start from different values"):
        compose([Delta({"w": half}), Delta({"w": mixed})])


@pytest.mark.parametrize(
    ("key", "value"), [("concept", ["dog"]), ("concept", 3), ("method", ["x"]), ("goal", {"a": 1})]
)
def test_a_sheet_of_an_edit_that_says_nonsense_is_refused(key: str, value: object, tmp_path: Path) -> None:
    changes = {NAME: Change(torch.arange(1), torch.ones(1), torch.zeros(1))}
    save_delta(Delta(changes, {"config": {"concept": "dog", key: value}}), tmp_path / "e.safetensors")
    with pytest.raises(InputError, match=rf"e\.safetensors says its {key} is .*; accepted: text"):
        write_sheet(load_config(None), [str(tmp_path / "e.safetensors")], 1, str(tmp_path / "sheet"))


def test_a_sheet_refuses_an_edit_of_another_model_before_it_paints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    changes = {NAME: Change(torch.arange(1), torch.full((1,), 7.0), torch.zeros(1))}
    save_delta(Delta(changes, {"config": {"concept": "dog"}}), tmp_path / "e.safetensors")
    painted: list[object] = []
    monkeypatch.setattr(attribute_sheet, "painter", lambda *_: lambda *given: painted.append(given) or [])
    run = load_config(None, [f"model.path={tmp_path / 'model'}"])
    with pytest.raises(InputError, match="not what the edit expects"):
        write_sheet(run, [str(tmp_path / "e.safetensors")], 1, str(tmp_path / "sheet"))
    assert not painted


def test_a_folder_without_a_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``--out "$FOLDER"`` gives it where the variable is not set; an empty folder to work in would do for one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="name of the folder is empty"):
        require_own_folder("")
    for command in ("attribute evaluate --quick", "causal run", "compare a b", "label", "steer evaluate run"):
        assert main([*command.split(), "--out", ""]) == 2
        assert "is empty (a variable that is not set?)" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "said", ["[]", "3", "[" * 100_000, '{"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}']
)
def test_a_header_of_another_shape_is_refused(said: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    tiny_pipeline().save_pretrained(model)
    delta = edit_of(model)
    (file,) = (model / "unet").glob("*.safetensors")
    file.write_bytes(len(said).to_bytes(8, "little") + said.encode() + b"1234")
    with pytest.raises(InputError, match="is not a readable safetensors file"):
        edit_model(model, tmp_path / "edited", delta)
    assert not (tmp_path / "edited").exists()
