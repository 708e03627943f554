"""Ship a world that was trained: `python -m benchmarks.scenes.adopt --build build/world`.

Nothing is changed before everything has been tried where it was trained: all models are there, are no more than 45 MB
together (the transformer and its autoencoders, which no package holds, 40), load in float32 by the `from_pretrained` of
their library with no argument, and every autoencoder was trained on this text-to-image model. Then models, prompts and
`world.json` (the views, and steps, hours and seed of every training) take the place of the old ones, the sheets of
pictures are drawn, and the model card is measured. What is left to do by hand: `benchmarks.measure`, and docs/results
with what it finds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.scenes.kept import drop, figures_of
from benchmarks.scenes.options import add_views
from benchmarks.scenes.steps import unfinished
from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import replace_file
from gazetteer.data.scenes.weights import WORLD, read_world

ROOT = Path(__file__).resolve().parents[2]
SCENES = ROOT / "data" / "scenes"
CARD = ROOT / "docs" / "results" / "scenes.md"

NEEDED = ("text_to_image", "saes", "detector", "segmenter", "style_classifier", "concept_classifier")
FURTHER = ("text_to_image_dit", "saes_dit")
"""Taken along where they were trained; else what there is of them stays. They are in the repository alone: setup.cfg
leaves them out of packages."""

PROMPTS = ("prompts.txt", "prompts_sae.txt")
LIMIT_MB, FURTHER_LIMIT_MB = 45.0, 40.0
_LATENTS = Path("latents", "meta.json")
NOT_PACKAGED = (
    "the weights are not in the package: data/scenes/models of the repository has them; there, or with what "
    "python -m benchmarks.scenes.chain trains, --set model.path=… saes=… names them."
)


@dataclass(frozen=True)
class World:
    """What was trained.

    Attributes:
        models, prompts: the folders of a build.
        names: the models that are taken.
        views: from where its scenes are seen.
        training: by model ``steps``, ``hours`` and ``seed``, as far as they are known.
    """

    models: Path
    prompts: Path
    names: tuple[str, ...]
    views: tuple[str, ...]
    training: dict[str, dict[str, Any]]


def trained(build: Path, views: Sequence[str] | None = None, without: Sequence[str] = ()) -> World:
    """The world of a build of `benchmarks.scenes.chain`.

    Args:
        views: None: those that the build itself says it was trained on.
        without: of `FURTHER`.
    Raises:
        InputError: a model or a list of prompts is missing or of before what it was trained on, a prompt is in both
            lists, or nobody knows the views.
    """
    models, prompts = build / "models", build / "prompts"
    missing = [name for name in NEEDED if not (models / name).is_dir()]
    missing += [f"../prompts/{name}" for name in PROMPTS if not (prompts / name).is_file()]
    if missing:
        raise InputError(f"{models} has no {missing[0]}; python -m benchmarks.scenes.chain --build {build} makes it.")
    lists = [set((prompts / name).read_text(encoding="utf-8").splitlines()) for name in PROMPTS]
    if lists[0] & lists[1]:
        raise InputError(f"{min(lists[0] & lists[1])!r} is in both lists of {prompts}; no prompt may be.")
    names = (*NEEDED, *(name for name in FURTHER if (models / name).is_dir() and name not in without))
    if old := unfinished(build, ("prompts", *names)):
        raise InputError(
            f"{old[0]} is not done in {build}, or what it needs was done anew since; "
            f"python -m benchmarks.scenes.chain --build {build} makes it."
        )
    training = {name: figures for name in ("autoencoder", *names) if (figures := figures_of(build, name))}
    return World(models, prompts, names, _views(build) if views is None else tuple(views), training)


def describe(build: Path, views: Sequence[str] | None = None) -> None:
    """Write `world.json` beside a build's models: who draws scenes for them has to know from where they are seen.

    Args:
        views: None: those that the build says it was trained on.
    Raises:
        InputError: nobody knows the views.
    """
    models = build / "models"
    names = [name for name in ("autoencoder", *NEEDED, *FURTHER) if name == "autoencoder" or (models / name).is_dir()]
    training = {name: figures for name in names if (figures := figures_of(build, name))}
    models.mkdir(parents=True, exist_ok=True)
    _write_world(models, _views(build) if views is None else views, training)


def _write_world(
    models: Path, views: Sequence[str], training: dict[str, dict[str, Any]], others: dict[str, list[str]] | None = None
) -> None:
    said = {"views": list(views), "training": training} | ({"others": others} if others else {})
    replace_file(models / WORLD, (json.dumps(said, indent=1) + "\n").encode())


def views_of(build: Path) -> tuple[str, ...] | None:
    """What the models say, or the latents that the text-to-image model was trained on; None where nothing does."""
    if (build / "models" / WORLD).exists():
        return tuple(read_world(build / "models")["views"])
    if (build / _LATENTS).exists():
        return tuple(json.loads((build / _LATENTS).read_text(encoding="utf-8"))["views"])
    return None


def _views(build: Path) -> tuple[str, ...]:
    if (said := views_of(build)) is None:
        files = f"Neither {build / 'models' / WORLD} nor {build / _LATENTS}"
        raise InputError(f"{files} says which views it was trained on; name them with --views.")
    return said


def _configs(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/config.json"))


def check(world: World, scenes: Path, limits: tuple[float, float] = (LIMIT_MB, FURTHER_LIMIT_MB)) -> float:
    """Try every model where it was trained; returns the MB that will ship.

    Args:
        limits: in MB, of what is packaged and of `FURTHER`.
    Raises:
        InputError: too large, a model that does not load in float32 with no argument, or autoencoders of another one.
    """
    stays = [scenes / "models" / name for name in FURTHER if name not in world.names]
    sizes = {folder.name: _megabytes(folder) for folder in [*(world.models / name for name in world.names), *stays]}
    for names, limit in zip((NEEDED, FURTHER), limits, strict=True):
        total = sum(sizes[name] for name in names)
        if total > limit:
            listed = ", ".join(f"{name} {sizes[name]:.1f}" for name in names)
            raise InputError(f"The models take {total:.1f} MB, more than {limit:g}: {listed}.")
    for name in world.names:
        try:
            LOADERS[name](world.models / name)
        except InputError:
            raise
        except Exception as error:  # libraries have no common error
            raise InputError(f"{world.models / name} does not load: {error}.") from error
        print(f"{name:<20}{sizes[name]:6.1f} MB  loads in float32", file=sys.stderr, flush=True)
    for saes, model in (("saes", "text_to_image"), ("saes_dit", "text_to_image_dit")):
        if saes in world.names or model in world.names:  # beside what stays as well
            _check_listens(*((world.models if n in world.names else scenes / "models") / n for n in (saes, model)))
    return sum(sizes.values())


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def _check_listens(saes: Path, model: Path) -> None:
    """Refuse autoencoders that were trained on another model."""
    own = digest_path(str(model))
    for file in _configs(saes):
        if json.loads(file.read_text(encoding="utf-8")).get("model_digest") != own:
            raise InputError(f"{file.parent} was trained on another model than {model}; train the autoencoders again.")


def _pipeline(folder: Path) -> None:
    """As a user loads it, and one step of a picture; SD 3 without its T5 loads where that is left out by name."""
    import torch
    from diffusers import DiffusionPipeline

    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    absent = {name: None for name, part in index.items() if part == [None, None] and name[-2:] == "_3"}
    pipe = DiffusionPipeline.from_pretrained(folder, **absent)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            _require_float32(part, folder / name)
    pipe.set_progress_bar_config(disable=True)
    pipe("a dog on grass", num_inference_steps=1)


def _finder(kind: str) -> Callable[[Path], None]:
    """A model of transformers. What its configuration states is left aside here: `put_in_place` states float32."""

    def load(folder: Path) -> None:
        import torch
        import transformers

        model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32)
        _require_float32(model, folder)

    return load


def _require_float32(model: Any, folder: Path) -> None:
    other = {str(p.dtype) for p in model.parameters() if p.is_floating_point()} - {"torch.float32"}
    if other:
        raise InputError(f"{folder} loads as {other.pop()} with no argument; its config.json must state float32.")


def _saes(folder: Path) -> None:
    from gazetteer.jobs.config.schema import load_config
    from gazetteer.sae.model.checkpoint import load_pretrained, load_site_saes

    if folder.name == "saes":  # at every site of the shipped configuration
        load_site_saes(str(folder), load_config().generation.sites)
    if not (configs := _configs(folder)):
        raise InputError(f"{folder} holds no autoencoders.")
    for file in configs:
        load_pretrained(file.parent)


def _classifier(module: str) -> Callable[[Path], None]:
    def load(folder: Path) -> None:
        from importlib import import_module

        _require_float32(import_module(f"gazetteer.data.scenes.{module}").load(folder), folder)

    return load


LOADERS: dict[str, Callable[[Path], None]] = {
    "text_to_image": _pipeline, "text_to_image_dit": _pipeline, "saes": _saes, "saes_dit": _saes,
    "detector": _finder("GroundingDinoForObjectDetection"), "segmenter": _finder("SamModel"),
    "style_classifier": _classifier("style_classifier"), "concept_classifier": _classifier("concept_classifier"),
}  # fmt: skip
"""Each raises what its library raises where a folder holds no such model."""


def put_in_place(world: World, scenes: Path) -> None:
    """Let the models, the prompts and `world.json` take the place of what ships; the same call again finishes it."""
    new, old, models = scenes / ".models-new", scenes / ".models-old", scenes / "models"
    for left in (new, *([old] if models.exists() else [])):
        shutil.rmtree(left, ignore_errors=True)
    for name in world.names:
        shutil.copytree(world.models / name, new / name)
    before = models if models.exists() else old  # stopped between the two renamings
    was, training, others = read_world(before), dict(world.training), dict[str, list[str]]()
    for name in FURTHER:
        if name not in world.names and (before / name).is_dir():
            shutil.copytree(before / name, new / name)
            training |= {name: was["training"][name]} if name in was["training"] else {}
            views = was.get("others", {}).get(name, was["views"])
            others |= {name: list(views)} if tuple(views) != world.views else {}
    for name in ("detector", "segmenter"):
        _state_float32(new / name / "config.json")
    if FURTHER[0] in world.names:
        (new / FURTHER[0] / "ABSENT.txt").write_text(NOT_PACKAGED + "\n", encoding="utf-8")
    _write_world(new, world.views, training, others)
    if models.exists():
        models.rename(old)
    new.rename(models)
    for name in PROMPTS:
        shutil.copyfile(world.prompts / name, scenes / name)
    shutil.rmtree(old, ignore_errors=True)


def _state_float32(file: Path) -> None:
    """Let transformers load half precision files in float32, where nothing else is asked for."""
    said = json.loads(file.read_text(encoding="utf-8"))
    if said.get("dtype", "float32") != "float32":
        file.write_text(json.dumps(said | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Try, put in place, draw the sheets, measure the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path("build/world"), help="of benchmarks.scenes.chain")
    parser.add_argument("--scenes", type=Path, default=SCENES, metavar="FOLDER", help="where the world ships from")
    add_views(parser, default=None)
    parser.add_argument("--without", nargs="+", default=[], choices=FURTHER, metavar="MODEL", help=", ".join(FURTHER))
    parser.add_argument("--check", action="store_true", help="try everything, and change nothing")
    parser.add_argument("--no-card", action="store_true", help="do not draw the sheets and measure the card anew")
    options = parser.parse_args(argv)
    try:
        world = trained(options.build.resolve(), options.views, options.without)
        total = check(world, options.scenes.resolve())
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{total:.1f} MB in all, views {', '.join(world.views) or 'none'}; trained: {json.dumps(world.training)}")
    if options.check:
        return 0
    put_in_place(world, options.scenes.resolve())
    if options.scenes.resolve() == SCENES:
        drop(("autoencoder", *world.names))
    print(f"{options.scenes} is the new world now")
    if options.no_card:
        return 0
    programs = (["benchmarks.scenes.text_to_image.sheets"], ["benchmarks.scenes.evaluate", "--card", str(CARD)])
    codes = [subprocess.run([sys.executable, "-m", *program], cwd=ROOT, check=False).returncode for program in programs]
    return int(any(codes))  # a program that was killed has a code below 0


if __name__ == "__main__":
    sys.exit(main())
