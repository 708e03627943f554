"""Images become tags, boxes, masks, evidence and labels; `load_labels` and `load_features` read the result.

Nothing here imports a model library: `from labeling import load_labels` costs pyarrow only.
"""

from labeling.tables import load_features, load_labels

__all__ = ["load_features", "load_labels"]
