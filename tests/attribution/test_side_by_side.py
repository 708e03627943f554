"""Calls of `attribute score` share a folder: what they give stands side by side, and nothing is lost unsaid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gazetteer import load_components
from gazetteer.attribution.scores.components import require_room
from gazetteer.attribution.scores.score import ScoreConfig
from gazetteer.data.core.errors import InputError
from gazetteer.data.tables.provenance import provenance, read_provenance
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments.attribute_score import score
from tests.support.models.tiny_pipeline import tiny_pipeline


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_scores_stand_side_by_side_in_one_folder(tmp_path: Path) -> None:
    """Another concept adds rows; the same one is replaced by the same alone, and said before a model is read."""
    folder = tmp_path / "model"
    tiny_pipeline().save_pretrained(folder)
    run, out = load_config(None, [f"model.path={folder}"]), tmp_path / "out"
    dog = ScoreConfig(concept="dog", fraction=0.02, steps=2)
    first = score(run, dog, str(out))
    alone = (out / "components.parquet").read_bytes()
    score(run, dog, str(out))
    assert (out / "components.parquet").read_bytes() == alone
    edit = Path(first["edit"]).read_bytes()
    score(run, replace(dog, concept="boat", seeds=2), str(out))
    by_chance = score(run, replace(dog, estimator="random"), str(out))
    assert {file.name for file in out.glob("*.safetensors")} == {
        "dog-erase.safetensors", "boat-erase.safetensors", "dog-erase-random.safetensors",
    }  # fmt: skip
    assert Path(by_chance["edit"]).name == "dog-erase-random.safetensors"
    assert Path(first["edit"]).read_bytes() == edit
    rows = load_components(out).group_by(["concept", "estimator"]).aggregate([([], "count_all")]).to_pylist()
    assert [(row["concept"], row["estimator"]) for row in rows] == [("dog", "cad"), ("boat", "cad"), ("dog", "random")]
    assert len({row["count_all"] for row in rows}) == 1
    made = read_provenance(out / "components.parquet")["config"]
    assert [call["concept"] for call in made["others"]] == ["dog", "boat"] and made["estimator"] == "random"
    before = contents(out)
    nowhere = load_config(None, [f"model.path={folder}", "model.device=cuda:99"])
    for wrong, said in (
        (replace(dog, fraction=0.1), r"dog-erase.safetensors is there already .*\(fraction: 0.02 there, 0.1 now\)"),
        (replace(dog, seed=3), "seed: 0 there, 3 now"),
        (replace(dog, estimator="random", per="global"), "per: layer there, global now"),
    ):
        with pytest.raises(InputError, match=said):
            score(nowhere, wrong, str(out))
    (out / "dog-erase.safetensors").unlink()
    with pytest.raises(InputError, match=r"components.parquet is there already .*steps: 2 there, 3 now"):
        score(nowhere, replace(dog, steps=3), str(out))
    (out / "boat-erase.safetensors").write_text("somebody's notes")
    with pytest.raises(InputError, match="cannot be read"):
        score(nowhere, replace(dog, concept="boat", seeds=2), str(out))
    names = {"boat-erase.safetensors", "dog-erase.safetensors"}
    assert all(contents(out)[name] == content for name, content in before.items() if name not in names)
    (out / "boat-erase.safetensors").unlink()
    with pytest.raises(InputError, match=r"components.parquet is of another command or version"):
        require_room(out, provenance({}, {"run": "runs/scenes"}), ())
