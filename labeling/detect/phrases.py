"""Asking Grounding DINO for phrases: the caption, the tokens of every phrase, the best phrase per box.

A caption is "sky. grass. hot air balloon."; the model gives every candidate box one logit per
token. The score of a phrase is the **mean of its tokens' probabilities**, as in the authors' COCO
evaluation: all words of a phrase must fit, where a maximum would let "red car" fire on anything
red. Phrases are cut at the separators and never merged, so a label such as "cat dog" cannot occur.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.weights.loading import expect_numbers

if TYPE_CHECKING:
    from torch import Tensor

SEPARATORS = ".?"
"""Characters that end a phrase inside the model; in a concept they become spaces."""


@dataclass(frozen=True)
class Caption:
    """One caption and what its tokens stand for.

    concepts: the asked concepts in caption order. ids: token ids, special tokens included.
    spans: for every concept the positions of its tokens in `ids`, never empty.
    """

    text: str
    concepts: tuple[str, ...]
    ids: tuple[int, ...]
    spans: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ScoredBoxes:
    """Boxes with their best phrase: scores [n] in 0..1, boxes [n, 4] xyxy px, concepts [n] index in the asked list."""

    scores: Tensor
    boxes: Tensor
    concepts: Tensor


def clean(concept: str) -> str:
    """The words of a concept as they appear in the caption: NFKC, lower case, separators and extra space removed."""
    concept = unicodedata.normalize("NFKC", concept)
    for separator in SEPARATORS:
        concept = concept.replace(separator, " ")
    return " ".join(concept.lower().split())


def caption_of(phrases: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """ "a. b." and the (start, end) characters of every phrase in it."""
    text, places = "", []
    for phrase in phrases:
        places.append((len(text), len(text) + len(phrase)))
        text += f"{phrase}. "
    return text.rstrip(), places


def build_caption(concepts: Sequence[str], tokenizer: Any) -> Caption:
    """Tokenise the concepts as one caption and find every concept's tokens by its characters.

    tokenizer: a fast tokenizer (one that returns character offsets).

    Raises:
        InputError: a concept leaves no token (it is empty or made of separators).
    """
    phrases = [clean(concept) for concept in concepts]
    text, places = caption_of(phrases)
    encoded = tokenizer(text, return_offsets_mapping=True, truncation=False, verbose=False)
    offsets = encoded["offset_mapping"]
    spans = []
    for concept, (start, end) in zip(concepts, places, strict=True):
        span = tuple(i for i, (low, high) in enumerate(offsets) if start <= low < high <= end)
        if not span:
            raise InputError(f"The concept {concept!r} has no word that the detector could be asked for.")
        spans.append(span)
    return Caption(text, tuple(concepts), tuple(encoded["input_ids"]), tuple(spans))


def build_captions(concepts: Sequence[str], tokenizer: Any, limit: int) -> list[Caption]:
    """One caption with all concepts, in their order, or, where that takes more than `limit` tokens, one for each.

    The model reads a caption as a whole, so that a concept's score depends on its companions. In a list cut into
    captions of several concepts it would depend on where the cuts fall; alone, it depends on nothing else in the list.
    A concept that is named twice is asked once.

    Raises:
        InputError: as `concept_tokens` and `require_unlike`.
    """
    order = list(dict.fromkeys(concepts))
    if not order:
        return []
    require_unlike(order, [concept_tokens(concept, tokenizer, limit) for concept in order])
    whole = build_caption(order, tokenizer)
    return [whole] if len(whole.ids) <= limit else [build_caption([concept], tokenizer) for concept in order]


def concept_tokens(concept: str, tokenizer: Any, limit: int, sentence: str = "{}.") -> tuple[int, ...]:
    """The tokens of a concept's words.

    Args:
        limit: tokens that the detector reads at most.
        sentence: how it is put to the detector.

    Raises:
        InputError: it has no word, none that the tokenizer knows, or takes more than `limit` tokens.
    """
    text = clean(concept)
    ids = tuple(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)
    if not ids:
        raise InputError(f"The concept {concept!r} has no word that the detector could be asked for.")
    if all(token == tokenizer.unk_token_id for token in ids):
        raise InputError(f"The concept {concept!r} has no word that the detector's tokenizer knows.")
    taken = len(tokenizer(sentence.format(text), truncation=False, verbose=False).input_ids)
    if taken > limit:
        raise InputError(f"The concept {concept!r} takes {taken} tokens, the detector reads at most {limit}.")
    return ids


def require_unlike(concepts: Sequence[str], tokens: Sequence[tuple[int, ...]]) -> None:
    """InputError where different concepts are the same tokens: a box could be named after one of them only."""
    seen: dict[tuple[int, ...], str] = {}
    for concept, ids in zip(concepts, tokens, strict=True):
        other = seen.setdefault(ids, concept)
        if other != concept:
            raise InputError(f"To the detector {concept!r} and {other!r} are the same words; ask for one of the two.")


def phrase_scores(logits: Tensor, spans: Sequence[Sequence[int]]) -> Tensor:
    """Probability of every phrase at every query: [queries, tokens] -> [queries, phrases]."""
    import torch

    probabilities = logits.float().sigmoid()
    return torch.stack([probabilities[:, list(span)].mean(1) for span in spans], 1)


def best_phrases(
    logits: Tensor, boxes: Tensor, spans: Sequence[Sequence[int]], size: tuple[int, int], threshold: float
) -> ScoredBoxes:
    """Every query's best phrase, where it scores at least `threshold`: a box answers one phrase.

    So the authors of Grounding DINO and of OWLv2 read theirs; a phrase may lose a box to another one that is asked.

    logits: [queries, tokens]; boxes: [queries, 4] as (cx, cy, w, h) in 0..1; size: (height, width) in px
    of the picture, to which boxes are scaled and clipped. Empty boxes are dropped.
    """
    import torch

    scores, concepts = phrase_scores(logits, spans).max(1)
    centre, half = boxes.double()[:, :2], boxes.double()[:, 2:] / 2
    return above(scores, torch.cat([centre - half, centre + half], 1), concepts, size, threshold)[0]


def best_pairs(logits: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float) -> ScoredBoxes:
    """Every phrase at every query where it scores at least `threshold`: a box may answer several phrases.

    So the authors of OmDet-Turbo read theirs: of all pairs the best count, as many as there are queries.

    logits: [queries, phrases]; boxes, size: as in `best_phrases`.
    """
    import torch

    queries, phrases = logits.shape
    scores = logits.float().sigmoid().flatten()
    best = scores.argsort(descending=True, stable=True)[:queries]
    centre, half = boxes.double()[:, :2], boxes.double()[:, 2:] / 2
    corners = torch.cat([centre - half, centre + half], 1)[best // phrases]
    return above(scores[best], corners, best % phrases, size, threshold)[0]


def above(
    scores: Tensor, corners: Tensor, concepts: Tensor, size: tuple[int, int], threshold: float
) -> tuple[ScoredBoxes, Tensor]:
    """The boxes that score at least `threshold` and are not empty, and which of the given ones they are.

    scores: [n] in 0..1; corners: [n, 4] xyxy as shares of the picture; concepts: [n]; size: (height, width) in px.

    Raises:
        ValueError: a score or corner is no number.
    """
    import torch

    expect_numbers(scores, "detector")
    expect_numbers(corners, "detector")
    # rounding here, before any decision, keeps what is reported and what was decided the same
    scores = (scores.double() * 1e4).round() / 1e4
    height, width = size
    limits = torch.tensor([width, height, width, height], dtype=torch.float64, device=corners.device)
    pixels = (corners.double().clamp(0, 1) * limits * 100).round() / 100
    keep = (scores >= threshold) & (pixels[:, 2] > pixels[:, 0]) & (pixels[:, 3] > pixels[:, 1])
    return ScoredBoxes(scores[keep], pixels[keep], concepts[keep]), keep.nonzero().flatten()


def suppress(scored: ScoredBoxes, nms_iou: float) -> ScoredBoxes:
    """Class-wise non-maximum suppression; the result is sorted by score, then concept, then box."""
    surviving = survivors(scored, nms_iou)
    return ScoredBoxes(scored.scores[surviving], scored.boxes[surviving], scored.concepts[surviving])


def survivors(scored: ScoredBoxes, nms_iou: float) -> Tensor:
    """Which boxes `suppress` keeps, in its order: [kept] int64."""
    import torch
    from torchvision.ops import batched_nms

    rows = zip(scored.scores.tolist(), scored.concepts.tolist(), scored.boxes.tolist(), strict=True)
    keys = [(-score, concept, *box) for score, concept, box in rows]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    places = torch.tensor(order, dtype=torch.int64, device=scored.scores.device)
    scores, boxes, concepts = scored.scores[places], scored.boxes[places], scored.concepts[places]
    # Concepts are kept apart by moving their boxes away from each other: in float32, the hundredth concept's would be
    # rounded to a hundredth of a px, and what else is asked would decide.
    precise = "cpu" if boxes.device.type == "mps" else boxes.device  # Apple's devices have no double precision
    boxes, scores = boxes.to(precise, torch.float64), scores.to(precise, torch.float64)
    kept = batched_nms(boxes, scores, concepts.to(precise), nms_iou).sort().values
    return places[kept.to(places.device)]
