"""Where things land that an edit with nothing but a concept and a quadrant asks for, beside the unedited pictures.

    python -m benchmarks.scenes.steering_defaults runs/scenes --json
    ... --seeds 100 101 --choice labels --t -1        # another setting; a t below 0: nearest to the window's middle

Every thing of the embedded world is asked into every quadrant, by a prompt that names it and says nothing of places. It
counts as placed where the run's detector finds it and the centre of its masks lies in the quadrant.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.edits import OUTSIDES, STAGES, Edit
from gazetteer.data.inputs.regions import QUADRANTS, Region
from gazetteer.diffusion.edit_sampler import Start
from gazetteer.jobs.config.kept import run_config
from gazetteer.jobs.experiments.steer_evaluate import SteerWorker
from gazetteer.labeling.interventions.evaluation.scores import lands_in
from gazetteer.labeling.interventions.resolve import Resolver
from gazetteer.labeling.quality.intervals import mean_interval

PROMPTS = {
    "dog": "a dog on grass, sky", "tree": "a tree on grass, sky", "house": "a house on grass, sky",
    "car": "a car on a road, sky", "flower": "a flower on grass, sky", "boat": "a boat on the sea, sky",
    "balloon": "a balloon in the sky, grass", "sun": "the sun in the sky, grass", "moon": "the moon in the sky, grass",
    "cloud": "a cloud in the sky, grass",
}  # fmt: skip


def measure(
    run: str, edit: Edit, window: str, seeds: Sequence[int], things: Sequence[str] = tuple(PROMPTS)
) -> dict[str, Any]:
    """Placed pictures of the edit and without it, in all and by thing and quadrant.

    Args:
        run: a finished run of the embedded world.
        edit: its concept and region are replaced.
        window: the name of the edit's.
        things: of PROMPTS.
    """
    config = run_config(run, ["executor=serial"])
    worker = SteerWorker(config.stages, replace(config.steer, classifier=""), list(config.vocabulary.concepts), 0)
    observer, resolver = worker.trials.observer, Resolver(run)
    asks = [(thing, quadrant) for thing in things for quadrant in QUADRANTS]
    edits: dict[tuple[str, str], list[Edit]] = {}
    for thing, quadrant in asks:
        try:
            resolved = resolver.resolve(replace(edit, concept=thing, region=Region(box=QUADRANTS[quadrant])))
            edits[thing, quadrant] = [resolved]
        except InputError as error:
            print(error, file=sys.stderr)
            edits[thing, quadrant] = []  # nothing to add: counts as the unedited picture
    wanted = [ask for ask in asks for _ in seeds]
    starts = [Start(PROMPTS[thing], seed) for thing, _ in asks for seed in seeds]
    result: dict[str, Any] = {"edit": edit.as_dict(), "pictures": len(wanted)}
    drawn = {"none": observer.base(starts), "edited": observer.edited(starts, [edits[ask] for ask in wanted], window)}
    for name, pictures in drawn.items():
        seen = observer.look(pictures, [(thing,) for thing, _ in wanted])
        placed = [
            thing in observed.masks and lands_in(observed.masks[thing], QUADRANTS[quadrant])
            for (thing, quadrant), observed in zip(wanted, seen, strict=True)
        ]
        cells = {f"{thing}, {quadrant}": 0 for thing, quadrant in asks}
        for (thing, quadrant), hit in zip(wanted, placed, strict=True):
            cells[f"{thing}, {quadrant}"] += int(hit)
        result[name] = {
            "placed": sum(placed),
            "share": list(mean_interval([float(hit) for hit in placed])),
            "by_ask": cells,
        }
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one setting."""
    usual = Edit("-")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--seeds", type=int, nargs="+", default=[300, 301, 302, 303])
    parser.add_argument("--things", nargs="+", default=list(PROMPTS), choices=list(PROMPTS), metavar="THING")
    parser.add_argument("--choice", default=usual.choice, choices=["labels", "contrast"])
    parser.add_argument("--t", type=float, default=usual.t)
    parser.add_argument("--outside", choices=OUTSIDES)
    parser.add_argument("--strength", type=float, default=usual.strength)
    parser.add_argument("--window", default="early", choices=list(STAGES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    edit = Edit(
        "-", choice=options.choice, t=None if options.t < 0 else options.t, outside=options.outside or "",
        strength=options.strength, window=STAGES[options.window],
    )  # fmt: skip
    result = measure(options.run, edit, options.window, options.seeds, options.things)
    for name in ("none", "edited"):
        fraction = ", ".join(f"{value:.2f}" for value in result[name]["share"])
        print(f"{name:<7} {result[name]['placed']} of {result['pictures']} [{fraction}]", file=sys.stderr)
    if options.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
