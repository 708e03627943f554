"""An option that would do nothing is refused, and one that says something is heard."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from gazetteer.attribution.edits.method_names import PARTS
from gazetteer.attribution.evaluation.checks import check_heard
from gazetteer.attribution.protocols.run import ProtocolConfig
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
from gazetteer.jobs.label.progress.logs import logging_to
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


@pytest.mark.parametrize(
    ("words", "stopped", "ends"),
    [
        (["causal", "{run}", "--sweep"], "verbs.steer.configuration", "stopped."),
        (["causal", "{run}"], "verbs.steer.configuration", "it goes on from here."),
        (["attribute", "evaluate"], "verbs.attribute.configuration", "stopped."),
        (["attribute", "evaluate", "--out", "{run}"], "verbs.attribute.configuration", "it goes on from here."),
        (["attribute", "protocol", "coco", "--model", "m", "--out", "o"], "verbs.protocol._painted_by",
         "it goes on from here."),
    ],
)  # fmt: skip
def test_only_what_is_resumed_says_so_when_it_is_stopped(
    words: list[str], stopped: str, ends: str, run: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"gazetteer.jobs.cli.{stopped}", stop)
    assert main([word.format(run=run) for word in words]) == 130
    assert capsys.readouterr().err.strip().endswith(ends)


@pytest.mark.parametrize("key", ["windows", "strengths", "places"])
def test_a_sweep_of_nothing_is_refused(key: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["causal", str(run), "--sweep", "--set", f"causal.{key}=[]"]) == 2
    assert f"causal.{key} must not be empty" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("protocol", "words", "said"),
    [
        ("imagenette", ["--prompts", "p.csv"], "--prompts is about i2p and coco, and the protocol is imagenette"),
        ("imagenette", ["--column", "text"], "--column is about i2p and coco"),
        ("imagenette", ["--reference", "photos"], "--reference is about coco"),
        ("imagenette", ["--clip", "a/b"], "--clip is about coco"),
        ("i2p", ["--prompts", "p.csv", "--reference", "photos"], "--reference is about coco, and the protocol is i2p"),
        ("i2p", ["--prompts", "p.csv", "--clip", "a/b"], "--clip is about coco"),
        (
            "coco",
            ["--prompts", "p.csv", "--target", "church"],
            "--target is about imagenette, and the protocol is coco",
        ),
        ("coco", ["--prompts", "p.csv", "--classifier", "resnet18"], "--classifier is about imagenette"),
        ("i2p", ["--prompts", "p.csv", "--weights", "w.pt"], "--weights is about imagenette"),
    ],
)
def test_what_a_protocol_does_not_hear_is_refused(
    protocol: str, words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["attribute", "protocol", protocol, "--model", "no/model", "--out", out, *words]) == 2
    assert said in capsys.readouterr().err


def test_what_a_protocol_hears_is_as_it_was() -> None:
    assert ProtocolConfig("imagenette").told["target"] == "parachute"
    told = ProtocolConfig("coco", prompts="p.csv", reference="photos").told
    assert (told["prompts"], told["column"], told["reference"]) == ("p.csv", "prompt", "photos")


@pytest.mark.parametrize(
    ("estimator", "option"),
    [("cad", "points"), ("cad", "ablations"), ("cad", "groups"), ("finite", "ablations"), ("coar", "points"),
     ("random", "points"), ("integrated", "groups")],
)  # fmt: skip
def test_what_an_estimator_does_not_hear_is_refused(
    estimator: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["attribute", "score", "--concept", "dog", "--estimator", estimator, "--out", str(tmp_path / "out")]
    assert main([*words, f"--{option}", "9"]) == 2
    assert f"--{option} is about " in capsys.readouterr().err


def test_what_an_estimator_hears_is_as_it_was() -> None:
    assert ScoreConfig("dog").told == {"points": 8, "ablations": 500, "groups": 200}
    assert ScoreConfig("dog", estimator="coar", ablations=9, groups=3).told == {
        "points": 8,
        "ablations": 9,
        "groups": 3,
    }
    assert all(ScoreConfig("dog", estimator=name, points=2).told["points"] == 2 for name in ("curved", "iterated"))


@pytest.mark.parametrize(
    ("parts", "words", "said"),
    [
        (
            ["erase"],
            ["--attacks", "paraphrase"],
            "--attacks says something to attacks alone, and --parts leaves that out",
        ),
        (["faithfulness", "heldout"], ["--methods", "cad"], "--methods says something to erase, amplify, styles"),
        (["styles", "areas"], ["--concepts", "dog"], "--concepts says something to erase, amplify, attacks"),
        (["styles"], ["--concepts", "night"], "out (styles are of all that the model shows, as one set); leave"),
    ],
)
def test_what_no_part_of_an_evaluation_hears_is_refused(
    parts: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["attribute", "evaluate", "--set", "model.path=/nowhere", "--parts", *parts, *words]) == 2
    assert said in capsys.readouterr().err


def test_what_some_part_of_an_evaluation_hears_is_taken() -> None:
    check_heard(PARTS, ["dog"], ["cad"], ["paraphrase"])
    check_heard(["heldout"], ["dog"])
    check_heard(["attacks"], ["dog"], ["cad"], ["paraphrase"])


def test_a_threshold_that_is_given_is_estimated_on_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sae", "threshold", "--out", str(tmp_path / "out"), "--threshold", "0.5"]
    assert main([*words, "--pictures", "4"]) == 2
    assert "--pictures says on how many one is estimated; name one" in capsys.readouterr().err
    assert main(words) == 2 and "there is nothing to estimate" in capsys.readouterr().err


def test_a_log_that_cannot_be_opened_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, own = logging.getLogger("gazetteer.x"), str(tmp_path / "not" / "there" / "own.jsonl")
    with logging_to(tmp_path / "nowhere" / "log.jsonl", tmp_path / "log.jsonl", own=[own]):
        log.info("run started")
        log.info("run complete")
    said = capsys.readouterr().err
    assert said.count("cannot be written (No such file or directory)") == 1
    assert f"The log {tmp_path}/nowhere/log.jsonl cannot be written" in said, "one's own log is nobody's wish"
    assert (tmp_path / "log.jsonl").read_text().count("run ") == 2
