"""Train one autoencoder from vectors to a finished folder, resuming to the same bits after any stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.kernels.candidates import is_large
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_pretrained
from gazetteer.sae.model.files import CONFIG, read_config
from gazetteer.sae.training.config import TrainConfig
from gazetteer.sae.training.metrics import Metrics, MetricSums
from gazetteer.sae.training.snapshots import SNAPSHOT, begun_as, latest_snapshot, remove_snapshots, save_snapshot
from gazetteer.sae.training.source import VectorSource
from gazetteer.sae.training.trainer import Trainer

__all__ = ["SNAPSHOT", "TrainResult", "train_sae"]

# Settings that decide how often the run writes, not what it computes: a resumed run may change them.
FREE = ("checkpoint_every", "log_every", "keep")

OnLog = Callable[[dict[str, float]], None]
"""Called with an entry of the history."""


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        sae: the autoencoder, float32.
        metrics: on the held-out vectors, None when there were none.
        steps: optimizer steps in all.
        dead_share: share of features dead by the training counters at the end, in [0, 1].
        history: numbers every ``log_every`` steps: step, loss, mse (scaled), auxk, dead (features), lr.
        already_done: the folder held this very run, and nothing was trained.
    """

    sae: SparseAutoencoder
    metrics: Metrics | None
    steps: int
    dead_share: float
    history: list[dict[str, float]]
    already_done: bool = False


def train_sae(
    vectors: VectorSource,
    d: int,
    config: TrainConfig,
    out: Path | str,
    resume: bool = True,
    *,
    site: Site | None = None,
    heldout: Iterable[Tensor] | None = None,
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    on_step: Callable[[int, int], None] | None = None,
    on_log: OnLog | None = None,
) -> TrainResult:
    """Train on `vectors` and leave ``config.json`` and ``model.safetensors`` in the folder `out`.

    While it runs, the folder holds the whole state as ``training.safetensors``, replaced atomically every
    ``checkpoint_every`` steps and removed at the end; ``keep`` older ones stay beside it (`sae.training.snapshots`).

    Args:
        vectors: the training vectors, never the held-out ones.
        d: width they must have.
        resume: go on from a state in `out`, or return the result found there; False starts over.
        site: recorded in the checkpoint and named in errors; without it the checkpoint does not say what it reads of a
            block either, and is taken for what ``sae_check.signal`` states.
        heldout: batches [batch, d] to measure on at the end.
        metadata: further JSON values for ``config.json``, e.g. ``model_digest``.
        dtype: of the stored weights, float32 or float16.
        device: to train on.
        on_step: called with (steps done, steps in all) after every step.
        on_log: called with every new entry of the history.

    Raises:
        InputError: vectors of another width, too few or not finite; `out` holds a run with other settings or
        data.
        GazetteerError: training diverged. Both name the site and the step.
    """
    out, name = Path(out), site.slug if site else str(out)
    if vectors.d != d:
        raise InputError(f"The SAE at {name} is to read {d} channels, but the vectors have {vectors.d}.")
    steps = config.total_steps(vectors.vectors)
    identity = identity_of(config, site, vectors.d, vectors.vectors, vectors.digest)
    if resume and (out / CONFIG).exists():
        return finished(out, identity)
    try:
        trainer = _trainer(vectors, config, out, resume, identity, steps, device)
        _run(trainer, vectors, out, identity, on_step, on_log)
    except GazetteerError as error:
        raise type(error)(f"Training the SAE at {name} stopped: {error}") from error
    evaluation = None
    if heldout is not None:
        evaluation = MetricSums(trainer.sae)
        for batch in heldout:
            evaluation.add(batch)
    result = publish(trainer, out, identity, site, evaluation, metadata, dtype)
    remove_snapshots(out)
    return result


def publish(
    trainer: Trainer,
    out: Path,
    identity: dict[str, Any],
    site: Site | None,
    evaluation: MetricSums | None,
    metadata: Mapping[str, Any] | None,
    dtype: torch.dtype,
) -> TrainResult:
    """Write what a finished trainer learned to `out`, with its metrics and the mean held-out vector (``mean``)."""
    metrics = evaluation.metrics() if evaluation is not None else None
    dead_share = len(trainer.dead()) / trainer.sae.config.n
    outcome = {
        "steps": trainer.steps,
        "dead_share": dead_share,
        "mse_scale": trainer.mse_scale,
        "history": trainer.history,
    }
    described = {
        "site": site,
        "metrics": metrics and metrics.as_dict(),
        "mean": [float(f"{value:.7g}") for value in evaluation.mean().tolist()] if evaluation is not None else None,
        "training": identity | {"outcome": outcome},
    }
    trainer.sae.signal = None if site is None else site.signal
    trainer.sae.save_pretrained(out, {**(metadata or {}), **described}, dtype)
    return TrainResult(trainer.sae.eval(), metrics, trainer.steps, dead_share, trainer.history)


def _trainer(
    vectors: VectorSource,
    config: TrainConfig,
    out: Path,
    resume: bool,
    identity: dict[str, Any],
    steps: int,
    device: torch.device | str,
) -> Trainer:
    """The run at its last checkpoint, or at its beginning."""
    trainer = Trainer(vectors.d, config, steps, device)
    state = latest_snapshot(out) if resume else None
    if state is not None:
        expect_same(state.identity, identity, out)
        trainer.restore(state)
        return trainer
    remove_snapshots(out)
    (out / CONFIG).unlink(missing_ok=True)
    wanted = min(config.median_vectors, vectors.vectors)
    trainer.start(_first(vectors, config, wanted))
    return trainer


def _first(vectors: VectorSource, config: TrainConfig, wanted: int) -> Tensor:
    """The first vectors [wanted, d] in the order of training; batch by batch, for they are many."""
    batches, filled = vectors.batches(config.batch_size, config.seed), 0
    first = torch.empty(wanted, vectors.d)
    while filled < wanted:
        batch = next(batches)[: wanted - filled]
        first[filled : filled + len(batch)] = batch
        filled += len(batch)
    return first


def _run(
    trainer: Trainer,
    vectors: VectorSource,
    out: Path,
    identity: dict[str, Any],
    on_step: Callable[[int, int], None] | None,
    on_log: OnLog | None,
) -> None:
    """All remaining steps, with a checkpoint every ``checkpoint_every`` of them."""
    config = trainer.config
    # No limit of epochs: the number of steps is the limit, also where it was given directly.
    batches = vectors.batches(config.batch_size, config.seed, start_step=trainer.step)
    while trainer.step < trainer.steps:
        logged = len(trainer.history)
        trainer.advance(next(batches))
        if on_log is not None and len(trainer.history) > logged:
            on_log(trainer.history[-1])
        if trainer.step % config.checkpoint_every == 0 or trainer.step == trainer.steps:
            save_snapshot(trainer, out, identity, config.keep)
        if on_step is not None:
            on_step(trainer.step, trainer.steps)


def finished(out: Path, identity: dict[str, Any]) -> TrainResult:
    """The result that `out` already holds; raises InputError when it is another run's."""
    training = _object(read_config(out), "training", out)
    outcome = training.pop("outcome", None)
    if outcome is None:
        raise InputError(f"{out} holds an SAE that was not trained here; choose another folder or start over.")
    expect_same(training, identity, out)
    sae, config = load_pretrained(out)
    try:
        metrics = Metrics(**config["metrics"]) if config["metrics"] else None
        return TrainResult(sae, metrics, outcome["steps"], outcome["dead_share"], outcome["history"], already_done=True)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{out / CONFIG} does not say any more what the training gave; start over elsewhere."
        ) from error


def require_settings(out: Path, config: TrainConfig, site: Site | None, stated: Mapping[str, Any]) -> None:
    """Compare what a folder holds with what will be trained into it as far as that is known without the vectors.

    Args:
        stated: entries of ``config.json`` that a finished training must have as they are here, where it has them.

    Raises:
        InputError: it holds an SAE that was not trained here, or a training under other settings or of other data.
    """
    described: Mapping[str, Any] = {}
    if (out / CONFIG).exists():
        described = read_config(out)
        identity = _object(described, "training", out)
        if "outcome" not in identity:
            raise InputError(f"{out} holds an SAE that was not trained here; choose another folder or start over.")
    elif (begun := begun_as(out)) is not None:
        identity = begun
    else:
        return
    data = _object(identity, "data", out)
    wanted = identity_of(config, site, data.get("d", 1), data.get("vectors", 0), data.get("digest", ""))
    expect_same(identity, {**wanted, "data": data}, out)
    differing = [
        f"{key} ({described[key]} there, {now} now)"
        for key, now in stated.items()
        if (described.get(key) or now) != now  # once, nothing was said of a hub's model
    ]
    if differing:
        raise InputError(f"{out} belongs to another training run; differing: {'; '.join(differing)}.")


def identity_of(config: TrainConfig, site: Site | None, d: int, vectors: int, digest: str) -> dict[str, Any]:
    """What makes this run this run, as JSON: settings, data and site."""
    settings = {key: value for key, value in config.as_dict().items() if key not in FREE}
    if config.candidates is None:  # what the size decides; the machine is no part of a run's name
        settings["candidates"] = is_large(config.n or config.expansion * d, d)
    data = {"d": d, "vectors": vectors, "digest": digest}
    identity = {"config": settings, "data": data, "site": site.slug if site else None}
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def expect_same(stored: Mapping[str, Any], wanted: Mapping[str, Any], out: Path) -> None:
    """Raises InputError, naming the keys, when `out` belongs to a run with other settings or data."""
    differing = []
    for part in ("config", "data"):
        # A run from before a setting existed was made as that setting's default says.
        known = TrainConfig().as_dict() | {"prefixes": [], "candidates": False} if part == "config" else {}
        old, new = known | _object(stored, part, out), wanted[part]
        keys = sorted(key for key in {*old, *new} - {*FREE} if old.get(key) != new.get(key))
        differing += [f"{part}.{key} ({old.get(key)} there, {new.get(key)} now)" for key in keys]
    if stored.get("site") != wanted["site"]:
        differing.append(f"site ({stored.get('site')} there, {wanted['site']} now)")
    if differing:
        raise InputError(f"{out} belongs to another training run; differing: {'; '.join(differing)}.")


def _object(said: Mapping[str, Any], key: str, out: Path) -> dict[str, Any]:
    """What a description of a training in `out` holds under a key; InputError where that is no object."""
    value = said.get(key) or {}
    if not isinstance(value, dict):
        raise InputError(
            f"{out} does not say any more how it was trained: its {key} is no object; start over elsewhere."
        )
    return dict(value)
