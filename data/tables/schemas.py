"""The schema of every table of a run, defined once (docs/reference/tables.md explains each column)."""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 5
"""Raised when a table changes; 3 brought `tokens_cut` and a float `timestep`, 4 `stream` and `signal`
and the kinds of labels, 5 the `words` of prompts and, of given pictures alone, minus signs in `codes.value`."""

BEFORE_STREAMS = {"stream": "image", "signal": "update", "words": None}
"""Columns that tables lack which were written before streams were told apart (4) and labelled (5), and what they would
hold in every row."""


def before_streams(schema: pa.Schema) -> pa.Schema:
    """The columns that the table of this schema had before those."""
    return pa.schema([field for field in schema if field.name not in BEFORE_STREAMS])


_SITE = [
    *(pa.field(name, pa.string(), nullable=False) for name in ("block", "stream", "signal", "branch")),
    pa.field("t", pa.float32(), nullable=False),
]


def _ints(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.int64(), nullable=False) for name in names]


def _floats(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.float64()) for name in names]


IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("asked", pa.list_(pa.string()), nullable=False),
        pa.field("tokens_cut", pa.int32()),
        pa.field(
            "words",
            pa.list_(
                pa.struct([pa.field("word", pa.string()), pa.field("first", pa.int32()), pa.field("last", pa.int32())])
            ),
        ),
    ]
)

CODES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        *_SITE,
        pa.field("step", pa.int32(), nullable=False),
        pa.field("timestep", pa.float64(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("feature", pa.list_(pa.uint32()), nullable=False),
        pa.field("value", pa.list_(pa.float16()), nullable=False),
    ]
)

SEGMENTS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("concept", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("box", pa.list_(pa.float32()), nullable=False),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("predicted_iou", pa.float32(), nullable=False),
        pa.field(
            "mask",
            pa.struct([pa.field("size", pa.list_(pa.int32())), pa.field("counts", pa.string())]),
            nullable=False,
        ),
    ]
)

# Keys: site, split, feature, concept. A null concept marks a feature's totals, a null feature a concept's,
# both null the images' (labeling/evidence/counts.py states every count).
EVIDENCE = pa.schema(
    [
        *_SITE,
        pa.field("split", pa.string(), nullable=False),
        pa.field("feature", pa.int32()),
        pa.field("concept", pa.string()),
        *_ints("images", "images_asked", "hits", "iou_micro", "intersection", "area"),
        pa.field("cells", pa.list_(pa.int64())),
    ]
)

FAILURES = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        *_ints("attempts"),
    ]
)

# What evidence and the nulls say of a pair; its IoU at a threshold is counted from the codes
# (labeling/rules/top_quantile), and which kind of label it can be is decided there: labeling/rules/kinds/decide.
PAIRS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        *_SITE,
        pa.field("feature", pa.int32(), nullable=False),
        pa.field("concept", pa.string(), nullable=False),
        *_ints("images_feature", "images_concept", "images_both", "hits"),
        *_floats(
            "hit_rate", "mean_iou", "dataset_iou", "precision", "recall", "null_iou", "lift", "p_value", "q_value",
            "where_lift", "where_p_value", "where_q_value",
        ),
        *_ints("heldout_images"),
        *_floats("heldout_hit_rate", "heldout_mean_iou", "heldout_dataset_iou"),
        pa.field("paper_label", pa.bool_(), nullable=False),
    ]
)  # fmt: skip

_TOP = [
    pa.field("top_share", pa.float64(), nullable=False),
    pa.field("top_threshold", pa.float32(), nullable=False),
    *_floats("top_iou", "heldout_top_iou"),
]

SPLITS = ("discovery", "heldout")
"""On which side a picture is: of those that labels are chosen on, or of the others."""

KINDS = ("thing", "stuff", "part", "scene", "style", "place", "word")
"""What a label can be; the first three say where in the picture (`SPATIAL_KINDS`), the last where in the prompt."""

SPATIAL_KINDS = KINDS[:3]

_KIND = [
    *_floats("mass_precision", "explained", "heldout_explained", "specificity"),
    pa.field("runner_up", pa.string()),
    pa.field("runner_up_kind", pa.string()),
    *_floats("runner_up_explained", "auc", "auc_low", "auc_high"),
]
_CONCEPT, _FLAGS = PAIRS.get_field_index("concept") + 1, PAIRS.get_field_index("paper_label")
CANDIDATES = pa.schema(
    [
        *list(PAIRS)[:_CONCEPT],
        pa.field("kind", pa.string(), nullable=False),
        pa.field("rank", pa.int32()),
        *list(PAIRS)[_CONCEPT:_FLAGS],
        *_TOP,
        *_KIND,
        *list(PAIRS)[_FLAGS:],
        pa.field("trusted", pa.bool_(), nullable=False),
    ]
)

# labels.parquet holds the trusted candidates only, so it needs no flag for it; rank is never null there.
LABELS = CANDIDATES.remove(CANDIDATES.get_field_index("trusted"))

_TOP_IMAGE = pa.struct(
    [
        pa.field("image_id", pa.string()),
        pa.field("value", pa.float32()),
        pa.field("row", pa.int32()),
        pa.field("column", pa.int32()),
    ]
)

FEATURES = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        *_SITE,
        pa.field("feature", pa.int32(), nullable=False),
        *_ints("images", "images_wanted", "images_short"),
        *_floats("density", "mean_activation", "max_activation"),
        pa.field("dead", pa.bool_(), nullable=False),
        pa.field("best_label", pa.string()),
        pa.field("best_kind", pa.string()),
        *_floats("best_dataset_iou", "best_heldout_dataset_iou", "best_q_value"),
        pa.field("labels", pa.int32(), nullable=False),
        pa.field("paper_labels", pa.int32(), nullable=False),
        pa.field("top_images", pa.list_(_TOP_IMAGE), nullable=False),
    ]
)

# Weights by concept or feature: a null concept marks rows of an SAE feature, null site and feature those of a concept.
COMPONENTS = pa.schema(
    [
        pa.field("concept", pa.string()),
        *(pa.field(name, pa.string()) for name in ("block", "stream", "signal", "branch")),
        pa.field("t", pa.float32()),
        pa.field("feature", pa.int32()),
        pa.field("module", pa.string(), nullable=False),
        *_ints("row", "weights", "chosen"),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("sign", pa.int8(), nullable=False),
        pa.field("estimator", pa.string(), nullable=False),
        pa.field("objective", pa.string(), nullable=False),
    ]
)

# One row per edited picture; a null feature marks the picture without an edit (labeling/interventions/causal.py).
EFFECTS = pa.schema(
    [
        *_SITE,
        pa.field("feature", pa.int32()),
        pa.field("state", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("change", pa.float64(), nullable=False),
        pa.field("concept", pa.list_(pa.string()), nullable=False),
        pa.field("area", pa.list_(pa.float64()), nullable=False),
    ]
)

VERDICTS = ("confirmed", "contradicted", "no effect", "undecided", "effect without label", "suppressed", "none")
"""What a causal pass says of a pair; the first four of labels, the others of pairs without one."""

CAUSAL_MEASURES = ("area", "presence", "area_on", "presence_on", "area_random", "presence_random")

# What switching a feature on does to a concept, beside a random one; joins labels and features by site, feature (and
# concept).
CAUSAL = pa.schema(
    [
        *_SITE,
        pa.field("feature", pa.int32(), nullable=False),
        pa.field("concept", pa.string(), nullable=False),
        pa.field("labelled", pa.bool_(), nullable=False),
        *_ints("causal_images"),
        *_floats(*(f"causal_{m}{end}" for m in CAUSAL_MEASURES for end in ("", "_low", "_high"))),
        *_floats("causal_change_on", "causal_change_random", "causal_p_value", "causal_q_value", "causal_power"),
        pa.field("causal_verdict", pa.string(), nullable=False),
    ]
)

# What examiners that took no part in choosing a label say of it; joins labels by site, feature, concept and kind.
EXAMINERS = pa.schema(
    [
        *_SITE,
        pa.field("feature", pa.int32(), nullable=False),
        pa.field("concept", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        *_floats("heldout_dataset_iou", "heldout_explained", "fresh_auroc"),
        *_ints("fresh_images"),
        *_floats("witness_auroc"),
        *_ints("witness_images"),
        pa.field("causal_verdict", pa.string()),
        pa.field("right", pa.bool_()),
        *_floats("truth_explained", "truth_other"),
    ]
)

# One row per picture of an evaluation of edits (labeling/interventions/evaluation/trials.py); what an experiment does
# not measure is null.
TRIALS = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("experiment", "half", "stage", "method", "setting")),
        *(pa.field(name, pa.string(), nullable=False) for name in ("name", "quadrant", "prompt")),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("present", pa.list_(pa.string()), nullable=False),
        *(pa.field(name, pa.bool_()) for name in ("landed", "map_landed")),
        pa.field("outside_change", pa.float64()),
        pa.field("rise", pa.float64()),
        pa.field("read_as", pa.string()),
        *(pa.field(name, pa.float64()) for name in ("distance", "layout_kept")),
    ]
)

# Tables written in parts, one part a shard: those of a labelling run, then of any run; last, those written once.
LABELLING_TABLES = {"images": IMAGES, "codes": CODES, "segments": SEGMENTS, "evidence": EVIDENCE, "failures": FAILURES}
PART_TABLES = {**LABELLING_TABLES, "effects": EFFECTS, "trials": TRIALS}
FINAL_TABLES = {"labels": LABELS, "candidates": CANDIDATES, "features": FEATURES}
