"""Captions, token spans, phrase scores and suppression, on cases that can be checked by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.detect.phrases import (
    ScoredBoxes,
    best_phrases,
    build_caption,
    build_captions,
    clean,
    phrase_scores,
    suppress,
)


def make_tokenizer():
    from transformers import BertTokenizerFast

    words = ["sky", "grass", "hot", "air", "balloon", "cat", "dog", "##s", "tree"]
    vocabulary = {f"[unused{i}]": i for i in range(1030)}
    named = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    named.update({word: 200 + i for i, word in enumerate(words)})
    for token, index in named.items():
        del vocabulary[f"[unused{index}]"]
        vocabulary[token] = index
    return BertTokenizerFast(vocab=vocabulary)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def test_every_phrase_gets_exactly_its_own_tokens(tokenizer):
    caption = build_caption(["sky", "hot air balloon", "dogs"], tokenizer)
    assert caption.text == "sky. hot air balloon. dogs."
    # [CLS] sky . hot air balloon . dog ##s . [SEP]
    assert caption.ids == (101, 200, 1012, 202, 203, 204, 1012, 206, 207, 1012, 102)
    assert caption.spans == ((1,), (3, 4, 5), (7, 8))


def test_an_unknown_word_beside_a_known_one_still_has_a_token_of_its_own(tokenizer):
    (caption,) = build_captions(["zebra cat", "sky"], tokenizer, 64)
    assert caption.ids == (101, 100, 205, 1012, 200, 1012, 102)
    assert caption.spans == ((1, 2), (4,))


@pytest.mark.parametrize("concept", ["zebra", "猫", "zebra giraffe"])
def test_a_concept_without_a_known_word_is_refused(tokenizer, concept):
    with pytest.raises(InputError, match=f"'{concept}' has no word that the detector's tokenizer knows"):
        build_captions(["sky", concept], tokenizer, 64)


@pytest.mark.parametrize(
    ("first", "second"), [("sky", "Sky."), ("cat", "cät"), ("猫 dog", "犬 dog"), ("hot air", "hot  air")]
)
def test_concepts_that_are_one_to_the_detector_are_refused(tokenizer, first, second):
    with pytest.raises(InputError, match="are the same words"):
        build_captions([first, "grass", second], tokenizer, 64)


def test_separators_inside_a_concept_cannot_split_it(tokenizer):
    assert clean("  Hot. air?  Balloon ") == "hot air balloon"
    caption = build_caption(["hot. air balloon", "sky"], tokenizer)
    assert caption.concepts == ("hot. air balloon", "sky")
    assert caption.spans == ((1, 2, 3), (5,))


@pytest.mark.parametrize("concept", ["", " . ", "?"])
def test_a_concept_without_a_word_is_refused(tokenizer, concept):
    with pytest.raises(InputError, match="no word"):
        build_captions(["sky", concept], tokenizer, 64)


def test_a_list_too_long_for_one_caption_is_asked_concept_by_concept(tokenizer):
    concepts = ["sky", "hot air balloon", "grass", "cat"]  # [CLS], four phrases of two to four tokens, [SEP]
    (whole,) = build_captions(concepts, tokenizer, limit=12)
    assert whole.concepts == tuple(concepts) and len(whole.ids) == 12
    apart = build_captions(concepts, tokenizer, limit=11)
    assert apart == [build_caption([concept], tokenizer) for concept in concepts]
    longer = build_captions([*concepts, "dogs", "tree"], tokenizer, limit=11)
    assert longer[: len(apart)] == apart, "no concept's caption depends on how long the list is"


def test_equal_concepts_are_asked_once(tokenizer):
    (caption,) = build_captions(["sky", "grass", "sky"], tokenizer, 64)
    assert caption.concepts == ("sky", "grass")


def test_no_concepts_no_caption(tokenizer):
    assert build_captions([], tokenizer, 64) == []


def test_a_phrase_longer_than_the_limit_is_refused(tokenizer):
    with pytest.raises(InputError, match="takes 8 tokens"):
        build_captions(["hot air balloon hot air"], tokenizer, 7)


@given(st.lists(st.sampled_from(["sky", "grass", "hot air balloon", "cat dog", "dogs", "tree"]), unique=True))
def test_captions_hold_every_concept_once_in_order(concepts):
    captions = build_captions(concepts, TOKENIZER, limit=10)
    assert [concept for caption in captions for concept in caption.concepts] == concepts
    assert len(captions) <= 1 or {len(caption.concepts) for caption in captions} == {1}
    for caption in captions:
        flat = [position for span in caption.spans for position in span]
        assert len(set(flat)) == len(flat)
        assert all(caption.ids[position] not in (101, 102, 1012, 1029) for position in flat)


TOKENIZER = make_tokenizer()


def test_the_score_of_a_phrase_is_the_mean_of_its_tokens():
    probabilities = torch.tensor([[0.1, 0.8, 0.1, 0.2, 0.6, 0.1], [0.1, 0.3, 0.1, 0.9, 0.9, 0.1]])
    scores = phrase_scores(probabilities.logit(), [(1,), (3, 4)])
    assert torch.allclose(scores, torch.tensor([[0.8, 0.4], [0.3, 0.9]]))


def test_best_phrase_threshold_scale_clip_and_rounding():
    probabilities = torch.tensor([[0.1, 0.8, 0.2], [0.1, 0.3, 0.9], [0.1, 0.2, 0.3], [0.9, 0.95, 0.1]])
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.9, 0.5, 0.4, 0.2], [0.5, 0.5, 0.1, 0.1], [1.2, 0.5, 0.2, 0.2]])
    found = best_phrases(probabilities.logit(), boxes, [(1,), (2,)], (100, 200), 0.35)
    # the third query is below the threshold, the fourth lies outside of the picture
    assert found.concepts.tolist() == [0, 1]
    assert found.scores.tolist() == [0.8, 0.9]
    assert found.boxes.tolist() == [[50.0, 25.0, 150.0, 75.0], [140.0, 40.0, 200.0, 60.0]]


def scored(rows):
    scores, concepts, boxes = zip(*rows, strict=True)
    return ScoredBoxes(
        torch.tensor(scores, dtype=torch.float64), torch.tensor(boxes, dtype=torch.float64), torch.tensor(concepts)
    )


def test_suppression_is_per_concept_and_keeps_the_better_box():
    left, shifted, right = (0.0, 0.0, 10.0, 10.0), (1.0, 0.0, 11.0, 10.0), (50.0, 0.0, 60.0, 10.0)
    # IoU of left and shifted = 90 / 110
    found = scored([(0.6, 0, left), (0.9, 0, shifted), (0.5, 1, left), (0.7, 0, right)])
    kept = suppress(found, 0.7)
    assert kept.scores.tolist() == [0.9, 0.7, 0.5]
    assert kept.concepts.tolist() == [0, 0, 1]
    assert len(suppress(found, 0.85).scores) == 4


def test_suppression_does_not_depend_on_the_order_of_equal_scores():
    rows = [(0.5, 0, (0.0, 0.0, 10.0, 10.0)), (0.5, 0, (1.0, 0.0, 11.0, 10.0)), (0.5, 0, (2.0, 0.0, 12.0, 10.0))]
    first, second = suppress(scored(rows), 0.5), suppress(scored(rows[::-1]), 0.5)
    assert first.boxes.tolist() == second.boxes.tolist() == [[0.0, 0.0, 10.0, 10.0]]


@pytest.mark.parametrize("concept", [0, 300, 999])
@pytest.mark.parametrize("left", [900.01, 900.02, 900.03])
def test_suppression_does_not_depend_on_how_many_concepts_are_asked(concept: int, left: float):
    """Their IoU is 82.36 / 117.64 = .7001."""
    boxes = [(left, 100.0, left + 100, 200.0), (left + 17.64, 100.0, left + 117.64, 200.0)]
    kept = suppress(scored([(0.9, concept, boxes[0]), (0.8, concept, boxes[1])]), 0.7)
    assert kept.scores.tolist() == [0.9]
