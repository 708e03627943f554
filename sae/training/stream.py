"""A shuffle of vectors that arrive in pictures, in bounded memory: what trains every site from one pass of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError

Key = TypeVar("Key")


def mixed(
    stream: Iterable[Mapping[Key, Tensor]], capacity: int, batch_size: int, seed: int = 0
) -> Iterator[tuple[Key, Tensor]]:
    """Batches of single vectors from a stream of whole pictures, for every key (site) at once.

    Guarantees: every vector comes out exactly once, save the last ones that do not fill a batch. A batch is drawn
    uniformly without replacement from the `capacity` vectors a key holds at that moment, so vectors of one
    picture are spread over many batches. The order follows from the seed and the stream alone, whatever the other
    keys are. Nothing is read ahead of what is needed.

    Memory: `capacity` vectors a key, stored as they arrive (float16 halves it), and one batch and one element of
    the stream.

    Args:
        stream: for each picture or batch of pictures, the vectors [count, d] of every key.
        capacity: vectors to hold back per key, at least batch_size; a picture's cells should be a small share.
        batch_size: vectors a batch.
        seed: of the draws, made on the CPU.

    Yields:
        (key, float32 [batch_size, d]).

    Raises:
        InputError: capacity below batch_size, or vectors of a key that change width or type.
    """
    expect_room(capacity, batch_size)
    buffers: dict[Key, ShuffleBuffer] = {}
    for chunks in stream:
        for key, vectors in chunks.items():
            if key not in buffers:
                buffers[key] = ShuffleBuffer(vectors, capacity, batch_size, seed_of(seed, key))
            while len(vectors) > 0:
                vectors = buffers[key].fill(vectors)
                if buffers[key].full:
                    yield key, buffers[key].draw()
    for key, buffer in buffers.items():
        while buffer.held >= batch_size:
            yield key, buffer.draw()


def expect_room(capacity: int, batch_size: int) -> None:
    """Raises InputError unless batches of this size can be drawn from a buffer of this capacity."""
    if not 1 <= batch_size <= capacity:
        raise InputError(f"A shuffle buffer of {capacity} vectors cannot give batches of {batch_size}.")


class ShuffleBuffer:
    """The vectors of one key: a table [capacity, d] of which the first `held` rows are in use."""

    def __init__(self, like: Tensor, capacity: int, batch_size: int, seed: int) -> None:
        """Empty, for vectors of the width and type of `like` [count, d]."""
        self.table = like.new_empty(capacity, like.shape[1])
        self.batch_size, self.held = batch_size, 0
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def full(self) -> bool:
        """Whether a batch must go out before anything comes in."""
        return self.held == len(self.table)

    def fill(self, vectors: Tensor) -> Tensor:
        """Take in of vectors [count, d] what there is room for; returns the rest."""
        if vectors.shape[1:] != self.table.shape[1:] or vectors.dtype != self.table.dtype:
            raise InputError(
                f"The stream changed from {self.table.shape[1]} channels of {self.table.dtype} "
                f"to {list(vectors.shape[1:])} of {vectors.dtype}."
            )
        taken = vectors[: len(self.table) - self.held]
        self.table[self.held : self.held + len(taken)] = taken
        self.held += len(taken)
        return vectors[len(taken) :]

    def sample(self, count: int) -> Tensor:
        """Up to `count` of the vectors held, evenly spaced, float32; nothing is taken out."""
        places = torch.linspace(0, self.held - 1, min(count, self.held), dtype=torch.float64).round().long()
        return self.table[places].float()

    def draw(self) -> Tensor:
        """A random batch, float32; the last rows in use move into its places."""
        chosen = torch.randperm(self.held, generator=self.generator)[: self.batch_size]
        batch = self.table[chosen].float()
        self.held -= self.batch_size
        holes = chosen[chosen < self.held]
        tail = torch.ones(self.batch_size, dtype=torch.bool)
        tail[chosen[chosen >= self.held] - self.held] = False
        self.table[holes] = self.table[self.held + tail.nonzero().squeeze(1)]
        return batch

    def state(self) -> dict[str, Tensor]:
        """What `restore` needs to go on with the same draws; a view of the rows, valid until it changes."""
        return {"rows": self.table[: self.held], "generator": self.generator.get_state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state` was taken; raises InputError when it does not fit."""
        self.held = 0
        if len(self.fill(state["rows"])) > 0:
            raise InputError(f"A shuffle buffer of {len(self.table)} vectors cannot hold {len(state['rows'])}.")
        self.generator.set_state(state["generator"])


def seed_of(seed: int, key: object) -> int:
    """A key's own seed, so that no key's order depends on which others there are."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key!r}".encode()).digest()[:7], "big")
