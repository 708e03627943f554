"""What a worker needs to label a shard, as data; importing it loads no library that runs models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Le

from gazetteer.data.core.settings import Effect, Natural, OneOf, setting, settings
from gazetteer.data.core.sites import SIGNALS
from gazetteer.data.inputs.given.config import PicturesConfig
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.load import ModelConfig
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.evidence.config import EvidenceConfig
from gazetteer.labeling.segment.protocol import SegmenterConfig
from gazetteer.labeling.vocabulary.concepts import VocabularyConfig

STAGES = ("generate", "detect", "segment", "evidence")
"""What a worker does with a shard, in order; one worker may do all of it, or several some of it each."""


@settings("sae_check")
class SaeCheckConfig:
    """The check of the autoencoders before hours are spent."""

    pictures: Natural = setting(
        Effect.NOTHING,
        "On how many of its first pictures a worker measures; at most one batch, 0 leaves the check out.",
        default=4,
    )
    least: Annotated[float, Le(1)] = setting(
        Effect.NOTHING,
        "Lowest share of the updates' variance that every autoencoder must explain, 1 − Σ Var(x − x̂) / Σ "
        "Var(x), at most 1. The paper's explain 0.36 to 0.78 of it, one that does not belong to the block "
        "explains nothing or less.",
        default=0.1,
    )
    signal: Annotated[str, OneOf(("", *SIGNALS))] = setting(
        Effect.NOTHING,
        "What the autoencoders read where their own files do not say it (those of sparsify, SAELens and others): "
        "update, a block's output minus its input, output, or input; empty refuses them.",
        default="",
    )


@dataclass(frozen=True)
class StageConfig:
    """Everything a worker needs to label a shard.

    Attributes:
        saes: a folder of sparse autoencoders, one sub-folder a site (`Site.slug`), or patterns of sites with what
            serves them (`gazetteer.sae.model.sources`).
        pictures: where pictures are given instead of generated; no detector or segmenter is then needed.
        seed: of the run, from which the noise of given pictures follows.
        heldout: share of prompts, by hash, whose pictures take no part in choosing labels.
        batch_size: pictures generated, detected and segmented together.
        threads: CPU threads per worker, 0 leaves torch's default.
        helpers: threads that work beside the models (`gazetteer.diffusion.runtime.beside`).
    """

    model: ModelConfig
    generation: GenerationConfig
    saes: str | dict[str, str]
    vocabulary: VocabularyConfig
    detector: DetectorConfig
    segmenter: SegmenterConfig
    evidence: EvidenceConfig = EvidenceConfig()
    sae_check: SaeCheckConfig = SaeCheckConfig()
    pictures: PicturesConfig = PicturesConfig()
    seed: int = 0
    heldout: float = 0.3
    batch_size: int = 8
    threads: int = 1
    helpers: int = 2
