"""The streaming shuffle: every vector once, well mixed, in bounded memory, and the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.sae.training.config import TrainConfig
from gazetteer.sae.training.stream import mixed
from gazetteer.sae.training.trainer import Trainer
from tests.sae.training.test_train import synthetic


def pictures(count: int, cells: int, keys: str = "a") -> Iterator[dict[str, Tensor]]:
    """Every vector is (picture, cell), and numbers 0, 1, 2, … in its third channel."""
    for picture in range(count):
        cell = torch.arange(cells).float()
        vectors = torch.stack([torch.full((cells,), float(picture)), cell, picture * cells + cell], dim=1)
        yield dict.fromkeys(keys, vectors)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 20), st.integers(1, 12), st.integers(0, 40), st.integers(0, 2**31))
def test_every_vector_comes_out_once(count: int, cells: int, batch: int, spare: int, seed: int):
    out = [x for _, x in mixed(pictures(count, cells), batch + spare, batch, seed)]
    assert len(out) == count * cells // batch
    assert all(x.shape == (batch, 3) and x.dtype == torch.float32 for x in out)
    numbers = torch.cat([x[:, 2] for x in out]).tolist() if out else []
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) <= set(range(count * cells))


def test_a_batch_is_not_a_handful_of_whole_pictures():
    # 64 cells a picture, 64 vectors a batch, 1024 held back: a batch sees most of the 16 pictures in the buffer.
    batches = [x for _, x in mixed(pictures(200, 64), 1024, 64)]
    fractions = [len(x[:, 0].unique()) for x in batches]
    assert sum(fractions) / len(fractions) > 15
    assert max(int(x[:, 0].bincount().max()) for x in map(torch.Tensor.long, batches[:-16])) < 32


def test_the_order_is_the_seeds_and_no_other_keys():
    def run(keys: str, seed: int) -> Tensor:
        return torch.stack([x for key, x in mixed(pictures(40, 16, keys), 128, 32, seed) if key == "a"])

    assert torch.equal(run("a", 1), run("a", 1))
    assert torch.equal(run("a", 1), run("cab", 1))
    assert not torch.equal(run("a", 1), run("a", 2))


def test_the_keys_of_one_stream_have_orders_of_their_own():
    out: dict[str, list[Tensor]] = {"a": [], "b": []}
    for key, x in mixed(pictures(40, 16, "ab"), 128, 32):
        out[key].append(x)
    assert not torch.equal(out["a"][0], out["b"][0])
    assert torch.equal(*(torch.cat(batches)[:, 2].sort().values for batches in out.values()))


def test_nothing_is_read_ahead_and_no_more_than_the_capacity_is_held():
    read = []

    def watched() -> Iterator[dict[str, Tensor]]:
        for number, chunk in enumerate(pictures(50, 16)):
            read.append(number)
            yield chunk

    stops = [len(read) * 16 - (done + 1) * 32 for done, _ in enumerate(mixed(watched(), 128, 32))]
    assert max(stops) <= 128
    assert all(after - before <= 32 for before, after in pairwise(stops))


def test_half_precision_is_held_as_it_comes():
    batches = [x for _, x in mixed(({"a": chunk["a"].half()} for chunk in pictures(20, 8)), 64, 16)]
    assert batches[0].dtype == torch.float32


def test_what_cannot_be_mixed_is_said():
    with pytest.raises(InputError, match="cannot give batches of 9"):
        next(mixed(pictures(3, 4), 8, 9))
    changing = iter([{"a": torch.zeros(4, 3)}, {"a": torch.zeros(4, 2)}])
    with pytest.raises(InputError, match=r"changed from 3 channels of torch.float32 to \[2\] of torch.float32"):
        list(mixed(changing, 8, 2))


def test_all_sites_learn_from_one_stream():
    vectors = {"mid": synthetic(12_000, seed=0)[0], "up": synthetic(12_000, seed=1)[0]}
    stream = ({site: x[i : i + 60] for site, x in vectors.items()} for i in range(0, 12_000, 60))
    config = TrainConfig(k=3, n=48, lr=3e-3, batch_size=256, dead_after=2560)
    trainers = {site: Trainer(16, config, steps=46) for site in vectors}
    for site, trainer in trainers.items():
        trainer.start(vectors[site][:1000])
    for site, batch in mixed(stream, 2048, 256):
        trainers[site].advance(batch)
    for trainer in trainers.values():
        assert trainer.step == 46
        assert trainer.history[-1]["loss"] < 0.7 * trainer.history[0]["loss"]
