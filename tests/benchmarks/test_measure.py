"""One command that measures a world again: each piece kept, nothing made twice, and tables of all there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import measure
from benchmarks.measured.pieces import _label
from benchmarks.measured.tables import tables
from gazetteer.data.scenes.weights import world_views

INTERVAL = [0.5, 0.25, 0.75]


def test_a_piece_is_made_once_until_its_command_or_the_models_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With pieces that take no time: one that prints JSON, one that fails, one that needs what failed."""
    script = "import json, os; print(json.dumps({'models': os.environ['GAZETTEER_SCENES_MODELS']}))"
    (tmp_path / "saying.py").write_text(script)
    (tmp_path / "failing.py").write_text("raise SystemExit(1)")
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    pieces = (
        measure.Piece("label", (), lambda _: ["saying"]),
        measure.Piece("exact", (), lambda s: ["failing", *s.overrides]),
        measure.Piece("attribution", ("exact",), lambda _: ["saying"]),
    )
    monkeypatch.setattr(measure, "PIECES", pieces)
    models = tmp_path / "models"
    for name in measure.NEEDED:
        (models / name).mkdir(parents=True)
        (models / name / "weights").write_text(name)
    (models / "world.json").write_text(json.dumps({"views": world_views()}))
    command = ["--out", str(tmp_path / "out"), "--models", str(models)]
    assert measure.main(command) == 1
    said = capsys.readouterr().err
    assert "exact failed with 1" in said and "== attribution: left out, for it needs exact" in said
    found = json.loads((tmp_path / "out" / "measured.json").read_text())
    assert found["label"]["result"] == {"models": str(models)} and found["exact"] is found["attribution"] is None
    assert "Not measured: exact, attribution." in (tmp_path / "out" / "measured.md").read_text()
    (tmp_path / "failing.py").write_text(script)
    assert measure.main(command) == 0 and "== label" not in capsys.readouterr().err
    assert measure.main([*command, "--plan"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"done"}
    (models / "detector" / "weights").write_text("trained on")
    assert measure.main([*command, "--plan", "--only", "label"]) == 0
    assert capsys.readouterr().out.startswith("to do label")
    assert measure.main(["--out", str(tmp_path / "out"), "--models", str(tmp_path)]) == 2
    (models / "world.json").write_text(json.dumps({"views": ["sky"]}))
    assert measure.main([*command, "--plan"]) == 2 and "of other views" in capsys.readouterr().err
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "prompts.txt").write_text("a dog")
    monkeypatch.setattr(measure, "PIECES", (measure.Piece("label", (), _label),))
    assert measure.main([*command, "--plan", "--only", "label"]) == 0
    assert f"prompts.path={tmp_path / 'prompts' / 'prompts.txt'}" in capsys.readouterr().out


def test_a_piece_goes_by_what_it_reads_and_not_by_what_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts and views count; a transformer that comes, and what is said of hours, do not."""
    models, prompts, said = tmp_path / "models", tmp_path / "prompts", list[str]()
    for folder in (models / "detector", models / "text_to_image_dit", prompts):
        folder.mkdir(parents=True)
    (models / "detector" / "weights").write_text("before")
    (models / "world.json").write_text('{"views": ["sky"], "training": {}}')
    (prompts / "prompts.txt").write_text("a dog")
    (tmp_path / "saying.py").write_text("print('{}')")
    (tmp_path / "training.py").write_text("import pathlib\npathlib.Path('models/detector/weights').write_text('after')")
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    piece = measure.Piece("label", (), lambda _: ["saying"])
    setting = measure.Setting(tmp_path / "out", models, prompts, "full", ())

    def made_again() -> bool:
        again = measure.kept(setting, piece) is None
        assert measure._make(setting, piece, said.append) is not None
        return again

    assert made_again() and not made_again()
    (models / "text_to_image_dit" / "weights").write_text("trained since")
    (models / "world.json").write_text('{"views": ["sky"], "training": {"detector": {"steps": 3}}}')
    assert not made_again()
    (models / "world.json").write_text('{"views": [], "training": {}}')
    assert made_again()
    (prompts / "prompts.txt").write_text("a boat")
    assert made_again()
    changing = measure.Piece("exact", (), lambda _: ["training"])
    assert measure._make(setting, changing, said.append) is None and measure.kept(setting, changing) is None
    assert "changed while it ran" in said[-1], "nobody knows which models it measured"


def test_pieces_run_side_by_side_as_soon_as_what_they_need_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first piece ends when the second, which needs nothing of it, has begun; the third needs both."""
    (tmp_path / "first.py").write_text(
        "import json, pathlib, time\n"
        "end = time.monotonic() + 60\n"
        "while not pathlib.Path('second.begun').exists():\n"
        "    time.sleep(0.01)\n"
        "    assert time.monotonic() < end\n"
        "print(json.dumps({'came': 'after'}))"
    )
    (tmp_path / "second.py").write_text("import pathlib\npathlib.Path('second.begun').touch()\nprint('no JSON')")
    (tmp_path / "third.py").write_text("print('{}')")
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    scripts = {"label": "first", "nothing": "third", "third": "third", "exact": "second"}
    needs = {"third": ("label", "exact"), "exact": ("nothing",)}
    pieces = tuple(
        measure.Piece(name, needs.get(name, ()), lambda _, script=script: [script]) for name, script in scripts.items()
    )
    monkeypatch.setattr(measure, "PIECES", pieces)
    monkeypatch.setattr(measure, "tables", lambda results: f"{len(results)}")
    setting = measure.Setting(tmp_path / "out", tmp_path, None, "quick", ())
    results = measure.measure(setting, [piece for piece in pieces if piece.name == "nothing"], lambda _: None, 2)
    assert [name for name, result in results.items() if result] == ["nothing"]
    results = measure.measure(setting, pieces, lambda _: None, 2)  # "exact" needs what was made before
    assert list(results) == ["label", "nothing", "third", "exact"] and results["nothing"]["result"] == {}
    assert results["label"]["result"] == {"came": "after"} and results["exact"]["result"] == {"said": "no JSON\n"}
    assert results["third"]["result"] == {} and all(r["cpu_seconds"] >= 0 for r in results.values() if r)


def test_every_piece_is_a_command_that_is_understood(tmp_path: Path) -> None:
    from gazetteer.attribution.evaluation.checks import check_heard
    from gazetteer.jobs.cli.parser import parser
    from gazetteer.jobs.config.schema import load_config

    of_dit = [(size, "scenes-dit") for size in measure.SIZES[:2]]
    for size, config in [*((size, "") for size in measure.SIZES), *of_dit]:
        setting = measure.Setting(tmp_path, tmp_path / "models", tmp_path / "prompts", size, (), config)
        for piece in measure.PIECES:
            words = piece.command(setting)
            if words[0] == "gazetteer":
                parsed = parser().parse_args(words[1:])
                assert parsed.json, piece.name
                if words[1:3] == ["attribute", "evaluate"]:
                    check_heard(parsed.parts, parsed.concepts, parsed.methods, parsed.attacks)
                assert not {"RUN", "OUT"} & {word.partition("/")[0] for word in words}
                settings = words[words.index("--set") + 1 :] if "--set" in words else []
                preset = words[words.index("--config") + 1] if "--config" in words else None
                load_config(preset, [word for word in settings if not word.startswith("--")])


def test_another_model_of_the_world_is_measured_by_the_same_pieces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    for name in (*measure.NEEDED, "text_to_image_dit"):
        (models / name).mkdir(parents=True)
        (models / name / "weights").write_text(name)
    (models / "world.json").write_text(json.dumps({"views": world_views()}))
    (models / "text_to_image_dit" / "weights").rename(models / "text_to_image_dit" / "ABSENT.txt")
    command = ["--out", str(tmp_path / "out"), "--models", str(models), "--config", "scenes-dit", "--plan"]
    assert measure.main(command) == 2 and "has no text_to_image_dit" in capsys.readouterr().err
    (models / "text_to_image_dit" / "weights").write_text("of the repository alone, as the note beside it says")
    assert measure.main(command) == 2 and "has no saes_dit" in capsys.readouterr().err
    (models / "saes_dit").mkdir()
    (models / "saes_dit" / "weights").write_text("trained")
    assert measure.main(command) == 0
    said = capsys.readouterr().out
    assert f"--config scenes-dit --set model.path={models}/text_to_image_dit saes={models}/saes_dit" in said
    assert "steering:" in said and "steering_mid" not in said, "the mid block is of U-Nets"
    setting = measure.Setting(tmp_path, models, None, "full", (), "scenes-dit")
    before, unet = measure._made_with(setting, measure.PIECES[0]), measure.Setting(tmp_path, models, None, "full", ())
    of_unet = measure._made_with(unet, measure.PIECES[0])
    (models / "saes_dit" / "weights").write_text("trained since")
    assert measure._made_with(setting, measure.PIECES[0]) != before
    assert measure._made_with(unet, measure.PIECES[0]) == of_unet


def test_the_tables_say_what_was_found_and_all_rows_are_whole() -> None:
    site = {"block": "mid", "branch": "cond", "t": 0.5, "mean_heldout_iou": 0.4, "ceiling": None, "miou": INTERVAL}
    accuracy = {
        "labels": 3,
        "right": INTERVAL,
        "curve": [[3, 0.5]],
        "by_kind": {"thing": {"labels": 3, "right": INTERVAL}},
    }
    steering = {"spatial": {"early": {"gazetteer": INTERVAL}}, "spatial_setting": {"early": "1 cond"}}
    causal = dict.fromkeys(("features", "labels", "confirmed", "contradicted", "no_effect", "undecided"), 2)
    causal |= {
        "power": None,
        "labels_rising": 0.5,
        "other_pairs_rising": 0.1,
        "effect_without_label": 1,
        "images_used": 9,
    }
    rules = [f"{rule}{how}" for rule in ("trusted", "q", "paper") for how in ("", "_shuffled")]
    erased = {name: {"target": INTERVAL, "weights": 3.0, "concepts": ["sky"]} for name in ("cad", "random")}
    attacks = {"cad": {"named": {"shown": INTERVAL, "by_concept": {"sky": 0.5}, "pictures": 4}}}
    measured = {
        "quality": {"sites": [site], "kinds": {"thing": 3}, "accuracy": accuracy,
                    "shuffled": dict.fromkeys(rules, 1)},
        "layout": {"miou": {"0.50": {"labels": INTERVAL}}, "sites": [site], "exact": {}},
        "steering": steering, "steering_mid": steering, "steering_both": steering, "steering_windows": steering,
        "causal": causal,
        "placing": {"pictures": 8, **{name: {"placed": 4, "share": INTERVAL} for name in ("none", "edited")}},
        "examine": {"examiners": {"causal_verdict": {"labels": 2, "auroc": INTERVAL, "same_labels": 1,
                                                     "same": [None] * 3}},
                    "retrieval": [{"site": "mid", "map": 0.1, "purity_at_16": 0.2, "coverage": None}]},
        "attribution": {"erase": erased, "attacks": {}},
        "looks": {"erase": {"cad": erased["cad"]}, "erase_styles": {"uce": erased["cad"]}},
        "attacks": {"erase": {"cad": erased["cad"]}, "attacks": attacks},
        "faithfulness": {"erase": {}},
        "nulls": {"open": {"tested": 5, "rejected": 0, "trusted": 0, "p_below_05": 0.04}},
    }  # fmt: skip
    assert {"label", "exact", *measured} == {piece.name for piece in measure.PIECES}  # each of them has a table
    page = tables(
        {name: {"command": f"do {name}", "cpu_seconds": 1.0, "result": one} for name, one in measured.items()}
    )
    blocks = [part.splitlines() for part in page.split("\n\n") if part.startswith("|")]
    assert len(blocks) == 15 and all(len({row.count("|") for row in block}) == 1 for block in blocks)
    assert all(f"do {name}" in page for name in measured)
    assert "| `random` | 0.50" in page and "| `cad` | named | 0.50 | 4 |" in page  # two pieces, one table
    assert "| steering_mid | early | `gazetteer` | 0.50 [0.25, 0.75] | 1 cond |" in page
