"""What a detector can be asked for, known from its tokenizer alone: before weights are loaded or a worker starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gazetteer.labeling.detect.phrases import concept_tokens, require_unlike
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.weights.kinds import require_kind
from gazetteer.labeling.weights.loading import reading

OWLV2_QUERY = "a photo of a {}"
"""How a concept is put to OWLv2; it was trained on captions, and its authors ask in sentences like this one."""


PHRASE = "{}"
"""How a concept is put to what is asked for phrases one by one."""

SENTENCES = {"owlv2": OWLV2_QUERY} | dict.fromkeys(("sam3", "sam3_video", "sam3_lite_text", "omdet-turbo"), PHRASE)
"""How a concept is put to a detector that reads each by itself, by the kind of model."""


def check_concepts(config: DetectorConfig, concepts: Sequence[str]) -> None:
    """Refuse concepts that the detector cannot tell apart.

    Raises:
        InputError: no tokenizer there, a concept that cannot be asked, or two that are the same to the detector.
    """
    settings, tokenizer = read_text_side(config)
    sentence = SENTENCES.get(settings.model_type, "{}.")
    limit = tokens_at_most(settings)
    require_unlike(concepts, [concept_tokens(concept, tokenizer, limit, sentence) for concept in concepts])


def read_text_side(config: DetectorConfig) -> tuple[Any, Any]:
    """Configuration and tokenizer of a detector, as transformers has them; InputError where they are not there or no
    detector's."""
    from transformers import AutoConfig, AutoTokenizer

    if config.library == "groundingdino":
        from gazetteer.labeling.detect.grounding_dino.settings import config_of, read_settings, read_text_encoder

        known = read_settings(config.config or "GroundingDINO_SwinT_OGC")
        tokenizer, text = read_text_encoder(config.text_encoder or known.text_encoder_type)
        return config_of(known, text), tokenizer
    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    with reading("detector", config.path, weights=False):
        settings = AutoConfig.from_pretrained(config.path, trust_remote_code=False, **options)
        require_kind("detector", config.path, settings.model_type)  # what finds nothing reads no words
        return settings, AutoTokenizer.from_pretrained(config.path, trust_remote_code=False, **options)


def tokens_at_most(settings: Any) -> int:
    """Tokens that a detector of this configuration reads together."""
    settings = getattr(settings, "detector_config", None) or settings  # of a SAM 3 that is stored with its tracker
    most: int = settings.text_config.max_position_embeddings
    return most if settings.model_type in SENTENCES else min(settings.max_text_len, most)
