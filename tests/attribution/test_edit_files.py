"""Edits at rest and models on disk: what cannot be undone is refused, and a round trip leaves every byte as it was."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gazetteer.attribution.edits.cast import fitted
from gazetteer.attribution.edits.checkpoint_edit import edit_model
from gazetteer.attribution.edits.delta import Change, Delta
from gazetteer.attribution.edits.delta_file import load_delta, save_delta
from gazetteer.data.core.errors import InputError
from gazetteer.jobs.cli.main import main
from tests.attribution.test_weight_edits import digests
from tests.support.models.tiny_pipeline import tiny_pipeline

SHIPPED = Path(__file__).parents[2] / "data/scenes/models/text_to_image"
NAME = "mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight"


def change(index: Any = (1, 4), old: Any = (1.0, 2.0), new: Any = (0.0, 0.5)) -> dict[str, Tensor]:
    one, two = (value if isinstance(value, Tensor) else torch.tensor(value) for value in (old, new))
    places = index if isinstance(index, Tensor) else torch.tensor(index, dtype=torch.int64)
    return {"w.index": places, "w.old": one, "w.new": two}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (change((4, 4)), "place 4 twice, so that its old value could not be put back"),
        (change((4, 1)), r"not ascending \(4, then 1\)"),
        (change((-1, 4)), "the place -1"),
        (change(torch.tensor([1, 4], dtype=torch.int32)), "torch.int32"),
        (change(torch.tensor([[1, 4]])), r"\[1, 2\], not a row"),
        (change((1, 4, 5)), "3 places, but"),
        (change(new=(0.0,)), r"\[1\] new values"),
        (change(new=torch.tensor([0.0, 0.5], dtype=torch.float16)), "torch.float32 and torch.float16"),
        (change(old=torch.tensor([1, 2]), new=torch.tensor([0, 0])), "torch.int64 and torch.int64; accepted"),
        (change(new=(0.0, float("nan"))), "1 of its values are not finite"),
        (change(old=(float("inf"), 1.0)), "1 of its values are not finite"),
        ({k: v for k, v in change().items() if k != "w.old"}, "of w it holds index, new instead of index, old, new"),
        ({**change(), "w.extra": torch.zeros(1)}, "of w it holds extra, index, new, old"),
    ],
)
def test_an_edit_that_could_not_be_taken_back_is_refused_when_it_is_read(
    tensors: dict[str, Tensor], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "edit.safetensors"
    save_file(tensors, path, {"format": "gazetteer-delta-1", "provenance": "{}"})
    with pytest.raises(InputError, match=f"edit.safetensors is damaged.*{words}"):
        load_delta(path)
    assert (
        main(["attribute", "apply", "--model", str(tmp_path), "--edit", str(path), "--out", str(tmp_path / "o")]) == 2
    )


def test_a_number_that_is_not_the_one_written_is_refused(tmp_path: Path) -> None:
    """One flipped bit gives another valid number; edits from before there was a digest are read as they are."""
    path = tmp_path / "e.safetensors"
    save_delta(Delta({"w": Change(torch.tensor([1, 4]), torch.ones(2), torch.tensor([0.0, 0.5]))}), path)
    whole = bytearray(path.read_bytes())
    for place in range(1, 33):  # old and new values and places all lie at the end
        damaged = whole.copy()
        damaged[-place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"e\.safetensors is damaged"):
            load_delta(path)
    save_file(change(), path, {"format": "gazetteer-delta-1", "provenance": "{}"})
    assert load_delta(path).changes["w"].new.tolist() == [0.0, 0.5]


def test_an_edit_that_changes_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "e.safetensors", tmp_path / "out"
    none = Change(torch.empty(0, dtype=torch.int64), torch.empty(0), torch.empty(0))
    for changes in ({}, {"w": none}):
        save_delta(Delta(changes), path)
        assert main(["attribute", "apply", "--model", str(SHIPPED), "--edit", str(path), "--out", str(out)]) == 2
        assert "e.safetensors changes no weight" in capsys.readouterr().err and not out.exists()


def test_an_edit_has_the_usual_mode_of_a_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_delta(Delta({"w": Change(torch.arange(1), torch.ones(1), torch.zeros(1))}), tmp_path / "e.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "e.safetensors").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "provenance", ["[]", '{"config": 3}', '{"config": {}, "config": {}}', "{", "[" * 100_000], ids=str.__len__
)
def test_an_edit_must_say_where_it_comes_from(provenance: str, tmp_path: Path) -> None:
    save_file(change(), tmp_path / "e.safetensors", {"format": "gazetteer-delta-1", "provenance": provenance})
    with pytest.raises(InputError, match=r"damaged|cannot be read"):
        load_delta(tmp_path / "e.safetensors")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path, "a folder"), (Path("/dev/zero"), "a device")):
        with pytest.raises(InputError, match=f"is {kind}, and a regular file is needed"):
            load_delta(path)


def test_old_values_are_cast_exactly_and_new_ones_rounded() -> None:
    edit = Delta(
        {"w": Change(torch.arange(4), torch.tensor([1.0, 0.5, -0.0, 2.0]), torch.tensor([0.1, 0.25, 0.0, 2.0001]))}
    )
    made, rounding = fitted(edit, lambda name: torch.float16)
    assert made.changes["w"].old.tolist() == [1.0, 0.5, -0.0, 2.0] and made.changes["w"].old.dtype == torch.float16
    # The float16 numbers next to 0.1 and 2.0001 are 0.0999755859375 and 2.
    assert made.changes["w"].new.tolist() == [0.0999755859375, 0.25, 0.0, 2.0]
    assert str(rounding) == "2 of 4 new values rounded to float16, 1 of them back to the old value"
    same, nothing = fitted(edit, lambda name: torch.float32)
    assert same.changes["w"] is edit.changes["w"] and str(nothing) == "written as the edit has them"
    beyond = Delta({"w": Change(torch.arange(1), torch.ones(1), torch.tensor([1e6]))})
    with pytest.raises(InputError, match=r"beyond what torch\.float16 holds"):
        fitted(beyond, lambda name: torch.float16)
    below = Delta({"w": Change(torch.arange(1), torch.tensor([-1e6]), torch.zeros(1))})
    with pytest.raises(InputError, match=r"The edit's old values of w are beyond what torch\.float16 holds"):
        fitted(below, lambda name: torch.float16)


def edit_of(folder: Path) -> Delta:
    """An edit made in float32 of weights that are stored in less."""
    stored = {n: w for file in (folder / "unet").glob("*.safetensors") for n, w in load_file(file).items()}
    old = stored[NAME].float().reshape(-1)[[0, 17, 500]]
    return Delta({NAME: Change(torch.tensor([0, 17, 500]), old, torch.tensor([0.0, 0.1, -old[2]]))}, {"concept": "dog"})


@pytest.mark.parametrize(
    ("dtype", "shard"), [("float16", "5GB"), ("bfloat16", "5GB"), ("float16", "40KB"), ("float32", "40KB")]
)
def test_an_edit_made_in_float32_fits_what_the_files_hold(dtype: str, shard: str, tmp_path: Path) -> None:
    tiny_pipeline().to(dtype=getattr(torch, dtype)).save_pretrained(tmp_path / "model", max_shard_size=shard)
    delta = edit_of(tmp_path / "model")
    done, _ = edit_model(tmp_path / "model", tmp_path / "edited", delta)
    assert (done.cast, done.rounded) == ((0, 0) if dtype == "float32" else (3, 1))
    files = {n: w for f in (tmp_path / "edited/unet").glob("*.safetensors") for n, w in load_file(f).items()}
    wanted = delta.changes[NAME].new.to(getattr(torch, dtype))
    assert torch.equal(files[NAME].reshape(-1)[[0, 17, 500]], wanted)
    assert digests(tmp_path / "edited") != digests(tmp_path / "model")
    edit_model(tmp_path / "edited", tmp_path / "back", delta, undo=True)
    assert digests(tmp_path / "back") == digests(tmp_path / "model")


def test_the_documented_command_edits_the_shipped_model_and_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files are float16 and edits are made in float32."""
    edit, edited, back = tmp_path / "boat.safetensors", tmp_path / "edited", tmp_path / "back"
    save_delta(edit_of(SHIPPED), edit)
    command = ["attribute", "apply", "--edit", str(edit), "--json"]
    assert main([*command, "--model", str(SHIPPED), "--out", str(edited)]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["weights"], said["cast"], said["rounded"], said["dtypes"]) == (3, 3, 1, ["float16"])
    assert main([*command, "--model", str(edited), "--out", str(back), "--undo"]) == 0
    assert digests(back) == digests(SHIPPED) != digests(edited)


_EDIT_WRONG_THEN_RIGHT = """
import sys
from pathlib import Path
from gazetteer.attribution.edits.checkpoint_edit import edit_model
from gazetteer.attribution.edits.delta_file import load_delta
from gazetteer.data.core.errors import InputError
folder = Path(sys.argv[1])
there = sorted(folder.iterdir())
try:
    edit_model(folder / "model", folder / "edited", load_delta(folder / "wrong.safetensors"))
except InputError as error:
    assert "not what the edit expects" in str(error), error
assert sorted(folder.iterdir()) == there, sorted(folder.iterdir())
edit_model(folder / "model", folder / "edited", load_delta(folder / "right.safetensors"))
assert sorted(folder.iterdir()) == sorted([*there, folder / "edited"])
"""


def test_a_read_only_model_is_edited_and_nothing_is_left_behind_where_it_cannot_be(tmp_path: Path) -> None:
    """In a process that modes hold for, root's too."""
    tiny_pipeline().save_pretrained(tmp_path / "model")
    wrong = Delta({NAME: Change(torch.tensor([0]), torch.tensor([7.0]), torch.zeros(1))})
    save_delta(edit_of(tmp_path / "model"), tmp_path / "right.safetensors")
    save_delta(wrong, tmp_path / "wrong.safetensors")
    model = [tmp_path / "model", *(tmp_path / "model").rglob("*")]
    for path in model:
        path.chmod(path.stat().st_mode & ~0o222)
    rights = "-dac_override,-dac_read_search,-fowner"
    plain = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"] if os.geteuid() == 0 else []
    command = [*plain, sys.executable, "-c", _EDIT_WRONG_THEN_RIGHT, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    for path in model:
        path.chmod(path.stat().st_mode | 0o200)
    assert done.returncode == 0, done.stderr
    assert all(p.stat().st_mode & stat.S_IWUSR for p in [tmp_path / "edited", *(tmp_path / "edited").rglob("*")])


def test_a_model_folder_that_is_no_tree_of_files_is_refused(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    delta, odd = edit_of(tmp_path / "model"), tmp_path / "model" / "odd"
    for make, words in (
        (lambda: odd.symlink_to(tmp_path / "model"), "endless depth"),
        (lambda: odd.symlink_to(tmp_path / "nowhere"), "neither a file nor a folder"),
        (lambda: os.mkfifo(odd), "neither a file nor a folder"),
    ):
        make()
        with pytest.raises(InputError, match=words):
            edit_model(tmp_path / "model", tmp_path / "edited", delta)
        odd.unlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    (tmp_path / "blobs").mkdir()  # as the hub's cache lays files out
    weights = tmp_path / "model/unet/diffusion_pytorch_model.safetensors"
    blob = weights.rename(tmp_path / "blobs" / "weights")
    weights.symlink_to(blob)
    before = blob.read_bytes()
    edit_model(tmp_path / "model", tmp_path / "edited", delta)
    assert blob.read_bytes() == before
    assert not (tmp_path / "edited/unet/diffusion_pytorch_model.safetensors").is_symlink()


@pytest.mark.parametrize("shift", [-4, 4])
def test_a_header_whose_tensors_lie_elsewhere_is_refused(shift: int, tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    delta, file = edit_of(tmp_path / "model"), tmp_path / "model/unet/diffusion_pytorch_model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[NAME]["data_offsets"][1] += shift
    said = json.dumps(header).encode().ljust(length)
    assert len(said) >= length
    file.write_bytes(len(said).to_bytes(8, "little") + said + content[8 + length :])
    with pytest.raises(InputError, match=f"^{re.escape(str(file))} is not .*{NAME} does not lie where it says"):
        edit_model(tmp_path / "model", tmp_path / "edited", delta)
