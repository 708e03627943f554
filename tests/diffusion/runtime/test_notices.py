"""What libraries tell their own developers is not said to users, and everything else is."""

from __future__ import annotations

import warnings
from pathlib import Path

from gazetteer.diffusion.flops import model_cost
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.diffusion.runtime.notices import without_notices
from tests.support.models.dits import saved_dit


def test_chroma_is_loaded_and_counted_without_a_word_of_its_own_imports(tmp_path: Path) -> None:
    config = ModelConfig(path=str(saved_dit("chroma", tmp_path / "model")))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        load_pipeline(config)
        model_cost(config, 2)
    assert not [str(one.message) for one in heard if issubclass(one.category, FutureWarning)]


def test_other_warnings_are_heard() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with without_notices():
            warnings.warn("`height` will change", FutureWarning, stacklevel=1)
    assert [str(one.message) for one in heard] == ["`height` will change"]
