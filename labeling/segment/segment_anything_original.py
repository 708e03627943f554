"""SAM through its authors' package, for checkpoints in their format.

The sizes of the network are read off the weights, so that any checkpoint of the architecture loads,
not only the three published ones.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.segment.precision import placed
from gazetteer.labeling.segment.protocol import Mask, SegmenterConfig
from gazetteer.labeling.segment.sam import Pixels, SamSegmenter
from gazetteer.labeling.weights.checkpoints import fill, read_checkpoint
from gazetteer.labeling.weights.loading import expect_numbers, fitting

PUBLISHED = {"vit_b": (768, 12), "vit_l": (1024, 24), "vit_h": (1280, 32)}
"""Width and depth of the published image encoders."""
HEADS = {"vit_b": 12, "vit_l": 16, "vit_h": 16}
"""Their attention heads."""
OPTIONAL = re.compile(r"pixel_mean|pixel_std")
"""What some files hold and the package's model keeps for itself."""


@dataclass(frozen=True)
class SamSizes:
    """The sizes of a SAM; lengths in px, window in cells, `whole` are the blocks that attend to the whole picture."""

    width: int
    depth: int
    heads: int
    patch: int
    image: int
    window: int
    whole: tuple[int, ...]
    mlp_ratio: float
    channels: int
    mask_channels: int
    masks: int
    decoder_depth: int
    decoder_mlp: int
    decoder_downsample: int
    iou_width: int
    iou_depth: int
    decoder_heads: int = 8


def load_original_sam(config: SegmenterConfig) -> OriginalSamSegmenter:
    """A segmenter from a checkpoint file.

    Raises:
        InputError: the package is missing, the file cannot be read or is no SAM (of the named type), or
            the device cannot be used.
    """
    _part("segment_anything")
    state = read_checkpoint("segmenter", config.path)
    sizes = read_sizes(state)
    if config.model_type and (sizes.width, sizes.depth) != PUBLISHED[config.model_type]:
        raise InputError(
            f"segmenter.model_type is {config.model_type}, but {config.path} has an image encoder of width "
            f"{sizes.width} and depth {sizes.depth}; leave model_type out to follow the checkpoint."
        )
    model = build_sam(sizes)
    fill("segmenter", model, state, OPTIONAL)
    encoder: Any = model.image_encoder
    return OriginalSamSegmenter(placed(model, encoder, config), config)


def _part(name: str) -> Any:
    """A module of the package."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"segmenter.library segment_anything needs the package segment-anything ({error}); "
            "install it with: pip install 'gazetteer[original]'."
        ) from error


def read_sizes(state: Mapping[str, Tensor]) -> SamSizes:
    """The sizes of the SAM that these weights belong to.

    The number of heads in the mask decoder leaves no trace in the weights: it is the published 8.

    Raises:
        InputError: the weights are not those of a SAM.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in state:
            raise InputError(f"The segmenter checkpoint is no SAM in its authors' format: it lacks {name!r}.")
        return tuple(state[name].shape)

    def count(template: str) -> int:
        return next(i for i in range(len(state) + 1) if template.format(i) not in state)

    width, _, patch, _ = shape("image_encoder.patch_embed.proj.weight")
    grid = shape("image_encoder.pos_embed")[1]
    depth = count("image_encoder.blocks.{}.norm1.weight")
    # a block that attends within windows of w cells has 2 w - 1 relative positions
    spans = [(shape(f"image_encoder.blocks.{i}.attn.rel_pos_h")[0] + 1) // 2 for i in range(depth)]
    head = shape("image_encoder.blocks.0.attn.rel_pos_h")[1]
    layer, channels = "mask_decoder.transformer.layers", shape("image_encoder.neck.0.weight")[0]
    return SamSizes(
        width=width,
        depth=depth,
        heads=width // head,
        patch=patch,
        image=grid * patch,
        window=min(spans),
        whole=tuple(i for i, span in enumerate(spans) if span == grid),
        mlp_ratio=shape("image_encoder.blocks.0.mlp.lin1.weight")[0] / width,
        channels=channels,
        mask_channels=shape("prompt_encoder.mask_downscaling.3.weight")[0],
        masks=shape("mask_decoder.mask_tokens.weight")[0] - 1,
        decoder_depth=count(layer + ".{}.norm1.weight"),
        decoder_mlp=shape(f"{layer}.0.mlp.lin1.weight")[0],
        decoder_downsample=channels // shape(f"{layer}.0.cross_attn_token_to_image.q_proj.weight")[0],
        iou_width=shape("mask_decoder.iou_prediction_head.layers.0.weight")[0],
        iou_depth=count("mask_decoder.iou_prediction_head.layers.{}.weight"),
    )


def published_sizes(model_type: str) -> SamSizes:
    """The sizes of a published SAM, one of `PUBLISHED`; every quarter of its encoder ends with a block that attends
    to the whole picture."""
    width, depth = PUBLISHED[model_type]
    return SamSizes(
        width=width, depth=depth, heads=HEADS[model_type], patch=16, image=1024, window=14,
        whole=tuple(range(depth // 4 - 1, depth, depth // 4)), mlp_ratio=4.0, channels=256, mask_channels=16, masks=3,
        decoder_depth=2, decoder_mlp=2048, decoder_downsample=2, iou_width=256, iou_depth=3,
    )  # fmt: skip


def config_of(sizes: SamSizes) -> Any:
    """The transformers SamConfig of the same network."""
    from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

    vision = SamVisionConfig(
        hidden_size=sizes.width, num_hidden_layers=sizes.depth, num_attention_heads=sizes.heads,
        patch_size=sizes.patch, image_size=sizes.image, window_size=sizes.window, mlp_ratio=sizes.mlp_ratio,
        global_attn_indexes=list(sizes.whole), output_channels=sizes.channels, num_pos_feats=sizes.channels // 2,
    )  # fmt: skip
    prompts = SamPromptEncoderConfig(
        hidden_size=sizes.channels, image_size=sizes.image, patch_size=sizes.patch,
        mask_input_channels=sizes.mask_channels,
    )  # fmt: skip
    decoder = SamMaskDecoderConfig(
        hidden_size=sizes.channels, mlp_dim=sizes.decoder_mlp, num_hidden_layers=sizes.decoder_depth,
        num_attention_heads=sizes.decoder_heads, attention_downsample_rate=sizes.decoder_downsample,
        num_multimask_outputs=sizes.masks, iou_head_depth=sizes.iou_depth, iou_head_hidden_dim=sizes.iou_width,
    )  # fmt: skip
    return SamConfig(
        vision_config=vision.to_dict(), prompt_encoder_config=prompts.to_dict(), mask_decoder_config=decoder.to_dict()
    )


def build_sam(sizes: SamSizes) -> nn.Module:
    """The package's network with random weights, in evaluation mode."""
    library = _part("segment_anything.modeling")
    grid = sizes.image // sizes.patch
    encoder = library.ImageEncoderViT(
        img_size=sizes.image, patch_size=sizes.patch, embed_dim=sizes.width, depth=sizes.depth, num_heads=sizes.heads,
        mlp_ratio=sizes.mlp_ratio, out_chans=sizes.channels, qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=sizes.window,
        global_attn_indexes=sizes.whole,
    )  # fmt: skip
    prompts = library.PromptEncoder(
        embed_dim=sizes.channels, image_embedding_size=(grid, grid), input_image_size=(sizes.image, sizes.image),
        mask_in_chans=sizes.mask_channels,
    )  # fmt: skip
    transformer = library.TwoWayTransformer(
        depth=sizes.decoder_depth, embedding_dim=sizes.channels, mlp_dim=sizes.decoder_mlp,
        num_heads=sizes.decoder_heads, attention_downsample_rate=sizes.decoder_downsample,
    )  # fmt: skip
    decoder = library.MaskDecoder(
        transformer_dim=sizes.channels, transformer=transformer, num_multimask_outputs=sizes.masks,
        iou_head_depth=sizes.iou_depth, iou_head_hidden_dim=sizes.iou_width,
    )  # fmt: skip
    model: nn.Module = library.Sam(encoder, prompts, decoder)
    return model.eval()


class OriginalSamSegmenter(SamSegmenter):
    """A `Segmenter`: one encoder pass per picture, all its boxes through the mask decoder together."""

    def __init__(self, model: Any, config: SegmenterConfig) -> None:
        """model: what `build_sam` gives, filled, on its device."""
        self.model, self.config = model, config
        self.fitting = fitting(config, "segmenter", "segmenting", model.device)
        self.resize = _part("segment_anything.utils.transforms").ResizeLongestSide(model.image_encoder.img_size)

    def _pixels(self, images: Sequence[NDArray[np.uint8]]) -> Pixels:
        scaled = [torch.as_tensor(self.resize.apply_image(image)).permute(2, 0, 1) for image in images]
        originals = [[image.shape[0], image.shape[1]] for image in images]
        return scaled, originals, [[picture.shape[1], picture.shape[2]] for picture in scaled]

    def _embed(self, pixels: list[Tensor]) -> Tensor:
        whole = [self.model.preprocess(picture.to(self.model.device).float()) for picture in pixels]
        embeddings: Tensor = self.model.image_encoder(torch.stack(whole))
        return embeddings

    def _decode(self, embedding: Tensor, boxes: Tensor, original: list[int], resized: list[int]) -> list[Mask]:
        """Masks of one picture: embedding [1, C, h, w], boxes [n, 4] in px of the model's input."""
        sparse, dense = self.model.prompt_encoder(points=None, boxes=boxes, masks=None)
        low, scores = self.model.mask_decoder(
            image_embeddings=embedding, image_pe=self.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse, dense_prompt_embeddings=dense, multimask_output=False,
        )  # fmt: skip
        logits = self.model.postprocess_masks(low, tuple(resized), tuple(original))[:, 0]
        expect_numbers(logits, "segmenter")
        masks = (logits > self.config.mask_threshold).cpu().numpy()
        # double before rounding: a float32 of four decimals would print with eight
        rounded = [round(score, 4) for score in scores.double()[:, 0].tolist()]
        return [Mask(np.ascontiguousarray(mask), score) for mask, score in zip(masks, rounded, strict=True)]
