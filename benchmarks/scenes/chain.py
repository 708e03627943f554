"""Train all models of the Scenes world, one after the other, going on wherever an earlier run stopped.

    nice -n 19 python -m benchmarks.scenes.chain --build build/world
    ... --minutes text_to_image=480 detector=90 --device cuda --until latents
    ... --only detector concept_classifier                       # beside another chain: these train on one core each

Every step writes below --build and leaves NAME.done there; a step whose mark is older than that of one it needs is done
again from its checkpoint's start. The finished models lie in BUILD/models, in the layout of `data/scenes/models`, with
prompts beside them; `--plan` says what would be done. What `benchmarks.scenes.kept` kept in the repository is not done
again by a build that lacks it. `benchmarks.scenes.adopt` lets a finished world ship, and a build begun by
`benchmarks.scenes.shipped` goes on from the one that does.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scenes.adopt import describe, views_of
from benchmarks.scenes.kept import KEPT, PARTS, restorable, restore
from benchmarks.scenes.options import add_views
from benchmarks.scenes.prompts import TRAINED
from benchmarks.scenes.steps import NEEDS, is_done, mark
from gazetteer.data.core.errors import InputError
from gazetteer.data.storage.lock import FileLock, hold


@dataclass(frozen=True)
class Setting:
    """What the steps are told: where to work, for which views, on what, and for how long each."""

    build: Path
    views: tuple[str, ...]
    device: str
    workers: int
    minutes: dict[str, float]

    @property
    def models(self) -> Path:
        """The folder of finished models."""
        return self.build / "models"


MINUTES: dict[str, float] = {
    "autoencoder": 80, "text_to_image": 600, "detector": 90, "segmenter": 75, "style_classifier": 10,
    "concept_classifier": 25, "text_to_image_dit": 720,
}  # fmt: skip
"""How long each training takes where nothing else is said."""


@dataclass(frozen=True)
class Step:
    """One program of the chain: its command line after `python -m`, and what it needs first."""

    name: str
    command: Callable[[Setting], list[str]]

    @property
    def needs(self) -> tuple[str, ...]:
        """The steps before it."""
        return NEEDS[self.name]


def _training(name: str, module: str, *rest: Callable[[Setting], Sequence[object]]) -> Callable[[Setting], list[str]]:
    def command(setting: Setting) -> list[str]:
        words: list[object] = [module, "--out", setting.build / name, "--minutes", setting.minutes[name], "--resume"]
        for part in rest:
            words += part(setting)
        return [str(word) for word in words] + ["--views", ",".join(setting.views) or "none"]

    return command


def _export(name: str) -> Callable[[Setting], Sequence[object]]:
    return lambda setting: ("--export", setting.models / name)


def _latents(setting: Setting) -> list[str]:
    words = ["benchmarks.scenes.text_to_image.latents", "--vae", setting.build / "vae"]
    words += ["--out", setting.build / "latents", "--count", TRAINED, "--device", setting.device]
    words += ["--workers", setting.workers]
    return [str(word) for word in words] + ["--views", ",".join(setting.views) or "none"]


def _saes(setting: Setting) -> list[str]:
    settings = {
        "model.path": setting.models / "text_to_image", "prompts.path": setting.build / "prompts" / "prompts.txt",
        "sae.prompts.path": setting.build / "prompts" / "prompts_sae.txt", "workers": setting.workers,
    }  # fmt: skip
    pairs = [f"{key}={value}" for key, value in settings.items()]
    return ["gazetteer", "sae", "train", "--out", str(setting.build / "sae"), "--set", *pairs]


def _saes_dit(setting: Setting) -> list[str]:
    settings = {
        "model.path": setting.models / "text_to_image_dit", "workers": setting.workers,
        "sae.prompts.path": setting.build / "prompts" / "prompts_sae.txt",
    }  # fmt: skip
    pairs = [f"{key}={value}" for key, value in settings.items()]
    return [
        "gazetteer",
        "sae",
        "train",
        "--config",
        "scenes-dit",
        "--out",
        str(setting.build / "sae_dit"),
        "--set",
        *pairs,
    ]


def _prompts(setting: Setting) -> list[str]:
    views = ",".join(setting.views) or "none"
    return ["benchmarks.scenes.prompts", "--out", str(setting.build / "prompts"), "--views", views]


_ROOM = "benchmarks.scenes"
STEPS: tuple[Step, ...] = (
    Step("autoencoder", _training(
        "autoencoder", f"{_ROOM}.autoencoder.train", lambda s: ("--device", s.device, "--workers", s.workers),
        lambda s: ("--batch", max(1, 8 // s.workers), "--export", s.build / "vae"))),
    Step("latents", _latents),
    Step("text_to_image", _training(
        "text_to_image", f"{_ROOM}.text_to_image.train", lambda s: ("--vae", s.build / "vae"),
        lambda s: ("--latents", s.build / "latents", "--device", s.device, "--workers", s.workers),
        _export("text_to_image"))),
    Step("detector", _training(
        "detector", f"{_ROOM}.detector.train", lambda s: ("--scenes", s.build / "scenes"), _export("detector"))),
    Step("segmenter", _training(
        "segmenter", f"{_ROOM}.segmenter.train", lambda s: ("--scenes", s.build / "scenes"), _export("segmenter"))),
    Step("style_classifier", _training(
        "style_classifier", f"{_ROOM}.classifiers.styles", lambda s: ("--steps", 2000), _export("style_classifier"))),
    Step("concept_classifier", _training(
        "concept_classifier", f"{_ROOM}.classifiers.concepts",
        lambda s: ("--steps", 12000, "--pool", 8000, "--vae", s.build / "vae"),
        _export("concept_classifier"))),
    Step("prompts", _prompts),
    Step("saes", _saes),
    Step("text_to_image_dit", _training(
        "text_to_image_dit", f"{_ROOM}.text_to_image_dit.train", lambda s: ("--vae", s.build / "vae"),
        lambda s: ("--latents", s.build / "latents", "--device", s.device, "--workers", s.workers),
        _export("text_to_image_dit"))),
    Step("saes_dit", _saes_dit),
)  # fmt: skip
"""All steps in their order."""


def state_of(setting: Setting, step: Step, kept: Sequence[str]) -> str:
    """``done``, ``kept`` (taken as it is), ``goes on`` (from averages that are kept) or ``to do``."""
    if is_done(setting.build, step.name):
        return "done"
    if step.name not in kept:
        return "to do"
    return "kept" if PARTS[step.name][0].endswith(".done") else "goes on"


def forget(setting: Setting, step: Step) -> None:
    """Leave out what is left of a step that was done with what changed since: checkpoint, averages, autoencoders."""
    if mark(setting.build, step.name).exists():
        for name in ("checkpoint.pt", "averages.safetensors"):
            (setting.build / step.name / name).unlink(missing_ok=True)
        if step.name in ("saes", "saes_dit"):
            for folder in (_saes_of(setting, step).parent, setting.models / step.name):
                shutil.rmtree(folder, ignore_errors=True)
        mark(setting.build, step.name).unlink()


def _saes_of(setting: Setting, step: Step) -> Path:
    """Where `gazetteer sae train` puts the autoencoders of a step."""
    return setting.build / step.name.replace("saes", "sae") / "saes"


def run(setting: Setting, steps: Sequence[Step], call: Callable[[list[str]], None]) -> list[str]:
    """Do the steps that are not done; returns their names. `call` gets each command line, and raises where it fails."""
    did = []
    for step in steps:
        lock = _held(setting.build / f"{step.name}.lock")  # another chain may be at it
        try:
            if not is_done(setting.build, step.name):
                _do(setting, step, call)
                did.append(step.name)
        finally:
            lock.release_and_unlink()
    return did


def _held(path: Path) -> FileLock:
    try:
        return hold(path, wait=False)
    except BlockingIOError:
        print(f"== {path.stem}: waits for another chain that does it", flush=True)
        return hold(path)


def _do(setting: Setting, step: Step, call: Callable[[list[str]], None]) -> None:
    forget(setting, step)
    print(f"== {step.name}: {shlex.join(step.command(setting))}", flush=True)
    call([sys.executable, "-m", *step.command(setting)])
    if step.name in ("saes", "saes_dit"):
        for config in _saes_of(setting, step).glob("*/config.json"):  # and not the report beside them
            shutil.copytree(config.parent, setting.models / step.name / config.parent.name, dirs_exist_ok=True)
    mark(setting.build, step.name).touch()


def chosen(until: str | None, only: Sequence[str] | None) -> tuple[Step, ...]:
    """All steps, those up to one, or some, in the order of the chain."""
    names = [step.name for step in STEPS]
    last = names.index(until) if until else len(names)
    return tuple(step for step in STEPS[: last + 1] if only is None or step.name in only)


def ready(setting: Setting, steps: Sequence[Step]) -> None:
    """Refuse steps that need what neither is done nor comes before them.

    Raises:
        InputError: says which.
    """
    coming: set[str] = set()
    for step in steps:
        lacking = [name for name in step.needs if name not in coming and not mark(setting.build, name).exists()]
        if lacking:
            raise InputError(f"{step.name} needs {lacking[0]}, which is not done in {setting.build}.")
        coming.add(step.name)


def of_views(build: Path, views: Sequence[str]) -> list[str]:
    """What is kept for a build of these views: nothing where it is of others.

    Raises:
        InputError: the build itself is of other views.
    """
    if views_of(build) not in (None, tuple(views)):
        said = ",".join(views_of(build) or ()) or "none"
        raise InputError(f"{build} is of the views {said}; name them with --views, or another folder with --build.")
    return restorable(build) if views_of(KEPT) in (None, tuple(views)) else []


def _call(command: list[str]) -> None:
    subprocess.run(command, check=True)


def _duration(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    if name not in MINUTES:
        raise argparse.ArgumentTypeError(f"unknown step {name!r}; {', '.join(MINUTES)} take minutes")
    return name, float(number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chain, or say what it would do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path("build/world"))
    parser.add_argument("--minutes", type=_duration, nargs="+", default=[], metavar="STEP=MINUTES")
    parser.add_argument("--device", default="cpu", help="of the autoencoder, the latents and the text-to-image model")
    parser.add_argument(
        "--workers", type=int, default=2, help="processes of the latents, the text-to-image training and the SAEs"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--until", choices=[step.name for step in STEPS], help="the last step to do")
    which.add_argument("--only", choices=[step.name for step in STEPS], nargs="+", help="the steps to do")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and do nothing")
    add_views(parser)
    options = parser.parse_args(argv)
    minutes = MINUTES | dict(options.minutes)
    setting = Setting(options.build.resolve(), options.views, options.device, options.workers, minutes)
    steps = chosen(options.until, options.only)
    try:
        kept = of_views(setting.build, setting.views)
    except InputError as error:
        parser.error(str(error))
    if options.plan:
        for step in steps:
            print(f"{state_of(setting, step, kept):<9}{step.name}: {shlex.join(step.command(setting))}")
        return 0
    if kept and (names := restore(setting.build)):
        print(f"from what is kept: {', '.join(names)}", flush=True)
    try:
        ready(setting, steps)
    except InputError as error:
        parser.error(str(error))
    setting.build.mkdir(parents=True, exist_ok=True)
    run(setting, steps, _call)
    describe(setting.build, setting.views)
    return 0


if __name__ == "__main__":
    sys.exit(main())
