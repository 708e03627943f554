"""Which words are concepts: lists and synonyms, longest phrases, a tagger's nouns, tags of pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.fingerprint import fingerprint_of
from gazetteer.jobs.config.schema import DEFAULT_CONFIG, load_config
from gazetteer.labeling.detect.captions import detect_in_captions
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import Detection, DetectorConfig
from gazetteer.labeling.vocabulary.concept_index import ConceptIndex
from gazetteer.labeling.vocabulary.concept_list import read_list
from gazetteer.labeling.vocabulary.concepts import Vocabulary, VocabularyConfig
from gazetteer.labeling.vocabulary.nouns import hanta_nouns
from tests.support.system.running import ROOT


def vocabulary(**settings) -> Vocabulary:
    return Vocabulary(VocabularyConfig(**settings))


def seen(picture: np.ndarray) -> list[str]:
    """A tagger of pictures as users bring one: what the first pixel says."""
    assert picture.dtype == np.uint8 and picture.ndim == 3
    return ["Puppies", "sky", "photo"] if picture[0, 0, 0] else []


def told(prompt: str) -> list[str]:
    return [word for word in prompt.split() if word.endswith("y")]


def told_apart(prompt: str) -> list[str]:
    return ["berry"]


def test_published_lists_have_their_size_and_no_phrase_twice() -> None:
    coco, lvis = read_list("coco"), read_list("lvis")
    assert (len(coco), len(lvis)) == (80, 1203)
    assert lvis["airplane"] == ("aeroplane",)
    for listed in (coco, lvis):
        assert all(name == " ".join(name.lower().split()) and "." not in name for name in listed)
        VocabularyConfig(tuple(listed))
    index = ConceptIndex(lvis)
    assert all(index.concept(name) == name for name in lvis), "a name always stands for its own concept"


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("Two hot dogs and a Dog.", {"hot dog", "dog"}),
        ("hot dogs", {"hot dog"}),
        ("an aeroplane over the aerodrome", {"airplane"}),
        ("airplanes", {"airplane"}),
        ("a hot air balloon", {"hot-air balloon"}),
        ("a hot-air balloon", {"hot-air balloon"}),
        ("a cap", {"cap"}),  # a name of one, a synonym of another
        ("letters in the mailbox", {"mailbox"}),
        ("a doggy bag", set()),
        ("the pen", set()),  # a synonym of two stands for neither
        ("the dog's aeroplane’s cap", {"dog", "airplane", "cap"}),
        ("a hot-dog's stand", {"hot dog"}),
        ("a hot dog-shaped hot-air-balloon-like mailbox", {"hot dog", "hot-air balloon", "mailbox"}),
        ("a dog-shaped hot-air balloon", {"dog", "hot-air balloon"}),
        ("a doggy-style capped-mailbox", {"mailbox"}),  # a part is a whole word
    ],
)
def test_synonyms_plurals_and_the_longest_phrase(prompt: str, named: set[str]) -> None:
    listed = {
        "dog": (), "hot dog": (), "airplane": ("aeroplane",), "hot-air balloon": (), "cap": (), "lid": ("cap", "top"),
        "mailbox": ("post box",), "postbox": ("mailbox",), "ball pen": ("pen",), "fence": ("pen",),
    }  # fmt: skip
    assert ConceptIndex(listed).find(prompt)[0] == named


PHRASES = ["dog", "hot dog", "hot dogs stand", "stand", "hot", "sea", "sea dog"]


@given(
    st.lists(st.sampled_from(PHRASES), unique=True),
    st.lists(st.sampled_from(["hot", "dog", "dogs", "sea", "stand", "at"])),
)
def test_words_of_a_prompt_are_used_once_and_in_their_order(concepts: list[str], tokens: list[str]) -> None:
    found, named, rest = ConceptIndex(dict.fromkeys(concepts, ())).find(" ".join(tokens))
    assert found <= set(concepts)
    joined = [word for pair in zip(rest, [*named, ()], strict=True) for run in pair for word in run]
    assert joined == tokens
    assert not any(word in concepts for run in rest for word in run), "nothing listed is left over"


def test_a_list_of_ones_own(tmp_path) -> None:
    path = tmp_path / "things.txt"
    path.write_text("# mine\nSofa, couch , settee\n\nlamp  # a light\n", encoding="utf-8")
    assert read_list(str(path)) == {"sofa": ("couch", "settee"), "lamp": ()}
    some = vocabulary(path=str(path), concepts=("sky",))
    assert some.base == ("lamp", "sky", "sofa") == some.asked("anything")
    assert some.mentioned("two couches under the sky") == ("sky", "sofa")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a\nb\na, c\n", "twice: 'a' and 'a'"),
        (b"hot dog\nHot-dog\n", "twice: 'hot dog' and 'hot-dog'"),
        (b"!!\n", "no letter"),
        (b"# none\n", "empty"),
        (b"\xff", "not UTF-8 text"),
    ],
)
def test_bad_lists_get_a_sentence(tmp_path, content: bytes, says: str) -> None:
    path = tmp_path / "things.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_list(str(path))
    with pytest.raises(InputError, match="coco, lvis"):
        read_list(str(tmp_path / "none.txt"))


def test_a_list_is_found_beside_the_configuration_and_part_of_what_the_run_is(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("dog\n")
    text = DEFAULT_CONFIG.read_text().replace("vocabulary:\n", "vocabulary:\n  path: words.txt\n")
    (tmp_path / "run.yaml").write_text(text)
    config = load_config(tmp_path / "run.yaml")
    assert config.vocabulary.path == str(tmp_path / "words.txt")
    assert str(fingerprint_of(config)["vocabulary.path"]).startswith("sha256:")
    assert fingerprint_of(load_config(None, ["vocabulary.path=lvis"]))["vocabulary.path"] == "lvis"


@pytest.mark.parametrize(
    ("prompt", "nouns"),
    [
        ("Cozy Living Room With Two Armchairs", ["room", "armchair"]),
        ("the dog walks past a fire hydrant", ["dog", "fire hydrant"]),
        ("people skiing down a hill", ["people", "hill"]),
        ("children, wolves and a coffee table", ["child", "wolf", "coffee table"]),
        ("a woman's hat", ["woman", "hat"]),
        ("it's raining, let’s go, and that's a dog´s house", ["dog", "house"]),
        ("the dogs' house", ["dog", "house"]),
        ("", []),
        ("!?", []),
    ],
)
def test_nouns_by_a_tagger(prompt: str, nouns: list[str]) -> None:
    assert hanta_nouns(prompt) == nouns


def test_nouns_inside_a_listed_phrase_are_no_concepts_and_listed_ones_are_merged() -> None:
    some = vocabulary(path="coco", nouns="hanta", ask="prompt")
    assert some.mentioned("a photo of a fire hydrant below the windows") == ("fire hydrant", "window")
    assert some.mentioned("a fire near a fire hydrant, and two men on sofas") == ("fire", "fire hydrant", "man", "sofa")
    assert vocabulary(concepts=("tree",), nouns="hanta", ask="both").asked("a christmas tree") == (
        "christmas tree", "tree",
    )  # fmt: skip


def test_a_noun_inside_a_listed_possessive_or_compound_is_no_concept() -> None:
    some = vocabulary(
        concepts=("hot berry", "tree"), nouns="tests.labeling.vocabulary.test_vocabulary:told_apart", ask="prompt"
    )
    assert some.mentioned("a hot-berry's tree-lined stand") == ("hot berry", "tree")
    assert some.mentioned("a hot berry’s berry") == ("berry", "hot berry")


def test_without_the_tagger_there_is_a_sentence() -> None:
    script = (
        "import sys; sys.modules['HanTa'] = None\n"
        "from gazetteer.labeling.vocabulary.nouns import hanta_nouns\n"
        "from gazetteer.data.core.errors import InputError\n"
        "try:\n    hanta_nouns('a dog')\nexcept InputError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pip install 'gazetteer[nouns]'" in done.stdout


def test_callables_of_ones_own_for_prompts_and_pictures() -> None:
    dark, bright = (np.full((2, 2, 3), value, np.uint8) for value in (0, 9))
    some = vocabulary(
        concepts=("dog",),
        nouns="tests.labeling.vocabulary.test_vocabulary:told",
        tagger="tests.labeling.vocabulary.test_vocabulary:seen",
        ask="both",
    )
    assert some.asked("a city", dark) == ("city", "dog")
    assert some.asked("a city", bright) == ("city", "dog", "puppies", "sky")
    assert some.mentioned("a city") == ("city",)
    for key in ("nouns", "tagger"):
        with pytest.raises(InputError, match=rf"vocabulary.{key} 'no.such:thing'"):
            vocabulary(**{key: "no.such:thing", "ask": "prompt"})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "nothing to look for"),
        ({"path": "coco", "tagger": "a:b"}, "vocabulary.tagger is of no use with ask=all"),
        ({"path": "coco", "nouns": "hanta"}, "vocabulary.nouns is of no use with ask=all"),
        ({"nouns": "hanta"}, "set vocabulary.ask=both, or prompt"),
        ({"path": "coco", "per_caption": -1}, "per_caption"),
    ],
)
def test_senseless_settings_get_a_sentence(settings: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        VocabularyConfig(**settings)


@given(st.sets(st.sampled_from("abcdefgh")), st.sets(st.sampled_from("efghijkl")), st.integers(0, 4))
def test_captions_hold_every_concept_once_and_listed_ones_always_together(listed, others, size) -> None:
    some = vocabulary(
        concepts=("z", *sorted(listed)),
        nouns="tests.labeling.vocabulary.test_vocabulary:told",
        ask="both",
        per_caption=size,
    )
    asked = sorted({*some.base, *others})
    captions = some.captions(asked)
    assert sorted(concept for caption in captions for concept in caption) == asked
    assert all(len(caption) <= (size or len(asked)) for caption in captions)
    base = [caption for caption in captions if set(caption) <= set(some.base)]
    assert base == some.captions(some.base), "the same companions in every picture"


class Recorder:
    """A detector that finds each asked concept where and how surely it was told to."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores
        self.calls: list[list[tuple[str, ...]]] = []

    def detect(self, images, concepts):
        self.calls.append([tuple(asked) for asked in concepts])
        return [[Detection(c, self.scores[c], (0.0, 0.0, 1.0, 1.0)) for c in asked] for asked in concepts]


def test_what_the_captions_of_a_picture_find_is_put_together_best_first() -> None:
    detector = Recorder({"a": 0.5, "b": 0.9, "c": 0.5})
    images = [np.zeros((2, 2, 3), np.uint8)] * 3
    found = detect_in_captions(detector, images, [[("c",), ("b", "a")], [], [("a",)]])
    assert [[one.concept for one in some] for some in found] == [["b", "c", "a"], [], ["a"]]
    assert detector.calls == [[("c",), ("b", "a"), ("a",)]]


def test_a_score_does_not_depend_on_what_else_is_asked_where_captions_are_kept_apart() -> None:
    """With the embedded detector: one concept a caption, or listed concepts beside any nouns."""
    config = load_config(None)
    detector = load_detector(DetectorConfig(config.detector.path, box_threshold=0.05))
    picture = [np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)]
    concepts = ("boat", "house", "sky", "tree")

    def scores(some: Vocabulary, asked: tuple[str, ...]) -> dict[str, list[Detection]]:
        found = detect_in_captions(detector, picture, [some.captions(asked)])[0]
        return {c: [one for one in found if one.concept == c] for c in asked}

    alone = vocabulary(concepts=concepts, per_caption=1)
    everything = scores(alone, concepts)
    assert any(everything.values())
    assert {c: scores(alone, (c,))[c] for c in concepts} == everything
    listed = vocabulary(concepts=concepts, ask="both", nouns="hanta")
    before = scores(listed, concepts)
    beside = scores(listed, tuple(sorted((*concepts, "dog", "moon"))))
    assert {c: beside[c] for c in concepts} == before
    assert before != everything, "companions in one caption do change scores: that is why"
