"""`gazetteer attribute protocol`: published protocols on a real pipeline."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.cli.arguments import DONE, machine, seed
from gazetteer.jobs.cli.output import print_json

if TYPE_CHECKING:
    from gazetteer.diffusion.load import ModelConfig


def add_protocol(verbs: Any) -> None:
    """Add the verb."""
    protocol = verbs.add_parser("protocol", help="a published protocol on a real pipeline: imagenette, i2p, coco")
    protocol.add_argument("protocol", metavar="PROTOCOL", help="imagenette, i2p or coco")
    protocol.add_argument("--model", required=True, metavar="FOLDER", help="a pipeline with a U-Net: folder or hub id")
    protocol.add_argument("--device", default="cpu", help="of the model, e.g. cuda (default: cpu)")
    protocol.add_argument("--dtype", default="float32", help="float32, float16 or bfloat16 (default: float32)")
    protocol.add_argument(
        "--set", dest="overrides", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="other keys of model, e.g. model.scheduler=ddim model.variant=fp16 (model.safety_checker is false here)",
    )  # fmt: skip
    protocol.add_argument("--out", required=True, metavar="FOLDER", help="receives the pictures and protocol.json")
    protocol.add_argument("--edit", nargs="+", default=[], metavar="FILE", help="applied together while painting")
    for name, metavar, words in (
        ("target", "CLASS", "imagenette: the erased class (default: parachute)"),
        ("prompts", "CSV", "i2p, coco: the published prompts"),
        ("column", "NAME", "i2p, coco: the column of the prompts (default: prompt)"),
        ("reference", "FOLDER", "coco: pictures for FID, which is left out without them"),
        ("classifier", "NAME", "imagenette: of torchvision (default: resnet50)"),
        ("weights", "NAME", "imagenette: the classifier's, by name or a state dict's file (default: IMAGENET1K_V2)"),
        ("clip", "PATH", "coco: folder or hub id (default: openai/clip-vit-base-patch32)"),
    ):
        protocol.add_argument(f"--{name}", metavar=metavar, help=words)
    for name, value, words in (
        ("images", 0, "imagenette: per class (default 500); else prompts at most (default all)"),
        ("steps", 50, "of the sampler (default: 50)"),
        ("seed", None, "of all pictures (CAD's code, arXiv 2412.02542: 0 for i2p; imagenette: the first); "
                       "default: each prompt's own"),
        ("size", None, "width and height of all pictures in pixels; default: each prompt's own, else the model's"),
    ):  # fmt: skip
        kind = seed if name == "seed" else int
        protocol.add_argument(f"--{name}", type=kind, default=value, help=words)
    protocol.add_argument("--guidance", type=float, help="of all pictures; default: each prompt's own, else 7.5")
    machine(protocol)
    protocol.set_defaults(action=_attribute_protocol, resumes=True)


def _attribute_protocol(arguments: argparse.Namespace) -> int:
    from gazetteer.attribution.protocols.run import ProtocolConfig, run_protocol

    model = _painted_by(arguments)
    given = {n: v for n, v in vars(arguments).items() if n in ProtocolConfig.__dataclass_fields__}
    result = run_protocol(model, ProtocolConfig(**{**given, "edit": tuple(arguments.edit)}), arguments.out)
    print("\n".join(f"{name}: {value}" for name, value in result.items()))
    print_json(arguments, result)
    return DONE


def _painted_by(arguments: argparse.Namespace) -> ModelConfig:
    """The model of a protocol, without its filter unless `--set` asks for it: what it blacks out cannot be judged."""
    from gazetteer.data.core.settings import from_json
    from gazetteer.diffusion.load import ModelConfig
    from gazetteer.jobs.config.overrides import apply_override
    from gazetteer.jobs.config.schema import RunConfig

    given = {"path": arguments.model, "device": arguments.device, "dtype": arguments.dtype, "safety_checker": False}
    raw: dict[str, Any] = {"model": given}
    for override in arguments.overrides:
        if not override.startswith("model."):
            raise InputError(f"attribute protocol knows the keys of model alone, not {override.partition('=')[0]!r}.")
        apply_override(raw, override, RunConfig)
    return from_json(ModelConfig, json.dumps(raw["model"]))
