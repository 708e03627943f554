"""One rule for words and spellings, as a table over scripts."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.interventions.resolve import names
from gazetteer.labeling.vocabulary.concept_index import ConceptIndex, require_distinct
from gazetteer.labeling.vocabulary.concepts import Vocabulary, VocabularyConfig
from gazetteer.labeling.vocabulary.nouns import hanta_nouns
from gazetteer.labeling.vocabulary.words import parts, spaced, spellings, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a CAFÉ, the ‘dog’s hot–dog", ["a", "café", "the", "dog's", "hot-dog"]),
        ("cafe\u0301", ["café"]),  # an accent as a sign of its own
        ("ＤＯＧ ﬁre STRASSE Straße", ["dog", "fire", "strasse", "strasse"]),
        ("'dog' -- -cat- x_y", ["dog", "cat", "x", "y"]),
        ("soft\u00adhyphen zero\u200bwidth", ["softhyphen", "zerowidth"]),
        ("犬が走る", ["犬", "が", "走", "る"]),
        ("ネコとTシャツ", ["ネコ", "と", "tシャツ"]),
        ("कुत्ता और बिल्ली", ["कुत्ता", "और", "बिल्ली"]),
        ("собака на траве", ["собака", "на", "траве"]),
        ("ΣΚΎΛΟΣ", ["σκύλοσ"]),
        ("كلب وقطة", ["كلب", "وقطة"]),
        ("개와 고양이", ["개와", "고양이"]),
        ("🐱 !? …", []),
    ],
)
def test_words_of_a_text(text: str, found: list[str]) -> None:
    assert words(text) == found


SPELT = [
    # concept, texts that name it, texts that do not
    ("hot dog", ["a hot-dog", "HOT DOGS", "two hotdogs", "hot–dogs, please", "hotdog"], ["a dog", "hot dogma"]),
    ("teddy bear", ["teddy-bear", "teddybears", "Teddy Bear"], ["a bear", "teddy"]),
    ("t-shirt", ["t shirt", "tshirts", "T-Shirts", "t‑shirt"], ["a shirt", "t"]),
    ("hotdog", ["hot-dog", "hotdogs"], ["a hot dog day"]),  # words of a text are not run together
    ("mango", ["a mango"], ["let the man go"]),
    ("shirt", ["two shirts"], ["a t-shirt"]),
    ("child", ["children"], ["childhood"]),
    ("café", ["a café", "two cafés", "CAFÉ", "cafe\u0301"], ["a cafe", "a caf"]),
    ("caf", ["a caf"], ["a café"]),
    ("piñata", ["piñatas"], ["pinata", "pi ata"]),
    ("straße", ["STRASSE", "die Straße"], ["strase"]),
    ("猫", ["猫", "黒い猫が走る"], ["犬", "树"]),
    ("熱狗", ["一個熱狗"], ["狗", "熱 茶 狗"]),
    ("собака", ["собака на траве"], ["кошка", "собаки"]),
    ("สุนัข", ["รูปสุนัขวิ่ง"], ["แมว"]),
    ("बिल्ली", ["कुत्ता और बिल्ली"], ["कुत्ता"]),
    ("강아지", ["작은 강아지"], ["강아"]),
    ("كلب", ["صورة كلب"], ["قطة"]),
]


@pytest.mark.parametrize(("concept", "naming", "others"), SPELT)
def test_how_a_concept_may_be_written(concept: str, naming: list[str], others: list[str]) -> None:
    index = ConceptIndex({concept: ()})
    assert [text for text in naming if index.find(text)[0] != {concept}] == []
    assert [text for text in others if index.find(text)[0]] == []


def test_no_name_of_another_script_stands_for_another() -> None:
    concepts = ("犬", "猫", "dog", "собака", "café", "cafe")
    index = ConceptIndex(dict.fromkeys(concepts, ()))
    assert [index.concept(name) for name in (*concepts, "树", "кошка", "🐱")] == [*concepts, None, None, None]


def tags(picture: object) -> list[str]:
    return ["猫", "树", "Hot-Dogs", "🐱", "T-Shirt", "t shirt", "Close–up"]


def test_tags_of_any_script_are_asked_as_they_are() -> None:
    tagger = "tests.labeling.vocabulary.test_words:tags"
    some = Vocabulary(VocabularyConfig(concepts=("犬", "猫", "hot dog"), ask="prompt", tagger=tagger))
    assert some.asked("犬が走る", picture=object()) == ("hot dog", "t shirt", "树", "犬", "猫")  # type: ignore[arg-type]


def test_an_explicit_synonym_goes_before_a_name_in_one_word() -> None:
    index = ConceptIndex({"hot dog": (), "frankfurter": ("hotdog",)})
    assert [index.concept(text) for text in ("hotdog", "hot dog", "hot-dog")] == ["frankfurter", "hot dog", "hot dog"]


@pytest.mark.parametrize(
    ("concepts", "says"),
    [
        (("hot dog", "hot-dog"), "one concept twice: 'hot dog' and 'hot-dog'"),
        (("café", "cafe\u0301"), "one concept twice"),
        (("straße", "strasse"), "one concept twice"),
        (("dog", "!!"), "'!!', which has no letter and no digit"),
        (("🐱",), "no letter and no digit"),
    ],
)
def test_concepts_that_the_rule_cannot_tell_apart_are_refused(concepts: tuple[str, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        VocabularyConfig(concepts=concepts)
    with pytest.raises(InputError, match=says):
        require_distinct(concepts, "The list")


def test_a_configuration_keeps_names_composed() -> None:
    assert VocabularyConfig(concepts=("cafe\u0301",)).concepts == ("café",)


@pytest.mark.parametrize(
    ("prompt", "nouns"),
    [
        ("a small café near the jalapeño", ["café", "jalapeño"]),
        ("a dog’s bowl", ["bowl"]),
        ("a dog 猫 cat", ["dog", "cat"]),
    ],
)
def test_nouns_keep_their_accents_and_pass_over_other_scripts(prompt: str, nouns: list[str]) -> None:
    assert hanta_nouns(prompt) == nouns


@pytest.mark.parametrize(
    ("prompt", "word", "held"),
    [
        ("a hot-dog stand", "hot dog", True),
        ("hot dogs", "hot dog", False),  # an edit of a word is made from pictures of that very word
        ("黒い猫", "猫", True),
        ("cafés", "caf", False),
        ("Watercolor of a boat", "watercolor", True),
        ("a dog", "", False),
    ],
)
def test_a_prompt_holds_a_word(prompt: str, word: str, held: bool) -> None:
    assert names(prompt, word) is held


@given(st.lists(st.sampled_from(["hot", "dog", "fire", "ярмарка", "猫", "élan"]), min_size=1, max_size=3))
def test_every_spelling_of_a_phrase_stands_for_it(tokens: list[str]) -> None:
    phrase = " ".join(tokens)
    index = ConceptIndex({phrase: ()})
    assert [spelling for spelling in spellings(phrase) if index.concept(spelling) != phrase] == []


@given(st.text(max_size=30))
def test_words_do_not_depend_on_case_or_composition(text: str) -> None:
    assert words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text))
    assert words(" ".join(words(text))) == words(text)
    assert parts(words(spaced(text))) == parts(words(text))
