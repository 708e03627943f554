"""A shuffled order of numbers that can be entered at any step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def shuffled_indices(
    count: int, batch_size: int, seed: int, start_step: int = 0, epochs: int | None = None
) -> Iterator[np.ndarray]:
    """Batches of indices, int64 [batch_size], from one shuffle of 0 … count−1 after the other.

    Step s holds positions s·batch_size … (s+1)·batch_size − 1 of the permutations laid end to end (a batch
    may span two), so any step can be entered directly. With `epochs`, the last incomplete batch is left out;
    without, the stream never ends. Memory: two permutations of 8 bytes an index.
    """
    held: dict[int, np.ndarray] = {}

    def permutation(epoch: int) -> np.ndarray:
        if epoch not in held:
            held.pop(epoch - 2, None)
            held[epoch] = np.random.default_rng([seed, epoch]).permutation(count)
        return held[epoch]

    step = start_step
    while count > 0 and (epochs is None or (step + 1) * batch_size <= epochs * count):
        pieces, position, end = [], step * batch_size, (step + 1) * batch_size
        while position < end:
            epoch, offset = divmod(position, count)
            piece = permutation(epoch)[offset : offset + end - position]
            pieces.append(piece)
            position += len(piece)
        yield np.concatenate(pieces)
        step += 1
