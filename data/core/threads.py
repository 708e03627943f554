"""How many CPU threads a process computes with: sums differ in their last bits with it, so that it is a setting."""

from __future__ import annotations


def use_threads(threads: int) -> None:
    """Let torch compute with so many threads in this process from now on; 0 leaves what is."""
    if threads:
        import torch

        torch.set_num_threads(threads)


def thread_environment(threads: int) -> dict[str, str]:
    """The environment variables by which a new process starts with so many threads; none for 0."""
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} if threads else {}
