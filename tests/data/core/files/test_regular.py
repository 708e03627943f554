"""What somebody names as a file and is none, said by every reader of such files, none of which waits for a pipe."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gazetteer.attribution.edits.delta_file import load_delta
from gazetteer.attribution.protocols.pictures import read_picture as reference_picture
from gazetteer.attribution.protocols.prompts import read_prompt_file
from gazetteer.attribution.scores.loading import load_components
from gazetteer.data.core.digests import digest_folder
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import has_file, read_text, require_file, require_folder
from gazetteer.data.inputs.edit_files import read_edits
from gazetteer.data.inputs.given.coco import CocoPictures
from gazetteer.data.inputs.given.picture import read_index_mask, read_picture
from gazetteer.data.inputs.given.table import TablePictures
from gazetteer.data.inputs.model_files import check_model_folder, check_pipeline_folder
from gazetteer.data.inputs.prompt_files import prompts_of_file
from gazetteer.diffusion.load import ModelConfig, check_path
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.operate.nightly import nightly
from gazetteer.labeling.detect.grounding_dino.settings import read_settings
from gazetteer.labeling.layout.label_weights import read_label_table
from gazetteer.labeling.quality.rating import agreement
from gazetteer.labeling.vocabulary.concept_list import read_list
from gazetteer.labeling.vocabulary.word_vectors import word_vectors
from gazetteer.labeling.weights.checkpoints import read_checkpoint
from gazetteer.labeling.weights.loading import reading
from gazetteer.sae.model.files import read_config


def read_with_transformers(path: str) -> None:
    with reading("detector", path):
        raise AssertionError("nothing may be read")


READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "--config": ("x.yaml", load_config),
    "prompts.path": ("x.txt", lambda path: list(prompts_of_file(path, "caption"))),
    "vocabulary.path": ("x", read_list),
    "steer draw --edits": ("x.yaml", read_edits),
    "attribute apply --edit": ("x", load_delta),
    "attribute protocol --prompts": ("x.csv", lambda path: read_prompt_file(path, "prompt")),
    "attribute protocol --reference": ("x.png", reference_picture),
    "load_components": ("x", load_components),
    "layout predict --labels": ("x.parquet", read_label_table),
    "rate --answers": ("x.json", lambda path: agreement("/nowhere", path)),
    "quality --vectors": ("x", lambda path: word_vectors(path, ["dog"])),
    "doctor --model": ("x", lambda path: check_path(ModelConfig(path=path))),
    "model.path as one file": ("x.safetensors", lambda path: check_path(ModelConfig(path=path))),
    "a pipeline's folder": ("x", lambda path: check_pipeline_folder(Path(path))),
    "detector.path, transformers": ("x", read_with_transformers),
    "a model's folder": ("x", lambda path: check_model_folder("detector", Path(path))),
    "segmenter.path, a checkpoint": ("x.pth", lambda path: read_checkpoint("segmenter", path)),
    "detector.config": ("x.json", read_settings),
    "saes": ("x", lambda path: read_config(Path(path))),
    "a digest": ("x", digest_folder),
    "pictures.coco": ("x.json", CocoPictures),
    "pictures.table": ("x.csv", TablePictures),
    "a given picture": ("x.png", lambda path: read_picture(Path(path))),
    "a given mask": ("x.png", lambda path: read_index_mask(Path(path), (4, 4))),
    "nightly --checkpoints": ("x", lambda path: nightly(load_config(), path, "/nowhere")),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_is_called_a_pipe_and_not_waited_for(tmp_path: Path, reader: str) -> None:
    name, read = READERS[reader]
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError) as refused:
        read(str(tmp_path / name))
    said = str(refused.value)
    assert str(tmp_path / name) in said and ("is a pipe" in said or "is not a regular file; pipes" in said)
    assert "does not exist" not in said and "There is no" not in said


def test_what_is_there_instead_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("words")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "nowhere").symlink_to("absent")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name, said in {
            "folder": "is a folder, and a regular file is needed; accepted: words.", "socket": "is a socket",
            "absent": "does not exist; accepted: words.", "nowhere": "does not exist", "file/x": "does not exist",
            "round": "cannot be looked at", "x" * 300: "cannot be looked at", "a\0b": "cannot be looked at",
        }.items():  # fmt: skip
            with pytest.raises(InputError) as refused:
                require_file("The list", tmp_path / name, "words")
            assert said in str(refused.value)
    with pytest.raises(InputError, match="The list /dev/null is a device"):
        require_file("The list", "/dev/null")
    assert require_file("The list", tmp_path / "file") == tmp_path / "file"
    assert has_file("The list", tmp_path / "file") and not has_file("The list", tmp_path / "absent")
    with pytest.raises(InputError, match="is a folder"):
        has_file("The list", tmp_path / "folder")
    assert require_folder("The set", tmp_path / "folder") == tmp_path / "folder"
    for name, said in {"file": "is a file; accepted: a folder", "absent": "does not exist; accepted: a folder"}.items():
        with pytest.raises(InputError, match=said):
            require_folder("The set", tmp_path / name)


def test_text_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(InputError, match=r"The list .*list is not UTF-8 text \(byte 3\)"):
        read_text("The list", tmp_path / "list")
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    assert read_text("The list", tmp_path / "list") == "café"
