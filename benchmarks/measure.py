"""Measure everything that is said of a world once more: one command, each piece kept, stopped and resumed at will.

    nice -n 19 python -m benchmarks.measure --out build/measured                       # the shipped world
    nice -n 19 python -m benchmarks.measure --out build/measured --build build/world   # a world just trained
    ... --size quick                                             # small: wide intervals
    ... --size rehearsal                                         # the smallest: that every piece works, no figures
    ... --only quality layout --plan
    ... --jobs 2                                                 # side by side, a core each

Every piece is a public command of its own, run as a user would, and resumed by itself where it can be; what it printed
is kept as OUT/pieces/NAME.json beside the command line and the digest of models and prompts it was made with, and is
not made again while both are the same. At the end OUT/measured.json holds all of it and OUT/measured.md the tables.

The full size is cut to what the questions need (all concepts in all quadrants, ten erased objects and their attacks,
causes of features drawn at random at every site): by the counts of pictures and the times of the shipped model about
six to seven hours of one core for a U-Net of twice its operations, unproven until it ran. It leaves out what the
commands do by default: more cases, every control of attribution, attacks on every way to erase.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._measured_tables import tables
from benchmarks.scenes.adopt import NEEDED, describe
from benchmarks.scenes.prompts import prompts_of
from gazetteer.data.core.digests import digest_json, digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import replace_file
from gazetteer.data.scenes.weights import world_views
from gazetteer.jobs.config.schema import DEFAULT_CONFIG

MODELS = DEFAULT_CONFIG.parent / "models"
ROOT = Path(__file__).resolve().parents[1]


SIZES = ("full", "quick", "rehearsal")
"""How much is measured. The figures of a rehearsal mean nothing: it shows that every piece works, and is kept."""

_OF_SIZE: dict[str, tuple[str, ...]] = {
    "full": (), "quick": ("images=64",),
    "rehearsal": ("images=20", "shard_size=5", "generation.steps=4", "labels.min_images=2", "labels.permutations=50",
                  "labels.refine=100", "labels.max_q=1.0", "labels.min_specificity=0.0", "coverage.wanted=4"),
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """Where what lies, and how much is measured.

    Attributes:
        out: receives everything.
        models: of the world: ``text_to_image``, ``saes``, ``detector``, ``segmenter`` and the two classifiers.
        prompts: of a world whose prompts are its own, or None.
        size: one of SIZES.
        overrides: further settings of the configuration.
    """

    out: Path
    models: Path
    prompts: Path | None
    size: str
    overrides: tuple[str, ...]

    @property
    def run(self) -> str:
        """The labelling run that everything else reads."""
        return str(self.out / "run")

    @property
    def configuration(self) -> list[str]:
        """Settings that point the embedded configuration at these models."""
        paths = {"model.path": "text_to_image", "saes": "saes", "detector.path": "detector",
                 "segmenter.path": "segmenter"}  # fmt: skip
        settings = [f"{key}={self.models / name}" for key, name in paths.items()] if self.models != MODELS else []
        settings += [f"prompts.path={self.prompts / 'prompts.txt'}"] if self.prompts else []
        return [*settings, "executor=serial", *_OF_SIZE[self.size], *self.overrides]


@dataclass(frozen=True)
class Piece:
    """One measurement: a command after ``python -m``, and the pieces whose results it reads."""

    name: str
    needs: tuple[str, ...]
    command: Callable[[Setting], list[str]]


def _on_run(*words: str, **sized: Sequence[str]) -> Callable[[Setting], list[str]]:
    """A verb on the run; RUN and OUT in its words are where they lie. `sized`: further words of a size."""

    def command(setting: Setting) -> list[str]:
        said = [*words, *sized.get(setting.size, ()), "--json"]
        places = {"RUN": setting.run, "OUT": str(setting.out)}
        return ["gazetteer", *(_placed(word, places) for word in said)]

    return command


def _placed(word: str, places: dict[str, str]) -> str:
    head, slash, rest = word.partition("/")
    return places.get(head, head) + slash + rest


def _label(setting: Setting) -> list[str]:
    return ["gazetteer", "label", setting.run, "--set", *setting.configuration, "--json"]


def _exact(setting: Setting) -> list[str]:
    count = {"full": "200", "quick": "24", "rehearsal": "4"}[setting.size]
    return ["gazetteer.data.scenes.truth", "--out", str(setting.out / "exact"), "--images", count]


def _attribution(parts: Sequence[str], methods: Sequence[str] = ()) -> Callable[[Setting], list[str]]:
    """Parts of the evaluation of weights; all of them keep their results in one place and take them from there.

    `methods`: of the full size.
    """

    def command(setting: Setting) -> list[str]:
        size = {
            "full": ["--methods", *methods] if methods else [],
            "quick": ["--quick"],
            "rehearsal": ["--quick", "--concepts", "sky", "--methods", "cad"],
        }[setting.size]  # fmt: skip
        attacks = ["--attacks", "paraphrase"] if setting.size == "rehearsal" and "attacks" in parts else []
        wanted = [part for part in parts if setting.size == "full" or part not in ("styles", "areas")]
        if setting.size == "rehearsal":
            wanted = [part for part in wanted if part in ("erase", "attacks", "heldout")]
        if setting.size == "rehearsal" and not {"erase", "attacks"} & set(wanted):  # whose methods these are
            size = [word for word in size if word not in ("--methods", "cad")]
        words = ["gazetteer", "attribute", "evaluate", *size, "--parts", *wanted, *attacks]
        return [*words, "--out", str(setting.out / "attribution"), "--set", *setting.configuration, "--json"]

    return command


def _placing(setting: Setting) -> list[str]:
    fewer = ["--things", "sun", "--seeds", "300"] if setting.size == "rehearsal" else []
    return ["benchmarks.scenes.steering_defaults", setting.run, *fewer, "--json"]


def _nulls(setting: Setting) -> list[str]:
    return ["benchmarks.label_null", *(["--only", "company"] if setting.size == "rehearsal" else []), "--json"]


def _steer(name: str, *settings: str) -> Piece:
    """Steering with other settings than the configuration's, its trials apart."""
    words = ["steer", "evaluate", "RUN", "--out", f"OUT/{name}"]
    changed = ["--set", *settings] if settings else []
    # Every concept in every quadrant four times, every style twenty times; beside it twice, with fewer choices.
    size = ["steer.cases=160", "steer.global_cases=120"]
    size = size if not settings else ["steer.cases=80", "steer.choices=[contrast]", "steer.tuning=20", *settings]
    tiny = [*settings, "steer.cases=2", "steer.global_cases=2", "steer.tuning=2", "steer.strengths=[1.0]",
            "steer.choices=[labels]", "steer.ts=[0.5]", "steer.paper_strengths=[1.0]", "steer.words=[]",
            "steer.direction_images=4"]  # fmt: skip
    return Piece(name, ("label",), _on_run(*words, full=["--set", *size], quick=["--quick", *changed],
                                           rehearsal=["--set", *tiny]))  # fmt: skip


_LAYOUT = ["--exact", "OUT/exact", "--plots", "OUT/plots"]
_LAYOUT_TINY = ["--quick", "--train-images", "8", "--heldout-images", "4", "--exact", "OUT/exact"]
_ERASING = ("steps_random", "cad", "cad_random", "repaired", "published", "uce", "steps_all", "random", "sae_ablate",
            "sae_negative", "sae_replace")  # fmt: skip
_ERASING_LOOKS = ("steps_random", "cad", "random", "repaired", "uce", "sae_ablate", "sae_negative", "sae_replace")
_ATTACKED = ("steps_random", "cad", "repaired", "uce", "sae_ablate")
_CAUSAL = ["causal", "RUN", "--set", "causal.pick=sample", "causal.unlabelled=0"]

PIECES = (
    Piece("label", (), _label),
    Piece("attribution", (), _attribution(("erase", "amplify", "located"), _ERASING)),
    Piece("looks", ("attribution",), _attribution(("erase", "styles", "areas"), _ERASING_LOOKS)),
    Piece("quality", ("label",), _on_run(
        "quality", "RUN", quick=["--no-shuffle"], rehearsal=["--set", "accuracy.images=6"])),
    Piece("exact", (), _exact),
    Piece("layout", ("label", "exact"), _on_run(
        "layout", "evaluate", "RUN", full=_LAYOUT, quick=["--stored"], rehearsal=_LAYOUT_TINY)),
    _steer("steering"),
    Piece("causal", ("label",), _on_run(
        *_CAUSAL, full=["--features=2"], quick=["--features=1", "--images=4"],
        rehearsal=["--features=1", "--images=2", "--sites=up_blocks.1.attentions.0-cond-t0.50"])),
    Piece("examine", ("causal",), _on_run(
        "examine", "RUN", full=["--fresh", "4"], quick=["--fresh", "1"],
        rehearsal=["--fresh", "1", "--set", "accuracy.images=6"])),
    _steer("steering_mid", "steer.blocks=[mid_block.attentions.0]", 'steer.classifier=""'),
    _steer("steering_both", "steer.branches=[both]", 'steer.classifier=""'),
    _steer("steering_windows", "steer.windows=[early and middle]", 'steer.classifier=""'),
    Piece("placing", ("label",), _placing),
    Piece("attacks", ("attribution",), _attribution(("attacks",), _ATTACKED)),
    Piece("faithfulness", (), _attribution(("faithfulness", "heldout"))),
    Piece("nulls", (), _nulls),
)  # fmt: skip
"""All pieces in their order; the mid block alone is the only site of arXiv 2504.15473, "both" edits both branches.

The longest comes first, beside which all others find a place (`--jobs`)."""


def kept(setting: Setting, piece: Piece) -> dict[str, Any] | None:
    """What was measured with this very command and these models, or None."""
    file = setting.out / "pieces" / f"{piece.name}.json"
    if not file.exists():
        return None
    content: dict[str, Any] = json.loads(file.read_text())
    return content if content.get("made_with") == _made_with(setting, piece) else None


def _made_with(setting: Setting, piece: Piece) -> str:
    """The digest of the piece's command and of all that it reads: models, views, prompts, the pieces that it needs."""
    models = [digest_path(str(setting.models / name)) for name in NEEDED if (setting.models / name).is_dir()]
    prompts = digest_path(str((setting.prompts or MODELS.parent) / "prompts.txt"))
    needs = [_made_with(setting, need) for need in PIECES if need.name in piece.needs]
    return digest_json([piece.command(setting), models, world_views(setting.models), prompts, needs])


def measure(
    setting: Setting, pieces: Sequence[Piece], say: Callable[[str], None] = print, jobs: int = 1
) -> dict[str, Any]:
    """Every piece that is not there yet, at most `jobs` at a time; returns all results by name, None without one."""
    results: dict[str, Any] = {}
    waiting, running = list(PIECES), dict[Future[dict[str, Any] | None], Piece]()
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or running:
            settled = False  # a piece that others may need
            for piece in [p for p in waiting if all(need in results for need in p.needs)]:
                made_before = kept(setting, piece)
                missing = [name for name in piece.needs if results[name] is None]
                if made_before is None and piece in pieces and not missing:
                    if len(running) == jobs:
                        continue
                    running[pool.submit(_make, setting, piece, say)] = piece
                else:
                    if made_before is None and piece in pieces:
                        say(f"== {piece.name}: left out, for it needs {', '.join(missing)}")
                    results[piece.name], settled = made_before, True
                waiting.remove(piece)
            if running and not settled:
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    results[running.pop(done).name] = done.result()
    results = {piece.name: results[piece.name] for piece in PIECES}
    replace_file(setting.out / "measured.json", (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    replace_file(setting.out / "measured.md", tables(results).encode())
    return results


def _make(setting: Setting, piece: Piece, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Run a piece's command and keep what it printed; None, said, where it failed."""
    words, made_with = piece.command(setting), _made_with(setting, piece)
    say(f"== {piece.name}: python -m {shlex.join(words)}")
    begun = time.monotonic()
    environment = {**os.environ, "GAZETTEER_SCENES_MODELS": str(setting.models)}
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)  # of this piece alone, and whatever it started
        code = process.returncode = os.waitstatus_to_exitcode(status)
    if code not in (0, 3):
        say(f"== {piece.name} failed with {code}; the same command tries it again")
        return None
    if _made_with(setting, piece) != made_with:
        say(f"== {piece.name} is not kept: models or prompts changed while it ran; the same command makes it again")
        return None
    result = json.loads(said) if said.startswith("{") else {"said": said}
    figures = {
        "made_with": made_with, "command": shlex.join(["python", "-m", *words]),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "wall_seconds": round(time.monotonic() - begun, 1), "result": result,
    }  # fmt: skip
    file = setting.out / "pieces" / f"{piece.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, (json.dumps(figures, indent=1, sort_keys=True) + "\n").encode())
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, or say what would be."""
    names = [piece.name for piece in PIECES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="receives everything, and keeps it")
    parser.add_argument(
        "--build", type=Path, metavar="FOLDER", help="of benchmarks.scenes.chain: FOLDER/models is read"
    )
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="the models alone (default: the shipped ones)")
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="PIECE", help=", ".join(names))
    parser.add_argument("--size", choices=SIZES, default="full", help="quick: small; rehearsal: that all of it works")
    parser.add_argument(
        "--set", dest="overrides", nargs="+", default=[], metavar="KEY=VALUE", help="of the configuration"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="pieces side by side, a core each (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print OUT/measured.json too")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and do nothing")
    options = parser.parse_args(argv)
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {options.jobs}")
    models = options.models or (options.build / "models" if options.build else MODELS)
    missing = [name for name in NEEDED if not (models / name).is_dir()]
    if missing:
        print(f"{models} has no {missing[0]}; the models are trained by benchmarks.scenes.chain.", file=sys.stderr)
        return 2
    try:
        if options.build:
            describe(options.build)  # scenes for them are drawn as they know them
        prompts = prompts_of(models)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    setting = Setting(
        options.out.resolve(), models.resolve(), prompts and prompts.parent, options.size, tuple(options.overrides)
    )
    chosen = [piece for piece in PIECES if piece.name in options.only]
    if options.plan:
        for piece in chosen:
            state = "to do" if kept(setting, piece) is None else "done"
            print(f"{state:<6}{piece.name}: python -m {shlex.join(piece.command(setting))}")
        return 0
    results = measure(setting, chosen, lambda text: print(text, file=sys.stderr, flush=True), options.jobs)
    print(setting.out / "measured.md", file=sys.stderr)
    if options.json:
        print(json.dumps(results))
    return 1 if any(results[piece.name] is None for piece in chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
