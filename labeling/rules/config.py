"""When a label is trusted, as what, and how its nulls are sampled."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Lt

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.importing import with_source
from gazetteer.data.core.settings import Count, Effect, Fraction, Natural, NonNegative, Seed, setting, settings
from gazetteer.labeling.rules.kinds.places import PLACES
from gazetteer.labeling.vocabulary.concept_index import require_distinct


@settings("")
class NullConfig:
    """How the permutation distribution is sampled.

    Attributes:
        permutations: for every tested pair.
        refine: further permutations of the pairs that fewer than `refine_below` of the first ones reached. p
        is
            (1 + exceedances) / (1 + all permutations of the pair); it stays valid, since only small p are
            refined.
        refine_below: see there.
        orders: random orders of the images, each with an equal share of the permutations.
        block: images per block.
        max_images: more images than this are thinned by the digest of their ids, for pairs that are common enough
            to be judged by so many.
        seed: with the site and the image ids it decides every order and shift.
    """

    permutations: Count = 1000
    refine: Natural = 4000
    refine_below: Natural = 10
    orders: Count = 2
    block: Annotated[int, Ge(2)] = 16
    max_images: Annotated[int, Ge(2)] = 4096
    seed: Seed = 0


@settings("labels")
class LabelConfig:
    """When a label is trusted, as what, and how its nulls are sampled."""

    max_q: Fraction = setting(
        Effect.LABELS,
        "Highest false discovery rate (Benjamini-Hochberg over the site's tested pairs), of every null.",
        default=0.05,
    )
    min_expected: NonNegative = setting(
        Effect.LABELS,
        "A feature and a concept are tested where chance would bring them together in so many discovery "
        "pictures: pictures with the feature x pictures with the concept / pictures. What was observed has no say.",
        default=0.5,
    )
    min_lift: NonNegative = setting(
        Effect.LABELS, "Lowest ratio of the intersection to that of shuffled images.", default=1.2
    )
    min_images: Count = setting(Effect.LABELS, "Fewest discovery images with both that a label rests on.", default=5)
    min_dataset_iou: Fraction = setting(
        Effect.LABELS,
        "Lowest data-set IoU of a thing or stuff (NetDissect, arXiv 1704.05796, uses 0.04); a part may have less.",
        default=0.04,
    )
    min_precision: Fraction = setting(
        Effect.LABELS,
        "Lowest share of a feature's activation on the concept, or in the pictures of a look.",
        default=0.2,
    )
    min_specificity: Annotated[float, Lt(1)] = setting(
        Effect.LABELS,
        "By how much more of the activation the best label must explain than any other concept, look or place: 1 - "
        "runner-up / label.",
        default=0.2,
    )
    min_explained: Fraction = setting(
        Effect.LABELS, "Lowest share of the activation's variance that a label explains.", default=0.01
    )
    min_second: Fraction = setting(
        Effect.LABELS,
        "A second concept is kept beside the best when it explains at least this share of what that one explains.",
        default=0.5,
    )
    part_precision: Fraction = setting(
        Effect.LABELS, "A part of a concept has at least this share of its activation on the concept.", default=0.5
    )
    part_lift: NonNegative = setting(Effect.LABELS, "A part has at least this lift.", default=3.0)
    part_recall: Fraction = setting(
        Effect.LABELS, "What covers less than this share of the concept is a part of it, or no label.", default=0.1
    )
    min_auc: Fraction = setting(
        Effect.LABELS, "Lowest lower end of the interval of a look's AUC (labeling/rules/kinds/styles.py).", default=0.6
    )
    stuff: tuple[str, ...] = setting(
        Effect.LABELS, "Concepts that fill regions, such as sky or grass; all others are things.", default=()
    )
    styles: tuple[str, ...] = setting(
        Effect.LABELS, "Looks of a whole picture, found by their words in the prompt, that compete for features.",
        default=(),
    )  # fmt: skip
    style_classifier: str = setting(
        Effect.LABELS,
        "``module:function`` that gives a classifier, whose labels hold `styles`; it says which look a picture has "
        "instead of the prompt's words.",
        default="",
        kind=with_source,
    )
    top_shares: tuple[Annotated[float, Gt(0), Lt(1)], ...] = setting(
        Effect.LABELS,
        "Shares of a feature's active cells that are tried as its top quantile beside the support "
        "(labeling/rules/top_quantile.py); () tries none.",
        default=(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
    )
    permutations: Count = setting(
        Effect.LABELS, "First permutations of every pair of a feature and a concept.", default=1000
    )
    refine: Natural = setting(Effect.LABELS, "Further permutations of promising pairs.", default=4000)
    seed: Seed = setting(Effect.LABELS, "Of the permutations.", default=0)

    def __post_init__(self) -> None:
        require_distinct(self.styles, "labels.styles")
        require_distinct(self.stuff, "labels.stuff")
        places = [style for style in self.styles if style in PLACES]
        if places:
            raise InputError(f"labels.styles names {places[0]!r}, which is a place; give the look another name.")
        if self.style_classifier and not self.styles:
            raise InputError("labels.style_classifier needs labels.styles: the labels that are looks.")

    @property
    def null(self) -> NullConfig:
        """The sampling of the nulls."""
        return NullConfig(permutations=self.permutations, refine=self.refine, seed=self.seed)
