"""Configurations of the small classifiers of another shape are refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.scenes import concept_classifier, style_classifier


@pytest.mark.parametrize("said", ["{", "[]", "3", '"x"', "null", "{}", "[" * 100_000, '{"labels": 3}'])
def test_a_configuration_of_another_shape_is_refused(tmp_path: Path, said: str) -> None:
    (tmp_path / "config.json").write_text(said)
    for classifier in (concept_classifier, style_classifier):
        with pytest.raises(InputError, match=r"config\.json (is damaged|does not give labels)"):
            classifier.load(tmp_path)
