"""Grounding DINO through its authors' package, for checkpoints in their format.

`groundingdino-py` was written for transformers 4: its wrapper around BERT borrows methods that are gone.
Nothing of it is copied or changed on disk. While a model is built the plain BertModel takes the place
of the wrapper, and two hooks put right what goes in: BERT gets its mask of phrases in the form that it
reads today, and the text layers of the encoder get theirs in the order of batch and heads that torch's
attention expects (the package repeats it in the other order, so that in a batch every picture but the
first is read with the mask of another caption).
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.detect.grounding_dino.detector import GroundingDinoDetector
from gazetteer.labeling.detect.grounding_dino.settings import GroundingDinoSettings, read_settings, read_text_encoder
from gazetteer.labeling.detect.phrases import Caption
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.weights.checkpoints import fill, read_checkpoint
from gazetteer.labeling.weights.loading import check_choice, fitting, move

PACKAGE = "groundingdino.models.GroundingDINO"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPTIONAL = re.compile(
    r"bert\.(pooler\..+|embeddings\.position_ids)|label_enc\..+|backbone\.0\.layers\.\d+\.blocks\.\d+\.attn\.relative_position_index"
)
"""Weights that no result depends on, or that follow from the sizes."""
_building = threading.Lock()


def load_original_grounding_dino(config: DetectorConfig) -> OriginalGroundingDinoDetector:
    """A detector from a checkpoint file, the settings it was made with, and the folder or hub id of its BERT.

    Raises:
        InputError: the package is missing, a file cannot be read or does not fit, or the device cannot be used.
    """
    check_choice("detector.dtype with library groundingdino", config.dtype, ("float32",))
    _part("groundingdino")
    settings = read_settings(config.config or "GroundingDINO_SwinT_OGC")
    state = read_checkpoint("detector", config.path)
    tokenizer, text = read_text_encoder(config.text_encoder or settings.text_encoder_type)
    model = build_grounding_dino(settings, tokenizer, text)
    fill("detector", model, state, OPTIONAL)
    return OriginalGroundingDinoDetector(
        move(model, config.device, config.dtype, "detector"), tokenizer, settings, config
    )


def _part(name: str) -> Any:
    """A module of the package."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"detector.library groundingdino needs the package groundingdino-py ({error}); "
            "install it with: pip install 'gazetteer[original]'."
        ) from error


def build_grounding_dino(settings: GroundingDinoSettings, tokenizer: Any, text: Any) -> nn.Module:
    """The package's network with random weights, in evaluation mode and ready for today's transformers.

    tokenizer: the fast tokenizer of the text encoder; text: its BertConfig.
    """
    from transformers import BertModel

    library = _part(f"{PACKAGE}.groundingdino")
    stand_in = SimpleNamespace(
        get_tokenlizer=lambda name: tokenizer, get_pretrained_language_model=lambda name: BertModel(text)
    )
    with _swapped(library, BertModelWarper=lambda bert_model: bert_model, get_tokenlizer=stand_in):
        model: nn.Module = library.GroundingDINO(
            _backbone(settings), _transformer(settings), num_queries=settings.num_queries, aux_loss=True,
            iter_update=True, query_dim=4, num_feature_levels=settings.num_feature_levels, nheads=settings.nheads,
            dec_pred_bbox_embed_share=settings.dec_pred_bbox_embed_share, two_stage_type="standard",
            two_stage_bbox_embed_share=settings.two_stage_bbox_embed_share, two_stage_class_embed_share=False,
        )  # fmt: skip
    parts: Any = model
    parts.bert.register_forward_pre_hook(_additive_mask, with_kwargs=True)
    for layer in parts.transformer.encoder.text_layers:
        layer.register_forward_pre_hook(_mask_per_head, with_kwargs=True)
    return model.eval()


@contextmanager
def _swapped(module: Any, **attributes: Any) -> Iterator[None]:
    """Other values for a module's attributes, for a while; one thread at a time."""
    with _building:
        originals = {name: getattr(module, name) for name in attributes}
        try:
            for name, value in attributes.items():
                setattr(module, name, value)
            yield
        finally:
            for name, value in originals.items():
                setattr(module, name, value)


def _backbone(settings: GroundingDinoSettings) -> Any:
    swin = settings.backbone
    network = _part(f"{PACKAGE}.backbone.swin_transformer").SwinTransformer(
        embed_dim=swin.embed_dim, depths=list(swin.depths), num_heads=list(swin.num_heads),
        window_size=swin.window_size, mlp_ratio=swin.mlp_ratio, out_indices=settings.return_interm_indices,
    )  # fmt: skip
    positions = _part(f"{PACKAGE}.backbone.position_encoding").PositionEmbeddingSineHW(
        settings.hidden_dim // 2, settings.pe_temperatureH, settings.pe_temperatureW, normalize=True
    )
    joined = _part(f"{PACKAGE}.backbone.backbone").Joiner(network, positions)
    joined.num_channels = [network.num_features[index] for index in settings.return_interm_indices]
    return joined


def _transformer(settings: GroundingDinoSettings) -> Any:
    transformer = _part(f"{PACKAGE}.transformer").Transformer(
        d_model=settings.hidden_dim, nhead=settings.nheads, num_queries=settings.num_queries,
        num_encoder_layers=settings.enc_layers, num_decoder_layers=settings.dec_layers,
        dim_feedforward=settings.dim_feedforward, dropout=0.0, return_intermediate_dec=True, query_dim=4,
        num_feature_levels=settings.num_feature_levels, enc_n_points=settings.enc_n_points,
        dec_n_points=settings.dec_n_points, learnable_tgt_init=True, two_stage_type="standard",
        embed_init_tgt=settings.embed_init_tgt, use_text_enhancer=True, use_fusion_layer=True,
        use_text_cross_attention=True, text_dropout=0.0, fusion_dropout=0.0, fusion_droppath=0.0,
    )  # fmt: skip
    if width := settings.decoder_dim_feedforward:
        for layer in transformer.decoder.layers:
            layer.linear1 = nn.Linear(settings.hidden_dim, width)
            layer.linear2 = nn.Linear(width, settings.hidden_dim)
    return transformer


def _additive_mask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Which token sees which: bool [batch, n, n] becomes 0 or the lowest number, [batch, 1, n, n]."""
    mask = kwargs["attention_mask"]
    if mask.dim() == 3:
        dtype = next(module.parameters()).dtype
        hidden = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        kwargs["attention_mask"] = hidden.masked_fill(~mask.bool(), torch.finfo(dtype).min)[:, None]
    return args, kwargs


def _mask_per_head(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The mask [batch, n, n] once per head, [batch * heads, n, n] with the heads of one picture together."""
    mask = kwargs["src_mask"]
    if mask.dim() == 3 and module.nhead > 1:
        kwargs["src_mask"] = mask.repeat_interleave(module.nhead, dim=0)
    return args, kwargs


class OriginalGroundingDinoDetector(GroundingDinoDetector):
    """A `Detector`: captions, phrase scores and suppression as with transformers, the network of the authors."""

    def __init__(self, model: Any, tokenizer: Any, settings: GroundingDinoSettings, config: DetectorConfig) -> None:
        """model: what `build_grounding_dino` gives, filled, on its device."""
        self.model, self.tokenizer, self.settings, self.config = model, tokenizer, settings, config
        self.device = next(model.parameters()).device
        self.fitting = fitting(config, "detector", "detecting", self.device)
        self.limit = min(settings.max_text_len, model.bert.config.max_position_embeddings)

    @torch.inference_mode()
    def _call(self, pixels: Any, captions: Sequence[Caption]) -> list[tuple[Tensor, Tensor]]:
        """Logits [queries, tokens] and boxes [queries, 4] of every picture with its own caption."""
        # pads pictures of unequal size and remembers where
        samples = _part("groundingdino.util.misc").nested_tensor_from_tensor_list(
            [picture.to(self.device) for picture in pixels]
        )
        out = self.model(samples, captions=[caption.text for caption in captions])
        logits, boxes = out["pred_logits"].float().cpu(), out["pred_boxes"].float().cpu()
        return [(logits[i, :, : len(c.ids)], boxes[i]) for i, c in enumerate(captions)]

    def _pixels(self, images: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """The network's inputs [3, h, w] of pictures [H, W, 3], scaled and normalised as the authors do."""
        from PIL import Image
        from torchvision.transforms import functional

        resize = _part("groundingdino.datasets.transforms").resize
        size = self.settings.image_size, self.settings.max_image_size
        scaled = [resize(Image.fromarray(image), None, *size)[0] for image in images]
        return [functional.normalize(functional.to_tensor(picture), list(MEAN), list(STD)) for picture in scaled]
