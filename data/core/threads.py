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


def use_tensor_cores() -> None:
    """Let float32 products on CUDA devices round their factors to TF32 (ten bits), as convolutions do by default.

    The models kept in float32 (detectors, SAM) run several times as fast; CPUs are left as they are.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
