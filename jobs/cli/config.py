"""Before a run: `config` says what it will be, `plan` what it will cost, `doctor` what is there for it."""

from __future__ import annotations

import argparse
from typing import Any

from gazetteer.jobs.cli.arguments import DONE, configuration, configured, machine
from gazetteer.jobs.cli.output import print_json


def add_config(verbs: Any) -> None:
    """Add the verbs."""
    config = verbs.add_parser("config", help="print the configuration that counts: every key, its value and meaning")
    configured(config)
    config.set_defaults(action=_config)

    plan = verbs.add_parser("plan", help="count pictures, operations, bytes, hours and money before spending any")
    configured(plan)
    plan.add_argument("--like", default="", metavar="RUN", help="take seconds and bytes from this run")
    plan.add_argument("--device", default="", metavar="NAME", help="a device with a stated peak rate, e.g. a100")
    plan.add_argument("--utilisation", type=float, default=0.35, help="share of the peak that is reached (0.35)")
    plan.add_argument("--tflops", type=float, default=0.0, help="the sustained rate itself, in 10^12 a second")
    plan.add_argument("--devices", type=int, default=1, help="how many work at once")
    plan.add_argument("--price", type=float, default=0.0, help="money a device and hour")
    plan.set_defaults(action=_plan)

    doctor = verbs.add_parser("doctor", help="say what is installed, what is missing, and which blocks a model offers")
    doctor.add_argument("--model", metavar="PATH", help="a text-to-image model: list its blocks, grids and widths")
    machine(doctor)
    doctor.set_defaults(action=_doctor)


def _config(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    from gazetteer.jobs.config.reference import as_yaml, plain

    if arguments.json:
        print_json(arguments, plain(config))
    else:
        print(as_yaml(config), end="")
    return DONE


def _plan(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    from gazetteer.data.core.errors import InputError
    from gazetteer.jobs.operate.plan import PEAK_TFLOPS, Rates, plan, print_plan

    tflops = arguments.tflops
    if arguments.device:
        if arguments.device not in PEAK_TFLOPS:
            raise InputError(f"--device {arguments.device!r} is not known; accepted: {', '.join(PEAK_TFLOPS)}.")
        if not 0 < arguments.utilisation <= 1:
            raise InputError(f"--utilisation lies in (0, 1], not {arguments.utilisation}.")
        tflops = tflops or PEAK_TFLOPS[arguments.device] * arguments.utilisation
    result = plan(config, Rates(tflops, arguments.like, arguments.devices, arguments.price))
    print_plan(result)
    print_json(arguments, result)
    return DONE


def _doctor(arguments: argparse.Namespace) -> int:
    from gazetteer.jobs.operate.doctor import examine, print_report

    report = examine(arguments.model)
    print_report(report)
    print_json(arguments, report)
    return DONE
