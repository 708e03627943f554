"""`gazetteer layout`: predict the layout of a prompt's picture while it is noise, and measure such predictions."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import OwnFiles
from gazetteer.data.core.settings import Effect
from gazetteer.data.core.sites import Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.given.config import given_setting
from gazetteer.data.runs.folder import RunFolder, open_finished
from gazetteer.jobs.config.fingerprint import differing, fingerprint_of
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.labeling.layout.run import open_run
from gazetteer.sae.model.autoencoder import SparseAutoencoder

if TYPE_CHECKING:
    from gazetteer.labeling.layout.model import LayoutPrediction, LayoutPredictor

GIVEN = "pictures."
"""How the keys of the settings begin that say where pictures were given from."""

QUICK_IMAGES = 96
"""Pictures of each split that `--quick` samples again."""


def check_config(config: RunConfig, run: RunFolder, among: Collection[str] = ()) -> None:
    """Refuse a configuration whose model, sampling or autoencoders are not the run's.

    Where a run's pictures were given from is no matter: what asks draws pictures of prompts, or reads the run's own.

    Args:
        among: only these keys matter; all of them where none is named.
    Raises:
        InputError: naming the keys that differ.
    """
    others = [key for key in _others(config, run.read_json("run.json")) if not among or key in among]
    if others:
        raise InputError(
            f"The configuration is not the one {run.path} was made with; these differ: {', '.join(others)}. "
            "Name the run's own with --config and --set."
        )


def _others(config: RunConfig, made: Any) -> list[str]:
    """The settings of model, sampling and autoencoders by which a configuration and a fingerprint differ."""
    differ = differing(fingerprint_of(config), made, {Effect.PICTURES, Effect.CODES}, last_bits=False)
    return [key for key in differ if not key.startswith(GIVEN)]


def load_saes(config: RunConfig, sites: Sequence[Site] | None = None) -> dict[Site, SparseAutoencoder]:
    """The autoencoder of every site of the configuration, or of those given."""
    from gazetteer.sae.model.checkpoint import load_site_saes

    wanted = config.generation.sites if sites is None else sites
    return load_site_saes(config.saes, wanted, config.model.device, signal=config.sae_check.signal)


def evaluate_run(
    config: RunConfig,
    run: str,
    *,
    quick: bool = False,
    stored: bool = False,
    exact: str | None = None,
    vectors: str = "model",
    train_images: int = 0,
    heldout_images: int = 0,
    exact_images: int = 0,
    memory_mb: int = 2000,
) -> dict[str, Any]:
    """Measure layout prediction on a finished run (`evaluate_layout` says what comes back).

    Beside it ``seconds``, models loaded and pictures sampled.

    Args:
        stored: sample nothing again: only the run's own t, and only methods that need no more than its codes.
        quick: only the run's own t, and at most `QUICK_IMAGES` pictures of each split sampled again.
        exact: folder of pictures with exact masks, or None.
        vectors: word vectors of the published method (`gazetteer.labeling.vocabulary.word_vectors`).
        train_images, heldout_images, exact_images: at most so many pictures; 0 takes all.
        memory_mb: of `LayoutEvaluationConfig`.
    Raises:
        InputError: the run is not finished, of another model or without what can be measured, or an argument is wrong.
    """
    from gazetteer.diffusion.load import load_pipeline
    from gazetteer.labeling.layout.evaluation.config import LayoutEvaluationConfig
    from gazetteer.labeling.layout.evaluation.evaluate import evaluate_layout, require_measurable
    from gazetteer.labeling.layout.evaluation.exact import exact_group
    from gazetteer.labeling.vocabulary.word_vectors import word_vectors

    if stored and exact is not None:
        raise InputError("--stored passes nothing through the model, which --exact needs; leave one of them out.")
    opened = open_run(run)
    given = bool(given_setting(opened.store.read_json("run.json") or {}))  # whatever the configuration says of them
    _require_counted(train_images, not (stored or given), exact_images, exact)
    begun, most = time.monotonic(), QUICK_IMAGES if quick else 0
    stored = stored or given  # what their captions would be sampled into is not what the masks are of
    settings = LayoutEvaluationConfig(
        train_images or most, heldout_images or most, every_step=not (quick or stored), baselines=not stored,
        resamples=500 if quick else 1000, batch_size=config.batch_size, memory_mb=memory_mb,
    )  # fmt: skip
    use_threads(config.threads)
    check_config(config, opened.store)
    require_measurable(opened, settings.heldout_images, exact is not None)
    seen = (config.generation, config.batch_size, exact_images or most)
    exact_pictures = None if exact is None else exact_group(opened, exact, *seen)
    pipe = load_pipeline(config.model)
    words = word_vectors(vectors, opened.concepts, pipe)
    result = evaluate_layout(
        opened, load_saes(config), words, settings, pipe, config.generation, exact_pictures,
        partial(print, file=sys.stderr),
    )  # fmt: skip
    if given:
        result["left_out"]["attention"] = (
            "the run's pictures were given and cannot be sampled again; all methods that ask the model are left out"
        )
    return {"run": run, "quick": quick, "vectors": vectors, **result, "seconds": round(time.monotonic() - begun, 1)}


def _require_counted(train_images: int, sampled: bool, exact_images: int, exact: str | None) -> None:
    """InputError where a number of pictures limits none."""
    if exact_images < 0 or (exact_images and exact is None):
        raise InputError("--exact-images counts pictures of the folder --exact, and is at least 0.")
    if train_images and not sampled:
        raise InputError("--train-images counts pictures that are sampled again, and none is; leave it out.")


def predict(
    config: RunConfig, run: str | None, prompt: str, seed: int, out: str | Path, *, labels: str | None = None,
    prior: bool = False, calibrated: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Generate one picture, predict its layout at every step, and write the picture and the maps.

    Writes ``picture.png``, ``layout.json`` (prompt, seed, how many of its tokens were not read, the
    concepts it names, the method) and ``layout.npz``
    (``where`` float32 [steps, C, height, width], ``whether`` [steps, C],
    ``t`` [steps], ``concepts`` [C], ``thresholds`` [steps, C]) into `out`.

    Args:
        run: a finished run; None when `labels` is all there is.
        labels: a labels.parquet or candidates.parquet; None is the run's own candidates, ``labels.parquet`` where none
            lies here its labels.
        prior: also where things usually are, from the run's evidence.
        calibrated: instead of labels alone, the run's evidence calibrated on its codes and masks (`fit_layout`).
    Returns:
        per step the concepts the prompt names with their predicted share of the picture, None where nothing that is
        known of a concept tells one cell from another.
    Raises:
        InputError: no run where one is needed, or a table that was made with another model or autoencoders.
    """
    from gazetteer.data.tables.images import encode_image
    from gazetteer.diffusion.draw import warn_of_cut
    from gazetteer.diffusion.generate import Generator
    from gazetteer.diffusion.load import load_pipeline
    from gazetteer.labeling.layout.live import predict_layout
    from gazetteer.labeling.layout.run import mentions
    from gazetteer.labeling.vocabulary.synonyms import read_synonyms

    folder = OwnFiles(out, ("picture.png", "layout.npz", "layout.json"), alone=True)
    use_threads(config.threads)
    model, method = _predictor(config, run, labels, prior, calibrated)
    pipe: Any = load_pipeline(config.model)
    generator = Generator(pipe, config.generation)
    (cut,) = warn_of_cut(pipe, [prompt])
    with predict_layout(pipe, model, guided=generator.guided) as layout:
        image = generator.sample([prompt], [seed], lambda *_: None)
    assert image is not None
    steps = list(layout.history.values())
    names = steps[0].concepts
    others = {} if run is None else read_synonyms(open_finished(run))
    named = [c for c, mentioned in zip(names, mentions([prompt], names, others)[0], strict=True) if mentioned]
    about = {"prompt": prompt, "seed": seed, "tokens_cut": cut, "named": named, "method": method}
    folder.write("picture.png", encode_image(image[0]))
    folder.write("layout.npz", _maps(steps))
    folder.write("layout.json", f"{json.dumps(about, indent=2)}\n".encode())
    rows = [{"t": round(step.t, 4), "shares": {c: _share(step, c) for c in named}} for step in steps]
    return {"prompt": prompt, "seed": seed, "out": str(folder.folder), "method": method, "named": named, "steps": rows}


def _maps(steps: Sequence[LayoutPrediction]) -> bytes:
    """The first picture's maps at every step, as a NumPy archive."""
    import numpy as np

    maps = io.BytesIO()
    np.savez_compressed(
        maps,
        where=np.stack([step.where[0] for step in steps]),
        whether=np.stack([step.whether[0] for step in steps]),
        thresholds=np.stack([step.thresholds[0] for step in steps]),
        t=np.array([step.t for step in steps], np.float32),
        concepts=np.array(steps[0].concepts),
    )
    return maps.getvalue()


def _share(layout: LayoutPrediction, concept: str) -> float | None:
    return round(float(layout.mask(concept)[0].mean()), 4) if layout.told(concept)[0] else None


def _predictor(
    config: RunConfig, run: str | None, labels: str | None, prior: bool, calibrated: bool
) -> tuple[LayoutPredictor, str]:
    """The predictor that was asked for, with its autoencoders, and its name."""
    from gazetteer.data.tables.provenance import read_provenance
    from gazetteer.labeling.layout.label_layout import best_block, layout_of_labels
    from gazetteer.labeling.layout.label_weights import columns_of, label_weights, read_label_table
    from gazetteer.labeling.layout.model import fit_layout
    from gazetteer.labeling.layout.prior import layout_prior

    store = None if run is None else open_finished(run)
    if calibrated and prior:
        raise InputError(
            "--calibrated fits where things usually are as well, so that --prior adds nothing; leave one out."
        )
    if calibrated and labels is not None:
        raise InputError("--calibrated reads the run's evidence, codes and masks and no --labels; leave one out.")
    if store is None and (calibrated or prior or labels is None):
        needed = "--calibrated" if calibrated else "--prior" if prior else "a layout without --labels FILE"
        raise InputError(f"Name the finished run: {needed} reads it (gazetteer layout predict RUN …).")
    if store is not None:
        check_config(config, store)
    if calibrated and run is not None:
        return fit_layout(open_run(run), load_saes(config)), "gazetteer"
    if labels is not None and (store is None or Path(labels).exists() or Path(labels).name != labels):
        table = read_label_table(labels)
        _check_table(config, labels, read_provenance(labels).get("fingerprint"))
    elif labels not in (None, "labels.parquet"):
        raise InputError(f"There is no file {labels}; leave --labels out for the run's own table.")
    else:
        assert store is not None
        name = "labels" if labels else "candidates"
        table = store.read_final(name, columns_of(name))
    block = best_block(label_weights(table), "cond")
    wanted = [site for site in label_weights(table) if (str(site.port), site.branch) == (block, "cond")]
    known = None if not prior or store is None else layout_prior(store)
    layout = layout_of_labels(table, load_saes(config, wanted), prior=known)
    return layout, layout.name


def _check_table(config: RunConfig, path: str, made: Any) -> None:
    """Refuse labels of another model, sampling or autoencoders than the configuration's."""
    others = _others(config, made)
    if others:
        raise InputError(
            f"The configuration is not the one {path} was made with; these differ: {', '.join(others)}. "
            "Name the table's own with --config and --set."
        )
