"""Which sampler steps are measured, by which autoencoders and on which grids, whatever the run's t."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.tables.schemas import FINAL_TABLES
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.labeling.layout.evaluation.config import LayoutEvaluationConfig
from gazetteer.labeling.layout.evaluation.evaluate import evaluate_layout
from gazetteer.labeling.layout.evaluation.model_pass import halved
from gazetteer.labeling.layout.label_layout import layout_of_labels
from gazetteer.labeling.layout.model import fit_layout
from gazetteer.labeling.layout.run import open_run
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline
from tests.support.runs.layout_runs import GENERATION, pipeline_run, random_saes
from tests.support.runs.runs import blank

CONFIG = LayoutEvaluationConfig(resamples=5, train_images=4, heldout_images=2)
COND = replace(GENERATION, branches=("cond",))


def measured(path: Path, generation: GenerationConfig, config: LayoutEvaluationConfig = CONFIG) -> dict:
    pipe, saes = tiny_pipeline(), random_saes(generation)
    run = open_run(pipeline_run(path, pipe, saes, generation=generation))
    assert fit_layout(run, saes).saes.keys() == set(generation.sites)
    return evaluate_layout(run, saes, np.eye(3), config, pipe, generation)


def test_a_step_that_two_t_of_the_run_share_is_measured_at_both(tmp_path: Path) -> None:
    """Of 4 steps, 0.1 and 0 name the last; at 0.33 the nearest is 0.1."""
    result = measured(tmp_path / "run", replace(COND, steps=4, t=(1.0, 0.1, 0.0)))
    assert list(result["miou"]) == ["1.00", "0.67", "0.33", "0.10", "0.00"]
    assert all("attention" in methods for methods in result["miou"].values())


def test_a_third_is_the_same_moment_for_tables_autoencoders_and_steps(tmp_path: Path) -> None:
    result = measured(tmp_path / "run", replace(COND, steps=4, t=(1.0, 1 / 3)))
    assert list(result["miou"]) == ["1.00", "0.67", "0.33", "0.00"]
    assert result["autoencoder_t"]["0.33"] == 0.333333 and "gazetteer_nearest" not in result["miou"]["0.33"]
    assert all("attention" in methods for methods in result["miou"].values())


def test_steps_that_results_would_name_alike_are_measured_once(tmp_path: Path) -> None:
    result = measured(tmp_path / "run", replace(COND, steps=112, blocks=BLOCKS[:1], t=(1.0, 0.5, 0.0)))
    assert len(result["miou"]) == len(result["autoencoder_t"]) == 101
    assert result["autoencoder_t"]["0.50"] == 0.5 and "gazetteer_nearest" not in result["miou"]["0.50"]


@pytest.mark.parametrize("baselines", [False, True])
def test_labels_of_other_moments_alone_are_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, baselines: bool
) -> None:
    """The run's codes of the last step are not those of the first step's autoencoder, which the labels are of."""
    pipe, saes, schema = tiny_pipeline(), random_saes(COND), FINAL_TABLES["candidates"]
    sure = {"concept": "boat", "kind": "thing", "q_value": 0.01, "lift": 2.0, "precision": 0.5, "dataset_iou": 0.3}
    rows = [blank(schema, block=BLOCKS[0], branch="cond", t=1.0, feature=n, trusted=True, **sure) for n in range(48)]
    store = pipeline_run(tmp_path / "run", pipe, saes, generation=COND)
    usual, candidates = store.read_final, pa.Table.from_pylist(rows, schema=schema)
    run = open_run(store)
    monkeypatch.setattr(
        type(store),
        "read_final",
        lambda _, name, columns: candidates.select(columns) if name == "candidates" else usual(name, columns),
    )
    config = replace(CONFIG, every_step=baselines, baselines=baselines)
    result = evaluate_layout(run, saes, np.eye(3), config, pipe, COND)
    assert {t for t, methods in result["miou"].items() if "labels" in methods} == set(result["miou"]) - {"0.00"}
    assert result["left_out"]["labels"].startswith("at t = 0.00: candidates.parquet has labels of")
    assert result["left_out"]["labels_winners"].startswith("labels.parquet names no thing")


def test_attention_of_uneven_sides_lies_on_the_grid_that_the_unet_comes_to() -> None:
    assert [halved((75, 50), cells, "a") for cells in (3750, 950, 247, 70)] == [(75, 50), (38, 25), (19, 13), (10, 7)]
    assert [halved((64, 48), cells, "a") for cells in (3072, 768, 48)] == [(64, 48), (32, 24), (8, 6)]
    with pytest.raises(InputError, match=r"mid\.attn2 attends from 71 cells, to which latents of 75 x 50"):
        halved((75, 50), 71, "mid.attn2")


def test_autoencoders_are_named_as_a_configuration_names_them(tmp_path: Path) -> None:
    """By the run as by a table of labels: a folder of sites, or patterns of sites."""
    saes, schema, folder = random_saes(COND), FINAL_TABLES["candidates"], tmp_path / "saes"
    for site, sae in saes.items():
        sae.save_pretrained(folder / site.slug, {"site": site.columns()})
    run = open_run(pipeline_run(tmp_path / "run", tiny_pipeline(), saes, generation=COND))
    sure = {"concept": "boat", "kind": "thing", "q_value": 0.01, "lift": 2.0, "precision": 0.5, "dataset_iou": 0.3}
    row = blank(schema, block=BLOCKS[0], branch="cond", t=1.0, feature=3, trusted=True, **sure)
    table, first = pa.Table.from_pylist([row], schema=schema), str(folder / Site(BLOCKS[0], "cond", 1.0).slug)
    for given in (folder, str(folder), {"*": str(folder)}):
        for loaded in (fit_layout(run, given).saes, layout_of_labels(table, given).saes):
            assert loaded and all(torch.equal(loaded[site].decoder, saes[site].decoder) for site in loaded)
    assert len(layout_of_labels(table, {"*": first}).saes) == 1
    with pytest.raises(InputError, match="none matches"):
        layout_of_labels(table, {BLOCKS[1]: first})
