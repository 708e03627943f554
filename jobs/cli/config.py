"""Before a run: `init` begins its configuration, `config` prints it, `plan` prices it, `doctor` says what is there."""

from __future__ import annotations

import argparse
import os
from dataclasses import astuple
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, configuration, configured, machine
from gazetteer.jobs.cli.output import print_json

OF_PICTURES = ("generation.height", "generation.width")
"""What `doctor` takes by ``--set`` beside ``--model``: the picture size, by which the grids go."""


def add_config(verbs: Any) -> None:
    """Add the verbs."""
    config = verbs.add_parser("config", help="print the configuration that counts: every key, its value and meaning")
    configured(config)
    config.set_defaults(action=_config)

    init = verbs.add_parser("init", help="write a commented configuration for your own model, with its blocks")
    init.add_argument("model", metavar="MODEL", help="a folder in diffusers format, or a hub id")
    init.add_argument(
        "--concepts", nargs="+", required=True, metavar="CONCEPT",
        help="what to look for: words or phrases, or one list: coco, lvis, a text file",
    )  # fmt: skip
    init.add_argument("--prompts", default="", metavar="FILE", help="default: a file is written, of the concepts")
    init.add_argument(
        "--saes", default="work/saes", metavar="FOLDER", help="where they are, or will be (default: work/saes)"
    )
    init.add_argument(
        "--detector",
        default="IDEA-Research/grounding-dino-tiny",
        metavar="PATH",
        help="folder or hub id (default: %(default)s)",
    )
    init.add_argument(
        "--segmenter", default="facebook/sam-vit-base", metavar="PATH", help="folder or hub id (default: %(default)s)"
    )
    init.add_argument("--device", default="cpu", help="of all models, e.g. cuda (default: cpu)")
    init.add_argument("--steps", type=int, help="of the sampler (default: the pipeline's own)")
    init.add_argument("--guidance", type=float, metavar="SCALE", help="default: the pipeline's own")
    init.add_argument("--out", default="gazetteer.yaml", metavar="FILE", help="a new file (default: gazetteer.yaml)")
    machine(init)
    init.set_defaults(action=_init)

    plan = verbs.add_parser("plan", help="count pictures, operations, bytes, hours and money before spending any")
    configured(plan)
    plan.add_argument("--like", default="", metavar="RUN", help="take seconds and bytes from this run")
    plan.add_argument("--device", default="", metavar="NAME", help="a device with a stated peak rate, e.g. a100")
    plan.add_argument(
        "--utilisation", type=float, metavar="SHARE",
        help="share of the peak that every stage reaches (default: stated for each stage)",
    )  # fmt: skip
    plan.add_argument("--tflops", type=float, default=0.0, help="the sustained rate itself, in 10^12 a second")
    plan.add_argument("--devices", type=int, default=1, help="how many work at once (default: 1)")
    plan.add_argument("--price", type=float, default=0.0, help="money a device and hour")
    plan.set_defaults(action=_plan)

    doctor = verbs.add_parser(
        "doctor",
        help="say what is installed, what is missing, which blocks a model offers, and whether autoencoders are whole",
    )
    doctor.add_argument("--model", metavar="PATH", help="a text-to-image model, or that of a --config: list its blocks")
    configured(doctor)
    doctor.set_defaults(action=_doctor)


def _config(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    from gazetteer.jobs.config.reference import as_yaml, plain

    if arguments.json:
        print_json(arguments, plain(config))
    else:
        print(as_yaml(config), end="")
    return DONE


def _init(arguments: argparse.Namespace) -> int:
    from gazetteer.diffusion.blocks import offer_of
    from gazetteer.diffusion.load import ModelConfig
    from gazetteer.jobs.config.starter import Starter, chosen_blocks, trained_already, write_starter

    concepts = [concept.strip() for words in arguments.concepts for concept in words.split(",") if concept.strip()]
    given = {name: getattr(arguments, name) for name in ("prompts", "saes", "detector", "segmenter", "device")}
    offer = offer_of(ModelConfig(path=arguments.model))
    blocks = [block.block for block in offer.blocks]
    steps, guidance = (
        usual if asked is None else asked
        for asked, usual in zip((arguments.steps, arguments.guidance), astuple(offer.usual), strict=True)
    )
    drawn = {"steps": steps, "guidance": guidance, "branches": offer.branches, "dtype": offer.dtype}
    files = write_starter(Starter(arguments.model, concepts, **given, **drawn), blocks, arguments.out)
    print(f"{', '.join(map(str, files))}: {len(chosen_blocks(blocks))} of {len(blocks)} blocks, to be changed. Next:")
    if not trained_already(arguments.saes):
        print(f"  gazetteer sae train --config {arguments.out} --out {os.path.dirname(arguments.saes.rstrip('/'))}")
    print(f"  gazetteer plan --config {arguments.out}")
    print(f"  gazetteer label runs/mine --config {arguments.out}")
    print_json(arguments, {"files": [str(file) for file in files], "blocks": blocks})
    return DONE


def _plan(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    from gazetteer.data.core.errors import InputError
    from gazetteer.jobs.operate.plan import plan, print_plan
    from gazetteer.jobs.operate.rates import PEAK_TFLOPS, Rates, stage_rates

    tflops: Any = arguments.tflops
    share = arguments.utilisation
    if share is not None and not arguments.device:
        raise InputError("--utilisation is a share of a device's peak rate; name the device with --device.")
    if tflops and arguments.device:
        raise InputError("--tflops is the rate itself, and --device states another; leave one of them out.")
    if arguments.device:
        if arguments.device not in PEAK_TFLOPS:
            raise InputError(f"--device {arguments.device!r} is not known; accepted: {', '.join(PEAK_TFLOPS)}.")
        if share is not None and not 0 < share <= 1:
            raise InputError(f"--utilisation lies in (0, 1], not {share}.")
        dtypes = {
            "generate": config.model.dtype, "sample": config.model.dtype, "detect": config.detector.dtype,
            "segment": config.segmenter.dtype,
        }  # fmt: skip
        tflops = stage_rates(arguments.device, share, dtypes)
    result = plan(config, Rates(tflops, arguments.like, arguments.devices, arguments.price))
    print_plan(result)
    print_json(arguments, result)
    return DONE


def _doctor(arguments: argparse.Namespace) -> int:
    named = bool(arguments.config or arguments.overrides)
    config = configuration(arguments) if named else None
    from gazetteer.data.core.errors import InputError
    from gazetteer.diffusion.load import ModelConfig
    from gazetteer.jobs.operate.doctor import examine, print_report, print_saes, read_saes

    others = [key for override in arguments.overrides if (key := override.partition("=")[0]) not in OF_PICTURES]
    if arguments.model and (arguments.config or others):
        raise InputError(
            "The model is named twice, by --model and by a configuration; leave one of them out. Beside --model, --set "
            f"takes {' and '.join(OF_PICTURES)} alone."
        )
    size = (config.generation.height, config.generation.width) if config is not None else (0, 0)
    if arguments.model:
        report = examine(ModelConfig(path=arguments.model), size)
    elif config is None or _model_alone(arguments):
        report = examine(None if config is None else config.model, size)
    else:
        report = examine(config.model, size, config.generation.blocks)
    print_report(report)
    if config is not None and not arguments.model and not _model_alone(arguments):
        widths = {block: channels for block, channels in report["named"].items() if channels is not None}
        report["saes"] = read_saes(config, widths)
        print_saes(report["saes"])
    print_json(arguments, report)
    return DONE


def _model_alone(arguments: argparse.Namespace) -> bool:
    """Whether ``--set`` names a model and neither blocks nor autoencoders: the embedded ones are none of that model."""
    keys = [override.partition("=")[0] for override in arguments.overrides]
    groups = {key.partition(".")[0] for key in keys}
    return not arguments.config and "model" in groups and "saes" not in groups and "generation.blocks" not in keys
