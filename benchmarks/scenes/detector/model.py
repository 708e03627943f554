"""The tiny Grounding DINO of the Scenes world: its words, its sizes, its start.

Everything follows the plain Grounding DINO so that both `transformers` and
`groundingdino-py` can run the weights: model width 256, no bias in the class
head, the special token ids 101, 102, 1012 and 1029, window attention whose
last stage is never shifted (the two libraries shift differently there).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    SwinConfig,
)

CLS, SEP, DOT, QUESTION, UNK, PAD = 101, 102, 1012, 1029, 100, 0
VOCABULARY_SIZE = 1030
FIRST_WORD_ID = 104
IMAGE_SIZE = 128
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Words that name nothing in a scene: asked for in training so that "not there" is learned for
# more than the missing half of the sixteen concepts.
DISTRACTORS = (
    "cat", "person", "bird", "horse", "cow", "sheep", "fish", "bus", "train", "truck", "bicycle",
    "airplane", "bridge", "tower", "river", "lake", "forest", "snow", "rain", "star", "lamp",
    "chair", "table", "book", "bottle", "cup", "apple", "banana", "cake", "clock", "phone", "key",
    "shoe", "hat", "ball", "kite", "umbrella", "fence", "wall", "window", "door", "roof", "rock",
    "island", "castle", "church", "ship", "rocket", "robot", "butterfly",
)  # fmt: skip


def build_vocabulary(words: Iterable[str]) -> dict[str, int]:
    """Token -> id for `words`, padded with unused tokens so that the ids have no gaps.

    The four special ids are those of BERT because Grounding DINO hard-codes them.
    """
    vocabulary = {f"[unused{i}]": i for i in range(VOCABULARY_SIZE)}
    special = {"[PAD]": PAD, "[UNK]": UNK, "[CLS]": CLS, "[SEP]": SEP, "[MASK]": 103, ".": DOT, "?": QUESTION}
    tokens = dict(special)
    pieces = dict.fromkeys(piece for word in words for piece in word.split())
    for offset, piece in enumerate(pieces):
        tokens[piece] = FIRST_WORD_ID + offset
    if FIRST_WORD_ID + len(pieces) > DOT:
        raise ValueError(f"the vocabulary holds at most {DOT - FIRST_WORD_ID} words, got {len(pieces)}")
    for token, index in tokens.items():
        del vocabulary[f"[unused{index}]"]
        vocabulary[token] = index
    return dict(sorted(vocabulary.items(), key=lambda item: item[1]))


def build_tokenizer(words: Iterable[str]) -> BertTokenizer:
    """A BERT tokenizer over whole words; anything else becomes [UNK]."""
    return BertTokenizer(vocab=build_vocabulary(words), model_max_length=256)


def build_config() -> GroundingDinoConfig:
    """Sizes chosen for one CPU core: about 5.6 million parameters, 80 image tokens."""
    swin = SwinConfig(  # type: ignore[call-arg]
        image_size=IMAGE_SIZE, patch_size=4, embed_dim=32, depths=[2, 2, 4, 1], num_heads=[2, 4, 8, 8],
        window_size=4, mlp_ratio=2.0, drop_path_rate=0.0, out_indices=[3, 4],
    )  # fmt: skip
    bert = BertConfig(
        vocab_size=VOCABULARY_SIZE, hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=128, max_position_embeddings=256, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return GroundingDinoConfig(
        backbone_config=swin, text_config=bert, d_model=256, num_queries=24, num_feature_levels=2,
        encoder_layers=2, encoder_ffn_dim=256, encoder_attention_heads=8, encoder_n_points=4,
        decoder_layers=2, decoder_ffn_dim=384, decoder_attention_heads=8, decoder_n_points=4,
        dropout=0.0, fusion_droppath=0.0, max_text_len=64, disable_custom_kernels=True,
    )  # fmt: skip


def build_model(config: GroundingDinoConfig | None = None) -> GroundingDinoForObjectDetection:
    """A fresh detector with the starting point that training needs (see `initialise`)."""
    model = GroundingDinoForObjectDetection(config or build_config())
    initialise(model)
    return model


@torch.no_grad()
def initialise(model: GroundingDinoForObjectDetection) -> None:
    """Start weights for training from scratch.

    The class head is a bare dot product of two layer-normalised 256-vectors: drawn plainly its
    logits have a standard deviation of 16 and the first loss is in the hundreds. Here the text
    side is scaled down and one shared coordinate carries a constant, so that every logit starts
    near -4 (a probability of 2 %), what the focal loss wants, without a bias in the architecture.
    """
    inner = model.model
    untouched = ("embeddings.", "sampling_offsets", "attention_weights", "bias_table", "bbox_embed")
    for part in (inner.encoder, inner.decoder, inner.text_projection, inner.text_backbone, inner.backbone):
        for name, parameter in part.named_parameters():
            if parameter.dim() == 2 and not any(skip in name for skip in untouched):
                nn.init.xavier_uniform_(parameter)
    for head in [*model.bbox_embed, inner.encoder_output_bbox_embed]:
        for layer in head.layers[:-1]:
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(head.layers[-1].weight)
        nn.init.zeros_(head.layers[-1].bias)
    nn.init.xavier_uniform_(inner.enc_output.weight)
    nn.init.normal_(inner.query_position_embeddings.weight, std=1.0)
    nn.init.normal_(inner.level_embed, std=0.5)
    for layer in inner.encoder.layers:
        # 1e-4 in the library: too slow a start for a run of an hour.
        layer.fusion_layer.vision_param.fill_(0.1)
        layer.fusion_layer.text_param.fill_(0.1)
    text_norm = inner.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    text_scale = 0.08
    text_norm.weight.fill_(text_scale)
    text_norm.weight[0] = 0.0
    text_norm.bias[0] = 2.0
    for norm in (inner.decoder.layer_norm, inner.enc_output_norm):
        norm.weight[0] = 0.0
        norm.bias[0] = -2.0
    for layer in inner.decoder.layers:
        # undo the small text scale where the decoder reads the words
        layer.encoder_attn_text.key.weight.mul_(0.5 / text_scale)
        layer.encoder_attn_text.value.weight.mul_(0.5 / text_scale)


def export(model: GroundingDinoForObjectDetection, tokenizer: BertTokenizer, folder: str | os.PathLike[str]) -> int:
    """Write a folder that `from_pretrained` reads, weights in half precision; returns its size in bytes."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    half = GroundingDinoForObjectDetection(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)
    images = GroundingDinoImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=list(MEAN), image_std=list(STD), do_pad=False
    )
    GroundingDinoProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    images.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner can read
    return sum(file.stat().st_size for file in folder.iterdir())
