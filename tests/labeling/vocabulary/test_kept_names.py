"""What a run kept of other names, in a shape that nobody wrote, is refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.labeling.vocabulary.synonyms import RECORD, read_synonyms


@pytest.mark.parametrize("said", ["[]", "3", '"x"', "null", '{"dog": 3}', '{"dog": "hound"}', '{"dog": [3]}'])
def test_names_of_another_shape_are_refused(tmp_path: Path, said: str) -> None:
    run = RunFolder(tmp_path).open_or_create({"seed": 1})
    assert read_synonyms(run) == {}
    run.write_json(RECORD, {"dog": ["hound"]})
    assert read_synonyms(run) == {"dog": ("hound",)}
    (tmp_path / "_meta" / RECORD).write_text(said)
    with pytest.raises(InputError, match=r"_meta/synonyms\.json (is corrupt|gives no lists of names).*move it away"):
        read_synonyms(run)
