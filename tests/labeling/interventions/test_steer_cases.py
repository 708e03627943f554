"""What `steer evaluate` measures on had no part in the run's labels, and what judges it is part of the record."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from gazetteer.data.inputs.prompts import split_of
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import IMAGES
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments.attribute_evaluate import _judges
from gazetteer.jobs.experiments.steer_evaluate import _fingerprint, _heldout
from tests.support.runs.runs import PROVENANCE

PROMPTS = [f"a dog and {i} boats" for i in range(60)]


def test_prompts_that_chose_the_labels_are_no_cases_under_any_heldout(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    folder = RunFolder(tmp_path / "run").open_or_create({"heldout": 0.3})
    held = [prompt for prompt in PROMPTS if split_of(prompt, 0.3) == "heldout"]
    about = {"seed": 0, "image": None, "height": 8, "width": 8, "asked": [], "words": None}
    rows = [  # the first held-out one as of a picture that was given, whose split its caption does not say
        {**about, "image_id": f"i{i:02}", "prompt": prompt, "split": "heldout" if prompt in held[1:] else "discovery"}
        for i, prompt in enumerate(PROMPTS)
    ]
    folder.commit_shard("s", {"images": pa.Table.from_pylist(rows, schema=IMAGES)}, {}, PROVENANCE)
    for share in ("0.3", "0.9", "0.0"):
        config = load_config(None, [f"prompts.path={tmp_path / 'prompts.txt'}", f"heldout={share}"])
        assert sorted(_heldout(folder, config)) == sorted(held[1:])


def test_another_judge_of_the_same_name_is_another_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    names = ["steer.classifier=own_judge:make", "steer.words=[night]", "attribute.classifier=own_judge:make"]
    config, folder = load_config(None, names), RunFolder(tmp_path / "run").open_or_create({})
    records = []
    for text in ("one", "another"):
        (tmp_path / "own_judge.py").write_text(f"def make(): return {text!r}\n")
        steered, judged = _fingerprint(config, config.steer, folder, ["dog"]), _judges(config, ["night"])
        records.append([steered["classifier"], *judged.values()])
    assert all(one.startswith("own_judge:make") and one != other for one, other in zip(*records, strict=True))
    assert _judges(config, [])["styles"] == ""
