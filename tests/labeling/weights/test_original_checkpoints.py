"""Checkpoints are read as tensors only: nothing that needs code is unpickled, in either library."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import SegmenterConfig
from gazetteer.labeling.weights.checkpoints import fill, read_checkpoint
from tests.support.models.grounding_dino_keys import GROUNDING_DINO
from tests.support.models.original_models import original_weights, random_detector, random_segmenter
from tests.support.models.sam_keys import SAM

called = []
NONE = re.compile(r"(?!)")


class Unwanted:
    def __reduce__(self):
        return called.append, ("code ran",)


def test_a_pickle_that_needs_code_is_refused_and_not_run(tmp_path):
    torch.save({"model": {"w": Unwanted()}}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="needs code to be unpickled, which is refused"):
        read_checkpoint("detector", str(tmp_path / "bad.pth"))
    assert called == []


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.ones(1)], {"model": {"w": "text"}}])
def test_anything_but_a_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="holds no state dict of tensors"):
        read_checkpoint("detector", str(tmp_path / "bad.pth"))


@pytest.mark.parametrize("name", ["bad.pth", "bad.safetensors"])
def test_a_damaged_file_gets_a_sentence(name, tmp_path):
    (tmp_path / name).write_bytes(b"not a checkpoint at all")
    with pytest.raises(InputError, match=f"The detector checkpoint .*{name}"):
        read_checkpoint("detector", str(tmp_path / name))


@pytest.mark.parametrize("wrapper", ["model", "state_dict", None])
def test_wrappers_around_the_weights_are_taken_off(wrapper, tmp_path):
    state = {"module.w": torch.ones(2)}
    torch.save({wrapper: state} if wrapper else state, tmp_path / "a.pth")
    assert read_checkpoint("detector", str(tmp_path / "a.pth"))["w"].tolist() == [1, 1]


def test_buffers_have_to_be_there_and_tied_weights_only_once():
    model = torch.nn.Module()
    model.a = torch.nn.Linear(1, 1, bias=False)
    model.b = model.a
    model.register_buffer("table", torch.zeros(1))
    fill("model", model, {"b.weight": torch.ones(1, 1), "table": torch.ones(1)}, NONE)
    assert model.a.weight.item() == model.table.item() == 1
    with pytest.raises(InputError, match="lacks 'table'"):
        fill("model", model, {"b.weight": torch.ones(1, 1)}, NONE)


ROLES = [
    (random_detector, lambda path: load_detector(DetectorConfig(path=path))),
    (random_segmenter, lambda path: load_segmenter(SegmenterConfig(path=path))),
]


@pytest.mark.parametrize(("make", "load"), ROLES)
def test_a_folder_that_holds_only_a_pickle_is_refused(make, load, tmp_path):
    weights = make(tmp_path) / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(InputError, match="safetensors"):
        load(str(tmp_path))


@pytest.mark.parametrize(("make", "load"), ROLES)
def test_a_half_downloaded_folder_is_named(make, load, tmp_path):
    weights = make(tmp_path) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(
        InputError, match=rf"model\.safetensors is cut short \({len(content) - 10} of {len(content)} bytes"
    ):
        load(str(tmp_path))
    weights.unlink()
    with pytest.raises(InputError, match=r"is incomplete: .* has no \.safetensors weights; download it again"):
        load(str(tmp_path))


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    """A detector's weights for the segmenter, a segmenter's for the detector."""
    detector, segmenter = random_detector(tmp_path / "detector"), random_segmenter(tmp_path / "segmenter")
    torch.save(original_weights(segmenter, SAM), tmp_path / "sam.pth")
    torch.save({"model": original_weights(detector, GROUNDING_DINO)}, tmp_path / "dino.pth")
    with pytest.raises(InputError, match="is no SAM in its authors' format"):
        load_segmenter(SegmenterConfig(path=str(tmp_path / "dino.pth"), library="segment_anything"))
    with pytest.raises(InputError, match="the model has no"):
        load_detector(
            DetectorConfig(path=str(tmp_path / "sam.pth"), library="groundingdino", text_encoder=str(detector))
        )
    with pytest.raises(InputError, match="is a sam model"):
        load_detector(DetectorConfig(path=str(segmenter)))
    with pytest.raises(InputError, match="is a grounding-dino model"):
        load_segmenter(SegmenterConfig(path=str(detector)))


@pytest.mark.parametrize(
    ("make", "load", "key"), [(*ROLES[0], "num_queries"), (*ROLES[0], "d_model"), (*ROLES[1], "initializer_range")]
)
@pytest.mark.parametrize("value", [None, "x", []])
def test_a_value_that_a_configuration_cannot_have_gets_one_sentence(make, load, key, value, tmp_path):
    """Whatever the library throws at it: transformers has an exception of its own for fields of a wrong type."""
    path = make(tmp_path) / "config.json"
    config = json.loads(path.read_text())
    inside = config if key in config else config["vision_config"]
    path.write_text(
        json.dumps(config | {key: value} if inside is config else config | {"vision_config": inside | {key: value}})
    )
    with pytest.raises(
        InputError, match=rf"The (detector|segmenter) {tmp_path} could not be loaded: .*[^:]$"
    ) as refused:
        load(str(tmp_path))
    assert "\n" not in str(refused.value)
