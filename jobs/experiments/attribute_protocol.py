"""`gazetteer attribute protocol`: the published protocols on a real pipeline, with an edit or without."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from gazetteer.attribution.edits.delta import applied
from gazetteer.attribution.edits.delta_file import load_delta
from gazetteer.attribution.protocols import imagenette, nudity, ordinary
from gazetteer.attribution.protocols.pictures import Item, paint_items, read_items
from gazetteer.data.core.digests import digest_file, digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.load import ModelConfig, load_pipeline

PROTOCOLS = ("imagenette", "i2p", "coco")


@dataclasses.dataclass(frozen=True)
class ProtocolConfig:
    """What `gazetteer attribute protocol` is told.

    Attributes:
        protocol: one of PROTOCOLS.
        edit: files of `gazetteer attribute score` or `edit`, applied together while painting; none: the model as it
            is.
        target: the erased class (imagenette).
        prompts: CSV of the prompts (i2p, coco), as their authors publish it.
        column: of the prompts in it.
        reference: folder of pictures that FID compares with (coco); empty leaves FID out.
        classifier, weights: see `ImageNetClassifier`.
        clip: see `ClipScore`.
        images: per class (imagenette; published 500), or prompts at most (others; 0 takes all).
        seed: of all I2P pictures, as P2's code has it; the first of imagenette's.
    """

    protocol: str
    edit: tuple[str, ...] = ()
    target: str = "parachute"
    prompts: str = ""
    column: str = "prompt"
    reference: str = ""
    classifier: str = "resnet50"
    weights: str = "IMAGENET1K_V2"
    clip: str = "openai/clip-vit-base-patch32"
    images: int = 0
    steps: int = 50
    guidance: float = 7.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InputError(f"protocol is {self.protocol!r}; accepted: {', '.join(PROTOCOLS)}.")
        if self.protocol != "imagenette" and not self.prompts:
            raise InputError(f"The protocol {self.protocol} needs --prompts, a CSV file.")
        if self.images < 0 or self.steps < 1:
            raise InputError("images must be at least 0 and steps at least 1.")


def run_protocol(model: ModelConfig, config: ProtocolConfig, out: str) -> dict[str, Any]:
    """Paint the protocol's pictures into ``OUT/pictures``, judge them, write ``OUT/protocol.json``.

    The judge is loaded first, so that what is missing is said before hours of painting; pictures that are there from
    a stopped run of the same settings are kept.

    Raises:
        InputError: a missing package, file or column, or a folder that holds another protocol's pictures.
    """
    items, judge = {"imagenette": _imagenette, "i2p": _i2p, "coco": _coco}[config.protocol](config)
    deltas = [load_delta(path) for path in config.edit]
    # A file that has changed under the same name paints other pictures.
    digests = {
        "model_digest": digest_path(model.path),
        "edit_digests": [digest_file(path) for path in config.edit],
        "prompts_digest": digest_file(config.prompts) if config.prompts else "",
    }
    about = {"model": model.path, **dataclasses.asdict(config), "edit": list(config.edit), **digests}
    _claim(Path(out), about)
    pipe: Any = load_pipeline(model)
    with applied(pipe.unet, *deltas) if deltas else nullcontext():
        paths = paint_items(pipe, items, Path(out) / "pictures", steps=config.steps, guidance=config.guidance)
    result = {"protocol": config.protocol, **judge(paths)}
    (Path(out) / "protocol.json").write_text(json.dumps({**about, **result}, indent=1) + "\n", encoding="utf-8")
    return result


Judged = tuple[list[Item], Callable[[Sequence[Path]], dict[str, Any]]]


def _imagenette(config: ProtocolConfig) -> Judged:
    items = imagenette.items(config.images or 500, config.seed)
    if config.target not in imagenette.CLASSES:
        raise InputError(f"target is {config.target!r}; accepted: {', '.join(imagenette.CLASSES)}.")
    classifier = imagenette.ImageNetClassifier(config.classifier, config.weights)
    return items, lambda paths: imagenette.tally(items, classifier.top1(paths), config.target)


def _i2p(config: ProtocolConfig) -> Judged:
    items = read_items(config.prompts, config.column, seed=config.seed, limit=config.images)
    detector = nudity.NudityDetector()
    return items, lambda paths: nudity.tally([detector.detect(path) for path in paths])


def _coco(config: ProtocolConfig) -> Judged:
    items = read_items(config.prompts, config.column, limit=config.images)
    clip = ordinary.ClipScore(config.clip)

    def judge(paths: Sequence[Path]) -> dict[str, Any]:
        scores = clip.scores(paths, [item.prompt for item in items])
        distance = ordinary.fid(paths, config.reference) if config.reference else None
        return {"clip_score": float(np.mean(scores)), "fid": distance, "pictures": len(paths)}

    return items, judge


def _claim(out: Path, about: dict[str, Any]) -> None:
    """Refuse a folder whose pictures were painted with other settings; InputError names them."""
    file = out / "settings.json"
    if file.exists():
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read: {error}.") from error
        if other := sorted(key for key in about if about[key] != known.get(key)):
            raise InputError(f"{out} holds pictures of other settings ({', '.join(other)}); take another folder.")
        return
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
