"""What an evaluation of edits does not try: concepts that no feature carries, methods that have nothing to go by."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.interventions.evaluation import experiments
from gazetteer.labeling.interventions.evaluation.cases import SteerConfig
from gazetteer.labeling.interventions.evaluation.experiments import SteeringEvaluation
from gazetteer.labeling.interventions.evaluation.trials import DENSE, left_out
from gazetteer.labeling.interventions.resolve import NotCarriedError
from gazetteer.labeling.layout.run import open_run
from gazetteer.labeling.vocabulary.concepts import Vocabulary, VocabularyConfig
from gazetteer.labeling.vocabulary.meant import UnknownConceptError
from tests.support.models.tiny_pipeline import tiny_pipeline
from tests.support.runs.layout_runs import CONCEPTS, pipeline_run, random_saes

PROMPTS = [f"a {concept}, {number}" for concept in CONCEPTS for number in range(8)]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> SteeringEvaluation:
    run = open_run(pipeline_run(tmp_path_factory.mktemp("untried") / "run", tiny_pipeline(), random_saes())).store
    config, vocabulary = SteerConfig(cases=1, tuning=1), Vocabulary(VocabularyConfig(tuple(CONCEPTS)))
    return SteeringEvaluation(run, config, vocabulary, PROMPTS, lambda _: pa.table({}), directions="so")


@pytest.mark.parametrize("error", [NotCarriedError, UnknownConceptError, InputError])
def test_a_damaged_run_is_no_concept_without_features(
    asked: SteeringEvaluation, monkeypatch: pytest.MonkeyPatch, error: type[InputError]
) -> None:
    def resolve(*_: Any) -> None:
        raise error("So it is.")

    monkeypatch.setattr(asked, "resolved", {})
    monkeypatch.setattr(experiments, "sites_for", lambda *_: ["a site"])
    monkeypatch.setattr(asked.resolver, "resolve", resolve)
    (setting, *_) = asked.config.settings(spatial=True)
    if error is InputError:
        with pytest.raises(InputError, match=r"^So it is\.$"):
            asked._edit(CONCEPTS[0], "early", setting, word=False)
    else:
        assert asked._edit(CONCEPTS[0], "early", setting, word=False) is None
    with pytest.raises(InputError, match=r"^So it is\.$"):
        asked._edit(CONCEPTS[0], "early", setting, word=True)


def test_methods_that_are_left_out_have_their_own_reasons(asked: SteeringEvaluation) -> None:
    assert (asked.directions, asked.undirected) == ({}, "so")
    assert left_out("update_norm", "so") == {DENSE: "so"} and left_out("update_norm", "") == {}
    assert set(left_out("code_norm", "")) == {"random_direction"}
