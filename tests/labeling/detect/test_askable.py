"""What a detector cannot tell apart is refused where it is listed, left out with a warning where a prompt has it."""

from __future__ import annotations

import logging

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.prompts import Item
from gazetteer.jobs.config.schema import load_config
from gazetteer.labeling.detect.askable import Askable
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.pipeline.stages import Stages


@pytest.fixture(scope="module")
def detector():
    return load_detector(DetectorConfig(load_config(None).detector.path))


def test_what_is_listed_must_be_askable(detector) -> None:
    Askable(detector, ["dog", "sky"])
    with pytest.raises(InputError, match="'dóg' and 'dog' are the same words"):
        Askable(detector, ["dog", "sky", "dóg"])
    with pytest.raises(InputError, match="'猫' has no word that the detector's tokenizer knows"):
        Askable(detector, ["dog", "猫"])


def test_other_words_are_left_out_with_one_warning_each(detector, caplog) -> None:
    askable = Askable(detector, ["dog"])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert askable.among(["dóg", "dog", "sky", "ský", "猫"]) == ("dog", "sky")
    assert [record.args[1] for record in caplog.records] == ["dóg", "ský", "猫"]


def test_a_run_of_concepts_that_are_one_to_the_detector_ends_before_a_picture_is_drawn() -> None:
    config = load_config(None, ["vocabulary.concepts=[dog,dóg]"])
    with pytest.raises(InputError, match="are the same words"):
        Stages(config.stages)


def nouns(prompt: str) -> list[str]:
    return [word for word in prompt.split() if word in ("dóg", "猫", "boat")]


def test_the_table_of_images_says_what_was_asked_and_no_more() -> None:
    module = "tests.labeling.detect.test_askable:nouns"
    config = load_config(None, ["vocabulary.ask=both", "vocabulary.concepts=[dog,sky]",
                                f"vocabulary.nouns={module}"])  # fmt: skip
    result = Stages(config.stages).run([Item("a dóg and 猫 and a boat", 0, "a" * 16)])
    assert result.tables["images"]["asked"].to_pylist() == [["boat", "dog", "sky"]]
    assert result.tables["failures"].num_rows == 0
