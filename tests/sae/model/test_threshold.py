"""BatchTopK autoencoders without a threshold: how one is estimated, and what is said of those that have none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.model.checkpoint import load_pretrained
from gazetteer.sae.model.threshold import ORIGIN, batch_threshold, held_out_l0, reading_notes, with_threshold
from tests.sae.formats.test_topk_formats import D, K, X, write_sparsify
from tests.sae.model.test_autoencoder import random_sae

SITE = Site("mid_block.attentions.0", "cond", 0.5, signal="output")


def test_it_leaves_the_strongest_of_all_vectors_together() -> None:
    sae = random_sae(6, 40, 3)
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    made = with_threshold(sae, batch_threshold(sae, x))
    every = ((x - sae.bias) @ sae.encoder.T).relu()
    border = every.flatten().sort(descending=True).values[3 * 50 - 1]
    kept = torch.where(every >= border, every, 0.0)
    # A vector has 4k = 12 slots, and none needs more here.
    assert int((kept > 0).sum(dim=1).max()) <= 12
    codes = made.encode(x)
    assert int((codes.values > 0).sum()) == 150
    assert torch.equal(torch.zeros_like(every).scatter_add(1, codes.indices, codes.values), kept)
    assert made.encoder.data_ptr() == sae.encoder.data_ptr()


def test_features_a_vector_are_counted_where_the_threshold_was_not_set() -> None:
    """Pictures that differ in length: what is k by construction on those that set the threshold is not on others."""
    sae, generator = random_sae(6, 40, 3), torch.Generator().manual_seed(1)
    parts = [scale * torch.randn(30, 6, generator=generator) for scale in (0.3, 3.0, 1.0)]
    x = torch.cat(parts)
    made = with_threshold(sae, batch_threshold(sae, x))
    assert int((made.encode(x).values > 0).sum()) == 3 * len(x)
    counts = []
    for left in range(3):
        theta = batch_threshold(sae, torch.cat(parts[:left] + parts[left + 1 :]))
        strongest = ((parts[left] - sae.bias) @ sae.encoder.T).relu().topk(12, dim=1).values
        counts.append(int((strongest > theta).sum()))
    assert held_out_l0(sae, parts) == sum(counts) / 90 != 3.0
    assert held_out_l0(sae, parts[:1]) is None and held_out_l0(sae, ()) is None


def test_where_nothing_fires_it_is_nothing() -> None:
    sae = random_sae(6, 12, 3)
    assert batch_threshold(sae, sae.bias.detach().expand(5, 6)) == 0.0


def test_what_has_none_is_named_until_it_has_one(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "sae", batch_topk=True, sample_topk=False)
    saes = {"*": str(tmp_path / "sae")}
    note = f"trained as BatchTopK, and its file has no threshold: the {K} strongest of every vector are taken"
    assert reading_notes(saes, [SITE])[SITE.slug].startswith(note)
    with_threshold(load_pretrained(tmp_path / "sae")[0], 0.25).save_pretrained(
        tmp_path / "own", {ORIGIN: "estimated on 4 pictures"}
    )
    own = {"*": str(tmp_path / "own")}
    assert reading_notes(own, [SITE]) == {SITE.slug: "its BatchTopK threshold was estimated on 4 pictures"}
    read = load_pretrained(tmp_path / "own")[0]
    assert float(read.threshold) == 0.25  # type: ignore[arg-type]
    assert float(read.encode(X[:, :D]).values[read.encode(X[:, :D]).values > 0].min()) > 0.25
    write_sparsify(tmp_path / "plain")
    assert reading_notes({"*": str(tmp_path / "plain")}, [SITE]) == {}
    with pytest.raises(InputError, match="no SAE for"):
        reading_notes(str(tmp_path / "nowhere"), [SITE])
