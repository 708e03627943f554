"""Keys of other projects' configurations that nothing is known of, and what files say of their input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.formats.registry import recognise
from gazetteer.sae.model.checkpoint import load_pretrained, load_site_saes
from gazetteer.sae.model.files import read_config
from tests.sae.formats.test_damaged import WRITERS
from tests.sae.formats.test_topk_formats import write_lens, write_sparsify
from tests.sae.formats.test_written import WRITTEN


def set_key(folder: Path, name: str, place: str, key: str, value: Any) -> Path:
    """Write an autoencoder of a layout, with one more key at a place of what it states; the file that states it."""
    write, weights = WRITERS[name]
    write(folder)
    if name == "saev":
        path = folder / weights
        line, _, tensors = path.read_bytes().partition(b"\n")
        stated = json.loads(line)
    else:
        path = next(folder.glob("*.json"))
        stated = json.loads(path.read_text())
    inside = stated
    for part in filter(None, place.split(".")):
        inside = inside[part]
    inside[key] = value
    content = json.dumps(stated).encode()
    path.write_bytes(content + b"\n" + tensors if name == "saev" else content)
    return path


PLACES = [
    ("sae-lens", "", "input_whitening"), ("sae-lens", "", "scale_by"), ("saev", "", "normalize_input"),
    ("saev", "cfg", "normalize_input"), ("saev", "cfg.activation.params", "bias_scale"),
    ("sdxl-unbox", "", "normalize_input"), ("sdxl-unbox", "", "activation"), ("sparsify", "", "pre_norm"),
    ("sparsify", "", "embed_skip"), ("sparsify", "", "gram_lookup"), ("SAeUron", "", "inputMean"),
    ("dictionary_learning", "trainer", "centerActs"), ("prisma", "", "gating"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "place", "key"), PLACES)
def test_a_key_that_sounds_like_another_formula_is_refused_unless_it_is_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, place: str, key: str
) -> None:
    path = set_key(tmp_path / "on", name, place, key, True)
    foreign = recognise(path.parent)
    assert foreign is not None
    said = f"{path} sets {f'{place}.{key}'.strip('.')}, which is not known of {foreign.name} and by its name"
    with pytest.raises(InputError, match=re.escape(said)):
        read_config(tmp_path / "on")
    for number, value in enumerate((False, None, "none", [])):
        set_key(tmp_path / f"off{number}", name, place, key, value)
        read_config(tmp_path / f"off{number}")
    assert not caplog.records


@pytest.mark.parametrize("name", sorted({name for name, _, _ in PLACES}))
def test_other_unknown_keys_are_said_once_and_what_projects_write_never(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    place = "trainer" if name == "dictionary_learning" else ""
    WRITERS[name][0](tmp_path / "plain")
    read_config(tmp_path / "plain")
    assert not caplog.records
    path = set_key(tmp_path / "sae", name, place, "lr_scale", 3.0)
    for _ in range(2):
        load_pretrained(tmp_path / "sae")
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}: {f'{place}.lr_scale'.strip('.')} is not known of ")


OLD_LENS = {
    "model_name": "gpt2-small", "hook_point": "blocks.1.hook_resid_pre", "hook_point_layer": 1,
    "hook_point_head_index": None, "dataset_path": "Skylion007/openwebtext", "context_size": 128,
    "expansion_factor": 32, "l1_coefficient": 8e-5, "mse_loss_normalization": "dense_batch",
    "normalize_sae_decoder": True, "noise_scale": 0.1, "decoder_heuristic_init": True, "lp_norm": 1.0,
    "scale_sparsity_penalty_by_decoder_norm": True, "dead_feature_threshold": 1e-8, "seqpos_slice": [None],
    "jumprelu_init_threshold": 0.001, "finetuning_scaling_factor": False, "run_name": "32768-L1-8e-05",
    "model_from_pretrained_kwargs": {"center_writing_weights": True}, "neuronpedia_id": "gpt2-small/1-res-jb",
}  # fmt: skip


def test_what_old_versions_of_sae_lens_and_new_ones_of_sparsify_wrote_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_lens(tmp_path / "lens", **OLD_LENS)
    new = {"embed_skip": False, "gram_lookup": False, "lookup_max_order": 4, "gram_table_hash": None}
    write_sparsify(tmp_path / "sparsify", **new)
    written = sorted(path.parent for path in WRITTEN.glob("*/sae/*.json"))
    assert len(written) > 15
    for place in (tmp_path / "lens", tmp_path / "sparsify", *written):
        read_config(place)
    assert not caplog.records


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stream": "txt"}, "stream is 'txt'; accepted: image, text"),
        ({"stream": ["text"]}, r"stream is \['text'\]; accepted: image, text"),
        ({"signal": "outputs"}, "signal is 'outputs'; accepted: update, output, input"),
        ({"block": 3}, "block is 3; accepted: the path of a block"),
        ({"block": "transformer.blocks.one"}, "block is 'transformer.blocks.one'; accepted: the path of a b"),
    ],
)
def test_what_a_file_says_of_its_input_is_known_or_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write_sparsify(tmp_path / "sae", **changes)
    with pytest.raises(InputError, match=rf"cfg\.json: {said}"):
        read_config(tmp_path / "sae")


def test_a_file_may_say_its_block(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "sae", block="transformer_blocks.1", signal="update")
    own, other = (Site(f"transformer_blocks.{number}", "cond", 0.5) for number in (1, 0))
    assert load_site_saes({"*": str(tmp_path / "sae")}, [own])
    with pytest.raises(InputError, match=r"says that it was trained at transformer_blocks\.1, not at transformer_b"):
        load_site_saes({"*": str(tmp_path / "sae")}, [other])
    write_sparsify(tmp_path / "unet.mid_block.attentions.0", block="up_blocks.1.attentions.0")
    with pytest.raises(InputError, match=r"its block is up_blocks\.1\.attentions\.0, and its folder or hook says mid"):
        read_config(tmp_path / "unet.mid_block.attentions.0")
