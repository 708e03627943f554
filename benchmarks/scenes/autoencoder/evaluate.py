"""Measure an autoencoder on scenes it was not trained on, beside the embedded one, by look.

python -m benchmarks.scenes.autoencoder.evaluate --vae build/world/vae --scenes 280 --sheet build/world/sheet.png
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from benchmarks.scenes.autoencoder.pictures import absolute_error, reconstructed
from benchmarks.scenes.detector.evaluate import count_hits
from benchmarks.scenes.options import add_views
from benchmarks.scenes.training.loop import save_sheet
from gazetteer.data.core.terminal import print_table
from gazetteer.data.scenes.render import Scene, render
from gazetteer.data.scenes.world import CONCEPT_NAMES, EVAL_SEEDS
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import Detection, Detector, DetectorConfig

MODELS = Path(__file__).resolve().parents[3] / "data" / "scenes" / "models"
EMBEDDED = MODELS / "text_to_image" / "vae"
PLAIN = "plain"


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """The autoencoder in a folder, in float32."""
    return AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval()


def pixels_of(scenes: Sequence[Scene]) -> Tensor:
    """Pictures of scenes, uint8 [N, 3, H, W]."""
    return torch.tensor(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)


def by_look(scenes: Sequence[Scene], made: Tensor) -> dict[str, float]:
    """Mean absolute error in steps of 255 of reconstructions uint8 [N, 3, H, W], of the scenes of every look."""
    errors = (made.float() - pixels_of(scenes).float()).abs().mean(dim=(1, 2, 3)).tolist()
    groups: dict[str, list[float]] = defaultdict(list)
    for scene, error in zip(scenes, errors, strict=True):
        groups[scene.style or PLAIN].append(error)
    return {look: round(float(np.mean(values)), 3) for look, values in sorted(groups.items())}


def again(originals: Sequence[Detection], copies: Sequence[Detection]) -> tuple[int, int]:
    """How many detections of a picture are found again in its copy (same concept, IoU 0.5, one to one), of how many."""
    hits = total = 0
    for concept in CONCEPT_NAMES:
        true, copied = ([d.box for d in part if d.concept == concept] for part in (originals, copies))
        boxes, wanted = (np.array(part, dtype=np.float32).reshape(-1, 4) for part in (copied, true))
        hits += count_hits(boxes, wanted)
        total += len(true)
    return hits, total


def detected(detector: Detector, pixels: Tensor) -> list[list[Detection]]:
    """What the detector finds in pictures uint8 [N, 3, H, W], asked for every concept."""
    return detector.detect(list(pixels.permute(0, 2, 3, 1).numpy()), [CONCEPT_NAMES] * len(pixels))


def found_again(
    scenes: Sequence[Scene], originals: Sequence[Sequence[Detection]], copies: Sequence[Sequence[Detection]]
) -> dict[str, float]:
    """Of what was detected in the scenes, the share that was in their reconstructions, by look and for `all`."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for scene, before, after in zip(scenes, originals, copies, strict=True):
        hits, total = again(before, after)
        for look in (scene.style or PLAIN, "all"):
            counts[look][0] += hits
            counts[look][1] += total
    return {look: round(hits / max(1, total), 4) for look, (hits, total) in sorted(counts.items())}


def autoencoder_quality(detector: Detector, scenes: Sequence[Scene], folder: Path = EMBEDDED) -> dict[str, Any]:
    """Error of the autoencoder in `folder`, what the detector finds again after it, and both of the embedded one."""
    pixels = pixels_of(scenes)
    originals = detected(detector, pixels)
    result: dict[str, Any] = {"scenes": len(scenes)}
    folders = {"": folder} if folder == EMBEDDED else {"": folder, "embedded_": EMBEDDED}
    for name, path in folders.items():
        made = reconstructed(load_autoencoder(path), pixels)
        again = found_again(scenes, originals, detected(detector, made))
        result |= {
            f"{name}error": round(absolute_error(made, pixels), 4),
            f"{name}found_again": again.pop("all"),
            f"{name}error_by_style": by_look(scenes, made),
            f"{name}found_again_by_style": again,
        }
    return result


def main() -> None:
    """Print the measurements, JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, default=EMBEDDED)
    parser.add_argument("--detector", default=str(MODELS / "detector"))
    parser.add_argument("--scenes", type=int, default=280)
    parser.add_argument("--sheet", type=Path, help="originals beside reconstructions, as PNG")
    add_views(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    scenes = [render(seed, views=options.views) for seed in EVAL_SEEDS[80_000 : 80_000 + options.scenes]]
    result = autoencoder_quality(load_detector(DetectorConfig(path=options.detector)), scenes, options.vae)
    for name in [name for name in result if options.vae == EMBEDDED and name != "scenes"]:
        result[f"embedded_{name}"] = result[name]
    rows = []
    for look, error in {**result["error_by_style"], "all": result["error"]}.items():
        other = {**result["embedded_error_by_style"], "all": result["embedded_error"]}[look]
        fractions = [
            {**result[f"{n}found_again_by_style"], "all": result[f"{n}found_again"]} for n in ("", "embedded_")
        ]
        again, embedded = (fraction[look] for fraction in fractions)
        rows.append((look, error, other, error / other, again, embedded))
    print_table(
        {"look": "", "error": ".2f", "embedded's": ".2f", "ratio": ".2f", "again": ".3f", "embedded's again": ".3f"},
        rows,
    )
    if options.sheet:
        pixels = pixels_of(scenes[:32])
        both = torch.stack([pixels, reconstructed(load_autoencoder(options.vae), pixels)], dim=1).flatten(0, 1)
        save_sheet(both.permute(0, 2, 3, 1).numpy(), options.sheet, columns=8)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
