"""All formats that can be read, and which of them a folder or file has."""

from __future__ import annotations

from pathlib import Path

from gazetteer.sae.formats.dictionary_learning import DICTIONARY_LEARNING
from gazetteer.sae.formats.diffract import DIFFRACT
from gazetteer.sae.formats.format import Format
from gazetteer.sae.formats.overcomplete import OVERCOMPLETE
from gazetteer.sae.formats.prisma import PRISMA
from gazetteer.sae.formats.sae_lens import SAE_LENS
from gazetteer.sae.formats.saev import SAEV
from gazetteer.sae.formats.sparsify import SPARSIFY
from gazetteer.sae.formats.unbox import UNBOX

FORMATS = (UNBOX, SPARSIFY, SAE_LENS, DICTIONARY_LEARNING, SAEV, PRISMA, OVERCOMPLETE, DIFFRACT)


def recognise(place: Path) -> Format | None:
    """The foreign format of a folder or file; None when it has none of them."""
    return next((known for known in FORMATS if known.find(place) is not None), None)
