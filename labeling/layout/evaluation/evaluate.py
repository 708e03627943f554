"""Layout prediction, measured: per sampler step and method, on held-out pictures, with intervals over pictures.

Everything that is fitted (thresholds, calibrations, probe, neuron counts, the choice of the best site) is fitted on
discovery pictures; what is reported is measured on held-out ones, the same for all methods.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site, step_of
from gazetteer.data.core.terminal import print_table
from gazetteer.diffusion.attention import attends
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.labeling.layout.evaluation.config import LayoutEvaluationConfig
from gazetteer.labeling.layout.evaluation.group import Group
from gazetteer.labeling.layout.evaluation.measure import MIN_PAIRS
from gazetteer.labeling.layout.evaluation.model_pass import PassRecord, sampled
from gazetteer.labeling.layout.evaluation.step import StepEvaluation, at_once
from gazetteer.labeling.layout.model import finest
from gazetteer.labeling.layout.run import LayoutRun, nearest_t, require_branch
from gazetteer.sae.model.autoencoder import SparseAutoencoder

MEASURES = ("miou", "pointing", "presence_ap", "margin")


def evaluate_layout(
    run: LayoutRun,
    saes: Mapping[Site, SparseAutoencoder],
    vectors: NDArray[np.floating],
    config: LayoutEvaluationConfig,
    pipe: Any = None,
    generation: GenerationConfig | None = None,
    exact: Callable[[Any, Sequence[float], Path], Group] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure layout prediction on a run.

    Args:
        run: `open_run` of a finished run.
        saes: per site of the run.
        vectors: word vectors [C, d] of the run's concepts, for the published method.
        pipe, generation: the run's model and sampling; needed with `config.baselines`.
        exact: makes the group of pictures with exact masks from (pipe, t values, folder); None leaves that out.
        say: told what is being done.
    Returns:
        ``miou`` [t][method] -> [mean, low, high] (95 %; low and high NaN of one prompt), ``pointing``, ``presence_ap``
        alike; ``margin``: gazetteer minus the method, picture by picture; ``sites``: the same mIoU per block and
        branch alone; ``by_concept`` [t][method][concept]; ``autoencoder_t`` [t]: of the autoencoders that gazetteer
        reads it with; ``exact``: the same on pictures with exact masks; ``pairs``, ``exact_pairs``: held-out pairs, and
        those with exact masks, per concept; ``images``: how many were read; ``left_out`` [method]: why not measured.
    Raises:
        InputError: as `require_measurable`, or the baselines lack a model.
    """
    if config.baselines and (pipe is None or generation is None):
        raise InputError("The baselines sample pictures again and need the run's model.")
    require_measurable(run, config.heldout_images, exact is not None)
    stored = sorted({site.t for site in run.grids}, reverse=True)
    steps = _every_step(stored, generation.steps, say) if config.every_step and generation is not None else stored
    most = at_once(run, saes, config)
    train, held = run.of_split("discovery", most), run.of_split("heldout", config.heldout_images)
    rows = run.of_split("discovery", min(most, config.train_images or most))
    with tempfile.TemporaryDirectory(prefix="gazetteer-layout-") as folder:
        again, held_again = _sampled_again(run, (rows, held), pipe, generation, steps, Path(folder), config, say)
        groups = {
            "train": _group(run, train, None), "again": None if again is None else _group(run, rows, again),
            "heldout": _group(run, held, held_again), "exact": exact(pipe, steps, Path(folder)) if exact else None,
        }  # fmt: skip
        measured: dict[float, tuple[StepEvaluation, dict[str, dict[str, Any]]]] = {}
        for t in sorted(steps, key=lambda t: t not in stored):  # the run's own first: `live` takes their fits
            say(f"t = {t:.2f}")
            step = StepEvaluation(run, saes, vectors, config, t)
            live = None if t in stored else measured[nearest_t(stored, t)][0].gazetteer
            step.fit(_group(run, train, None) if t in stored else groups["again"] or _group(run, train, None),
                     groups["again"], live)  # fmt: skip
            pictures = ((name, groups[name]) for name in ("heldout", "exact"))
            measured[t] = step, {name: step.measure(group) for name, group in pictures if group is not None}
    result = _by_step({t: measured[t] for t in steps})
    result["left_out"] = _left_out({t: measured[t][0].left_out for t in steps}) | _unasked(groups["again"], pipe)
    result["pairs"] = _pairs(run, _group(run, held, None), most)
    result["images"] = _counts(run, groups)
    if groups["exact"] is not None:
        result["exact_pairs"] = _pairs(run, groups["exact"], most)
        result["images"]["exact"] = len(groups["exact"].image_ids)
    return result


def require_measurable(run: LayoutRun, heldout_images: int = 0, exact: bool = False) -> None:
    """What `evaluate_layout` needs of a run, to be asked before models are loaded.

    Args:
        heldout_images: so many held-out pictures are measured, 0: all; exact: other pictures are, too.

    Raises:
        InputError: the run has no site that layouts are read at, or no pair of a picture and a concept to fit on or to
            measure.
    """
    require_branch(run, "cond")
    wanted = run.mentioned & run.maps.present
    needed = {"discovery": 0} if exact else {"discovery": 0, "heldout": heldout_images}
    for split, most in needed.items():
        if not wanted[run.of_split(split, most)].any():
            raise InputError(
                f"No prompt or caption of the {split} pictures of {run.store.path} names a concept that its picture "
                "shows; layouts are fitted and measured on such pairs."
            )


def _counts(run: LayoutRun, groups: Mapping[str, Group | None]) -> dict[str, int]:
    """Pictures: of the run's tables, and of every group that was asked of."""
    names = {"train": "train", "train_sampled": "again", "heldout": "heldout"}
    asked = {name: groups[key] for name, key in names.items()}
    counts = {name: 0 if group is None else len(group.image_ids) for name, group in asked.items()}
    return {"tables": len(run.of_split("discovery")), **counts}


def _left_out(why: Mapping[float, Mapping[str, str]]) -> dict[str, str]:
    """By method why it was left out, and at which steps where not at all of them."""
    told: dict[str, str] = {}
    for method in dict.fromkeys(name for own in why.values() for name in own):
        at = {t: own[method] for t, own in why.items() if method in own}
        where = "" if len(at) == len(why) else f"at t = {', '.join(f'{t:.2f}' for t in at)}: "
        told[method] = where + "; ".join(dict.fromkeys(at.values()))
    return told


def _unasked(again: Group | None, pipe: Any) -> dict[str, str]:
    """Why the methods that ask the model were left out, where they were."""
    if again is None:
        return {"attention": "no picture was sampled again, which all methods that ask the model need"}
    if not attends(pipe):
        return {"attention": f"{type(pipe).__name__} has no cross-attention layers of its own to read"}
    return {}


def _by_step(measured: Mapping[float, tuple[StepEvaluation, Mapping[str, dict[str, Any]]]]) -> dict[str, Any]:
    """What was measured at each step, of held-out pictures and of those with exact masks, by measure."""
    result: dict[str, Any] = {key: {} for key in (*MEASURES, "by_concept")}
    result |= {"sites": [], "paper_site": {}, "autoencoder_t": {}, "exact": {}}
    for t, (step, by_group) in measured.items():
        _add(result, f"{t:.2f}", by_group["heldout"], step.step.places)
        result["autoencoder_t"][f"{t:.2f}"] = step.autoencoder_t
        if "exact" in by_group:
            result["exact"][f"{t:.2f}"] = {key: _joint(by_group["exact"][key], step.step.places) for key in MEASURES}
    return result


def _sampled_again(
    run: LayoutRun,
    splits: Sequence[NDArray[np.int64]],
    pipe: Any,
    generation: GenerationConfig | None,
    steps: Sequence[float],
    folder: Path,
    config: LayoutEvaluationConfig,
    say: Callable[[str], None],
) -> list[PassRecord | None]:
    """What sampling the discovery and the held-out pictures again shows at every step; None twice without baselines."""
    if not config.baselines or generation is None:
        return [None, None]
    seen: list[PassRecord | None] = []
    for name, images in zip(("discovery", "held-out"), splits, strict=True):
        say(f"sampling {len(images)} {name} pictures again")
        (folder / name).mkdir()
        pictures = [(run.image_ids[i], run.prompts[i], run.seeds[i]) for i in images]
        seen.append(sampled(pipe, generation, steps, pictures, run.concepts, folder / name, config.batch_size))
    return seen


def _every_step(stored: Sequence[float], count: int, say: Callable[[str], None]) -> list[float]:
    """t of every sampler step, first step first: the run's own where it has some there.

    Of other steps whose t has the same two decimals, by which results are named, the first, and that is said.
    """
    known: dict[int, list[float]] = {}
    for t in stored:
        known.setdefault(step_of(t, count), []).append(t)
    last, named, steps = max(1, count - 1), {f"{t:.2f}" for t in stored}, list[float]()
    for step in range(count):
        t = round(1.0 - step / last, 6)  # as sites have it
        own = known.get(step) or ([] if f"{t:.2f}" in named else [t])
        named.update(f"{t:.2f}" for t in own)
        steps += sorted(own, reverse=True)
    if len(steps) < count:
        say(f"{len(steps)} of {count} steps are measured, of those whose t has the same two decimals one")
    return steps


def _pairs(run: LayoutRun, pictures: Group, most: int) -> dict[str, int]:
    """In how many of the pictures each concept is wanted, `most` pictures at a time."""
    grid = finest(list(run.grids.values()))
    counts = sum(part.truth(grid).wanted.sum(axis=0) for part in pictures.parts(most))
    return dict(zip(run.concepts, np.asarray(counts).tolist(), strict=True))


def _group(run: LayoutRun, images: NDArray[np.int64], seen: PassRecord | None) -> Group:
    alike = None if run.maps.prompts is None else run.maps.prompts[images]
    return Group(tuple(run.image_ids[i] for i in images), run.truth, images, seen, stored=True, prompts=alike)


def _add(result: dict[str, Any], t: str, figures: dict[str, Any], places: Sequence[tuple[str, str]]) -> None:
    """File one step's measurements; the single (block, branch) pairs go to `sites`."""
    single = {"/".join(place): place for place in places}
    for key in MEASURES:
        result[key][t] = _joint(figures[key], places)
    result["sites"] += [
        {"t": float(t), "block": place[0], "branch": place[1], "miou": figures["miou"][name]}
        for name, place in single.items()
    ]
    result["by_concept"][t] = _joint(figures["by_concept"], places)
    result["paper_site"][t] = figures["paper_site"]


def _joint(values: Mapping[str, Any], places: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Without the single (block, branch) pairs."""
    single = {"/".join(place) for place in places}
    return {name: value for name, value in values.items() if name not in single}


def print_layout(result: Mapping[str, Any]) -> None:
    """The measurements as text."""
    for key, title in (("miou", "mIoU"), ("pointing", "pointing"), ("presence_ap", "presence AP")):
        _print_methods(title, result[key])
    for name, why in result["left_out"].items():
        print(f"{name}: left out, {why}")
    if result["sites"]:
        print("mIoU by the features of one block and branch, beside the prior's")
    print_table(
        {"block": "", "branch": "", "t": ".2f", "mIoU": ">", "prior": ".3f"},
        (
            (row["block"], row["branch"], row["t"], _shown(row["miou"]),
             _defined(result["miou"][f"{row['t']:.2f}"]["prior"][0]))
            for row in result["sites"]
        ),
    )  # fmt: skip
    _print_methods("mIoU on exact masks", {t: figures["miou"] for t, figures in result["exact"].items()})
    for key, where in (("pairs", "held-out pictures"), ("exact_pairs", "pictures with exact masks")):
        if key in result and max(result[key].values(), default=0) < MIN_PAIRS:
            print(f"of {where} no concept has {MIN_PAIRS} pairs: means are over all concepts that have one")
    images = result["images"]
    print(
        f"\ndiscovery pictures: {images['tables']} in the tables that gazetteer, paper and labels read, "
        f"{images['train']} to calibrate them, {images['train_sampled']} for what reads the model (attention, probe, "
        f"neurons, directions); held-out ones: {images['heldout']}"
    )
    print(f"{result['seconds']:.0f} s")


def _print_methods(title: str, by_t: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """A row a method and a column a t, with 95 % intervals; nothing where nothing was measured."""
    if by_t:
        print(f"{title} [95 % interval over pictures], by method and t")
        names = dict.fromkeys(name for methods in by_t.values() for name in methods)
        print_table(
            {"method": "", **{f"t={t}": ">" for t in by_t}},
            ([name, *(_shown(methods[name]) if name in methods else None for methods in by_t.values())]
             for name in names),
        )  # fmt: skip
        print()


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value


def _shown(interval: Sequence[float]) -> str | None:
    mean, low, high = interval
    if np.isnan(mean):
        return None
    return f"{mean:.3f}" if np.isnan(low) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"
