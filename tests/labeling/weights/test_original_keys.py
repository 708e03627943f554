"""Names and tensors translate one to one between the original packages and transformers."""

import pytest
import torch
from safetensors.torch import load_file

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.detect.grounding_dino.original import build_grounding_dino
from gazetteer.labeling.segment.segment_anything_original import build_sam, read_sizes
from tests.support.models.grounding_dino_keys import GROUNDING_DINO
from tests.support.models.key_map import KeyMap
from tests.support.models.original_models import original_weights, random_detector, random_segmenter, settings_of
from tests.support.models.sam_keys import SAM

TOY = KeyMap(
    "a toy",
    [("a.{}.qkv.*", ("b.{}.q.*", "b.{}.k.*", "b.{}.v.*")), ("a.{}.*", "b.{}.*"), ("scale", "gain")],
    original_only=["a.{}.table"],
    transformers_only=["*.copy"],
)


def test_rules_carry_indices_and_endings_over():
    assert TOY.transformers_names("a.12.norm.bias") == ("b.12.norm.bias",)
    assert TOY.transformers_names("a.3.qkv.weight") == ("b.3.q.weight", "b.3.k.weight", "b.3.v.weight")
    assert TOY.original_name("b.3.k.weight") == ("a.3.qkv.weight", 1, 3)
    assert TOY.original_name("gain") == ("scale", 0, 1)


def test_what_the_other_side_has_no_use_for_is_left_out():
    assert TOY.transformers_names("a.0.table") == ()
    assert TOY.original_name("x.y.copy") is None


def test_fused_tensors_are_cut_along_rows_and_joined_again():
    state = {"a.0.qkv.weight": torch.arange(12.0).reshape(6, 2)}
    parts = TOY.to_transformers(state)
    assert parts["b.0.k.weight"].tolist() == [[4, 5], [6, 7]]
    assert torch.equal(TOY.to_original(parts)["a.0.qkv.weight"], state["a.0.qkv.weight"])


def test_unknown_and_missing_weights_get_a_sentence():
    with pytest.raises(InputError, match="'other' is not part of a toy"):
        TOY.transformers_names("other")
    with pytest.raises(InputError, match="'other' is not part of a toy in transformers"):
        TOY.original_name("other")
    with pytest.raises(InputError, match=r"lack 'b\.0\.v\.bias'"):
        TOY.to_original({"b.0.q.bias": torch.ones(1), "b.0.k.bias": torch.ones(1)})


def assert_one_to_one(keys, original, saved, tied=()):
    """original: the package's state dict; saved: the tensors of transformers' file, which leaves tied copies out."""
    kept = {name: tensor for name, tensor in original.items() if keys.transformers_names(name)}
    there = keys.to_transformers(kept)
    assert len(there) == sum(len(keys.transformers_names(name)) for name in kept)
    without_ties = {name: tensor for name, tensor in there.items() if not name.startswith(tuple(tied))}
    needed = {name: tensor for name, tensor in saved.items() if keys.original_name(name)}
    assert {name: tuple(t.shape) for name, t in without_ties.items()} == {n: tuple(t.shape) for n, t in needed.items()}
    back = keys.to_original(there)
    assert back.keys() == kept.keys()
    assert all(torch.equal(back[name], kept[name]) for name in kept)


def test_every_weight_of_grounding_dino_has_one_counterpart(tmp_path):
    from transformers import AutoConfig, AutoTokenizer

    folder = random_detector(tmp_path)
    config = AutoConfig.from_pretrained(folder)
    model = build_grounding_dino(settings_of(config), AutoTokenizer.from_pretrained(folder), config.text_config)
    tied = ("bbox_embed.1.", "model.decoder.bbox_embed.")
    assert_one_to_one(GROUNDING_DINO, model.state_dict(), load_file(folder / "model.safetensors"), tied)


def test_every_weight_of_sam_has_one_counterpart(tmp_path):
    folder = random_segmenter(tmp_path)
    model = build_sam(read_sizes(original_weights(folder, SAM)))
    assert_one_to_one(SAM, model.state_dict(), load_file(folder / "model.safetensors"))
