"""Which steps of the schedule the text-to-image training sees."""

from __future__ import annotations

import torch

from benchmarks.scenes.text_to_image.model import build_scheduler
from benchmarks.scenes.text_to_image.train import noise_steps
from benchmarks.scenes.training.loop import spread


def test_most_steps_are_drawn_where_shapes_are_made_and_none_is_left_out() -> None:
    signal = build_scheduler().alphas_cumprod
    torch.manual_seed(0)
    t = noise_steps(signal, spread(100_000))
    assert t.min() == 0 and t.max() == 999
    assert 0.55 < float(((t >= 550) & (t < 850)).float().mean()) < 0.7
    counts = torch.bincount(t, minlength=1000)
    assert counts[0] > 20 and counts[-1] > 20 and (counts > 0).all()
