"""All layouts that can be read, and which of them a folder or file has."""

from __future__ import annotations

from pathlib import Path

from gazetteer.sae.layouts.dictionary_learning import DICTIONARY_LEARNING
from gazetteer.sae.layouts.layout import Layout
from gazetteer.sae.layouts.overcomplete import OVERCOMPLETE
from gazetteer.sae.layouts.prisma import PRISMA
from gazetteer.sae.layouts.sae_lens import SAE_LENS
from gazetteer.sae.layouts.saev import SAEV
from gazetteer.sae.layouts.sparsify import SPARSIFY
from gazetteer.sae.layouts.unbox import UNBOX

LAYOUTS = (UNBOX, SPARSIFY, SAE_LENS, DICTIONARY_LEARNING, SAEV, PRISMA, OVERCOMPLETE)


def recognise(place: Path) -> Layout | None:
    """The foreign layout of a folder or file; None when it has none of them."""
    return next((layout for layout in LAYOUTS if layout.find(place) is not None), None)
