"""The steps in which a world is built, what each needs, and the marks that say which are done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

NEEDS: dict[str, tuple[str, ...]] = {
    "autoencoder": (), "latents": ("autoencoder",), "text_to_image": ("latents",), "detector": (), "segmenter": (),
    "style_classifier": (), "concept_classifier": ("autoencoder",), "prompts": (), "saes": ("text_to_image", "prompts"),
    "text_to_image_dit": ("latents",), "saes_dit": ("text_to_image_dit", "prompts"),
}  # fmt: skip
"""By step of `benchmarks.scenes.chain` the steps that it needs."""


def mark(build: Path, name: str) -> Path:
    """The file that says a step is done."""
    return build / f"{name}.done"


def is_done(build: Path, name: str) -> bool:
    """Whether a step was done, after everything that it needs."""
    own, needed = mark(build, name), [mark(build, need) for need in NEEDS[name]]
    if not own.exists() or not all(path.exists() for path in needed):
        return False
    return all(path.stat().st_mtime_ns <= own.stat().st_mtime_ns for path in needed)


def unfinished(build: Path, names: Sequence[str]) -> list[str]:
    """The steps that are not done, or whose needs, or the needs of these, are not."""
    return [name for name in names if not is_done(build, name) or unfinished(build, NEEDS[name])]
