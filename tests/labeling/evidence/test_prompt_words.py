"""The text stream as a picture one row high: words are its segments, tokens its pixels, padding is nowhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.tables.codes import SparseMap
from gazetteer.data.tables.words import PromptWord, words_of
from gazetteer.diffusion.denoisers.words import NOTHING, PromptTokens
from gazetteer.labeling.evidence.counts import ImageEvidenceInput, build_evidence, sum_evidence
from gazetteer.labeling.evidence.prompt_words import in_words, join_words, prompt_words, read_words
from gazetteer.labeling.vocabulary.concepts import Vocabulary, VocabularyConfig
from tests.support.runs.small_world import World

TEXT, MID = Site("block", "cond", 1.0, stream="text"), Site("block", "cond", 1.0)
PLACES = 8
DOG, AT_ONE, WHOLE, EVERY = range(4)
"""What the features below fire on: the dog's token, the second place, all of a prompt with a dog, every token."""


def test_words_are_called_by_the_vocabulary_and_else_as_they_stand() -> None:
    vocabulary = Vocabulary(VocabularyConfig(concepts=("traffic light", "boat")))
    text = "Two Boats’ sails, a traffic-light; the café"
    found = vocabulary.words(text)
    assert [word for word, _, _ in found] == ["two", "boat", "sails", "a", "traffic light", "the", "café"]
    assert [text[start:end] for _, start, end in found][-3:] == ["traffic-light", "the", "café"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a tree-lined road", [("a", "a"), ("tree", "tree"), ("lined", "lined"), ("road", "road")]),
        ("a night-time dog’s house", [("a", "a"), ("night-time", "night-time"), ("dog", "dog’s"), ("house", "house")]),
        ("a dog-and-tree-house", [("a", "a"), ("dog", "dog"), ("and", "and"), ("tree", "tree"), ("house", "house")]),
        ("a t-shirt, a shirt", [("a", "a"), ("t-shirt", "t-shirt"), ("a", "a"), ("shirt", "shirt")]),
        ("½ dog", [("1⁄2", "½"), ("dog", "dog")]),
        ("㍿ dog", [("株", "㍿"), ("dog", "dog")]),
    ],
)
def test_a_part_of_a_compound_that_names_a_concept_is_a_word(text: str, said: list[tuple[str, str]]) -> None:
    vocabulary = Vocabulary(VocabularyConfig(concepts=("tree", "dog", "shirt", "t-shirt", "株", "会")))
    assert [(word, text[start:end]) for word, start, end in vocabulary.words(text)] == said


def test_tokens_are_gathered_into_words_one_run_an_encoder() -> None:
    spans = [("red", 0, 3), ("boat", 4, 9)]
    one = PromptTokens((NOTHING, (0, 3), (3, 7), (7, 9), (9, 10), NOTHING, NOTHING), (True,) * 6 + (False,))
    two = PromptTokens(((0, 3), (4, 9), NOTHING), (True, True, False))
    assert prompt_words(spans, one + two) == (
        PromptWord(None, 0, 0), PromptWord("red", 1, 1), PromptWord("boat", 2, 3), PromptWord(None, 4, 5),
        PromptWord("red", 7, 7), PromptWord("boat", 8, 8),
    )  # fmt: skip


def prompt(number: int) -> ImageEvidenceInput:
    """Prompts "a dog sits", "big red dog" or, without a dog, "a cat sits" between their ends; then padding."""
    said = (("a", "dog", "sits"), ("big", "red", "dog"), ("a", "cat", "sits"))[number % 3]
    words = (PromptWord(None, 0, 0), *(PromptWord(word, i + 1, i + 1) for i, word in enumerate(said)))
    maps: dict[int, np.ndarray] = {feature: np.zeros(PLACES) for feature in (DOG, AT_ONE, WHOLE, EVERY)}
    for place, word in enumerate(said, start=1):
        maps[DOG][place] = 2.0 if word == "dog" else 0.0
    maps[AT_ONE][1] = 1.0
    maps[WHOLE][:5] = 1.0 if "dog" in said else 0.0
    maps[EVERY][:5] = 1.0
    feature = np.tile(np.arange(4, dtype=np.uint32), PLACES)
    code = SparseMap(1, PLACES, 4, feature, np.stack(list(maps.values()), axis=1).ravel().astype(np.float16))
    shown = [("dog", np.ones((4, 4), np.bool_))] if "dog" in said else []
    picture = SparseMap(2, 2, 1, np.zeros(4, np.uint32), np.ones(4, np.float16))
    split = "heldout" if number % 5 == 4 else "discovery"
    return ImageEvidenceInput(
        f"p{number:03}", split, (4, 4), ("dog",), shown, {TEXT: code, MID: picture}, (*words, PromptWord(None, 4, 4))
    )  # fmt: skip


def test_evidence_counts_tokens_and_the_image_stream_is_as_without_words() -> None:
    both = build_evidence([prompt(i) for i in range(4)], ("dog",))  # a dog sits, big red dog, a cat sits, a dog sits
    rows = {(r["feature"], r["concept"]): r for r in both.to_pylist() if r["stream"] == "text"}
    dog = rows[DOG, "dog"]
    assert (dog["images"], dog["hits"], dog["intersection"], dog["iou_micro"]) == (3, 3, 3, 3_000_000)
    assert (rows[EVERY, "dog"]["images"], rows[EVERY, "dog"]["intersection"], rows[EVERY, "dog"]["hits"]) == (3, 3, 0)
    assert rows[EVERY, None]["area"] == 20 and rows[EVERY, None]["cells"] == [4] * 5 + [0] * 3
    assert rows[None, "dog"]["cells"] == [0, 0, 2, 1, 0, 0, 0, 0] and rows[None, "dog"]["images"] == 3
    assert {concept for _, concept in rows} == {None, "a", "dog", "sits", "big", "red", "cat"}
    alone = [one for one in both.to_pylist() if one["stream"] == "image"]
    pictures = [prompt(i) for i in range(4)]
    for one in pictures:
        del one.codes[TEXT]
    assert build_evidence(pictures, ("dog",)).to_pylist() == alone


def test_evidence_of_words_adds_up() -> None:
    whole = build_evidence([prompt(i) for i in range(9)], ("dog",))
    parts = [build_evidence([prompt(i) for i in range(start, start + 3)], ("dog",)) for start in (6, 0, 3)]
    assert sum_evidence(parts).equals(sum_evidence([whole]))


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    world = World([prompt(i) for i in range(60)], ("dog",))
    return world.reduce({TEXT: 5, MID: 1})


def test_a_label_of_a_text_stream_says_the_word_that_a_feature_fires_on(tables: dict[str, pa.Table]) -> None:
    found = [row for row in tables["labels"].to_pylist() if row["stream"] == "text"]
    best = {row["feature"]: row for row in found if row["rank"] == 1}
    assert (best[DOG]["concept"], best[DOG]["kind"]) == ("dog", "word")
    assert (best[DOG]["dataset_iou"], best[DOG]["precision"], best[DOG]["hit_rate"]) == (1.0, 1.0, 1.0)
    assert best[DOG]["explained"] == pytest.approx(1.0) and best[DOG]["heldout_dataset_iou"] == 1.0
    # Where a word stands in two of three prompts is no word: shuffled prompts have it there as often.
    assert AT_ONE not in best and EVERY not in best
    # All of a prompt with a dog goes with the word, wherever that stands.
    assert (best[WHOLE]["concept"], best[WHOLE]["kind"]) == ("dog", "scene")
    kinds = {row["kind"] for row in tables["candidates"].to_pylist() if row["stream"] == "text"}
    assert kinds <= {"word", "scene", "style"} and "word" in kinds


def test_padding_counts_nowhere(tables: dict[str, pa.Table]) -> None:
    rows = {row["feature"]: row for row in tables["features"].to_pylist() if row["stream"] == "text"}
    assert rows[EVERY]["density"] == 1.0 and rows[AT_ONE]["density"] == pytest.approx(1 / 5)
    assert rows[DOG]["images"] == 40 and rows[4]["dead"]
    top = rows[DOG]["top_images"][0]
    assert (top["row"], top["column"]) in ((0, 2), (0, 3))


def test_words_of_shards_are_joined_as_read_at_once() -> None:
    world = World([prompt(i) for i in range(6)], ("dog",))
    images = world.images
    whole = read_words(images, PLACES)
    joined = join_words([read_words(images.slice(4), PLACES), read_words(images.slice(0, 4), PLACES)])
    assert joined.image_ids == whole.image_ids and joined.concepts == whole.concepts
    assert joined.asked.all() and joined.asked.shape == whole.asked.shape
    for name in ("union_image", "union_concept", "read", "sizes"):
        assert np.array_equal(getattr(joined, name), getattr(whole, name)), name
    assert np.array_equal(joined.pixels[1, PLACES], whole.pixels[1, PLACES])


@pytest.mark.parametrize(
    ("words", "says"),
    [(None, "it is not known where its words are"), ([{"word": "dog", "first": 7, "last": 8}], "beyond the 8 places")],
)
def test_words_that_are_missing_or_beyond_the_stream_are_refused(words: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        words_of({"image_id": "p", "words": words}, PLACES)


def test_a_shard_is_not_counted_with_words_beyond_the_stream() -> None:
    picture = ImageEvidenceInput("p", "discovery", (8, 8), (), [], {}, (PromptWord("dog", 3, PLACES),))
    with pytest.raises(InputError, match="beyond the 8 places"):
        in_words(picture, PLACES)
