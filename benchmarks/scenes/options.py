"""Command-line options that the training scripts share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gazetteer.data.scenes.world import VIEWS


def views(text: str) -> tuple[str, ...]:
    """`all`, `none` (the plain landscape), or names of views with commas between them."""
    if text in ("all", "none"):
        return VIEWS if text == "all" else ()
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in VIEWS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown view {unknown[0]!r}; views are {', '.join(VIEWS)}")
    return names


def add_views(parser: argparse.ArgumentParser, default: Sequence[str] | None = VIEWS) -> None:
    """The option that says from where scenes are seen; where `default` is None, as the models at hand know them."""
    what = f"all, none (the plain landscape), or some of {','.join(VIEWS)}"
    what += " (default: those the models were trained on)" if default is None else ""
    parser.add_argument("--views", type=views, default=default, help=what)


def classifier_options(
    description: str | None, name: str, steps: int, pool: int, autoencoder: Path | None = None
) -> argparse.Namespace:
    """The command line of a script that trains a classifier on rendered scenes; `steps` and `pool` are defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--export", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--pool", type=int, default=pool, help="scenes to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/train") / name, help="receives the checkpoint")
    add_views(parser)
    if autoencoder:
        parser.add_argument("--vae", type=Path, default=autoencoder, help="autoencoder that softens pictures")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    return parser.parse_args()


def finder_options(
    description: str | None, name: str, minutes: tuple[float, float, float], batch: int, rate: float
) -> argparse.ArgumentParser:
    """The command line of detector and segmenter; `minutes`: of the whole, of the first stage, between checks."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/train") / name)
    parser.add_argument("--scenes", type=Path, default=Path("build/train/scenes"), help="cache of rendered scenes")
    parser.add_argument("--count", type=int, default=16000, help="how many training scenes to render")
    parser.add_argument("--minutes", type=float, default=minutes[0])
    parser.add_argument("--pretrain-minutes", type=float, default=minutes[1], help="of the first stage")
    parser.add_argument("--check-minutes", type=float, default=minutes[2])
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--seed", type=int, default=0)
    add_views(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    parser.add_argument("--export", type=Path, help="folder for the trained model")
    return parser
