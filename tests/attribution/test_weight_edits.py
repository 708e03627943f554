"""Edits of weights: exact round trips in memory and on disk, composition, refusals."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gazetteer.attribution.edits.checkpoint_edit import edit_model
from gazetteer.attribution.edits.delta import Change, Delta, ablation, applied, apply, compose, remove
from gazetteer.attribution.edits.delta_file import load_delta, save_delta
from gazetteer.attribution.edits.tune import gradient_steps
from gazetteer.attribution.objective.problem import Problem
from gazetteer.data.core.errors import InputError
from tests.support.models.tiny_pipeline import tiny_pipeline


def two_layers(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).to(dtype)


def bits(model: nn.Module) -> list[bytes]:
    return [p.detach().clone().view(torch.uint8).numpy().tobytes() for p in model.parameters()]


def zero(model: nn.Module, name: str, places: list[int]) -> Delta:
    return ablation(dict(model.named_parameters()), {name: torch.tensor(places)}, {"concept": "dog"})


@settings(max_examples=25, deadline=None)
@given(
    st.sets(st.integers(0, 11), min_size=1), st.sets(st.integers(0, 11), min_size=1),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)  # fmt: skip
def test_edits_compose_in_any_order_and_leave_no_trace(one: set[int], two: set[int], dtype: torch.dtype) -> None:
    model = two_layers(dtype)
    with torch.no_grad():
        model[0].weight.view(-1)[0] = -0.0  # a bit pattern that equality would overlook
    before = bits(model)
    deltas = [zero(model, "0.weight", sorted(places)) for places in (one, two)]
    after = []
    for order in (deltas, deltas[::-1]):
        with applied(model, *order) as joined:
            after.append(bits(model))
            assert len(joined) == len(one | two)
            assert int((model[0].weight == 0).sum()) == len(one | two | {0})
        assert bits(model) == before
    assert after[0] == after[1]


def test_an_edit_survives_its_file_and_an_exception(tmp_path: Path) -> None:
    model = two_layers()
    delta = zero(model, "1.weight", [0, 3])
    save_delta(delta, tmp_path / "dog.safetensors")
    loaded = load_delta(tmp_path / "dog.safetensors")
    assert loaded.provenance == {"concept": "dog"}
    before = bits(model)
    with pytest.raises(RuntimeError), applied(model, loaded):
        raise RuntimeError
    assert bits(model) == before


def test_what_does_not_fit_is_refused_before_anything_changes(tmp_path: Path) -> None:
    model = two_layers()
    delta, before = zero(model, "0.weight", [1, 2]), bits(model)
    with pytest.raises(InputError, match=r"2 of 2 weights of 0\.weight"):
        remove(model, delta)
    apply(model, delta)
    with pytest.raises(InputError, match="another edit is in place"):
        apply(model, delta)
    remove(model, delta)
    assert bits(model) == before
    with pytest.raises(InputError, match=r"torch.float32; this model holds torch.float16"):
        apply(two_layers(torch.float16), delta)
    with pytest.raises(InputError, match=r"no weights 0\.weight"):
        apply(nn.Linear(2, 2), delta)
    change = delta.changes["0.weight"]
    other = Delta({"0.weight": type(change)(change.index, change.old, change.new + 1)})
    with pytest.raises(InputError, match="do not compose"):
        compose([delta, other])
    (tmp_path / "x.safetensors").write_bytes(b"no")
    for name, words in (("x", "cannot be read"), ("none", "does not exist")):
        with pytest.raises(InputError, match=words):
            load_delta(tmp_path / f"{name}.safetensors")


def test_a_model_on_disk_is_edited_in_place_of_its_copy_and_back(tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    pipe.save_pretrained(tmp_path / "model", max_shard_size="40KB")
    assert len(list((tmp_path / "model" / "unet").glob("*.safetensors"))) > 1
    name = "mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight"
    delta = zero(pipe.unet, name, [0, 17, 500])
    edit_model(tmp_path / "model", tmp_path / "edited", delta)
    edited = type(pipe).from_pretrained(tmp_path / "edited").unet
    with applied(pipe.unet, delta):
        assert bits(edited) == bits(pipe.unet)
    edit_model(tmp_path / "edited", tmp_path / "back", delta, undo=True)
    assert digests(tmp_path / "back") == digests(tmp_path / "model")
    with pytest.raises(InputError, match="exists already"):
        edit_model(tmp_path / "model", tmp_path / "back", delta)
    with pytest.raises(InputError, match="another edit is in place"):
        edit_model(tmp_path / "edited", tmp_path / "twice", delta)
    for inside in (tmp_path / "model/edited", tmp_path / "back/../model/unet/deep/edited"):
        with pytest.raises(InputError, match=r"model, of which it is to be a copy; name a folder outside of it"):
            edit_model(tmp_path / "model", inside, delta)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "edited", "model"]
    assert digests(tmp_path / "back") == digests(tmp_path / "model")


def test_a_folder_with_two_variants_of_the_weights_is_refused(tmp_path: Path) -> None:
    """Only one of them would be edited, and which one a pipeline loads depends on its arguments."""
    pipe = tiny_pipeline()
    pipe.save_pretrained(tmp_path / "model")
    pipe.unet.save_pretrained(tmp_path / "model" / "unet", variant="fp16")
    delta = zero(pipe.unet, "conv_in.weight", [0])
    with pytest.raises(InputError, match=r"fp16.safetensors and diffusion_pytorch_model.safetensors both hold"):
        edit_model(tmp_path / "model", tmp_path / "edited", delta)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_gradient_steps_move_only_what_is_chosen_and_lower_j() -> None:
    model = two_layers()
    x = torch.randn(5, 4)
    weights = {"0.weight": model[0].weight, "1.weight": model[1].weight}

    def j() -> Tensor:
        return model(x).pow(2).sum(1)

    problem, before = Problem(model, weights, (j,)), bits(model)
    chosen = {"0.weight": torch.tensor([1, 5, 6])}
    delta = gradient_steps(problem, chosen, steps=10, rate=0.05)
    assert bits(model) == before
    assert set(delta.changes) == {"0.weight"} and delta.changes["0.weight"].index.tolist() == [1, 5, 6]
    intact = problem.value()
    with applied(model, delta):
        assert problem.value() < intact
    assert bits(model) == before


def test_weights_that_are_kept_channels_last_are_edited_too() -> None:
    """As under model.channels_last, where flat places are no places in memory."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 4, 3))
    laid = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 4, 3))
    laid.load_state_dict(plain.state_dict())
    laid.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert not laid[1].weight.is_contiguous()
    x, places, deltas = torch.randn(2, 4, 4, 4), torch.tensor([3, 7, 80]), []
    for model in (plain, laid):
        weights = dict(model.named_parameters())
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        with applied(model, zero(model, "0.weight", [0]), zero(model, "1.weight", places.tolist())):
            assert not model[1].weight.reshape(-1)[places].any()
            assert int((model[1].weight == 0).sum()) == len(places)
        problem = Problem(model, weights, (lambda model=model: model[1](x).flatten(1).pow(2).sum(1),))
        deltas.append(gradient_steps(problem, {"1.weight": places}, steps=3, rate=0.05))
        assert all(torch.equal(before[name], weight) for name, weight in weights.items())
    old, new = (delta.changes["1.weight"] for delta in deltas)
    assert new.index.tolist() == places.tolist() and torch.equal(new.old, old.old)
    assert torch.allclose(new.new, old.new, atol=1e-6)


_EDIT_IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from gazetteer.attribution.edits.checkpoint_edit import edit_weights
from gazetteer.attribution.edits.delta_file import load_delta
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
edit_weights([Path(sys.argv[1])], load_delta(sys.argv[2]), undo=sys.argv[3] == "undo")
"""


def written(path: Path) -> dict[int, int]:
    """Where bytes of a file are not 0, and what they are; holes are not read."""
    found, start, size = {}, 0, path.stat().st_size
    with path.open("rb") as stream:
        while start < size:
            try:
                start = os.lseek(stream.fileno(), start, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                break
            stop = os.lseek(stream.fileno(), start, os.SEEK_HOLE)
            while start < stop:
                part = os.pread(stream.fileno(), min(2**24, stop - start), start)
                found |= {start + int(i): part[i] for i in np.frombuffer(part, np.uint8).nonzero()[0]}
                start += len(part)
    return found


def test_a_file_of_three_gigabytes_is_edited_in_a_twelfth_of_its_size(tmp_path: Path) -> None:
    """A file of holes takes no disk; the process that edits it may take 256 MB beside what Python and torch do."""
    numbers, path = (
        {"wide.weight": (2**29, "F32", 4), "deep.weight": (2**29, "BF16", 2)},
        tmp_path / "model.safetensors",
    )
    header, end = {}, 0
    for name, (many, dtype, width) in numbers.items():
        header[name] = {"dtype": dtype, "shape": [2**14, many // 2**14], "data_offsets": [end, end + many * width]}
        end += many * width
    said = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(said)) + said)
    os.truncate(path, 8 + len(said) + end)
    before, last = written(path), 2**29 - 1
    changes = {
        "wide.weight": Change(torch.tensor([0, last]), torch.zeros(2), torch.tensor([1.5, -0.0])),
        "deep.weight": Change(torch.tensor([7, last]), torch.zeros(2).bfloat16(), torch.tensor([1.0, -2.0]).bfloat16()),
    }
    save_delta(Delta(changes), tmp_path / "edit.safetensors")
    first, second = 8 + len(said), 8 + len(said) + 2**31
    # Little-endian 1.5 = 0x3fc00000, -0.0 = 0x80000000; bfloat16 1.0 = 0x3f80, -2.0 = 0xc000.
    new = {first + 2: 0xC0, first + 3: 0x3F, first + 4 * last + 3: 0x80}
    new |= {second + 14: 0x80, second + 15: 0x3F, second + 2 * last + 1: 0xC0}
    try:
        for way, expected in (("do", before | new), ("undo", before)):
            command = [sys.executable, "-c", _EDIT_IN_LITTLE_MEMORY, str(path), str(tmp_path / "edit.safetensors"), way]
            done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert written(path) == expected and path.stat().st_size == 8 + len(said) + end > 3 * 2**30
    finally:
        path.unlink()
