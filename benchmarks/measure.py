"""Measure everything that is said of a world once more: one command, each piece kept, stopped and resumed at will.

    nice -n 19 python -m benchmarks.measure --out build/measured                       # the shipped world
    nice -n 19 python -m benchmarks.measure --out build/measured --build build/world   # a world just trained
    ... --size quick                                             # small: wide intervals
    ... --size rehearsal                                         # the smallest: that every piece works, no figures
    ... --only quality layout --plan
    ... --config scenes-dit                                      # of the transformer, where it was trained
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
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measured.pieces import MODELS, OF_CONFIG, PIECES, SIZES, Piece, Setting
from benchmarks.measured.tables import tables
from benchmarks.scenes.adopt import NEEDED, describe
from benchmarks.scenes.prompts import prompts_of
from gazetteer.data.core.digests import digest_json, digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import replace_file
from gazetteer.data.scenes.weights import world_views

ROOT = Path(__file__).resolve().parents[1]


def kept(setting: Setting, piece: Piece) -> dict[str, Any] | None:
    """What was measured with this very command and these models, or None."""
    file = setting.out / "pieces" / f"{piece.name}.json"
    if not file.exists():
        return None
    content: dict[str, Any] = json.loads(file.read_text())
    return content if content.get("made_with") == _made_with(setting, piece) else None


def _made_with(setting: Setting, piece: Piece) -> str:
    """The digest of the piece's command and of all that it reads: models, views, prompts, the pieces that it needs."""
    names = dict.fromkeys((*NEEDED, *OF_CONFIG[setting.config]))
    models = [digest_path(str(setting.models / name)) for name in names if (setting.models / name).is_dir()]
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
    parser.add_argument("--config", choices=sorted(OF_CONFIG), default="", help="another model of the world")
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
    if options.size == "rehearsal" and options.config:
        parser.error("--size rehearsal is of the U-Net's blocks")
    models = options.models or (options.build / "models" if options.build else MODELS)
    wanted = (*NEEDED, *OF_CONFIG[options.config])
    missing = [name for name in wanted if not set((models / name).glob("*")) - {models / name / "ABSENT.txt"}]
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
        options.out.resolve(), models.resolve(), prompts and prompts.parent, options.size, tuple(options.overrides),
        options.config,
    )  # fmt: skip
    chosen = [piece for piece in PIECES if piece.name in options.only and not (options.config and piece.of_unet)]
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
