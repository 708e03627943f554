"""Concepts come to the features a run labels with them; edits are measured fairly, and resuming changes nothing."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from PIL import Image

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import STAGES, Edit, Target
from gazetteer.data.inputs.regions import QUADRANTS, Region
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.codes import SparseMap
from gazetteer.data.tables.schemas import FINAL_TABLES
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.edit_sampler import EditSampler, Start
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.resume import can_resume, resumed_at
from gazetteer.labeling.detect.protocol import Detection
from gazetteer.labeling.evidence.run_codes import site_codes
from gazetteer.labeling.interventions.evaluation.cases import EditCase, SteerConfig
from gazetteer.labeling.interventions.evaluation.directions import Directions
from gazetteer.labeling.interventions.evaluation.experiments import SteeringEvaluation
from gazetteer.labeling.interventions.evaluation.observer import EditObserver
from gazetteer.labeling.interventions.evaluation.scores import (
    centre_of_mass,
    lands_in,
    mask_iou,
    outside_change,
    score_centre,
    structural_distance,
)
from gazetteer.labeling.interventions.evaluation.trials import DENSE, SPATIAL, Trial, Trials
from gazetteer.labeling.interventions.resolve import percentiles, resolve
from gazetteer.labeling.segment.protocol import Mask
from gazetteer.labeling.vocabulary.concepts import Vocabulary, VocabularyConfig
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline
from tests.support.runs.runs import PROVENANCE, blank
from tests.support.runs.small_world import World, map_code
from tests.support.system.running import SMALL

BLOCK = BLOCKS[1]
SITES = [Site(BLOCK, "cond", t) for t in (1.0, 0.5, 0.0)]
CONCEPTS = ("dog", "house", "boat")
PROMPTS = [f"{a} and {b}" for a in ("a red house", "two boats", "a dog") for b in ("the sea", "a dog", "grass", "sand")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Feature 1 fires where prompts say night, feature 2 everywhere; 5 and 6 are labelled dog, 6 better."""
    folder = RunFolder(tmp_path_factory.mktemp("steer") / "run").open_or_create({"config": "x"})
    world = World()
    from gazetteer.labeling.evidence.counts import ImageEvidenceInput

    for i in range(24):
        maps = {2: np.full((2, 2), 1.0 + i // 2)}
        if i % 2:
            maps[1] = np.array([[1.0, 0.0], [0.0, 3.0]])
        codes: dict[Site, SparseMap] = {site: map_code(maps) for site in SITES}
        world.inputs.append(
            ImageEvidenceInput(
                image_id=f"i{i:02}", split="discovery", size=(8, 8), asked=("dog",), segments=[], codes=codes
            )
        )
    rows = world.images.to_pylist()
    for i, row in enumerate(rows):
        row["prompt"] = f"a dog at night {i}" if i % 2 else f"a dog {i}"
    images = pa.Table.from_pylist(rows, schema=world.images.schema)
    tables = {"images": images, "codes": world.codes, "segments": world.segments}
    folder.commit_shard("s", tables, {}, PROVENANCE)

    def table(name: str, values: list[dict]) -> pa.Table:
        schema = FINAL_TABLES[name]
        made = [blank(schema, model="tiny", block=BLOCK, branch="cond", t=s.t, **v) for s in SITES for v in values]
        return pa.Table.from_pylist(made, schema=schema)

    labels = [
        {"feature": 5, "concept": "dog", "rank": 1, "dataset_iou": 0.4, "null_iou": 0.2},
        {"feature": 6, "concept": "dog", "rank": 1, "dataset_iou": 0.35, "null_iou": 0.05},
        {"feature": 7, "concept": "dog", "rank": 2, "dataset_iou": 0.9, "null_iou": 0.0},
        {"feature": 7, "concept": "house", "rank": 2, "dataset_iou": 0.9, "null_iou": 0.0},
    ]
    hits = ((3, 2), (4, 5), (5, 0))
    tested = [{"feature": f, "concept": "dog", "hits": n, "paper_label": n > 0} for f, n in hits]
    folder.write_final("candidates", table("candidates", tested), PROVENANCE)
    folder.write_final("labels", table("labels", labels), PROVENANCE)
    folder.write_final("features", table("features", [{"feature": n} for n in range(8)]), PROVENANCE)
    folder.finish({"shards": ["s"]})
    return folder


def test_concepts_and_words_become_features(run: RunFolder) -> None:
    labels = partial(Edit, choice="labels", t=None)
    early, final, night, house, dictionary = resolve(
        [
            labels(concept="dog"),
            labels(concept="dog", window=(0.0, 0.2), branch="both"),
            Edit(word="night", window=(0.2, 0.6), unit="feature_p99"),
            labels(concept="Houses"),
            Edit(concept="dog", choice="dictionary", t=None, unit="code_norm"),
        ],
        run,
    )
    assert early.targets == (Target(BLOCK, "cond", 1.0, (6, 5)),)  # best above the null first, rank 1 only
    assert final.targets == (Target(BLOCK, "cond", 0.0, (6, 5)),)
    assert house.name == "house" and house.targets[0].features == (7,)  # nobody's best label: second best will do
    assert dictionary.targets == (Target(BLOCK, "cond", 1.0, (4, 3)),)  # whatever was hit, most hits first
    assert night.targets[0].features == (1,) and night.targets[0].t == 0.5
    assert night.targets[0].scales == pytest.approx((np.percentile([1.0, 3.0] * 12, 99),))
    assert percentiles(site_codes(run, SITES[0]), [99]) == (0.0,)
    with pytest.raises(InputError, match="hear no weights of the choice contrast; set choice"):
        resolve([Edit(concept="dog", unit="code")], run)
    fixed = Edit(targets=(Target(BLOCK, features=(1,)),))
    assert resolve([fixed], run) == (fixed,)
    for wrong, sentence in [
        (labels(concept="hose"), "was never asked for 'hose'; did you mean house"),
        (Edit(word="noon"), "stands in 0 of 24"),
        (labels(concept="dog", blocks=("up",)), "block up"),
        (labels(concept="dog", branch="uncond"), "carries 'dog'"),
    ]:
        with pytest.raises(InputError, match=sentence):
            resolve([wrong], run)


def test_scores_by_hand() -> None:
    mask = np.zeros((4, 8), bool)
    mask[0, 4:] = True
    assert centre_of_mass(mask) == (0.75, 0.125)
    assert [lands_in(mask, box) for box in QUADRANTS.values()] == [False, True, False, False]
    assert not any(lands_in(np.zeros((4, 8), bool), box) for box in QUADRANTS.values())
    weak = [((0, 0, 4, 4), 0.1), ((4, 0, 8, 2), 0.4)]  # 16 pixels of 0.1 on the left, 8 of 0.4 on the right
    assert score_centre(weak, 4, 8) == pytest.approx(((1.6 * 2 + 3.2 * 6) / 4.8 / 8, (1.6 * 2 + 3.2 * 1) / 4.8 / 4))
    assert score_centre(weak[:1] * 2, 4, 8) == pytest.approx((0.25, 0.5)) and score_centre([], 4, 8) is None
    assert mask_iou(mask, np.ones((4, 8), bool)) == 4 / 32 and mask_iou(~mask & mask, mask & ~mask) == 0.0
    grey, white = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 151, np.uint8)
    half = np.arange(16)[None, :].repeat(16, 0) < 8
    mixed = np.where(half[..., None], white, grey)
    assert outside_change(grey, mixed, half) == 0.0
    assert outside_change(grey, mixed, ~half) == pytest.approx(0.2)
    assert structural_distance(mixed, mixed) == pytest.approx(0.0) and structural_distance(grey, mixed) > 0.05


class Finder:
    """Finds every concept as a square where the picture's brightest pixel lies."""

    def detect(self, images, concepts):
        return [[Detection(c, 1.0, (0.0, 0.0, 1.0, 1.0)) for c in asked] for asked in concepts]

    def segment(self, images, boxes):
        made = []
        for image, own in zip(images, boxes, strict=True):
            mask = np.zeros(image.shape[:2], bool)
            mask[np.unravel_index(image.sum(axis=2).argmax(), mask.shape)] = True
            made.append([Mask(mask, 1.0) for _ in own])
        return made


class Brightness:
    labels = ("plain", "night")

    def probabilities(self, pictures):
        light = pictures.mean(axis=(1, 2, 3)) / 255.0
        return np.stack([light, 1 - light], axis=1)


@pytest.fixture(scope="module")
def observer() -> EditObserver:
    config = GenerationConfig(steps=6, guidance=3.0, blocks=(BLOCK,), branches=("cond",))
    saes = {site: SparseAutoencoder(SAEConfig(32, 64, 8)).initialise(1).requires_grad_(False) for site in SITES}
    sampler = EditSampler(Generator(tiny_pipeline(), config), saes, batch_size=4)
    return EditObserver(sampler, Finder(), Finder(), CONCEPTS)


def test_a_resumed_run_gives_the_same_picture_as_a_whole_run(observer: EditObserver) -> None:
    assert can_resume(observer.sampler.pipe) and observer.sampler.first == {"early": 0, "middle": 2, "final": 4}
    starts = [Start("a red house", 3), Start("a dog at night", 4)]
    plain = observer.base(starts)
    edit = Edit(targets=(Target(BLOCK, "cond", 0.5, (3, 4)),), window=(0.2, 0.6), strength=2.0)
    for stage in observer.sampler.first:
        assert all(map(np.array_equal, observer.edited(starts, [[], []], stage), plain))
    short = observer.edited(starts, [[edit], []], "middle")
    whole = observer.edited(starts, [[edit], []], "early")  # from step 0; the window still says middle
    assert all(map(np.array_equal, short, whole))
    assert np.array_equal(short[1], plain[1]) and not np.array_equal(short[0], plain[0])
    with pytest.raises(RuntimeError), resumed_at(observer.sampler.pipe, 2):
        raise RuntimeError
    assert "set_timesteps" not in vars(observer.sampler.pipe.scheduler)
    observer.sampler.pipe.scheduler.set_timesteps(6)
    assert len(observer.sampler.pipe.scheduler.timesteps) == 6


def evaluation(
    observer: EditObserver, run: RunFolder, config: SteerConfig, done: list[Trial] | None = None,
    given: Directions | str = "none was given",
) -> SteeringEvaluation:  # fmt: skip
    trials = Trials(observer, Brightness())

    def carry_out(groups: list[tuple[Trial, ...]]) -> pa.Table:
        # Groups are recorded by what is in them: unedited pictures have their own, so that the others keep their names.
        assert all(len({trial.method == "none" for trial in group}) == 1 for group in groups)
        if done is not None:
            done.extend(trial for group in groups for trial in group)
        return pa.concat_tables([trials.run(group) for group in groups])

    return SteeringEvaluation(run, config, Vocabulary(VocabularyConfig(CONCEPTS)), PROMPTS, carry_out, 0, print, given)


def test_the_evaluation_reports_every_stage_and_method(observer: EditObserver, run: RunFolder) -> None:
    config = SteerConfig(
        words=("night",), classifier="x:y", strengths=(0.5, 2.0), branches=("cond",), cases=3, global_cases=2, tuning=2,
        chunk=4, paper_strengths=(1.0, 0.1),
    )  # fmt: skip
    done: list[Trial] = []
    result = evaluation(observer, run, config, done).run()
    assert set(result["spatial"]) == set(result["global"]) == {"early", "middle", "final"}
    for stage, methods in result["spatial"].items():
        assert set(methods) == set(SPATIAL) - {DENSE} and result["mean_difference_setting"] == {}  # none was given
        assert set(result["paper_tuning"][stage]) == {f"{b} code_norm cond dictionary remove 1" for b in ("0.1", "1")}
        assert result["unlabelled"][stage] == ["boat"]  # no feature, so not tried, and said so
        assert result["outside_change"][stage]["none"] == [0.0, 0.0, 0.0]
        tried = {f"{b} update_norm cond labels remove 1" for b in ("0.5", "2")}
        assert result["spatial_setting"][stage] in tried == set(result["spatial_tuning"][stage])
        for mean, low, high in methods.values():
            assert 0.0 <= low <= mean <= high <= 1.0
        assert set(result["side_effects"][stage]) == {"gazetteer", "random_features"}
        for key in ("spatial_grid", "spatial_concepts", "spatial_quadrants"):
            assert set(result[key][stage]) == {"gazetteer", "paper", "none"}
        assert set(result["spatial_grid"][stage]["none"]) == set(result["spatial_grid"][stage]["gazetteer"])
        assert set(result["spatial_grid"][stage]["none"]) <= {"dog", "house"}
        assert set(result["spatial_map"][stage]) == set(result["spatial_found"][stage]) == set(methods)
    assert result["global_detail"]["early"]["gazetteer"]["success"] == result["global"]["early"]
    assert set(result["global_words"]["early"]) == {"night"}
    looks = [trial for trial in done if trial.half == "heldout" and not trial.case.quadrant]
    plain = [trial for trial in looks if trial.method == "none"]
    assert [(trial.stage, trial.setting, trial.edit) for trial in plain] == [("", "", None)] * 2  # one a case
    assert [trial.case for trial in plain] == [t.case for t in looks if (t.stage, t.method) == ("early", "gazetteer")]
    assert not [trial for trial in done if trial.half == "discovery" and trial.method == "none"]
    for stage, effects in result["global_side_effects"].items():
        assert effects == {"gazetteer": {"night": {}}, "random_features": {"night": {}}}, stage  # all is always found
    tuned = {trial.case.start.prompt for trial in done if trial.half == "discovery"}
    assert tuned and not tuned & {trial.case.start.prompt for trial in done if trial.half == "heldout"}


def test_a_trial_is_judged_by_where_the_thing_is(observer: EditObserver) -> None:
    """The picture's brightest pixel is the thing, wherever it is."""
    case = EditCase(Start("a red house", 3), "house", "top left")
    edit = Edit(targets=(Target(BLOCK, "cond", 1.0, (3, 4)),), region=Region(box=QUADRANTS["top left"]), strength=4.0)
    tried = [method for method in SPATIAL[:-1] if method != DENSE]
    trials = [Trial(case, "heldout", "none", 0)]
    trials += [Trial(case, "heldout", method, 0, "early", "4", edit) for method in tried]
    rows = Trials(observer).run(trials).to_pylist()
    picture = observer.base([case.start])[0].sum(axis=2)
    y, x = np.unravel_index(picture.argmax(), picture.shape)
    assert rows[0]["landed"] == (x < picture.shape[1] / 2 and y < picture.shape[0] / 2)
    assert rows[0]["outside_change"] == 0.0 and min(row["outside_change"] for row in rows[1:]) > 0.0
    assert [row["method"] for row in rows] == ["none", *tried] and rows[0]["present"] == sorted(CONCEPTS)
    assert len({row["outside_change"] for row in rows}) == 4  # four methods, four pictures


def test_the_dense_direction_has_settings_and_a_method_of_its_own(observer: EditObserver, run: RunFolder) -> None:
    config = SteerConfig(
        strengths=(0.5, 2.0), branches=("cond",), tops=(0, 4), choices=("labels",), paper_strengths=(1.0,),
        windows=("early and middle", "final"), cases=2, tuning=2, chunk=4,
    )  # fmt: skip
    assert [setting.name for setting in config.dense_settings()] == [
        f"{b} update_norm cond dense remove 1" for b in ("0.5", "2")
    ]
    vector = tuple(float(i % 5 - 2) for i in range(32))
    done: list[Trial] = []
    result = evaluation(observer, run, config, done, {s: {"dog": vector, "house": vector} for s in SITES}).run()
    assert set(result["spatial"]) == set(result["unlabelled"]) == {"early and middle", "final"}
    assert {trial.edit.window for trial in done if trial.edit} == {(0.2, 1.0), (0.0, 0.2)}
    for stage, methods in result["spatial"].items():
        assert set(methods) == set(SPATIAL) and result["mean_difference_setting"][stage].endswith("dense remove 1")
        assert set(result["mean_difference_tuning"][stage]) == {s.name for s in config.dense_settings()}
    dense = [trial.edit for trial in done if trial.method == DENSE]
    assert dense and all(edit and edit.targets[0].vector == vector and edit.region.box for edit in dense)


def test_an_evaluation_goes_on_where_it_stood(
    scenes_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gazetteer.jobs.cli.main import main

    settings = [*SMALL, "executor=serial", "steer.concepts=[sky,grass]", "steer.words=[]", "steer.strengths=[1.0,2.0]"]
    settings += ["steer.branches=[cond]", "steer.ts=[-1.0]", "steer.tuning=1", "steer.chunk=1", "steer.avoid=[]"]
    settings += ["steer.direction_images=4"]

    def measured(cases: int, out: str) -> dict:
        command = ["steer", "evaluate", str(scenes_run), "--out", str(tmp_path / out), "--json"]
        command += ["--plots", str(tmp_path / "plots")]
        assert main([*command, "--set", *settings, f"steer.cases={cases}"]) == 0
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        return {key: value for key, value in result.items() if key != "seconds"}

    torch.set_num_threads(2)  # of whatever ran before: directions are sums too
    measured(1, "bits")
    shards = len(RunFolder(tmp_path / "bits").shard_ids())
    assert measured(2, "bits") == (whole := measured(2, "whole")) and "mean_difference" in whole["spatial"]["early"]
    assert 0 < shards < len(RunFolder(tmp_path / "bits").shard_ids()) == len(RunFolder(tmp_path / "whole").shard_ids())
    assert measured(2, "whole") == whole == measured(2, "bits")  # nothing is drawn again
    assert not (scenes_run / "steer").exists()
    assert "gazetteer" in (tmp_path / "plots" / "spatial.svg").read_text()


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    from gazetteer.jobs.cli.main import main

    for arguments, missing in ((["draw"], "--edits, --prompt, --out"), (["evaluate"], "RUN")):
        with pytest.raises(SystemExit) as ended:
            main(["steer", *arguments])
        assert ended.value.code == 2
        assert f"required: {missing}" in capsys.readouterr().err


def test_every_edit_is_drawn_in_each_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gazetteer.jobs.cli.main import main

    tiny_pipeline().save_pretrained(tmp_path / "model")
    config = {
        "name": "tiny", "prompts": {"path": "none.txt"}, "model": {"path": "model"}, "saes": "saes",
        "generation": {"steps": 6, "guidance": 3.0, "blocks": [BLOCK], "exact": False},
        "vocabulary": {"concepts": list(CONCEPTS)}, "detector": {"path": "none"}, "segmenter": {"path": "none"},
    }  # fmt: skip
    target = {"block": BLOCK, "vector": [float(i % 5 - 2) for i in range(32)]}
    edits = [{"targets": [target], "strength": 2.0}, {"targets": [target], "strength": 1.0, "images": [1]}]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "edits.json").write_text(json.dumps(edits))
    out = tmp_path / "out"
    arguments = ["--edits", str(tmp_path / "edits.json"), "--prompt", "a red house", "the sea", "--out", str(out)]
    assert main(["steer", "draw", *arguments, "--config", str(tmp_path / "tiny.yaml"), "--stages", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((out / "steer.json").read_text())["pictures"] == result["pictures"]
    for i, row in enumerate(result["pictures"]):
        assert row["files"] == {name: f"{i}-{name}.png" for name in ("plain", "early", "middle", "final")}
        assert set(row["change"]) == {"early", "middle", "final"} and row["change"]["early"] > 0
        windows = [result["edits"][digest].get("window", list(STAGES["early"])) for digest in row["edits"]]
        assert windows == [list(window) for window in STAGES.values() for _ in range(i + 1)]
    kept = json.loads(Image.open(out / "0-middle.png").text["gazetteer"])["edits"]
    assert [edit["window"] for edit in kept] == [list(STAGES["middle"])]
