"""One rule for words and spellings, as a table over scripts."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazetteer.attribution.objective.prompts import names as attribution_names
from gazetteer.data.core.errors import InputError
from gazetteer.labeling.interventions.resolve import names
from gazetteer.labeling.layout.run import mentions
from gazetteer.labeling.rules.kinds.styles import looks_of
from gazetteer.labeling.vocabulary.concept_index import ConceptIndex, require_distinct
from gazetteer.labeling.vocabulary.concepts import Vocabulary, VocabularyConfig
from gazetteer.labeling.vocabulary.nouns import hanta_nouns
from gazetteer.labeling.vocabulary.words import parts, spaced, spellings, word_spans, words


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
    ("shirt", ["two shirts", "a t-shirt", "two T‑shirts"], ["a tshirt", "a shirtless-man"]),
    ("child", ["children", "a child's toy", "the children’s toys"], ["childhood", "childhood's", "childs-play"]),
    ("dog", ["a dog's house", "the dogs' house", "A DOG’S", "dog´s", "dog`s", "dog′s", "dogʼs"], ["dogma's", "dog'll"]),
    ("van gogh", ["a house in Van Gogh's style", "Van Gogh-style", "van-gogh-like"], ["Van Goghish-style"]),
    ("tree", ["a tree-lined road", "trees-and-shrubs"], ["a street-lined road", "tree'd"]),
    ("night", ["a night-time house"], ["a nightly-lit house"]),
    ("chef's knife", ["a chef’s knife", "two chef's knives", "chef's-knife"], ["a knife", "a chef", "a chef knife"]),
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


@pytest.mark.parametrize(
    ("concepts", "text", "named"),
    [
        (("shirt", "t-shirt", "t"), "a t-shirt's pocket", {"t-shirt"}),
        (("hot", "air balloon", "hot-air balloon"), "a hot-air balloon", {"hot-air balloon"}),
        (("old sea", "sea-dog"), "an old sea-dog", {"sea-dog"}),  # what stands for a concept is not taken apart
        (("dog", "levi", "levi's"), "levi’s and a dog’s", {"dog", "levi's"}),
        (("dog house", "dog", "house"), "a dog's house", {"dog", "house"}),  # the owner and what it owns
    ],
)
def test_what_is_listed_as_it_stands_counts_first(concepts: tuple[str, ...], text: str, named: set[str]) -> None:
    assert ConceptIndex(dict.fromkeys(concepts, ())).find(text)[0] == named


@pytest.mark.parametrize(
    "text",
    [
        "a house in Van Gogh's style",
        "a Van Gogh-style house",
        "a Van‑Gogh´s house",
        "a van gogh",
        "van goghish",
        "a van",
    ],
)
def test_every_room_finds_the_same_words(text: str) -> None:
    named = "gogh" in text.lower().replace("goghish", "")
    vocabulary = Vocabulary(VocabularyConfig(concepts=("van gogh",), ask="prompt"))
    assert names(text, "van gogh") is named
    assert attribution_names(text, "van gogh") is named
    assert bool(looks_of([text], ["van gogh"])[0, 0]) is named
    assert bool(mentions([text], ["van gogh"])[0, 0]) is named
    assert vocabulary.asked(text) == (("van gogh",) if named else ())
    assert ("van gogh" in [word for word, _, _ in vocabulary.words(text)]) is named


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
        ("a dog’s bowl", ["dog", "bowl"]),
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
        ("", "dog", False),
        ("a dog’s house", "dog", True),
        ("the dogs' house", "dog", False),
        ("a house in Van Gogh's style", "van gogh", True),
        ("a van gogh house", "van gogh's", False),
        ("a watercolour-style house", "watercolour", True),
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


MELTING = "eo-' /aA½¼㍿℀ﷺน้ำ犬がß<=¨´`\u0301\u0338\u0345\u3099\u200b\u00ad\u1100\u1161\u11a8가ｶﾞﾡￂ⁄2"
"""Letters that fall apart, melt into the one before, or are left out, when a text is folded."""


@given(st.one_of(st.text(max_size=20), st.text(MELTING, max_size=12)), st.booleans())
def test_words_and_their_places_agree(text: str, apart: bool) -> None:
    spans = word_spans(text, apart)
    said = [word for held, _, _ in spans for word in words(held)]
    assert said == (list(parts(words(text))) if apart else words(text))
    borders = [border for _, start, end in spans for border in (start, end)]
    assert borders == sorted(borders) and all(0 <= start < end <= len(text) for _, start, end in spans)
    assert all(words(text[start:end]) == words(held) for held, start, end in spans)
    assert words(" ".join(words(text))) == words(text)


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("½ cup", [("1⁄2", 0, 1), ("cup", 2, 5)]),
        ("a¼½b", [("a1⁄41⁄2b", 0, 4)]),
        ("㍿ ℀", [("株式会社", 0, 1), ("a/c", 2, 3)]),
        ("น้ำ", [("น้ํา", 0, 3)]),
        ("x\u200b ≮ <\u0338 cafe\u0301s", [("x", 0, 1), ("cafés", 8, 14)]),
    ],
)
def test_no_character_is_in_two_words(text: str, spans: list[tuple[str, int, int]]) -> None:
    assert word_spans(text) == spans
