"""Given pictures as the stages hand them on: their codes from one call of the denoiser, people's masks as segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gazetteer.data.core.sites import TEXT, Site
from gazetteer.data.inputs.given.open import GivenSet
from gazetteer.data.inputs.given.picture import GivenPicture
from gazetteer.data.inputs.prompts import Item
from gazetteer.data.tables.codes import SparseMap
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.noised import noised_pictures
from gazetteer.diffusion.runtime.beside import begin
from gazetteer.labeling.detect.protocol import Detection
from gazetteer.labeling.evidence.pooling import cell_areas, pool_mask
from gazetteer.labeling.pipeline.sae_check import SaeCheck
from gazetteer.labeling.pipeline.shard import LabelledPicture
from gazetteer.labeling.segment.protocol import Box, Mask
from gazetteer.sae.model.autoencoder import SparseAutoencoder


def given_pictures(
    given: GivenSet, batch: Sequence[Item], generator: Generator, saes: Mapping[Site, SparseAutoencoder],
    check: SaeCheck, contents: Mapping[str, str],
) -> list[LabelledPicture]:  # fmt: skip
    """Read the pictures of a batch at the model's size, and encode every site of each.

    Args:
        contents: of their files by image id, as they were when the run was started, where that is known.

    Raises:
        InputError: a picture is not the one that the run was started with, or the model cannot be listened to so.
        BadPicture: a picture or a mask cannot be read, or too much of it is marked to be ignored.
        ValueError: an activation is not finite.
    """
    height, width = generator.picture_size

    def read(item: Item) -> GivenPicture:
        return given.fitted(item, height, width, contents.get(item.image_id, ""))

    reading = [begin(read, item) for item in batch]
    fitted_ones = [ready() for ready in reading]
    pictures = noised_pictures(
        generator, [fitted.image for fitted in fitted_ones], [item.prompt for item in batch],
        [item.seed for item in batch], saes, check.watch if check.open else None,
    )  # fmt: skip
    made = []
    for item, fitted, drawn in zip(batch, fitted_ones, pictures, strict=True):
        picture = drawn
        if fitted.ignored is not None:
            codes = {
                site: code if site.stream == TEXT else with_ignored(code, fitted.ignored)
                for site, code in picture.codes.items()
            }
            picture = replace(picture, codes=codes)
        asked = tuple(concept for concept in given.concepts if concept not in fitted.unasked)
        boxes = [Detection(concept, 1.0, box_of(mask)) for concept, mask in fitted.segments]
        masks = [Mask(mask, 1.0) for _, mask in fitted.segments]
        made.append(LabelledPicture(item, picture, asked, boxes, masks, given=True))
    return made


def with_ignored(code: SparseMap, ignored: np.ndarray) -> SparseMap:
    """The code with a minus sign where nobody decided: in cells of which more than half is `ignored`, bool [H, W].

    What fires there counts neither for nor against a feature's concept where both are counted picture by picture
    (`SiteCodes.judged`). Tests against chance look at all that fires: without it, features and masks of one picture
    would have their holes in the same place, and overlap more than those of two, whatever they are. Pixels of cells
    that stay belong to no concept where they are ignored.
    """
    grid = (code.height, code.width)
    size = (int(ignored.shape[0]), int(ignored.shape[1]))
    undecided = np.repeat(2 * pool_mask(ignored, grid) > cell_areas(size, grid), code.k) & (code.value > 0)
    return replace(code, value=np.where(undecided, -code.value, code.value).astype(code.value.dtype))


def box_of(mask: np.ndarray) -> Box:
    """The box around a mask that is not empty: x0, y0, x1, y1 in px, the last ones behind it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
