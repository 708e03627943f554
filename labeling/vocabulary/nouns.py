"""The nouns of a prompt by a part-of-speech tagger: phrases such as "dog", "coffee table", "fire hydrant".

The tagger is HanTa (Wartena, "The Hanover Tagger", KONVENS 2023), a Markov model over morphemes whose English weights
ship inside the package, so that nothing is downloaded. A phrase is a longest run of nouns; its last word is put into
the singular, and a possessive 's ends it: "a dog's house" has a dog and a house, as "the dogs' house" has.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.vocabulary.words import is_latin, owner_of, words_and_signs

TAGGERS = ("hanta",)
_S = "'s"


def hanta_nouns(prompt: str) -> list[str]:
    """Noun phrases of an English prompt in lower case, in their order, repetitions included.

    Words of other scripts than the Latin one are no English and end a phrase.

    Raises:
        InputError: HanTa is not installed.
    """
    # In lower case, for titles are written in capitals, which the tagger would take for names.
    tokens = [token for word in words_and_signs(prompt) for token in _without_s(word)]
    runs: list[list[tuple[str, str]]] = [[]]
    for word, lemma, tag in _hanta().tag_sent(tokens):
        if tag.startswith(("NN", "NP")) and word != _S and is_latin(word):
            runs[-1].append((word, lemma.lower()))
        else:
            runs.append([])
    return [" ".join([*(word for word, _ in run[:-1]), run[-1][1]]) for run in runs if run]


def _without_s(word: str) -> list[str]:
    """A word and its 's apart, by which the tagger tells "dog's" from "it's"."""
    owner = owner_of(word)
    return [word] if owner == word else [owner, _S]


@cache
def _hanta() -> Any:
    """The tagger, loaded once a process from inside its package (HanTa prefers a file of that name in the cwd)."""
    try:
        import HanTa
        from HanTa.HanoverTagger import HanoverTagger
    except ImportError as error:
        raise InputError("vocabulary.nouns=hanta needs the package HanTa: pip install 'gazetteer[nouns]'.") from error
    return HanoverTagger(str(Path(HanTa.__file__).parent / "morphmodel_en.pgz"))
