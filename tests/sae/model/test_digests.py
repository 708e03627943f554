"""What a run notes of an autoencoder: everything that is read of it, named by its folder or by its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gazetteer.data.core.digests import digest_file, digest_folder, digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.fingerprint import fingerprint_of
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.executors.sources import require_unchanged, sources
from gazetteer.sae.formats.registry import recognise
from gazetteer.sae.model.checkpoint import load_pretrained
from gazetteer.sae.model.digests import digest_sae, digest_saes
from tests.sae.formats.test_damaged import WRITERS
from tests.sae.formats.test_formulas import write_early_saev
from tests.sae.formats.test_topk_formats import write_lens


@pytest.mark.parametrize("name", WRITERS)
def test_of_weights_by_name_everything_counts_that_is_read(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, weights = WRITERS[name]
    write(tmp_path / "sae")
    path = tmp_path / "sae" / weights
    known = recognise(path)
    assert known is not None
    opened: set[Path] = set()
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda own: opened.add(own) or read(own))
    monkeypatch.setattr("gazetteer.sae.formats.restricted.read_regular", lambda own: opened.add(own) or read(own))
    load_pretrained(path)
    assert opened | {path} == set(known.files(path))
    beside = [own for own in known.files(path) if own != path]
    assert digest_sae(str(path)) == f"sha256:{digest_folder(path.parent) if beside else digest_file(path)}"
    for own in beside:
        before = digest_sae(str(path))
        own.write_text(json.dumps({**json.loads(own.read_text()), "signal": "output"}))
        assert digest_sae(str(path)) != before


def test_a_factor_beside_the_weights_counts_and_other_files_do_not(tmp_path: Path) -> None:
    write_lens(tmp_path / "sae", normalize_activations="expected_average_only_in")
    path, scaler = tmp_path / "sae" / "sae_weights.safetensors", tmp_path / "sae" / "activation_scaler.json"
    digests = set()
    for factor in (2.0, 3.0):
        scaler.write_text(json.dumps({"scaling_factor": factor}))
        digests.add(digest_sae(str(path)))
    assert len(digests) == 2
    (tmp_path / "sae" / "notes.txt").write_text("mine")
    assert digest_sae(str(path)) in digests
    assert digest_saes({"*": str(path), "mid_block": "owner/name"}) == {
        "*": digest_sae(str(path)), "mid_block": "owner/name"
    }  # fmt: skip


def test_a_run_is_another_one_where_the_configuration_beside_the_weights_is(tmp_path: Path) -> None:
    WRITERS["dictionary_learning"][0](tmp_path / "sae")
    config = load_config(None, [f'saes={{"*": {tmp_path / "sae" / "ae.pt"}}}'])
    before = fingerprint_of(config)
    begun = sources(config, before, ["saes"])
    require_unchanged(begun)
    path = tmp_path / "sae" / "config.json"
    stated = json.loads(path.read_text())
    stated["trainer"]["k"] += 1
    path.write_text(json.dumps(stated))
    assert fingerprint_of(config)["saes"] != before["saes"]
    with pytest.raises(InputError, match=r"saes\[\*\] on .* is not what this run was started with"):
        require_unchanged(begun)


def test_a_run_does_not_go_on_with_an_autoencoder_that_was_once_read_otherwise(tmp_path: Path) -> None:
    """saev's of the first schema, whose bias is subtracted now; nothing else has another digest than it had."""
    (tmp_path / "site").mkdir()
    path = tmp_path / "site" / "sae.pt"
    named = [str(path), str(path.parent), str(tmp_path)]
    first = {"schema": 1, "cfg": {"d_vit": 4}, "cls": "Relu"}
    for header, differs in ((first, True), ({"d_vit": 4}, False), ({**first, "schema": 2}, False)):
        write_early_saev(path, header)
        assert [digest_sae(name) != digest_path(name) for name in named] == [differs] * 3
        assert len({digest_sae(name) for name in named}) == 3
    config = load_config(None, [f'saes={{"*": {path}}}'])
    write_early_saev(path, first)
    require_unchanged(sources(config, fingerprint_of(config), ["saes"]))
