"""The hyper-parameters of a Grounding DINO checkpoint in its authors' format.

The authors publish them as Python files of plain assignments, which are read and never executed. The two published
configurations are built in; others come as such a file, or as the same keys in JSON or YAML.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import read_text
from gazetteer.data.core.plain_yaml import read_yaml
from gazetteer.labeling.weights.loading import reading


@dataclass(frozen=True)
class SwinSettings:
    """A Swin backbone; the defaults are Swin-T."""

    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0


@dataclass(frozen=True)
class GroundingDinoSettings:
    """What shapes the network, by the names of the authors' files; the defaults are GroundingDINO_SwinT_OGC.

    Beyond those files: `backbone` may be a mapping of SwinSettings, `decoder_dim_feedforward` is for
    decoders that are not as wide as the encoder (0: as wide), `image_size` and `max_image_size` are the
    shorter side in px to which pictures are scaled and the longest the other side may become.
    """

    backbone: SwinSettings = SwinSettings()
    return_interm_indices: tuple[int, ...] = (1, 2, 3)
    pe_temperatureH: int = 20
    pe_temperatureW: int = 20
    enc_layers: int = 6
    dec_layers: int = 6
    hidden_dim: int = 256
    dim_feedforward: int = 2048
    decoder_dim_feedforward: int = 0
    nheads: int = 8
    num_queries: int = 900
    num_feature_levels: int = 4
    enc_n_points: int = 4
    dec_n_points: int = 4
    dec_pred_bbox_embed_share: bool = True
    two_stage_bbox_embed_share: bool = False
    embed_init_tgt: bool = True
    max_text_len: int = 256
    text_encoder_type: str = "bert-base-uncased"
    image_size: int = 800
    max_image_size: int = 1333

    def __post_init__(self) -> None:
        if self.hidden_dim != 256:
            raise InputError(f"hidden_dim is {self.hidden_dim}; groundingdino-py runs models of width 256 only.")
        if not 1 <= self.max_text_len <= 256:
            raise InputError(f"max_text_len is {self.max_text_len}; accepted: 1 to 256.")


_SWIN_B = SwinSettings(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32))
_SWIN_L = SwinSettings(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48))
BACKBONES = {
    "swin_T_224_1k": SwinSettings(),
    "swin_B_224_22k": _SWIN_B,
    "swin_B_384_22k": dataclasses.replace(_SWIN_B, window_size=12),
    "swin_L_224_22k": _SWIN_L,
    "swin_L_384_22k": dataclasses.replace(_SWIN_L, window_size=12),
}
PUBLISHED = {
    "GroundingDINO_SwinT_OGC": GroundingDinoSettings(),
    "GroundingDINO_SwinB_cfg": GroundingDinoSettings(backbone=BACKBONES["swin_B_384_22k"]),
}
REQUIRED = {
    "modelname": "groundingdino", "position_embedding": "sine", "pre_norm": False, "query_dim": 4, "num_patterns": 0,
    "two_stage_type": "standard", "two_stage_class_embed_share": False, "transformer_activation": "relu",
    "use_text_enhancer": True, "use_fusion_layer": True, "use_text_cross_attention": True,
    "sub_sentence_present": True,
}  # fmt: skip
"""Keys that may be written, but with the published value only."""
TRAINING = frozenset(
    {"batch_size", "backbone_freeze_keywords", "dropout", "text_dropout", "fusion_dropout", "fusion_droppath"}
    | {"dn_box_noise_scale", "dn_label_noise_ratio", "dn_label_coef", "dn_bbox_coef", "dn_labelbook_size"}
    | {"use_checkpoint", "use_transformer_ckpt"}
)
"""Keys of the authors' files without influence on what a trained model gives."""


def read_settings(config: str) -> GroundingDinoSettings:
    """Settings by their published name, or from a JSON, YAML or Python file of the same keys.

    Raises:
        InputError: neither a published name nor such a file, or a key or value that is not accepted.
    """
    if config in PUBLISHED:
        return PUBLISHED[config]
    accepted = f"accepted: {', '.join(PUBLISHED)}, or a .json, .yaml or .py file of the same keys"
    if Path(config).suffix not in (".json", ".yaml", ".yml", ".py"):
        raise InputError(f"detector.config is {config!r}; {accepted}.")
    text = read_text("The detector settings", config, accepted.removeprefix("accepted: "))
    try:
        # JSON is YAML too
        raw = _assignments(text) if Path(config).suffix == ".py" else read_yaml(text, f"The detector settings {config}")
    except (ValueError, SyntaxError) as error:
        raise InputError(f"The detector settings {config} cannot be read; {accepted}.") from error
    if not isinstance(raw, Mapping):
        raise InputError(f"The detector settings {config} are no mapping of keys; {accepted}.")
    return build_settings(raw)


def _assignments(text: str) -> dict[str, Any]:
    """The ``name = literal`` lines of a Python file, read without running it.

    Raises:
        ValueError, SyntaxError: it is no Python, or does anything else.
    """
    settings: dict[str, Any] = {}
    for line in ast.parse(text).body:
        if not (isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name)):
            raise ValueError(f"line {line.lineno} is no assignment")
        settings[line.targets[0].id] = ast.literal_eval(line.value)
    return settings


def build_settings(raw: Mapping[str, Any]) -> GroundingDinoSettings:
    """Settings from the keys of the authors' files.

    Raises:
        InputError: an unknown key, or a value that is not accepted.
    """
    known = {field.name for field in dataclasses.fields(GroundingDinoSettings)}
    for key, value in raw.items():
        if key not in known | TRAINING | set(REQUIRED):
            raise InputError(f"Unknown detector setting {key!r}; accepted: {', '.join(sorted(known))}.")
        if key in REQUIRED and value != REQUIRED[key]:
            raise InputError(f"The detector setting {key} is {value!r}; accepted: {REQUIRED[key]!r}.")
    chosen = {key: value for key, value in raw.items() if key in known}
    if "backbone" in chosen:
        chosen["backbone"] = _backbone(chosen["backbone"])
    return _typed(GroundingDinoSettings, chosen)


def config_of(settings: GroundingDinoSettings, text: Any) -> Any:
    """The transformers GroundingDinoConfig of the same network.

    text: the BertConfig of its text encoder.
    """
    from transformers import GroundingDinoConfig, SwinConfig

    swin = settings.backbone
    sizes: dict[str, Any] = {
        "embed_dim": swin.embed_dim, "depths": list(swin.depths), "num_heads": list(swin.num_heads),
        "window_size": swin.window_size, "mlp_ratio": swin.mlp_ratio,
        "out_indices": [index + 1 for index in settings.return_interm_indices],
    }  # fmt: skip
    return GroundingDinoConfig(
        backbone_config=SwinConfig(**sizes),
        text_config=text,
        positional_embedding_temperature=settings.pe_temperatureH,
        encoder_layers=settings.enc_layers,
        decoder_layers=settings.dec_layers,
        d_model=settings.hidden_dim,
        encoder_ffn_dim=settings.dim_feedforward,
        decoder_ffn_dim=settings.decoder_dim_feedforward or settings.dim_feedforward,
        encoder_attention_heads=settings.nheads,
        decoder_attention_heads=settings.nheads,
        num_queries=settings.num_queries,
        num_feature_levels=settings.num_feature_levels,
        encoder_n_points=settings.enc_n_points,
        decoder_n_points=settings.dec_n_points,
        decoder_bbox_embed_share=settings.dec_pred_bbox_embed_share,
        two_stage_bbox_embed_share=settings.two_stage_bbox_embed_share,
        embedding_init_target=settings.embed_init_tgt,
        max_text_len=settings.max_text_len,
    )


def read_text_encoder(path: str) -> tuple[Any, Any]:
    """Tokenizer and BertConfig of a BERT, or of a Grounding DINO of transformers; the weights are in the checkpoint.

    Raises:
        InputError: there is no BERT with a fast tokenizer.
    """
    from transformers import AutoConfig, AutoTokenizer

    with reading("text encoder", path, weights=False):
        text = AutoConfig.from_pretrained(path, trust_remote_code=False)
        text = getattr(text, "text_config", text)
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    if text.model_type != "bert":
        raise InputError(f"The text encoder {path} is a {text.model_type} model; accepted: a BERT.")
    if not tokenizer.is_fast:
        raise InputError(f"The tokenizer of {path} gives no character offsets (no tokenizer.json).")
    return tokenizer, text


def _backbone(value: Any) -> SwinSettings:
    if isinstance(value, str) and value in BACKBONES:
        return BACKBONES[value]
    if isinstance(value, Mapping):
        known = {field.name for field in dataclasses.fields(SwinSettings)}
        if set(value) <= known:
            return _typed(SwinSettings, dict(value))
    raise InputError(f"The detector setting backbone is {value!r}; accepted: {', '.join(BACKBONES)}, or its sizes.")


def _typed(cls: type[Any], chosen: dict[str, Any]) -> Any:
    """An instance of a settings class; every value must have the type of the default."""
    defaults = cls()
    for key, value in chosen.items():
        default = getattr(defaults, key)
        if isinstance(default, tuple) and isinstance(value, (list, tuple)) and all(type(item) is int for item in value):
            chosen[key] = tuple(value)
        elif type(default) is float and type(value) is int:
            chosen[key] = float(value)
        elif type(value) is not type(default):
            raise InputError(f"The detector setting {key} is {value!r}; accepted: a value like {default!r}.")
    return cls(**chosen)
