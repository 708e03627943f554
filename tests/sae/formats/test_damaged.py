"""Damaged files of every format: one sentence that names the file, whatever is wrong with it."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.weights.checkpoints import read_checkpoint
from gazetteer.sae.formats.registry import recognise
from gazetteer.sae.formats.restricted import unpickled
from gazetteer.sae.model.checkpoint import load_pretrained
from tests.sae.formats import test_diffract
from tests.sae.formats.test_formulas import STATE, write_prisma, write_saev
from tests.sae.formats.test_topk_formats import write_lens, write_sparsify, write_unbox
from tests.sae.formats.test_written import WRITTEN
from tests.sae.model.test_autoencoder import random_sae

Change = Callable[[dict[str, Tensor]], None]


def of_dictionary_learning(folder: Path) -> None:
    shutil.copytree(WRITTEN / "AutoEncoderTopK" / "sae", folder)


def of_saeuron(folder: Path) -> None:
    write_sparsify(folder, batch_topk=True, sample_topk=False, input_unit_norm=False)


WRITERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "sdxl-unbox": (write_unbox, "state_dict.pth"),
    "sparsify": (write_sparsify, "sae.safetensors"),
    "SAeUron": (of_saeuron, "sae.safetensors"),
    "sae-lens": (write_lens, "sae_weights.safetensors"),
    "dictionary_learning": (of_dictionary_learning, "ae.pt"),
    "saev": (lambda folder: write_saev(folder / "sae.pt", "Relu"), "sae.pt"),
    "prisma": (lambda folder: write_prisma(folder, STATE), "n_images_2600058.pt"),
    "diffract": (lambda folder: test_diffract.write(folder / "sae_img_6.pt"), "sae_img_6.pt"),
}


def rewritten(path: Path, change: Change) -> None:
    """The tensors of a file changed, everything else as it was."""
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        change(tensors)
        save_file({name: value.contiguous() for name, value in tensors.items()}, path)
        return
    head = path.read_bytes()[: path.read_bytes().find(b"\n") + 1] if path.name == "sae.pt" else b""
    content = unpickled(path, skip=len(head), classes=("vit_prisma.sae.config.VisionModelSAERunnerConfig",))
    inner = content.get("state_dict", content)
    change(inner)
    with path.open("wb") as file:
        file.write(head)
        torch.save({"state_dict": inner} if "state_dict" in content else inner, file)


def largest_two(tensors: dict[str, Tensor]) -> list[str]:
    """The names of encoder and decoder."""
    return sorted((name for name in tensors if tensors[name].ndim == 2), key=lambda name: -tensors[name].numel())[:2]


def not_finite(tensors: dict[str, Tensor]) -> None:
    tensors[largest_two(tensors)[0]][0, 0] = float("nan")


def swapped(tensors: dict[str, Tensor]) -> None:
    one, other = largest_two(tensors)
    tensors[one], tensors[other] = tensors[other].T.clone(), tensors[one].T.clone()
    tensors[one] = tensors[one][:, :-1]


def narrow(tensors: dict[str, Tensor]) -> None:
    name = largest_two(tensors)[1]
    tensors[name] = tensors[name][:-1].clone()


def of_integers(tensors: dict[str, Tensor]) -> None:
    for name in largest_two(tensors):
        tensors[name] = tensors[name].to(torch.int8)


def incomplete(tensors: dict[str, Tensor]) -> None:
    del tensors[largest_two(tensors)[0]]


@pytest.mark.parametrize("change", [not_finite, swapped, narrow, of_integers, incomplete], ids=lambda one: one.__name__)
@pytest.mark.parametrize("name", WRITERS)
def test_tensors_that_cannot_be_get_a_sentence(tmp_path: Path, name: str, change: Change) -> None:
    write, weights = WRITERS[name]
    write(tmp_path / "sae")
    rewritten(tmp_path / "sae" / weights, change)
    with pytest.raises(InputError, match=str(tmp_path)) as error:
        load_pretrained(tmp_path / "sae")
    assert "Traceback" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("left", [0.0, 0.5, 0.98])
@pytest.mark.parametrize("name", WRITERS)
def test_a_truncated_file_gets_a_sentence(tmp_path: Path, name: str, left: float) -> None:
    write, weights = WRITERS[name]
    write(tmp_path / "sae")
    path = tmp_path / "sae" / weights
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content))])
    with pytest.raises(InputError, match=str(tmp_path)):
        load_pretrained(tmp_path / "sae")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("name", WRITERS)
def test_other_precisions_are_read_as_the_numbers_that_they_hold(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    write, weights = WRITERS[name]
    write(tmp_path / "sae")

    def rounded(tensors: dict[str, Tensor]) -> None:
        tensors |= {key: value.to(dtype) for key, value in tensors.items() if value.ndim == 2}

    rewritten(tmp_path / "sae" / weights, rounded)
    found = load_pretrained(tmp_path / "sae")[0].at(500.0)
    rewritten(tmp_path / "sae" / weights, lambda tensors: tensors.update({k: v.float() for k, v in tensors.items()}))
    x = torch.randn(20, found.config.d)
    assert torch.equal(found(x), load_pretrained(tmp_path / "sae")[0].at(500.0)(x))


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("sdxl-unbox", {"k": "many"}),
    ("sdxl-unbox", {"d_model": None}),
    ("sparsify", {"d_in": True}),
    ("sparsify", {"num_latents": "six", "expansion_factor": None}),
    ("sae-lens", {"d_sae": float("nan")}),
    ("sae-lens", {"k": -1}),
    ("dictionary_learning", {"trainer": 3}),
    ("dictionary_learning", {"trainer": {"dict_class": "AutoEncoderTopK", "k": "many"}}),
    ("prisma", {"d_in": "six"}),
    ("prisma", {"d_in": 2**40}),
]


@pytest.mark.parametrize(("name", "changes"), WRONG)
def test_a_configuration_that_says_what_cannot_be_gets_a_sentence(
    tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    WRITERS[name][0](tmp_path / "sae")
    path = next((tmp_path / "sae").glob("*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError) as error:
        load_pretrained(tmp_path / "sae")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", "{"])
@pytest.mark.parametrize("name", ["sdxl-unbox", "sparsify", "sae-lens", "dictionary_learning", "prisma"])
def test_a_configuration_that_is_none_gets_a_sentence(tmp_path: Path, name: str, content: str) -> None:
    WRITERS[name][0](tmp_path / "sae")
    next((tmp_path / "sae").glob("*.json")).write_text(content)
    with pytest.raises(InputError, match=str(tmp_path)):
        load_pretrained(tmp_path / "sae")


def test_no_file_of_one_format_is_taken_for_another(tmp_path: Path) -> None:
    for name, (write, _) in WRITERS.items():
        write(tmp_path / name)
        found = recognise(tmp_path / name)
        assert found is not None and found.name == name.replace("SAeUron", "sparsify")


BROKEN = {
    "an id that is no tuple": b"\x80\x02K\x01Q.",
    "half of a number": b"\x80\x02G\x00.",
    "an entry of what is no dict": b"\x80\x02K\x01K\x02K\x03s.",
    "nothing on the stack": b"\x80\x02s.",
}
"""Pickles on which torch's restricted loader ends in errors of its own: AssertionError, struct.error, IndexError."""


def broken(path: Path, pickled: bytes) -> None:
    """A file of torch's with another pickle in it."""
    head = path.read_bytes()[: path.read_bytes().find(b"\n") + 1] if path.name == "sae.pt" else b""
    torch.save({"x": torch.zeros(1)}, path)
    content = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(content, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    path.write_bytes(head + content.getvalue())


@pytest.mark.parametrize("pickled", BROKEN.values(), ids=list(BROKEN))
@pytest.mark.parametrize("name", [name for name, (_, weights) in WRITERS.items() if not weights.endswith("tensors")])
def test_a_pickle_that_breaks_the_loader_gets_a_sentence(tmp_path: Path, name: str, pickled: bytes) -> None:
    write, weights = WRITERS[name]
    write(tmp_path / "sae")
    broken(tmp_path / "sae" / weights, pickled)
    with pytest.raises(InputError, match=str(tmp_path)) as error:
        load_pretrained(tmp_path / "sae" / weights)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"checkpoint .* (could not be read|is damaged)"):
        read_checkpoint("detector", str(tmp_path / "sae" / weights))


@pytest.mark.parametrize("name", ["sdxl-unbox", "sparsify", "sae-lens", "dictionary_learning", "prisma", "saev", "own"])
def test_json_nested_too_deep_gets_a_sentence(tmp_path: Path, name: str) -> None:
    deep = b'{"d": ' * 100_000
    if name == "own":
        random_sae(6, 12, 3).save_pretrained(tmp_path / "sae")
    else:
        WRITERS[name][0](tmp_path / "sae")
    path = next((tmp_path / "sae").glob("*.json"), tmp_path / "sae" / "sae.pt")
    path.write_bytes(deep)
    with pytest.raises(InputError, match=str(path)):
        load_pretrained(tmp_path / "sae")


CHANGED: dict[str, Callable[[Tensor], Tensor]] = {
    "meta": lambda value: value.to("meta"),
    "nested": lambda value: torch.nested.nested_tensor([value, value]),
    "sparse": lambda value: value.to_sparse(),
    "no dimension": lambda value: value.sum(),
    "empty": lambda value: value[:0],
    "bool": lambda value: value > 0,
    "zeros of another size": lambda value: torch.zeros(3, *value.shape[1:]),
}
PICKLED = [name for name, (_, file) in WRITERS.items() if not file.endswith("safetensors")]


@pytest.mark.filterwarnings("ignore:.*(nested|sparse|0-D)")
@pytest.mark.parametrize("changed", CHANGED)
@pytest.mark.parametrize("name", PICKLED)
def test_tensors_that_are_no_plain_ones_of_the_right_size_are_refused(name: str, changed: str, tmp_path: Path) -> None:
    """Each alone: sums would stretch a bias of one value, and one of zeros counts as none."""
    write, file = WRITERS[name]
    write(tmp_path / "sae")
    content = (tmp_path / "sae" / file).read_bytes()
    head = content[: content.find(b"\n") + 1] if name == "saev" else b""
    stored = unpickled(
        tmp_path / "sae" / file, skip=len(head), classes=("vit_prisma.sae.config.VisionModelSAERunnerConfig",)
    )
    inner = stored.get("state_dict", stored)
    biases = [key for key, value in inner.items() if value.ndim == 1 and len(value) > 1 and "time" not in key][:2]
    for key in (largest_two(inner)[0], *biases):
        (tmp_path / "sae" / file).write_bytes(content)

        def change(tensors: dict[str, Tensor], key: str = key) -> None:
            tensors[key] = CHANGED[changed](tensors[key])

        rewritten(tmp_path / "sae" / file, change)
        with pytest.raises(InputError, match=re.escape(str(tmp_path / "sae"))) as refused:
            load_pretrained(tmp_path / "sae")
        assert "\n" not in str(refused.value), key


@pytest.mark.parametrize("scale", [0, -1.0, "a", True])
def test_a_scale_of_time_that_divides_nothing_is_refused(scale: object, tmp_path: Path) -> None:
    random_sae(6, 12, 3).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"time_scale": scale}))
    with pytest.raises(InputError, match="time_scale"):
        load_pretrained(tmp_path)
