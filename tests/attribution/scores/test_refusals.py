"""What cannot be scored or taken is said before anything is sampled, and by its own reason; made scores stay."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gazetteer import load_components
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.objective.problem import Problem
from gazetteer.attribution.objective.samples import Samples, predict
from gazetteer.attribution.scores import score as score_module
from gazetteer.attribution.scores.estimators import estimate
from gazetteer.attribution.scores.score import NothingTakenError, ScoreConfig, score_weights
from gazetteer.attribution.scores.selection import Selection, require_some
from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.tables.provenance import read_provenance
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments import attribute_edit
from gazetteer.jobs.experiments.attribute_edit import EditConfig, make_edit
from gazetteer.jobs.experiments.attribute_score import score
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

FEATURE = {"feature": "mid_block.attentions.0-cond-t0.00:3", "prompts": ("a dog at night",)}


def mean_square(unet: nn.Module, samples: Samples) -> Tensor:
    """An objective of a user's own, no squared distance to the estimators."""
    return (predict(unet, samples, samples.cond).float() ** 2).flatten(1).mean(1)


def only_lowered(unet: nn.Module, samples: Samples) -> Tensor:
    """J = Σ w² of the text's attention - Σ w² of the feed-forward layers: zeroing any weight of these raises it."""
    squares = [
        (1.0 if ".attn2." in name else -1.0) * (w.float() ** 2).sum()
        for name, w in unet.named_parameters()
        if (".attn2." in name or ".ff." in name) and w.ndim == 2
    ]
    return torch.stack(squares).sum().expand(len(samples))


def nothing(unet: nn.Module, samples: Samples) -> Tensor:
    """J = 0 whatever the weights are."""
    return 0 * predict(unet, samples, samples.cond).float().flatten(1).sum(1)


OWN = f"{__name__}:mean_square"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"concept": "dog", "estimator": "caad"}, "Unknown estimator 'caad'; accepted: cad, integrated"),
        ({"concept": "dog", "estimator": "curved", "objective": "amplify"}, "as erase is, not amplify"),
        (
            {**FEATURE, "estimator": "iterated"},
            "iterated needs an objective that is a squared distance.* not a feature",
        ),
        ({"concept": "dog", "scope": "fff"}, "scope is 'fff'; accepted: ff, cross"),
        ({"concept": "dog", "per": "column"}, "per is 'column'; accepted: row, layer, global"),
    ],
)
def test_what_never_fits_is_refused_before_a_model_is_read(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ScoreConfig(**wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"objective": "erase_live"}, "The objective"),
        ({"objective": OWN, "estimator": "curved"}, f"squared distance, as erase is, not {OWN}"),
        (
            {"fraction": 0.0001, "per": "row", "estimator": "finite"},
            r"a row of fewer than 10000 weights gives up none.*",
        ),
        (
            {"fraction": 0.00001},
            r"per layer takes no weight here \(a layer of fewer than 100000 weights.*; raise --frac",
        ),
        ({"fraction": 1e-9, "per": "global"}, r"per global takes no weight here \(a scope of fewer than"),
        ({"preset": "cad"}, r"0\.001 per row takes no weight here .*; leave out --preset cad, which sets it\."),
    ],
)
def test_what_does_not_fit_this_model_is_refused_before_anything_is_sampled(
    wrong: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_module, "trajectory", lambda *_, **__: pytest.fail("sampled first"))
    with pytest.raises(InputError, match=said) as refused:
        score_weights(tiny_pipeline(), ScoreConfig(concept="dog", steps=2, **wrong))
    assert ("--per layer" in str(refused.value)) == (wrong.get("per") == "row")


def test_so_does_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    run = load_config(None, [f"model.path={tmp_path / 'model'}"])
    monkeypatch.setattr(attribute_edit.Methods, "edit", lambda *_: pytest.fail("sampled first"))
    methods = {"steps": "global", "random": "global", "cad": "layer", "repaired": "layer", "published": "row"}
    for method, per in methods.items():
        config = EditConfig("dog", method=method, fraction=1e-6, sheet=0, pool=40)
        with pytest.raises(InputError, match=rf"1e-06 per {per} takes no weight here .*; raise --fraction\.$"):
            make_edit(run, MethodConfig(steps=2), config, str(tmp_path / "out"), lambda: pytest.fail("promised first"))
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(GazetteerError, match=r"^Cannot write .* \(Not a directory\).*run the same command again\.$"):
        make_edit(run, MethodConfig(steps=2), EditConfig("dog", sheet=0, pool=40), str(tmp_path / "file" / "out"))


def test_so_is_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    run = load_config(None, [f"model.path={tmp_path / 'none'}"])  # which would be the sentence if it were looked at
    with pytest.raises(GazetteerError, match=r"^Cannot write .* \(Not a directory\).*run the same command again\.$"):
        score(run, ScoreConfig(concept="dog", steps=2), str(tmp_path / "file" / "out"))


def test_scores_of_which_nothing_can_be_taken_are_written_and_the_reason_said(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    run = load_config(None, [f"model.path={tmp_path / 'model'}"])
    lowered = ScoreConfig(concept="dog", objective=f"{__name__}:only_lowered", fraction=0.02, steps=2)
    with pytest.raises(InputError, match=r"scope ff has a score above 0, and only such are taken.* The scores are in "):
        score(run, lowered, str(tmp_path / "out"))
    assert [file.name for file in (tmp_path / "out").glob("[a-z]*")] == ["components.parquet"]
    rows = load_components(tmp_path / "out", concept="dog").to_pylist()
    assert rows and all(row["score"] < 0 and row["chosen"] == 0 for row in rows)
    with pytest.raises(NothingTakenError, match=r"predicts the same for 'dog' as for 'dog' \(J is 0\)") as same:
        score_weights(tiny_pipeline(), ScoreConfig(concept="dog", base="dog", steps=2))
    assert same.value.scored.value == 0 and not same.value.scored.chosen
    silent = ScoreConfig(concept="dog", objective=f"{__name__}:nothing", steps=2)
    with pytest.raises(NothingTakenError, match="All scores of the scope ff are 0"):  # whatever a base would be
        score_weights(tiny_pipeline(), silent)


def test_what_is_advised_where_nothing_is_taken_can_be_done_in_the_same_folder(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    run, out = load_config(None, [f"model.path={tmp_path / 'model'}"]), tmp_path / "out"
    same = ScoreConfig(concept="dog", base="dog", fraction=0.02, steps=2)
    with pytest.raises(InputError, match=r"name another --base\.$"):
        score(run, same, str(out))
    assert not out.exists()  # zeros are no loss
    score(run, dataclasses.replace(same, base="boat"), str(out))
    lowered = dataclasses.replace(same, base="", objective=f"{__name__}:only_lowered")
    with pytest.raises(InputError, match="name another --scope"):
        score(run, lowered, str(out))
    done = score(run, dataclasses.replace(lowered, objective=f"{__name__}:only_lowered", scope="cross"), str(out))
    rows = load_components(out, concept="dog").to_pylist()
    assert done["weights"] and all("attn2" in row["module"] for row in rows if "lowered" in row["objective"])
    calls = read_provenance(out / "components.parquet")["config"]
    assert calls["scope"] == "cross" and [call["base"] for call in calls["others"]] == ["boat"]
    with pytest.raises(InputError, match=r"of other settings .*scope: cross there, ff now"):
        score(run, lowered, str(out))


def test_a_feature_that_never_fires_says_so(tmp_path: Path) -> None:
    site = Site(BLOCKS[1], "cond", 0.0)
    silent = SparseAutoencoder(SAEConfig(d=32, n=64, k=4)).initialise(0)
    with torch.no_grad():
        silent.encoder[3] = 0.0
    silent.save_pretrained(tmp_path / site.slug)
    with pytest.raises(InputError, match=r"The feature fires nowhere on these prompts \(J is 0\)"):
        score_weights(tiny_pipeline(), ScoreConfig(**FEATURE, steps=2), str(tmp_path))


def test_scores_that_are_not_finite_are_refused_with_the_type() -> None:
    """As gradients of float16 come out that overflow: they would sort before all others and then be left out."""
    layer = nn.Linear(4, 1, bias=False).half()
    problem = Problem(layer, {"weight": layer.weight}, (lambda: (layer.weight * 1e4).sum() * torch.tensor(1e4).half(),))
    with pytest.raises(
        InputError, match=r"4 of 4 scores by cad are not finite numbers.* in float16 .*model\.dtype=float32"
    ):
        estimate("cad", problem)


def test_a_fraction_is_judged_by_shapes_alone() -> None:
    weights = {"a": torch.zeros(2, 50), "b": torch.zeros(1, 10)}
    for selection in (Selection(0.02, "row"), Selection(0.01, "layer"), Selection(0.0091, "global")):
        require_some(weights, selection)
    for selection in (Selection(0.019, "row"), Selection(0.009, "layer"), Selection(0.009, "global")):
        with pytest.raises(InputError, match="takes no weight here"):
            require_some(weights, selection)
