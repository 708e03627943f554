"""Floating-point operations of the detector and the segmenter, counted on their real modules, not on their weights.

Of checkpoints in the authors' formats the same network of transformers is counted: they agree in every weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gazetteer.diffusion.flops import count
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.detect.vocabulary_check import SENTENCES, read_text_side, tokens_at_most
from gazetteer.labeling.segment.protocol import SegmenterConfig
from gazetteer.labeling.weights.kinds import SEGMENTING, require_kind
from gazetteer.labeling.weights.loading import reading


def caption_tokens(config: DetectorConfig, groups: Sequence[Sequence[str]]) -> list[int]:
    """Tokens of every caption through which a picture is asked for `groups` (`Vocabulary.captions`).

    OWLv2 and OmDet-Turbo ask a group in one call whatever its length: its caption has as many tokens as one concept may
    have. SAM 3 has a caption for every concept.

    Raises:
        InputError: no configurations or tokenizer there, or a concept that cannot be asked.
    """
    from gazetteer.labeling.detect.phrases import build_captions

    settings, tokenizer = read_text_side(config)
    limit = tokens_at_most(settings)
    if settings.model_type in SEGMENTING:
        return [limit for group in groups for _ in group]
    if settings.model_type in SENTENCES:
        return [limit for group in groups if group]
    return [len(caption.ids) for group in groups for caption in build_captions(group, tokenizer, limit)]


def detector_flops(config: DetectorConfig, height: int, width: int, captions: Sequence[int]) -> float:
    """Operations of one picture of height x width px through every caption, given by their tokens.

    Captions between the shortest and the longest are interpolated. Not counted: the texts of OWLv2 and SAM 3, which are
    embedded once a run; of OmDet-Turbo one concept a call is counted.

    Raises:
        InputError: no configurations there.
    """
    from transformers import AutoModelForZeroShotObjectDetection

    settings, images = read_text_side(config)[0], _image_processor(config)
    pixels = images(images=np.zeros((height, width, 3), np.uint8), return_tensors="pt")["pixel_values"]
    if settings.model_type == "owlv2":
        return float(len(captions) * _owlv2(settings, pixels))
    if settings.model_type in SEGMENTING:
        look, ask = _sam3(config, settings, pixels)
        return float(look + len(captions) * ask)
    if settings.model_type == "omdet-turbo":
        return float(len(captions) * _omdet(settings, pixels))
    # Which token sees which follows from the tokens' values, which the meta device has not: weights are drawn instead.
    model = AutoModelForZeroShotObjectDetection.from_config(settings).float().eval().requires_grad_(False)
    seen = torch.ones(1, *pixels.shape[2:], dtype=torch.long)

    def call(tokens: int) -> int:
        ids = torch.ones(1, tokens, dtype=torch.long)
        with sdpa_kernel(SDPBackend.MATH):  # the CPU's fused attention is not counted
            return count(
                lambda: model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids), pixel_mask=seen)
            )

    ends = sorted({min(captions), max(captions)})
    return float(np.interp(captions, ends, [call(tokens) for tokens in ends]).sum())


def _owlv2(settings: Any, pixels: torch.Tensor) -> int:
    """Operations of one call: the picture's patches, their boxes, and their likeness to one concept."""
    from transformers import Owlv2ForObjectDetection

    with torch.device("meta"):
        model: Any = Owlv2ForObjectDetection(settings).float().to("meta").eval().requires_grad_(False)
    query = torch.empty(1, 1, settings.projection_dim, device="meta")

    def call() -> None:
        grid = model.image_embedder(pixel_values=pixels.to("meta"))[0]
        features = grid.flatten(1, 2)
        model.class_predictor(features, query)
        model.box_predictor(features, grid)

    with torch.device("meta"):
        return count(call)


def _sam3(config: DetectorConfig, settings: Any, pixels: torch.Tensor) -> tuple[int, int]:
    """Operations of one look at a picture, and of one phrase about it."""
    from transformers import Sam3LiteTextModel, Sam3Model

    kind: Any = Sam3LiteTextModel if settings.model_type == "sam3_lite_text" else Sam3Model
    model = kind(getattr(settings, "detector_config", None) or settings).float().eval().requires_grad_(False)
    text, seen = model.config.text_config, []
    ids = torch.ones(1, text.max_position_embeddings, dtype=torch.long)
    embedded = model.get_text_features(input_ids=ids, attention_mask=torch.ones_like(ids))
    with sdpa_kernel(SDPBackend.MATH):  # the CPU's fused attention is not counted
        look = count(lambda: seen.append(model.get_vision_features(pixels)))
        ask = count(lambda: model(vision_embeds=seen[0], text_embeds=embedded, attention_mask=torch.ones_like(ids)))
    return look, ask


def _omdet(settings: Any, pixels: torch.Tensor) -> int:
    """Operations of one call with one concept."""
    from transformers import OmDetTurboForObjectDetection

    model = OmDetTurboForObjectDetection(settings).float().eval().requires_grad_(False)
    ids = torch.ones(1, settings.text_config.max_position_embeddings, dtype=torch.long)
    mask = torch.ones_like(ids)
    with sdpa_kernel(SDPBackend.MATH):
        return count(
            lambda: model(
                pixel_values=pixels, classes_input_ids=ids, classes_attention_mask=mask, tasks_input_ids=ids,
                tasks_attention_mask=mask, classes_structure=torch.ones(1, dtype=torch.long),
            )
        )  # fmt: skip


def _image_processor(config: DetectorConfig) -> Any:
    """The image processor of a detector, as transformers has it."""
    from transformers import AutoImageProcessor, GroundingDinoImageProcessor

    if config.library == "groundingdino":
        from gazetteer.labeling.detect.grounding_dino.settings import read_settings

        known = read_settings(config.config or "GroundingDINO_SwinT_OGC")
        return GroundingDinoImageProcessor(
            size={"shortest_edge": known.image_size, "longest_edge": known.max_image_size}
        )
    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    with reading("detector", config.path, weights=False):
        return AutoImageProcessor.from_pretrained(config.path, trust_remote_code=False, **options)


def segmenter_flops(config: SegmenterConfig, boxes: int) -> tuple[int, int]:
    """Operations of (one picture through the encoder, `boxes` boxes of it through the decoder).

    Raises:
        InputError: no configuration there, or no checkpoint.
    """
    from transformers import EdgeTamModel, Sam2Model, SamHQModel, SamModel

    if not config.path:
        return 0, 0  # the detector cuts out itself
    settings = _segmenter(config)
    kinds: dict[str, Any] = {"sam2": Sam2Model, "sam_hq": SamHQModel, "edgetam": EdgeTamModel}
    kind: Any = kinds.get(settings.model_type.removesuffix("_video"), SamModel)
    with torch.device("meta"):
        model: Any = kind(settings).float().to("meta").eval().requires_grad_(False)
    side = settings.prompt_encoder_config.image_size
    inputs: list[Any] = []
    pixels = torch.empty(1, 3, side, side, device="meta")
    with torch.device("meta"):
        encode = count(lambda: inputs.append(model.get_image_embeddings(pixels)))
        prompts = torch.empty(1, max(1, boxes), 4)
        seen = inputs[0] if isinstance(inputs[0], tuple) else (inputs[0], None)
        more = {} if seen[1] is None else {"intermediate_embeddings": seen[1]}
        decode = count(lambda: model(image_embeddings=seen[0], input_boxes=prompts, multimask_output=False, **more))
    return encode, decode


def _segmenter(config: SegmenterConfig) -> Any:
    """The configuration of a segmenter, as transformers has it."""
    from transformers import AutoConfig, EdgeTamConfig, Sam2Config

    if config.library == "segment_anything":
        from gazetteer.labeling.segment.segment_anything_original import config_of, published_sizes, read_sizes
        from gazetteer.labeling.weights.checkpoints import read_shapes

        if config.model_type and not Path(config.path).exists():
            return config_of(published_sizes(config.model_type))
        return config_of(read_sizes(read_shapes("segmenter", config.path)))
    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    with reading("segmenter", config.path, weights=False):
        settings: Any = AutoConfig.from_pretrained(config.path, trust_remote_code=False, **options)
        require_kind("segmenter", config.path, settings.model_type)
        # the published folders hold the video model, whose picture part has the same keys
        pictures = {"sam2_video": Sam2Config, "edgetam_video": EdgeTamConfig}.get(settings.model_type)
        return settings if pictures is None else pictures.from_pretrained(config.path, **options)
