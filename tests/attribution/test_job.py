"""The attribute verbs and the whole evaluation on a tiny real pipeline."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gazetteer import load_components
from gazetteer.attribution.attacks.relearning import Relearning
from gazetteer.attribution.edits.defaults import dose
from gazetteer.attribution.edits.delta import applied
from gazetteer.attribution.edits.delta_file import load_delta, save_delta
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.evaluation import suite
from gazetteer.attribution.evaluation.evaluate import EvaluationConfig
from gazetteer.attribution.evaluation.resistance import ResistanceConfig
from gazetteer.attribution.evaluation.suite import Subject, SuiteConfig, full, quick
from gazetteer.attribution.faithfulness.heldout import HeldoutConfig
from gazetteer.attribution.faithfulness.study import FaithfulnessConfig
from gazetteer.attribution.objective.prompts import names, paraphrases, without
from gazetteer.attribution.scores.score import ScoreConfig
from gazetteer.data.core.errors import InputError
from gazetteer.data.tables.provenance import read_provenance
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.jobs.cli.main import parser
from gazetteer.jobs.config.schema import RunConfig, load_config
from gazetteer.jobs.experiments import attribute_evaluate
from gazetteer.jobs.experiments.attribute_edit import EditConfig, make_edit
from gazetteer.jobs.experiments.attribute_evaluate import evaluate
from gazetteer.jobs.experiments.attribute_report import print_edit, print_evaluation
from gazetteer.jobs.experiments.attribute_score import apply_edit, score
from gazetteer.jobs.experiments.attribute_sheet import write_sheet
from gazetteer.labeling.atlas.sheets import write_edits
from tests.support.models.tiny_pipeline import tiny_pipeline


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return load_config(None, [f"model.path={folder}"])


def digests(folder: Path) -> list[str]:
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()]


def test_score_apply_and_undo(run: RunConfig, tmp_path: Path) -> None:
    config = ScoreConfig(concept="dog", fraction=0.02, steps=3, by_step=True)
    done = score(run, config, str(tmp_path / "out"))
    table = load_components(tmp_path / "out", concept="dog")
    assert sum(table["chosen"].to_pylist()) == done["weights"] == len(load_delta(done["edit"]))
    assert sum(table["weights"].to_pylist()) == done["scored"]
    assert set(table["estimator"].to_pylist()) == {"cad"} and table.schema == load_components(done["components"]).schema
    assert done["asked"] == done["weights"] <= done["eligible"] and not done["short"]
    assert done["cost"] == {"values": 0, "gradients": 1}
    assert len(done["by_step"]) == 3 and sum(done["by_step"]) == pytest.approx(1)
    assert read_provenance(done["components"])["config"]["concept"] == "dog"
    assert pq.read_table(done["components"]).num_rows == table.num_rows
    source = Path(run.model.path)
    apply_edit(str(source), [done["edit"]], str(tmp_path / "edited"))
    undone = apply_edit(str(tmp_path / "edited"), [done["edit"]], str(tmp_path / "back"), undo=True)
    assert undone["undone"] and undone["rounding"] == "to what they were, bit for bit" and "rounded" not in undone
    assert digests(tmp_path / "edited") != digests(source) == digests(tmp_path / "back")
    other = score(run, dataclasses.replace(config, concept="house", by_step=False), str(tmp_path / "house"))
    both, edits = (
        parser().parse_args(
            [
                "attribute",
                "apply",
                "--model",
                str(source),
                "--out",
                str(tmp_path / "both"),
                "--edit",
                done["edit"],
                other["edit"],
            ]
        ),
        [load_delta(one["edit"]) for one in (done, other)],
    )
    assert both.action(both) == 0
    apply_edit(str(tmp_path / "both"), both.edit, str(tmp_path / "again"), undo=True)
    assert digests(tmp_path / "again") == digests(source)
    unet = load_pipeline(ModelConfig(str(source))).unet
    with applied(unet, *edits) as joined:
        assert len(joined) > max(len(edit) for edit in edits)
        found = load_pipeline(ModelConfig(str(tmp_path / "both"))).unet
        assert all(torch.equal(a, b) for a, b in zip(unet.parameters(), found.parameters(), strict=True))
    with pytest.raises(InputError, match="takes no weight here"):
        score(run, ScoreConfig(concept="dog", preset="cad", steps=2), str(tmp_path / "none"))
    for wrong in ({}, {"concept": "dog", "feature": "x:1"}, {"feature": "x:1"}, {"concept": "dog", "preset": "x"}):
        with pytest.raises(InputError):
            ScoreConfig(**wrong)  # type: ignore[arg-type]
    for name, value in (("scope", "cross"), ("fraction", 0.1), ("per", "layer")):
        with pytest.raises(InputError, match=f"cad sets {name} itself; leave out --{name} or --preset"):
            ScoreConfig(concept="dog", preset="cad", **{name: value})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"components\.parquet does not exist"):
        load_components(tmp_path)
    large = score(run, dataclasses.replace(config, fraction=0.9, by_step=False), str(tmp_path / "large"))
    assert large["weights"] == large["eligible"] < large["asked"] <= 0.9 * large["scored"]
    assert f"and {large['eligible']} have one" in large["short"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("score --concept zebrafish", "'zebrafish' is not in vocabulary.concepts"),
        ("score --concept boots", "'boots' is not in vocabulary.concepts or steer.words; did you mean boat?"),
        ("edit --concept Dogs --fraction 0", "fraction must be above 0, not 0.0"),
        ("evaluate --quick --concepts hose", "'hose' is not in vocabulary.concepts; did you mean house?"),
        ("score --concept dog --fraction 0", "fraction must be above 0, not 0.0"),
        ("edit --concept zebrafish", "'zebrafish' is not in vocabulary.concepts"),
        ("edit --concept dog --share 1.5", "fraction must be at most 1, not 1.5"),
        ("edit --concept dog --fraction 0", "fraction must be above 0, not 0.0"),
        ("edit --concept dog --method sae_ablate", "sae_ablate acts on features while the model runs"),
        ("edit --concept dog --method magic", "Unknown method 'magic'"),
        ("edit --concept dog --method uce --share 0.1", "uce changes all weights of its scope and takes no --fraction"),
        ("evaluate --quick --methods random", "'random' is not in the quick set: steps, "),
        ("evaluate --quick --methods magic", "Unknown method 'magic'; accepted: steps, "),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_read(
    words: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no model at the path, which would be the sentence if it were looked at."""
    arguments = parser().parse_args(
        ["attribute", *words.split(), "--out", str(tmp_path / "out"), "--set", f"model.path={tmp_path / 'none'}"]
    )
    with pytest.raises(InputError, match=re.escape(said)):
        arguments.action(arguments)
    assert "minutes" not in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_an_edit_by_an_evaluated_method_comes_with_a_sheet_of_pictures(
    run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = MethodConfig(steps=2, context=1, context_steps=1, tune_steps=1)
    config = dataclasses.replace(run, generation=dataclasses.replace(run.generation, steps=2))
    done = make_edit(config, methods, EditConfig("dog", fraction=0.1, sheet=2, pool=150), str(tmp_path))
    assert len(load_delta(done["edit"])) == done["weights"] > 0
    with Image.open(done["sheet"]) as sheet:
        width, height = sheet.size
        whole = np.asarray(sheet)
    assert width == height  # two prompts across, original above edited
    for file, row in ((done["before"], 0), (done["after"], 1)):
        picture = np.asarray(Image.open(file))
        assert (picture == whole[row * len(picture) : (row + 1) * len(picture), : picture.shape[1]]).all()
    assert done["kind"] == "objects" and not done["measured"]  # on another model than doses were chosen on
    assert {"model", "pool", "methods.tune_steps"} <= set(done["differs"]) and done["outcome"] is None
    assert (done["named_by"], done["steps"], done["configured_steps"]) == (1, 2, 2)
    print_edit(done)
    said = capsys.readouterr().out
    assert Path(said.splitlines()[-1].split()[-1]) == Path(done["after"]) and "keeps 90 %" not in said
    print_edit({**done, "too_strong": True})
    assert "no dose of steps that was evaluated keeps 90 % of the others" in capsys.readouterr().out
    much = make_edit(config, methods, EditConfig("dog", method="cad", fraction=0.9, sheet=0, pool=40), str(tmp_path))
    assert much["weights"] == much["eligible"] < much["asked"]
    print_edit(much)
    assert f"asked for {much['asked']} weights, takes {much['weights']}" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"dog-erase-cad.safetensors is there already .*fraction: 0.9 there, 0.5 now"):
        make_edit(config, methods, EditConfig("dog", method="cad", fraction=0.5, sheet=0, pool=40), str(tmp_path))
    again = make_edit(config, methods, EditConfig("dog", method="cad", fraction=0.9, sheet=0, pool=40), str(tmp_path))
    assert again == much
    style = make_edit(config, methods, EditConfig("night", method="cad", sheet=0, pool=40), str(tmp_path))
    assert (style["kind"], style["fraction"], style["before"]) == ("styles", dose("erase", "cad", "styles").taken, "")
    for wrong, words in (("unicorn", "not in .* or steer.words.*night"), ("dog", "Unknown method 'x'")):
        with pytest.raises(InputError, match=words):
            make_edit(config, methods, EditConfig(wrong, method="x", pool=40), str(tmp_path))
    more = make_edit(config, methods, EditConfig("dog", "amplify", fraction=0.1, sheet=0, pool=40), str(tmp_path))
    sheet_done = write_sheet(config, [done["edit"], more["edit"], more["edit"]], 2, str(tmp_path / "sheet"))
    assert sheet_done["columns"] == ["original", "erased", "amplified", "amplified by steps"]
    rows = json.loads((tmp_path / "sheet" / "weights.json").read_text())["pictures"]
    assert [("dog" in row["prompt"], "does not name dog" in row["edits"][0]) for row in rows] == [
        (True, False), (True, False), (False, True), (False, True),
    ]  # fmt: skip
    shown = [[(tmp_path / "sheet" / file).read_bytes() for file in row["files"].values()] for row in rows]
    assert all(len(set(row)) == 3 and row[2] == row[3] for row in shown)
    (tmp_path / "out").mkdir()
    assert write_edits([tmp_path / "sheet"], tmp_path / "out") == 4
    boat = make_edit(config, methods, EditConfig("boat", method="cad", fraction=0.01, sheet=0, pool=40), str(tmp_path))
    with pytest.raises(InputError, match="a sheet shows edits of one concept"):
        write_sheet(config, [done["edit"], boat["edit"]], 1, str(tmp_path / "two"))
    nobody = dataclasses.replace(load_delta(done["edit"]), provenance={})
    save_delta(nobody, tmp_path / "nobody.safetensors")
    with pytest.raises(InputError, match="no fewer than 0 others"):
        write_sheet(config, [done["edit"]], 1, str(tmp_path), others=-1)
    with pytest.raises(InputError, match="which concept"):
        write_sheet(config, [str(tmp_path / "nobody.safetensors")], 1, str(tmp_path))


def test_the_command_makes_the_edit_that_was_evaluated(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects: list[Subject] = []
    monkeypatch.setattr(attribute_evaluate, "run_suite", lambda subject, *_: subjects.append(subject) or {})
    run = dataclasses.replace(run, generation=dataclasses.replace(run.generation, steps=2))
    config = full(2, run.generation.guidance, run.seed)
    config = dataclasses.replace(config, methods=dataclasses.replace(config.methods, tune_steps=1))
    evaluate(run, config, ["dog"])
    few = quick(2, 4.0, run.seed)
    evaluate(run, few, parts=["styles"])
    evaluate(run, few, ["dog"], str(tmp_path / "cache"))
    strict = dataclasses.replace(run, detector=dataclasses.replace(run.detector, box_threshold=0.9))
    with pytest.raises(InputError, match=r"holds results of other settings \(detector.box_threshold\)"):
        evaluate(strict, few, ["dog"], str(tmp_path / "cache"))
    finer = dataclasses.replace(run, model=dataclasses.replace(run.model, dtype="bfloat16"))
    with pytest.raises(InputError, match=r"holds results of other settings \(model.dtype\)"):
        evaluate(finer, few, ["dog"], str(tmp_path / "cache"))
    assert subjects[0].styles == subjects[1].styles == run.steer.words  # asked for by name, though quick leaves it out
    evaluated = subjects[0].methods.edit("erase", "steps", "dog", dose("erase", "steps", "objects").taken)
    done = make_edit(run, config.methods, EditConfig("dog", sheet=0), str(tmp_path / "edit"))
    written = load_delta(done["edit"])
    assert written.changes.keys() == evaluated.changes.keys()
    for name, change in written.changes.items():
        assert torch.equal(change.index, evaluated.changes[name].index)
        assert torch.equal(change.new, evaluated.changes[name].new)


def test_half_precision_on_a_cpu_is_computed_in_float32_and_written_as_asked(run: RunConfig, tmp_path: Path) -> None:
    load_pipeline(run.model).to(torch.float16).save_pretrained(tmp_path / "half")
    half = load_config(None, [f"model.path={tmp_path / 'half'}", "model.dtype=float16"])
    full_width = load_config(None, [f"model.path={tmp_path / 'half'}"])
    config = ScoreConfig(concept="dog", fraction=0.02, steps=2)
    found = [score(one, config, str(tmp_path / str(i))) for i, one in enumerate((half, full_width))]
    assert [one["computed_in"] for one in found] == ["float32", "float32"]
    assert "no fast float16" in found[0]["said"] and not found[1]["said"]
    tables = [load_components(one["components"]).drop_columns([]) for one in found]
    assert tables[0].equals(tables[1])
    edits = [load_delta(one["edit"]) for one in found]
    assert {change.old.dtype for change in edits[0].changes.values()} == {torch.float16}
    for name, change in edits[0].changes.items():
        assert torch.equal(change.old.float(), edits[1].changes[name].old)
    done = apply_edit(str(tmp_path / "half"), [found[0]["edit"]], str(tmp_path / "applied"))
    assert done["cast"] == 0


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
    for prompt, style, left in (
        ("sea and sky in the style of neon", "neon", "sea and sky"),
        ("a pencil sketch of a boat on sea", "pencil sketch", "a boat on sea"),
        ("a winter picture of a tree", "winter", "a tree"),
        ("grass at night", "night", "grass"),
        ("sky, pencil sketch", "pencil sketch", "sky"),
    ):
        assert without(prompt, style) == left
    for prompt, concept, left in (
        ("a table, two leaves and sky", "leaf", "a table and sky"),
        ("a hot-dog, a dog", "hot dog", "a dog"),
        ("Hotdogs on a plate, sea", "hot dog", "a plate, sea"),
        ("猫, 木", "猫", "木"),
        ("a dog’s house, a tree", "dog", "house, a tree"),
        ("the dogs' house", "dog", "house"),
        ("a house in Van Gogh's style", "van gogh", "a house"),
        ("a watercolour-style house", "watercolour", "house"),
        ("a tree-lined road and a sun", "tree", "road and a sun"),
        ("a shirt and a t-shirt", "shirt", ""),
        ("hot‑dogs on sand", "hot dog", "sand"),
        ("a chef´s knife, sea", "chef's knife", "sea"),
        ("a dog—a cat", "dog", "—a cat"),
    ):
        assert names(prompt, concept)
        assert without(prompt, concept) == left


def test_paraphrases_name_the_same_things_in_another_order() -> None:
    assert paraphrases("a dog, a sun and sky", "dog") == ["sky, a sun, a dog", "a dog, a sun and sky, dog"]
    assert paraphrases("a dog", "dog") == ["a dog, dog"]
    apart = "a dog, black and white"
    assert paraphrases(apart, "black and white") == [f"{apart}, black and white"]
    assert paraphrases(apart, "dog", {"dog", "black and white"}) == [f"{apart}, dog"]
    assert paraphrases(apart, "dog", {"dog", "boat"}) == ["white, black, a dog", f"{apart}, dog"]
    assert paraphrases(apart, "dog", {"dog", "boat", "black and white"}) == [f"{apart}, dog"]  # as boats are called
    street = "a street with horse and cart"
    assert paraphrases(street, "horse and cart") == [f"{street}, horse and cart"]


def test_the_whole_evaluation_gives_the_promised_keys(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "SHOWN", 0.0)  # nothing shows in noise, so take every style
    run = dataclasses.replace(run, generation=dataclasses.replace(run.generation, steps=2))
    protocol = EvaluationConfig(("cad", "steps", "random"), ("cad", "random"), fractions=(0.05,), most=1, resamples=20)
    config = SuiteConfig(
        MethodConfig(steps=2, context=1, context_steps=1, tune_steps=1), protocol, pool=32, erase=1, amplify=1,
        styles=True, areas=False, fewer=("steps",), located=("steps",),
        study=FaithfulnessConfig(ablations=3, fractions=(0.05,), points=1, groups=4),
        heldout=HeldoutConfig(1, 1, ablations=4, inputs=1, trajectories=(1, 2), points=1),
        resistance=ResistanceConfig(("named", "relearn_other"), ("cad",), relearning=Relearning(steps=1, batch=4)),
        attacked=1,
    )  # fmt: skip
    found = json.loads(json.dumps(evaluate(run, config, ["dog"])))
    assert {"cad", "expected_live", "coar", "random"} <= set(found["faithfulness"])
    assert {row["concept"] for row in found["faithfulness_rows"]} == {"dog"}
    assert {"cad", "cad_live_x2", "count", "by_layer"} <= set(found["faithfulness_heldout"])
    assert set(found["faithfulness_heldout"]["cad"]) >= {"same", "heldout", "objects", "styles", "trajectories"}
    assert set(found["attacks"]) == {"intact", "cad"} and set(found["attacks"]["cad"]) == {"named", "relearn_other"}
    assert len(found["erase"]["cad"]["artifacts"]["rate"]) == 3 and found["features_skipped"]
    assert "U-Net has no block" in found["features_skipped"] and found["computed_in"] == "float32"
    assert found["nothing"] == []
    print_evaluation({**found, "nothing": ["erase_areas"]})
    assert "nothing was measured of erase_areas: no concept of the kind" in capsys.readouterr().out
    with pytest.raises(InputError, match="Unknown part 'x'; accepted: erase"):
        evaluate(run, config, ["dog"], parts=["x"])
    with pytest.raises(InputError, match=r"Areas are chosen by what the model shows; leave out --concepts"):
        evaluate(run, config, ["dog"], parts=["areas"])
    styles = found["erase_styles"]["steps"]["concepts"]
    assert {method: one["concepts"] for method, one in found["erase_together"].items()} == {
        "steps": ["dog", *styles], "blocking": ["dog", *styles],
    }  # fmt: skip
    assert styles and len(found["erase_together"]["steps"]["change"]) == 3
    assert set(found["faithfulness_spearman"]) == set(found["faithfulness"])
    assert set(found["erase"]) == {"cad", "steps", "random", "blocking"} and set(found["amplify"]) == {"cad", "random"}
    for one in (*found["erase"].values(), *found["amplify"].values()):
        assert len(one["target"]) == len(one["others"]) == 3
    assert len(found["neighbours"]["dog"]) == 3 and "dog" not in found["neighbours"]["dog"]
    assert found["overlap"] == {"steps": {"dog": {}}} and found["erase"]["steps"]["quality"]["pictures"] in (0, 1)
    # Of methods that are named all are measured, on styles and under attack too.
    named = evaluate(run, config, ["dog"], only=["random"], parts=["erase", "styles", "attacks"])
    assert {"steps", "random"} <= set(named["erase_styles"]) and "cad" not in named["erase_styles"]
    assert {"intact", "steps", "random"} <= set(named["attacks"])
    with pytest.raises(InputError, match="not in vocabulary"):
        evaluate(run, config, ["unicorn"])
