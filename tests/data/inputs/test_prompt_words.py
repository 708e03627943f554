"""What tells prompts apart, in any script: the identity of those written in ASCII letters and digits stays for good."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazetteer.data.inputs.prompt_pool import PromptConfig, read_prompts, side_of
from gazetteer.data.inputs.prompt_words import has_word, holds, normalised
from gazetteer.data.inputs.prompts import digest_parts
from gazetteer.data.scenes import __file__ as scenes
from gazetteer.labeling.vocabulary.words import words

SHARES = (0.8, 0.16, 0.04)
HINDI = "एक कुत्ता,एक मोर,एक मीर,एक मार,एक नदी,एक नाद,एक दिन,एक दीन,एक दान,एक फल,एक फूल,एक बाल,एक बेल,एक बैल,एक बोल"
PLAIN = string.ascii_letters + string.digits + "".join(sorted(set(string.punctuation) - set("+<=>$#"))) + " \t"


def before(prompt: str) -> str:
    """The rule by which all prompts were told apart at first."""
    return " ".join(re.findall(r"\w+", prompt.lower())) or prompt.lower().strip()


@given(st.text(PLAIN, max_size=30), st.text(PLAIN, min_size=1, max_size=3))
def test_ascii_letters_and_digits_are_the_words_that_they_were(prompt: str, phrase: str) -> None:
    assert normalised(prompt) == before(prompt)
    if has_word(phrase):
        assert holds(prompt, [phrase]) == (f" {before(phrase)} " in f" {before(prompt)} ")


def test_the_prompts_of_the_embedded_world_stay_what_and_where_they_are() -> None:
    prompts = (Path(scenes).parent / "prompts.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert [normalised(prompt) for prompt in prompts] == [before(prompt) for prompt in prompts]
    others = (Path(scenes).parent / "prompts_sae.txt").read_text(encoding="utf-8").split("\n")
    assert [normalised(prompt) for prompt in others] == [before(prompt) for prompt in others]
    sides = [side_of(prompt, SHARES) for prompt in prompts]
    assert (len(prompts), len(set(map(normalised, prompts)))) == (3000, 3000)
    assert digest_parts(*sides) == "f364a117a3a62e1927ac83a18da482e3fa1061baa363f90431e1cc5edc76863d"
    named = [[holds(prompt, [word]) for prompt in prompts] for word in ("dog", "at night", "sea")]
    assert named == [[f" {word} " in f" {before(p)} " for p in prompts] for word in ("dog", "at night", "sea")]


@pytest.mark.parametrize(
    "different",
    [
        HINDI.split(","),
        ["รูปหมี", "รูปหมู"],
        ["🐶 on grass", "🐱 on grass", "on grass"],
        ["👍🏻", "👍🏿", "👍"],
        ["a C++ logo", "a C# logo", "a C logo"],
        ["2+2", "2-2", "2=2"],
        ["5 $", "5 €", "5"],
    ],
)
def test_prompts_of_different_words_or_signs_are_different(tmp_path: Path, different: list[str]) -> None:
    (tmp_path / "p.txt").write_text("\n".join(different), encoding="utf-8")
    assert read_prompts(PromptConfig(str(tmp_path / "p.txt"))) == different


@pytest.mark.parametrize(
    "same",
    [
        ["it's snow", "It’s snow!", "it´s snow", "it s ~ snow |"],
        ["#dog #1", "dog 1"],
        ["a ❤ dog", "a ❤️ dog"],
        ["5−3", "5-3", "5–3"],
        ["½ a pie", "1/2 a pie"],
        ["एक दिन", "एक, दिन।"],
        ["caf\u00e9", "CAFE\u0301"],
    ],
)
def test_spelling_and_punctuation_make_no_other_prompt(same: list[str]) -> None:
    assert len(set(map(normalised, same))) == 1


def test_filters_hear_whole_words_with_their_marks() -> None:
    assert not holds("หมี ป่า", ["หมู"])
    assert not holds("एक बैल", ["बेल"]) and holds("एक बेल, दो बैल", ["बेल"])
    assert holds("a C++ logo", ["c++"]) and not holds("a C# logo", ["C++"])
    assert holds("a 🐶 dog", ["🐶"]) and not holds("a 🐱 dog", ["🐶"])
    assert [has_word(phrase) for phrase in ("🐶", "C#", "...", "|", "\u0301")] == [True, True, False, False, False]


def test_where_words_stand_without_spaces_whole_letters_are_heard() -> None:
    assert holds("รูปหมูสวย", ["หมู"])
    assert not holds("รูปหมีสวย", ["หม", "หมู"]), "a letter without its vowel is another one"
    assert holds("犬が走る", ["犬"]) and holds("a 犬dog", ["dog"])
    assert not holds("hotdogs", ["dog"])
    assert words("犬が走る")[0] == "犬"


def test_prompts_that_are_left_out_as_repeats_are_counted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.txt").write_text("a dog\nA dog.\na cat\nthe sea\na DOG\n")
    config = PromptConfig(str(tmp_path / "p.txt"))
    assert read_prompts(config) == ["a dog", "a cat", "the sea"] == read_prompts(config)
    said = capsys.readouterr().err
    assert said.count("2 of 5 prompts are left out: their words are those of an earlier one") == 1
    (tmp_path / "q.txt").write_text("a dog\na cat\n")
    read_prompts(PromptConfig(str(tmp_path / "q.txt")))
    assert capsys.readouterr().err == ""
