"""What the verbs of the command line share: exit codes, the parser, and the options that several verbs take."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from gazetteer.data.core.errors import redacted
from gazetteer.jobs.cli.output import print_json

if TYPE_CHECKING:
    from gazetteer.jobs.config.schema import RunConfig

DONE, FAILED, PARTIAL = 0, 1, 3


class Parser(argparse.ArgumentParser):
    """Says what was meant where a verb, a choice or an option is misspelt; with ``--json`` as one object too."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None, **more: Any) -> Any:
        """As of argparse, which calls it for the verb's own words too."""
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace, **more)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            accepted = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(action, f"{value!r} is not known; {meant(str(value), accepted)}")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of argparse; a run that a verb is to make is named by its first word or by ``--out``, as ``out``."""
        parsed = super().parse_args(args, namespace)
        if getattr(parsed, "new_run", False):
            if None not in (parsed.run, parsed.out) and parsed.run != parsed.out:
                self.error(f"{parsed.verb} makes one run, not both {parsed.run} and {parsed.out}")
            parsed.out = parsed.out if parsed.run is None else parsed.run
            if parsed.out is None:
                self.error(f"{parsed.verb} needs a run to make or to resume: gazetteer {parsed.verb} RUN")
        return parsed

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and one sentence, after how the verb is called."""
        wrong = message.removeprefix("unrecognized arguments: ")
        if wrong != message and wrong.startswith("-"):
            asked, options = wrong.split()[0].partition("=")[0].lstrip("-"), _options(self, self._given)
            close = difflib.get_close_matches(asked, sorted(option.lstrip("-") for option in options), 1)
            message = f"{message}{f'; did you mean --{close[0]}?' if close else ''}"
        if "--json" in self._given:
            print_json(argparse.Namespace(json=True), {"error": redacted(message), "exit_code": 2})
        super().error(redacted(message))


def meant(wrong: str, accepted: Sequence[str]) -> str:
    """What was meant, if something is close, and what is accepted."""
    close = difflib.get_close_matches(wrong, accepted, 1, 0.5)
    return f"{f'did you mean {close[0]}? ' if close else ''}accepted: {', '.join(accepted)}"


def _options(parser: argparse.ArgumentParser, given: Sequence[str]) -> set[str]:
    """Every option of a parser and of the verb that was asked for; of all verbs where none was."""
    options = {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            at = next((at for at, word in enumerate(given) if word in action.choices), None)
            chosen = list(action.choices.values()) if at is None else [action.choices[given[at]]]
            rest = [] if at is None else given[at + 1 :]
            options |= {option for below in chosen for option in _options(below, rest)}
    return options


OF_RUN = "the run's own, where it keeps one, else embedded"
"""What `configuration` takes without ``--config`` in verbs that read a run."""


def configured(parser: argparse.ArgumentParser, default: str = "embedded") -> None:
    """Add what every verb with a run configuration takes: `--config`, `--set`, `--json`; `default`: of the first."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file or preset: flux-schnell, paper-sd14, sd35-medium, sdxl-turbo, or scenes-dit, whose weights are "
        f"to be trained first (default: {default})",
    )
    parser.add_argument(
        "--set", dest="overrides", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="override keys, e.g. images=100 executor=serial model.device=cuda (gazetteer config lists them)",
    )  # fmt: skip
    machine(parser)


def configuration(arguments: argparse.Namespace) -> RunConfig:
    """The configuration that a verb was given, where it works on a run and has none: that of the run, with ``--set``.

    First of all that a verb does, so that a slip is said within a second.
    """
    from gazetteer.jobs.config.kept import run_config
    from gazetteer.jobs.config.schema import load_config

    run = None if getattr(arguments, "new_run", False) else getattr(arguments, "run", None)
    if run is not None and not arguments.config:
        return run_config(run, arguments.overrides)
    return load_config(arguments.config, arguments.overrides)


def seed(text: str) -> int:
    """The type of every ``--seed``, as `Seed` of the configuration."""
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2^63 - 1, not {text}")
    return value


def machine(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="stdout is one JSON object; prose goes to stderr")


def of_run(parser: argparse.ArgumentParser, words: str, needed: bool = True) -> None:
    """Add the run that a verb works on: its first word after the verb."""
    parser.add_argument("run", metavar="RUN", nargs=None if needed else "?", help=words)


def of_new_run(parser: argparse.ArgumentParser, words: str) -> None:
    """Add the run that a verb makes: its first word after the verb, or `--out`."""
    of_run(parser, words, needed=False)
    parser.add_argument("--out", metavar="RUN", help="the same, by an option")
    parser.set_defaults(new_run=True)


def logged(parser: argparse.ArgumentParser) -> None:
    """Add `--log` to a verb that works on a run for long."""
    parser.add_argument(
        "--log", action="append", default=[], metavar="FILE",
        help="also append JSON lines here; - is stderr (a local run always keeps its own in RUN/_meta/log.jsonl)",
    )  # fmt: skip
