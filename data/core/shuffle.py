"""A shuffled order of numbers that can be entered at any step and is kept nowhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ROUNDS = 8


def shuffled_indices(
    count: int, batch_size: int, seed: int, start_step: int = 0, epochs: int | None = None
) -> Iterator[np.ndarray]:
    """Batches of indices, int64 [batch_size], from one shuffle of 0 … count−1 after the other.

    Step s holds positions s·batch_size … (s+1)·batch_size − 1 of the permutations laid end to end (a batch
    may span two), so any step can be entered directly. With `epochs`, the last incomplete batch is left out;
    without, the stream never ends. Memory: some multiples of a batch, whatever the count.
    """
    step = start_step
    while count > 0 and (epochs is None or (step + 1) * batch_size <= epochs * count):
        pieces, position, end = [], step * batch_size, (step + 1) * batch_size
        while position < end:
            epoch, offset = divmod(position, count)
            places = np.arange(offset, min(count, offset + end - position))
            pieces.append(permuted(places, count, seed, epoch))
            position += len(places)
        yield np.concatenate(pieces)
        step += 1


def permuted(places: np.ndarray, count: int, seed: int, epoch: int) -> np.ndarray:
    """Where a pseudorandom permutation of 0 … count−1 sends these places: int64 [m] -> int64 [m].

    A Feistel network permutes the numbers below the next power of four; whatever it sends beyond the count goes
    through it again until it comes out below (Black and Rogaway 2002, cycle walking), less than four times on average.
    """
    half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    keys = np.random.default_rng([seed, epoch]).integers(0, 2**64, ROUNDS, dtype=np.uint64)
    out = places.astype(np.uint64)
    beyond = np.arange(len(out))
    while len(beyond) > 0:
        out[beyond] = _feistel(out[beyond], half, keys)
        beyond = beyond[out[beyond] >= count]
    return out.astype(np.int64)


def _feistel(x: np.ndarray, half: np.uint64, keys: np.ndarray) -> np.ndarray:
    """A keyed permutation of the numbers of 2 · half bits, uint64 [m]."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    return (left << half) | right


def _mixed(x: np.ndarray) -> np.ndarray:
    """Every bit of the result depends on every bit of x, uint64 [m] (the finaliser of SplitMix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
