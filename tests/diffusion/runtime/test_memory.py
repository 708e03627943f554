"""Batches that find their own size, and work beside them: the same results in the same order, and nothing swallowed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetteer.diffusion.runtime.beside import begin, use_helpers
from gazetteer.diffusion.runtime.memory import FittingBatch, OutOfMemory
from gazetteer.labeling.pipeline.notes import overheard


@pytest.fixture(params=[0, 2])
def helpers(request: pytest.FixtureRequest) -> Iterator[int]:
    use_helpers(request.param)
    yield request.param
    use_helpers(0)


class Small(torch.nn.Module):
    """Squares rows, and has room for so many at once: more is an allocation that no machine serves."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) > self.room:
            torch.empty(2**60)
        return x * x


def squared(model: Small, fitting: FittingBatch, count: int) -> list[float]:
    x = torch.arange(float(count))
    parts = fitting.prepared(count, lambda part: x[part] + 1, lambda part, given: model(given - 1).tolist())
    return list(chain.from_iterable(parts))


def test_a_batch_that_does_not_fit_is_halved_once_for_good(helpers: int) -> None:
    model, fitting = Small(3), FittingBatch("squaring", "square.batch_size", 16, "a larger machine")
    with overheard() as notes:
        assert squared(model, fitting, 20) == [n**2 for n in range(20)]
    assert model.seen == [16, 8, 4, *[2] * 10]
    assert notes[-1] == "Out of memory while squaring, 4 at once; a worker goes on with square.batch_size=2."
    with overheard() as notes:
        squared(model, fitting, 5)
    assert notes == [] and model.seen[-3:] == [2, 2, 1]


def test_a_single_item_that_does_not_fit_ends_it_with_what_to_try(helpers: int) -> None:
    with pytest.raises(OutOfMemory, match=r"Out of memory while squaring \(1 at once\); try a larger machine\."):
        squared(Small(0), FittingBatch("squaring", "square.batch_size", 0, "a larger machine"), 5)


def test_the_error_of_a_device_is_told_from_others() -> None:
    fitting = FittingBatch("squaring", "square.batch_size", 4, "")

    def call(part: slice) -> int:
        if part.stop - part.start > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(fitting.over(4, call))
    assert fitting.size == 1


@settings(max_examples=30, deadline=None)  # each begins helpers anew
@given(count=st.integers(0, 30), size=st.integers(0, 9), room=st.integers(1, 9), threads=st.sampled_from([0, 2]))
def test_results_do_not_depend_on_what_fits(count: int, size: int, room: int, threads: int) -> None:
    use_helpers(threads)
    logging.disable(logging.WARNING)
    try:
        assert squared(Small(room), FittingBatch("", "", size, ""), count) == [n**2 for n in range(count)]
    finally:
        logging.disable(logging.NOTSET)
        use_helpers(0)


def test_errors_of_helpers_are_raised_where_the_result_is_wanted(helpers: int) -> None:
    def prepare(part: slice) -> int:
        if part.start == 4:
            raise ValueError("the third part is bad")
        return part.start

    parts = FittingBatch("", "", 2, "").prepared(8, prepare, lambda part, given: given)
    assert [next(parts), next(parts)] == [0, 2]
    with pytest.raises(ValueError, match="third"):
        next(parts)


def test_helpers_work_beside_the_caller() -> None:
    use_helpers(2)
    try:
        here, there = threading.get_ident(), begin(threading.get_ident)
        assert there() != here
        gate = threading.Event()
        first, second = begin(gate.wait, 60), begin(gate.set)  # the first waits for the second
        assert second() is None and first()
    finally:
        use_helpers(0)
    assert begin(threading.get_ident)() == here
