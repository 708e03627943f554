"""What it costs on a CPU to give the U-Net one picture per call (results independent of the batch) instead of eight."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import _checkout  # noqa: F401
import torch

from gazetteer.diffusion.load import load_pipeline
from gazetteer.jobs.config.schema import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="YAML configuration (default: the embedded world)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pipe: Any = load_pipeline(load_config(arguments.config).model)
    # The two sizes take turns, so that a machine whose speed drifts is fair to both.
    spent: dict[int, list[float]] = {1: [], 8: []}
    for _ in range(arguments.rounds):
        for pictures in spent:
            spent[pictures].append(per_picture(pipe.unet, pictures))
    ratios = sorted(single / eight for single, eight in zip(spent[1], spent[8], strict=True))
    result = {
        "one_ms": 1000 * min(spent[1]),
        "eight_ms": 1000 * min(spent[8]),
        "ratio_median": ratios[len(ratios) // 2],
        "ratio_min": ratios[0],
        "ratio_max": ratios[-1],
    }
    print(
        f"CPU ms per picture and step, guidance pair: {result['one_ms']:.1f} alone, {result['eight_ms']:.1f} of eight; "
        f"ratio {result['ratio_median']:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    if arguments.json:
        print(json.dumps(result))


@torch.inference_mode()
def per_picture(unet: Any, pictures: int) -> float:
    """CPU seconds per picture of one guided U-Net call on so many pictures."""
    config = unet.config
    latents = torch.randn(2 * pictures, config.in_channels, config.sample_size, config.sample_size)
    text = torch.randn(2 * pictures, 32, config.cross_attention_dim)
    start = time.process_time()
    unet(latents, 500, text)
    return (time.process_time() - start) / pictures


if __name__ == "__main__":
    main()
