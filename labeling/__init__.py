"""Images become tags, boxes, masks, evidence and labels; `load_labels` and its like read the result.

Nothing here imports a model library: `from labeling import load_labels` costs pyarrow only.
"""

from attribution.loading import load_components
from labeling.tables import load_causal, load_features, load_labels

__all__ = ["load_causal", "load_components", "load_features", "load_labels"]
