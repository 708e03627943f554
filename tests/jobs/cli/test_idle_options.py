"""An option that would do nothing is refused, and one that says something is heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gazetteer.attribution.scores.score import ScoreConfig
from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.cli.parser import parser
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments import layout
from gazetteer.jobs.experiments.causal import sweep
from gazetteer.jobs.experiments.causal.choose import best_of_concepts
from gazetteer.jobs.experiments.draw import draw
from tests.support.runs.atlas_run import make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path / "run")
    return tmp_path / "run"


def test_options_of_one_export_are_refused_for_another(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out.csv")
    for words, said in (
        (["--csv", out, "--no-pictures"], "--no-pictures is for --coco alone"),
        (["--coco", out, "--table", "features"], "--table says which table --csv writes"),
    ):
        assert main(["export", str(run), *words]) == 2
        assert said in capsys.readouterr().err
        assert not Path(out).exists()
    assert main(["export", str(run), "--csv", out]) == 0
    assert "dataset_iou" in Path(out).read_text().splitlines()[0]


def test_a_folder_is_not_published_to_everybody(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", str(run), "--to", str(tmp_path / "out"), "--public"]) == 2
    assert "--public is about repositories of the hub" in capsys.readouterr().err


def test_a_calibrated_layout_has_a_prior_of_its_own(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--prior adds nothing"):
        layout.predict(load_config(None), str(run), "a dog", 0, tmp_path / "out", prior=True, calibrated=True)


@pytest.mark.parametrize(
    ("words", "features", "images"),
    [
        ([], 32, 8), (["--features", "0"], 0, 8), (["--features", "5", "--images", "3"], 5, 3),
        (["--set", "causal.images=6"], 32, 6),
    ],
)  # fmt: skip
def test_a_sweep_takes_as_many_as_are_asked_for(
    words: list[str], features: int, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def chosen(_: Any, most: int) -> list[Any]:
        seen["features"] = most
        return []

    def loaded(_: Any, __: Any, shared: Any, ___: Any) -> None:
        seen["images"] = len(shared)
        raise InputError("enough")

    monkeypatch.setattr(sweep, "finished_run", lambda *_: None)
    monkeypatch.setattr(sweep, "asked_concepts", lambda *_: ())
    monkeypatch.setattr(sweep, "starts_of", lambda *_: tuple(range(40)))
    monkeypatch.setattr(sweep, "best_of_concepts", chosen)
    monkeypatch.setattr(sweep, "load_causal_test", loaded)
    monkeypatch.setattr("gazetteer.jobs.cli.verbs.steer.configuration", lambda a: load_config(None, a.overrides))
    assert main(["causal", "run", "--sweep", *words]) == 2
    assert seen == {"features": features, "images": images}


def test_none_at_most_means_the_best_of_every_concept(run: Path) -> None:
    assert len(best_of_concepts(RunFolder(run), 1)) == 1 < len(best_of_concepts(RunFolder(run), 0))


@pytest.mark.parametrize("words", [["--exact-images", "3"], ["--exact", "{run}", "--exact-images", "-3"]])
def test_pictures_of_no_folder_are_not_counted(run: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layout", "evaluate", str(run), *(word.format(run=run) for word in words)]) == 2
    assert "--exact-images counts pictures of the folder --exact" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--tflops", "nan"], ["--price", "inf"], ["--price", "-1"], ["--devices", "0"]])
def test_a_plan_is_priced_by_numbers(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    assert "numbers from 0 on" in capsys.readouterr().err


def test_a_configuration_that_quality_would_not_read_is_refused_and_a_wrong_one_at_once(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gazetteer.labeling.quality.report.run_quality", lambda *_, **__: pytest.fail("minutes"))
    assert main(["quality", str(run), "--no-accuracy", "--set", "accuracy.images=3"]) == 2
    assert "with --no-accuracy leave them out" in capsys.readouterr().err
    assert main(["quality", str(run), "--set", "acuracy.images=3"]) == 2
    assert "acuracy" in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", "9223372036854775808", "99999999999999999999"])
def test_a_seed_out_of_range_is_refused_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], seed: str
) -> None:
    score, painted = ["attribute", "score", "--concept", "dog"], ["--out", "out", f"--seed={seed}"]
    for words in (
        ["steer", "draw", "--edits", "none.yaml", "--prompt", "a dog"],
        ["layout", "predict", "run", "--prompt", "a dog"],
        ["rate", "run"],
        score,
        ["attribute", "protocol", "coco", "--model", "model"],
    ):
        with pytest.raises(SystemExit):
            parser().parse_args([*words, *painted])
        assert "argument --seed: must be a whole number from 0 to 2^63 - 1" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"seed must be"):
        ScoreConfig(concept="dog", seed=int(seed))
    with pytest.raises(InputError, match=r"seed must be a whole number from 0"):
        draw(load_config(None, ["model.path=/nowhere"]), "a dog", int(seed))
