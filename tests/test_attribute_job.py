"""The attribute verbs on a tiny real pipeline, and the evaluation's arithmetic by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from attribution.delta import applied, load_delta
from attribution.evaluate import CHOOSE, REPORT, Case, Evaluation, Images, Protocol, compare, summary
from attribution.methods import AMPLIFY, ERASE, MethodConfig, Methods
from data.errors import InputError
from data.provenance import read_provenance
from diffusion.generate import GenerationConfig
from jobs.attribute import ScoreConfig, apply_edit, painter, score, without
from jobs.config import RunConfig, load_config
from labeling import load_components
from tests.tiny_pipeline import tiny_pipeline


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return load_config(None, [f"model.path={folder}"])


def digests(folder: Path) -> list[str]:
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()]


def test_score_apply_and_undo(run: RunConfig, tmp_path: Path) -> None:
    config = ScoreConfig(concept="dog", share=0.02, steps=3)
    done = score(run, config, str(tmp_path / "out"))
    table = load_components(tmp_path / "out", concept="dog")
    assert sum(table["chosen"].to_pylist()) == done["weights"] == len(load_delta(done["edit"]))
    assert sum(table["weights"].to_pylist()) == done["scored"]
    assert set(table["estimator"].to_pylist()) == {"cad"} and table.schema == load_components(done["components"]).schema
    assert done["cost"] == {"values": 0, "gradients": 1}
    assert read_provenance(done["components"])["config"]["concept"] == "dog"
    assert pq.read_table(done["components"]).num_rows == table.num_rows
    source = Path(run.model.path)
    apply_edit(str(source), done["edit"], str(tmp_path / "edited"))
    apply_edit(str(tmp_path / "edited"), done["edit"], str(tmp_path / "back"), undo=True)
    assert digests(tmp_path / "edited") != digests(source) == digests(tmp_path / "back")
    with pytest.raises(InputError, match="takes no weight here"):
        score(run, ScoreConfig(concept="dog", preset="cad", steps=2), str(tmp_path / "none"))
    for wrong in ({}, {"concept": "dog", "feature": "x:1"}, {"feature": "x:1"}, {"concept": "dog", "preset": "x"}):
        with pytest.raises(InputError):
            ScoreConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="missing or corrupt"):
        load_components(tmp_path)


def test_taking_a_concept_out_of_a_prompt() -> None:
    for prompt, left in {
        "a dog on the left, a sun and two boats": "a sun and two boats",
        "two dogs, a tree": "a tree",
        "a flower on sand with a dog": "a flower on sand",
        "sky and a dog, pencil sketch": "sky, pencil sketch",
        "a dogma": "a dogma",
        "a dog": "",
    }.items():
        assert without(prompt, "dog") == left


def picture(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, dtype=np.uint8)


def test_what_counts_as_erased_kept_and_changed() -> None:
    cases = [
        Case("a dog and sky", 0, frozenset({"dog", "sky"}), REPORT),
        Case("two dogs", 1, frozenset({"dog"}), REPORT),
        Case("a tree and sky", 2, frozenset({"tree", "sky"}), REPORT),
    ]
    intact = [(picture(0), {"dog", "sky"}), (picture(0), set()), (picture(0), {"tree", "sky", "car"})]
    edited = [(picture(9), {"sky"}), (picture(9), {"dog"}), (picture(51), {"sky"})]
    erased = compare("erase", "dog", cases, intact, edited)
    assert erased.by_concept == {"sky": (2, 2), "tree": (1, 0)}
    found = summary("erase", [erased], 0, 0)
    assert found["target"][0] == 1.0  # one found before, one after, though not in the same picture
    assert found["others"][0] == pytest.approx(2 / 3) and found["change"][0] == pytest.approx(0.2)
    raised = summary("amplify", [compare("amplify", "dog", cases, intact, edited)], 200, 0)
    assert raised["target"] == [1.0, 1.0, 1.0]  # of the one dog that was missed
    nothing = compare("erase", "dog", cases[1:2], intact[1:2], edited[1:2])
    assert summary("erase", [nothing], 50, 0) == dict.fromkeys(("target", "others", "change"), [None] * 3)
    low, mean, high = (summary("erase", [erased, erased], 400, 0)["others"][i] or 0 for i in (1, 0, 2))
    assert 0 < low < mean < high <= 1


def test_every_method_is_evaluated_on_pairs_and_the_model_stays_as_it_was() -> None:
    pipe = tiny_pipeline()
    concepts = ["dog", "house", "boats"]
    prompts = ["a dog", "a red house", "two boats", "a dog at night", "a house", "two boats on the sea"]
    cases = [
        Case(p, i, frozenset(c for c in concepts if c in p), CHOOSE if i < 3 else REPORT) for i, p in enumerate(prompts)
    ]
    naming = {c: [k.prompt for k in cases if k.half == CHOOSE and c in k.named] for c in concepts}
    config = MethodConfig(steps=2, tune_steps=1, tune_prompts=1)
    methods = Methods(pipe, config, concepts, naming, without)
    paint_for_real, painted = painter(pipe, GenerationConfig(steps=2)), []

    def paint(prompts: list[str], seeds: list[int]) -> Images:
        painted.append(len(prompts))
        return paint_for_real(prompts, seeds)

    def judge(images: Images) -> list[set[str]]:  # any rule that looks at the pictures will do
        return [{c for i, c in enumerate(concepts) if image[..., i].mean() > 100} for image in images]

    before = [p.detach().clone() for p in pipe.unet.parameters()]
    evaluation = Evaluation(methods, paint, judge, cases, Protocol(ERASE, AMPLIFY, shares=(0.02, 0.05), most=1))
    assert set(evaluation.rates(CHOOSE)) == set(concepts)
    erased = evaluation.run("erase", ["dog"])
    raised = evaluation.run("amplify", ["dog"])
    assert set(erased) == set(ERASE) and set(raised) == set(AMPLIFY)
    for found in (*erased.values(), *raised.values(), evaluation.blocked(["dog"])):
        assert all(len(found[key]) == 3 for key in ("target", "others", "change"))
    assert erased["random"]["share"] == erased["cad"]["share"]
    assert all(torch.equal(a, b) for a, b in zip(before, pipe.unet.parameters(), strict=True))
    cad, control = (methods.choose("erase", m, "dog", 0.05) for m in ("cad", "magnitude"))
    assert {n: len(i) for n, i in cad.items()} == {n: len(i) for n, i in control.items()}
    edit = methods.edit("erase", "cad", "dog", 0.05)
    with applied(pipe.unet, edit):
        assert any(not torch.equal(a, b) for a, b in zip(before, pipe.unet.parameters(), strict=True))
    with pytest.raises(InputError, match="Unknown method"):
        methods.edit("amplify", "steps", "dog", 0.1)
