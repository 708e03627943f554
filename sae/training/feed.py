"""Batches on their way to the device that trains: over pinned memory, while the step before is still at work."""

from __future__ import annotations

import torch
from torch import Tensor


class Feed:
    """Brings batches from the host to a device; where that is the host itself, nothing is copied.

    On CUDA a batch goes through pinned memory on a stream of its own, so that the copy of one batch runs beside the
    step on the one before: two are on the device at a time, as long as no step waits for the device.
    """

    def __init__(self, device: torch.device | str) -> None:
        """For this device."""
        self.device = torch.device(device)
        self._copies: torch.cuda.Stream | None = None

    def __call__(self, batch: Tensor) -> Tensor:
        """The batch on the device, ready for what is asked of it there next."""
        if self.device.type != "cuda" or batch.device.type != "cpu":
            return batch.to(self.device)
        self._copies = self._copies or torch.cuda.Stream(self.device)
        with torch.cuda.stream(self._copies):  # type: ignore[no-untyped-call]
            moved = batch.pin_memory().to(self.device, non_blocking=True)
        at_work = torch.cuda.current_stream(self.device)
        at_work.wait_stream(self._copies)
        moved.record_stream(at_work)
        return moved
