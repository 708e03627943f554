"""What a build holds, and what is kept of it in the repository so that no machine's loss costs hours of training.

    python -m benchmarks.scenes.kept --build build/world

Copies the parts that are done, and the averaged weights of those that are not, to the folder `kept` beside
this file, for a commit. `benchmarks.scenes.chain` starts from them wherever its build lacks them; adopting the world
removes them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.scenes.steps import is_done
from gazetteer.data.core.errors import InputError
from gazetteer.data.scenes.weights import read_world

KEPT = Path(__file__).resolve().with_name("kept")
SEED = 0
"""Of every training of `benchmarks.scenes.chain`, which leaves the programs' own; the autoencoders state theirs."""

PARTS: dict[str, tuple[str, ...]] = {
    "autoencoder": ("autoencoder.done", "vae/*", "autoencoder/curve.jsonl"),
    "detector": ("detector.done", "models/detector/*", "models/world.json"),
    "segmenter": ("segmenter.done", "models/segmenter/*", "models/world.json"),
    "style_classifier": ("style_classifier.done", "models/style_classifier/*", "models/world.json"),
    "concept_classifier": ("concept_classifier.done", "models/concept_classifier/*", "models/world.json"),
    "text_to_image": ("text_to_image/averages.safetensors", "text_to_image/curve.jsonl"),
    "text_to_image_dit": ("text_to_image_dit/averages.safetensors", "text_to_image_dit/curve.jsonl"),
}
"""By training the files of a build: its mark, where only what is done is worth keeping, and what later steps need."""

OF_AUTOENCODER = ("concept_classifier", "text_to_image", "text_to_image_dit")
"""Trained on what one autoencoder makes of scenes, and worth nothing with another."""

VAE = Path("vae", "diffusion_pytorch_model.safetensors")


def keep(build: Path, kept: Path = KEPT) -> list[str]:
    """Copy what is worth keeping of a build; returns the names of the trainings.

    Raises:
        InputError: there is nothing.
    """
    names = [name for name, (first, *_) in PARTS.items() if (build / first).exists()]
    names = [name for name in names if not PARTS[name][0].endswith(".done") or is_done(build, name)]
    if not names:
        raise InputError(f"{build} holds nothing to keep: no training is done, and none left averages.")
    for name in names:
        for pattern in PARTS[name]:
            for file in sorted(build.glob(pattern)):
                target = kept / file.relative_to(build)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
    return names


def restorable(build: Path, kept: Path = KEPT) -> list[str]:
    """Names of the trainings that a build has nothing of and that are kept.

    What a build has begun itself stays, and with another autoencoder than the one that is kept nothing is taken that
    was trained with that one.
    """
    names: list[str] = []
    for name, (first, *_) in PARTS.items():
        if not (kept / first).exists() or (build / first).exists() or (build / name / "checkpoint.pt").exists():
            continue
        comes = "autoencoder" in names and not (build / VAE).exists()
        if name in OF_AUTOENCODER and not comes and not _same(build / VAE, kept / VAE):
            continue
        names.append(name)
    return names


def restore(build: Path, kept: Path = KEPT) -> list[str]:
    """Copy to a build what it has nothing of; returns the names of the trainings.

    Marks come in the order of `PARTS`, so that none is older than one it needs.
    """
    names = restorable(build, kept)
    for name in names:
        for pattern in reversed(PARTS[name]):  # the mark last
            for file in sorted(kept.glob(pattern)):
                target = build / file.relative_to(kept)
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
    return names


def _same(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.read_bytes() == second.read_bytes()


def drop(names: Sequence[str], kept: Path = KEPT) -> None:
    """Remove what is kept of these trainings, and the folders that this leaves empty.

    The autoencoder stays as long as something is kept that was trained with it.
    """
    others = [name for name in OF_AUTOENCODER if name not in names and (kept / PARTS[name][0]).exists()]
    names = [name for name in names if name != "autoencoder" or not others]
    for pattern in {pattern for name in names for pattern in PARTS.get(name, ())}:
        for file in kept.glob(pattern):
            file.unlink()
    for folder in sorted((path for path in (*kept.rglob("*"), kept) if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def figures_of(build: Path, name: str) -> dict[str, Any]:
    """Steps, hours and seed of a training: the end of its curve, its checkpoint, or what the models say;
    of sparse autoencoders what they state."""
    curve, checkpoint = build / name / "curve.jsonl", build / name / "checkpoint.pt"
    if name.startswith("saes"):
        return _figures_of_saes(build / "models" / name)
    if curve.exists():
        last = json.loads(curve.read_text(encoding="utf-8").splitlines()[-1])
        return {"steps": int(last["step"]), "hours": round(float(last["hours"]), 2), "seed": SEED}
    if checkpoint.exists():
        from benchmarks.scenes.training.loop import load_checkpoint

        state = load_checkpoint(checkpoint)
        return {"steps": int(state["step"]), "hours": round(float(state["seconds"]) / 3600, 2), "seed": SEED}
    return dict(read_world(build / "models")["training"].get(name, {}))


def _figures_of_saes(folder: Path) -> dict[str, Any]:
    """Of all autoencoders alike: the most steps, and the seed; they do not say how long it took."""
    said = [
        json.loads(file.read_text(encoding="utf-8")).get("training", {})
        for file in sorted(folder.glob("*/config.json"))
    ]
    steps = [about.get("outcome", {}).get("steps") for about in said]
    seeds = [about.get("config", {}).get("seed") for about in said]
    if not said or None in steps or None in seeds:
        return {}
    return {"steps": max(steps), "seed": min(seeds)}


def main(argv: Sequence[str] | None = None) -> int:
    """Keep what a build has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path("build/world"))
    parser.add_argument("--kept", type=Path, default=KEPT, help="where to")
    options = parser.parse_args(argv)
    try:
        names = keep(options.build, options.kept)
    except InputError as error:
        parser.error(str(error))
    size = sum(file.stat().st_size for file in options.kept.rglob("*") if file.is_file()) / 1e6
    print(f"kept {', '.join(names)} in {options.kept}: {size:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
