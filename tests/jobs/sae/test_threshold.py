"""Copies with a threshold keep what is said of the autoencoders that they were made of."""

from __future__ import annotations

from pathlib import Path

from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.sae.threshold import add_thresholds
from gazetteer.sae.model.threshold import reading_notes
from tests.sae.formats.test_formulas import write_early_saev
from tests.sae.formats.test_topk_formats import D

BLOCK = "mid_block.attentions.0"


def test_a_copy_says_what_differs_as_its_original_does(tmp_path: Path) -> None:
    config = {"d_vit": D, "exp_factor": 2, "seed": 0, "top_k": 3}
    write_early_saev(tmp_path / "sae.pt", {"schema": 1, "cls": "BatchTopK", "cfg": config})
    named = [f'saes={{"*": "{tmp_path / "sae.pt"}"}}', f"generation.blocks=[{BLOCK}]", "sae_check.signal=update"]
    run = load_config(None, named)
    rows = add_thresholds(run, tmp_path / "own", threshold=0.5)
    assert [row["l0"] for row in rows] == [None] * len(run.generation.sites)
    notes = reading_notes(str(tmp_path / "own"), run.generation.sites)
    assert len(notes) == len(rows)
    for note in notes.values():
        assert note.startswith("its BatchTopK threshold was stated by its user") and "less their mean" in note
