"""Model folders before any library opens them: whole, regular files, and nothing that never ends."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.model_files import check_model_folder, check_pipeline_folder, check_safetensors


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A folder of a pipeline with one network, as diffusers writes it."""
    folder = tmp_path / "pipeline"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet2DConditionModel"]}))
    (folder / "unet/config.json").write_text("{}")
    save_file({"w": np.zeros(3, np.float32)}, folder / "unet/model.safetensors")
    check_pipeline_folder(folder)
    return folder


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to("..")


def nowhere(path: Path) -> None:
    path.symlink_to("gone")


@pytest.mark.parametrize("make", [pipe, device, loop, nowhere])
@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "unet/model.safetensors", "unet/other.json"])
def test_what_is_no_regular_file_is_refused_before_it_is_opened(
    pipeline: Path, make: Callable[[Path], None], name: str
) -> None:
    (pipeline / name).unlink(missing_ok=True)
    make(pipeline / name)
    with pytest.raises(InputError):
        check_pipeline_folder(pipeline)
    if name.startswith("unet"):
        with pytest.raises(InputError, match=Path(name).name):
            check_model_folder("network", pipeline / "unet")


def test_links_to_files_are_followed_as_in_a_hub_cache(pipeline: Path, tmp_path: Path) -> None:
    weights = pipeline / "unet/model.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    check_pipeline_folder(pipeline)


@pytest.mark.parametrize(
    "header",
    [b"[]", b"{", b"[" * 100_000, b'{"w": {"data_offsets": "ab"}}', b'{"w": {"data_offsets": [0]}}', b'{"w": 5}',
     b'{"w": {"data_offsets": [0, "x"]}}'],
)  # fmt: skip
def test_a_header_that_is_none_gets_a_sentence(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        check_safetensors("network", path)


def test_a_shortened_file_says_how_much_is_missing(pipeline: Path) -> None:
    path = pipeline / "unet/model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"is cut short \(\d+ of \d+ bytes\)"):
        check_pipeline_folder(pipeline)


SHAPES = ["[]", "3", '"x"', "null", "[" * 100_000]


@pytest.mark.parametrize("said", [*SHAPES, "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}'])
def test_an_index_of_weights_of_another_shape_is_damaged(pipeline: Path, said: str) -> None:
    (pipeline / "unet/model.safetensors.index.json").write_text(said)
    with pytest.raises(InputError, match=r"index\.json is damaged; download the model again"):
        check_model_folder("model", pipeline / "unet")


@pytest.mark.parametrize("said", SHAPES)
def test_an_index_of_parts_of_another_shape_is_damaged(pipeline: Path, said: str) -> None:
    (pipeline / "model_index.json").write_text(said)
    with pytest.raises(InputError, match=r"model_index\.json is damaged; download"):
        check_pipeline_folder(pipeline)


ENDS = ['{"a": 3}', '{"a": {"data_offsets": [0, 1e999]}}', '{"a": {"data_offsets": [0, "4"]}}', '{"a": {}}']


@pytest.mark.parametrize("said", [*SHAPES, *ENDS])
def test_a_header_of_another_shape_is_not_readable(tmp_path: Path, said: str) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(said)) + said.encode() + b"1234")
    with pytest.raises(InputError, match="is not a readable safetensors file; download"):
        check_safetensors("model", file)
