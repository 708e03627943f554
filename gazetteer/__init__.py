"""Gazetteer says what the features inside text-to-image models mean, at scale, with evidence.

Everything a user needs has a name here and costs nothing until it is used: `import gazetteer` loads no library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gazetteer.attribution.edits.delta import Delta as Delta
    from gazetteer.attribution.edits.delta import ablation as ablation
    from gazetteer.attribution.edits.delta import applied as applied
    from gazetteer.attribution.edits.delta_file import load_delta as load_delta
    from gazetteer.attribution.edits.delta_file import save_delta as save_delta
    from gazetteer.attribution.scores.loading import load_components as load_components
    from gazetteer.attribution.scores.score import ScoreConfig as ScoreConfig
    from gazetteer.attribution.scores.score import score_weights as score_weights
    from gazetteer.data.core.errors import GazetteerError as GazetteerError
    from gazetteer.data.core.errors import InputError as InputError
    from gazetteer.data.core.sites import Site as Site
    from gazetteer.data.inputs.edit_files import read_edits as read_edits
    from gazetteer.data.inputs.edits import Edit as Edit
    from gazetteer.data.inputs.edits import Target as Target
    from gazetteer.data.inputs.regions import Region as Region
    from gazetteer.data.tables.images import decode_image as decode_image
    from gazetteer.data.tables.masks import struct_to_mask as struct_to_mask
    from gazetteer.diffusion.load import load_pipeline as load_pipeline
    from gazetteer.diffusion.steer import steer as steer
    from gazetteer.jobs.config.schema import RunConfig as RunConfig
    from gazetteer.jobs.config.schema import load_config as load_config
    from gazetteer.jobs.experiments.draw import draw as draw
    from gazetteer.jobs.label.job import label as label
    from gazetteer.jobs.label.relabel import relabel as relabel
    from gazetteer.jobs.label.summary import summarise as summarise
    from gazetteer.jobs.operate.plan import Rates as Rates
    from gazetteer.jobs.operate.plan import plan as plan
    from gazetteer.labeling.atlas import write_atlas as write_atlas
    from gazetteer.labeling.atlas.show import FeatureCard as FeatureCard
    from gazetteer.labeling.atlas.show import show as show
    from gazetteer.labeling.interventions.resolve import resolve as resolve
    from gazetteer.labeling.layout.label_layout import layout_of_labels as layout_of_labels
    from gazetteer.labeling.layout.live import predict_layout as predict_layout
    from gazetteer.labeling.layout.model import fit_layout as fit_layout
    from gazetteer.labeling.layout.run import open_run as open_run
    from gazetteer.labeling.tables import load_candidates as load_candidates
    from gazetteer.labeling.tables import load_causal as load_causal
    from gazetteer.labeling.tables import load_features as load_features
    from gazetteer.labeling.tables import load_images as load_images
    from gazetteer.labeling.tables import load_labels as load_labels
    from gazetteer.labeling.tables import load_segments as load_segments
    from gazetteer.sae.model.autoencoder import SparseAutoencoder as SparseAutoencoder
    from gazetteer.sae.model.checkpoint import load_site_saes as load_site_saes
    from gazetteer.sae.training.config import TrainConfig as TrainConfig
    from gazetteer.sae.training.source import TensorSource as TensorSource
    from gazetteer.sae.training.train import train_sae as train_sae

_MODULES = {
    "attribution.edits.delta": ("Delta", "ablation", "applied"),
    "attribution.edits.delta_file": ("load_delta", "save_delta"),
    "attribution.scores.loading": ("load_components",),
    "attribution.scores.score": ("ScoreConfig", "score_weights"),
    "data.core.errors": ("GazetteerError", "InputError"),
    "data.core.sites": ("Site",),
    "data.inputs.edit_files": ("read_edits",),
    "data.inputs.edits": ("Edit", "Target"),
    "data.inputs.regions": ("Region",),
    "data.tables.images": ("decode_image",),
    "data.tables.masks": ("struct_to_mask",),
    "diffusion.load": ("load_pipeline",),
    "diffusion.steer": ("steer",),
    "jobs.config.schema": ("RunConfig", "load_config"),
    "jobs.experiments.draw": ("draw",),
    "jobs.label.job": ("label",),
    "jobs.label.relabel": ("relabel",),
    "jobs.label.summary": ("summarise",),
    "jobs.operate.plan": ("Rates", "plan"),
    "labeling.atlas": ("write_atlas",),
    "labeling.atlas.show": ("FeatureCard", "show"),
    "labeling.interventions.resolve": ("resolve",),
    "labeling.layout.run": ("open_run",),
    "labeling.layout.label_layout": ("layout_of_labels",),
    "labeling.layout.live": ("predict_layout",),
    "labeling.layout.model": ("fit_layout",),
    "labeling.tables": (
        "load_candidates", "load_causal", "load_features", "load_images", "load_labels", "load_segments",
    ),
    "sae.model.autoencoder": ("SparseAutoencoder",),
    "sae.model.checkpoint": ("load_site_saes",),
    "sae.training.config": ("TrainConfig",),
    "sae.training.source": ("TensorSource",),
    "sae.training.train": ("train_sae",),
}  # fmt: skip
"""What is taken from which module at its first use; the imports above say the same to type checkers and editors."""

_WHERE = {name: f"gazetteer.{module}" for module, names in _MODULES.items() for name in names}

__all__ = sorted(_WHERE)
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'gazetteer' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
