"""Gazetteer says what the features inside text-to-image models mean, at scale, with evidence.

Everything a user needs has a name here and costs nothing until it is used: `import gazetteer` loads no library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gazetteer.attribution.scores.loading import load_components as load_components
    from gazetteer.labeling.tables import load_causal as load_causal
    from gazetteer.labeling.tables import load_features as load_features
    from gazetteer.labeling.tables import load_labels as load_labels

_WHERE = {
    "load_causal": "gazetteer.labeling.tables",
    "load_components": "gazetteer.attribution.scores.loading",
    "load_features": "gazetteer.labeling.tables",
    "load_labels": "gazetteer.labeling.tables",
}
"""The module that each public name is taken from at its first use."""

__all__ = sorted(_WHERE)
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'gazetteer' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
