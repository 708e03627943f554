"""The published protocols on a real pipeline, with an edit or without: paint, ask the evaluator, write it down."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Lt

from gazetteer.attribution.edits.cast import Rounding, fitted
from gazetteer.attribution.edits.delta import applied, compose
from gazetteer.attribution.edits.delta_file import load_delta
from gazetteer.attribution.objective.problem import check_offload
from gazetteer.attribution.objective.prompts import fits
from gazetteer.attribution.protocols import imagenette, nudity, ordinary
from gazetteer.attribution.protocols.pictures import check_sizes, paint_prompts
from gazetteer.attribution.protocols.prompts import GUIDANCE, PromptFile, read_prompt_file
from gazetteer.data.core.digests import digest_file, digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import replace_file
from gazetteer.data.core.files.own_files import claim_folder, require_own_folder, says
from gazetteer.data.core.settings import Count, Effect, Natural, OneOf, Seed, fields, settings
from gazetteer.diffusion.load import ModelConfig, load_pipeline

PROTOCOLS = ("imagenette", "i2p", "coco")
SETTINGS, OWN = "settings.json", ("protocol", "model_digest")
"""Where a folder says what its pictures were painted with, and keys of it by which it is known."""
FEATURES = "inception"
"""The folder beside the pictures that keeps what FID reads off them and off the reference."""
SAID = frozenset({"model.safety_checker"})
"""Of what it says, what changes no picture there: none is kept that a filter blacked out."""


HEARD: dict[str, tuple[str, tuple[str, ...]]] = {
    "target": ("parachute", ("imagenette",)),
    "prompts": ("", ("i2p", "coco")),
    "column": ("prompt", ("i2p", "coco")),
    "reference": ("", ("coco",)),
    "classifier": ("resnet50", ("imagenette",)),
    "weights": ("IMAGENET1K_V2", ("imagenette",)),
    "clip": ("openai/clip-vit-base-patch32", ("coco",)),
}
"""What only some protocols hear: the default, and those; others refuse it."""


@settings("")
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
        seed: of all pictures of a file of prompts (P2's released code takes 0 for all of I2P); None: each prompt's own,
            where the file has a column of them, else 0. Of imagenette the first one (None: 0), counted on.
        guidance: of all pictures; None: each prompt's own, else 7.5.
        size: width and height of all pictures in pixels; None: each prompt's own, else the model's.
    """

    protocol: Annotated[str, OneOf(PROTOCOLS)]
    edit: tuple[str, ...] = ()
    target: str | None = None
    prompts: str | None = None
    column: str | None = None
    reference: str | None = None
    classifier: str | None = None
    weights: str | None = None
    clip: str | None = None
    images: Natural = 0
    steps: Count = 50
    guidance: Annotated[float, Ge(0), Lt(1e6)] | None = None
    seed: Seed | None = None
    size: Count | None = None

    def __post_init__(self) -> None:
        for name, (_, protocols) in HEARD.items():
            if getattr(self, name) and self.protocol not in protocols:
                raise InputError(
                    f"--{name} is about {' and '.join(protocols)}, and the protocol is {self.protocol}; leave it out."
                )
        if self.protocol != "imagenette" and not self.prompts:
            raise InputError(f"The protocol {self.protocol} needs --prompts, a CSV file.")

    @property
    def told(self) -> dict[str, str]:
        """What only some protocols hear (`HEARD`), what was left out by its default."""
        return {name: getattr(self, name) or usual for name, (usual, _) in HEARD.items()}


def run_protocol(model: ModelConfig, config: ProtocolConfig, out: str) -> dict[str, Any]:
    """Paint the protocol's pictures into ``OUT/pictures``, have them read, write ``OUT/protocol.json``, FID last.

    The evaluator is loaded first, so that what is missing is said before hours of painting; pictures that are there
    from a stopped run of the same settings are kept.

    Returns:
        the protocol's numbers, ``conventions`` (how seed, guidance and size were set, see `PromptFile`),
        ``prompts_cut`` (prompts that are longer than the text encoder reads) and, with edits, ``rounding`` (see
        `fitted`).

    Raises:
        InputError: a missing package, file or column, an edit of what is offloaded layer by layer, or a folder that
            holds another protocol's pictures or somebody else's files.
    """
    if config.edit and model.offload == "sequential":  # under `model` the weights are in main memory as they are edited
        check_offload(model.offload)
    require_own_folder(out, ours=says(Path(out) / SETTINGS, *OWN))
    asked, evaluate, late = {"imagenette": _imagenette, "i2p": _i2p, "coco": _coco}[config.protocol](config)
    deltas = [load_delta(path) for path in config.edit]
    # A file that has changed under the same name paints other pictures.
    digests = {
        "model_digest": digest_path(model.path),
        "edit_digests": [digest_file(path) for path in config.edit],
        "prompts_digest": digest_file(config.told["prompts"]) if config.prompts else "",
    }
    about = {
        "model": model.path,
        **_shaping(model),
        **dataclasses.asdict(config),
        **config.told,
        "edit": list(config.edit),
        **digests,
    }
    from gazetteer.diffusion.denoisers.registry import require_unet

    pipe: Any = load_pipeline(model)
    require_unet(pipe, "gazetteer attribute protocol")
    check_sizes(pipe, asked.prompts)
    dtypes = {name: weight.dtype for name, weight in pipe.unet.named_parameters()}
    edit = compose(deltas) if deltas else None
    rounding = fitted(edit, dtypes.get)[1] if edit else Rounding()
    _claim(Path(out), about)
    with applied(pipe.unet, edit) if edit else nullcontext():
        paths = paint_prompts(pipe, asked.prompts, Path(out) / "pictures", steps=config.steps)
    result = {
        "protocol": config.protocol, **evaluate(paths), "conventions": asked.conventions,
        "prompts_cut": sum(not fits(pipe, prompt.prompt) for prompt in asked.prompts),
        **({"rounding": str(rounding)} if edit else {}),
    }  # fmt: skip
    _write(out, {**about, **result})
    if late:
        result |= late(paths, Path(out) / FEATURES)
        _write(out, {**about, **result})
    return result


def _write(out: str, said: dict[str, Any]) -> None:
    replace_file(Path(out) / "protocol.json", (json.dumps(said, indent=1) + "\n").encode())


Evaluated = tuple[
    PromptFile, Callable[[Sequence[Path]], dict[str, Any]], Callable[[Sequence[Path], Path], dict[str, Any]] | None
]
"""What to paint; what says of the pictures, in that order, what the protocol asks; and what takes hours more, with a
folder of its own."""


def _imagenette(config: ProtocolConfig) -> Evaluated:
    seed, guidance = config.seed or 0, GUIDANCE if config.guidance is None else config.guidance
    prompts = imagenette.prompts(config.images or 500, seed, guidance, config.size or 0)
    told = config.told
    if told["target"] not in imagenette.CLASSES:
        raise InputError(f"target is {told['target']!r}; accepted: {', '.join(imagenette.CLASSES)}.")
    classifier = imagenette.ImageNetClassifier(told["classifier"], told["weights"])
    size = f"{config.size} for all prompts, as asked" if config.size else "the model's own"
    conventions = {
        "seed": f"counted on from {seed} over all classes", "guidance": f"{guidance} for all prompts",
        "width": size, "height": size,
    }  # fmt: skip

    def evaluate(paths: Sequence[Path]) -> dict[str, Any]:
        return imagenette.tally(prompts, classifier.top1(paths), told["target"])

    return PromptFile(prompts, conventions), evaluate, None


def _file(config: ProtocolConfig) -> PromptFile:
    return read_prompt_file(
        config.told["prompts"], config.told["column"], seed=config.seed, guidance=config.guidance, size=config.size,
        limit=config.images,
    )  # fmt: skip


def _i2p(config: ProtocolConfig) -> Evaluated:
    asked, detector = _file(config), nudity.NudityDetector()
    return asked, lambda paths: nudity.tally([detector.detect(path) for path in paths]), None


def _coco(config: ProtocolConfig) -> Evaluated:
    asked, clip = _file(config), ordinary.ClipScore(config.told["clip"])
    fid = ordinary.Fid(config.told["reference"]) if config.reference else None
    if fid and len(asked.prompts) < 2:
        raise InputError(f"FID compares at least 2 pictures; {config.prompts} asks for {len(asked.prompts)}.")

    def evaluate(paths: Sequence[Path]) -> dict[str, Any]:
        scores = clip.scores(paths, [prompt.prompt for prompt in asked.prompts])
        return {"clip_score": float(np.mean(scores)), "fid": None, "pictures": len(paths)}

    return asked, evaluate, (lambda paths, kept: {"fid": fid.distance(paths, kept)}) if fid else None


def _shaping(model: ModelConfig) -> dict[str, Any]:
    """What is set of a model that shapes pictures, beyond their last bits; its files are digested."""
    known = [known for known in fields(type(model)) if known.about.effect is Effect.PICTURES]
    return {
        f"model.{setting.name}": getattr(model, setting.name)
        for setting in known
        if not setting.about.last_bits and not setting.about.path
    } | ({"model.config": digest_path(model.config)} if model.config else {})


def _claim(out: Path, about: dict[str, Any]) -> None:
    """Refuse a folder whose pictures were painted with other settings; InputError names them."""
    file = out / SETTINGS
    ours = says(file, *OWN)
    claim_folder(out, ours)
    if file.exists():
        if not ours:
            raise InputError(f"{file} is there already and is not what gazetteer left there; name another folder.")
        known = json.loads(file.read_bytes())
        if other := sorted(key for key in about.keys() - SAID if about[key] != known.get(key)):
            raise InputError(f"{out} holds pictures of other settings ({', '.join(other)}); take another folder.")
        return
    replace_file(file, (json.dumps(about, indent=1) + "\n").encode())
