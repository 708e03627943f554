"""Concepts come to the features a run labels with them; edits are measured fairly, and restarts change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from PIL import Image

from data.codes import SparseMap
from data.edits import QUADRANTS, STAGES, Edit, Region, Target
from data.errors import InputError
from data.schemas import FINAL_TABLES
from data.sites import Site
from data.store import RunFolder
from diffusion.generate import GenerationConfig, Generator
from diffusion.restart import can_restart, starting_at
from labeling.detectors import Detection
from labeling.run_codes import site_codes
from labeling.segmenters import Mask
from labeling.steer_bench import Bench, Start
from labeling.steer_cases import SteerConfig
from labeling.steer_evaluation import Evaluation
from labeling.steer_scores import (
    centre_of_mass,
    interval,
    lands_in,
    mask_iou,
    outside_change,
    score_centre,
    structural_distance,
)
from labeling.steering import percentiles, resolve
from labeling.vocabulary import Vocabulary, VocabularyConfig
from sae.autoencoder import SAEConfig, SparseAutoencoder
from tests.runs import PROVENANCE, blank
from tests.small_world import World, map_code
from tests.tiny_pipeline import BLOCKS, tiny_pipeline

BLOCK = BLOCKS[1]
SITES = [Site(BLOCK, "cond", t) for t in (1.0, 0.5, 0.0)]
CONCEPTS = ("dog", "house", "boat")
PROMPTS = [f"{a} and {b}" for a in ("a red house", "two boats", "a dog") for b in ("the sea", "a dog", "grass", "sand")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Feature 1 fires where prompts say night, feature 2 everywhere; 5 and 6 are labelled dog, 6 better."""
    folder = RunFolder(tmp_path_factory.mktemp("steer") / "run").open_or_create({"config": "x"})
    world = World()
    from labeling.evidence import ImageEvidenceInput

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
    folder.write_final("labels", table("labels", labels), PROVENANCE)
    folder.write_final("features", table("features", [{"feature": n} for n in range(8)]), PROVENANCE)
    folder.finish({"shards": ["s"]})
    return folder


def test_concepts_and_words_become_features(run: RunFolder) -> None:
    early, final, night, house = resolve(
        [
            Edit(concept="dog"),
            Edit(concept="dog", window=(0.0, 0.2), branch="both"),
            Edit(word="night", window=(0.2, 0.6), unit="feature_p99"),
            Edit(concept="house"),
        ],
        run,
    )
    assert early.targets == (Target(BLOCK, "cond", 1.0, (6, 5)),)  # best above the null first, rank 1 only
    assert final.targets == (Target(BLOCK, "cond", 0.0, (6, 5)),)
    assert house.targets[0].features == (7,)  # nobody's best label: second best will do
    assert night.targets[0].features == (1,) and night.targets[0].t == 0.5
    assert night.targets[0].scales == pytest.approx((np.percentile([1.0, 3.0] * 12, 99),))
    assert percentiles(site_codes(run, SITES[0]), [99]) == (0.0,)
    fixed = Edit(targets=(Target(BLOCK, features=(1,)),))
    assert resolve([fixed], run) == (fixed,)
    for wrong, sentence in [
        (Edit(concept="cow"), "carries 'cow'"),
        (Edit(word="noon"), "stands in 0 of 24"),
        (Edit(concept="dog", blocks=("up",)), "block up"),
        (Edit(concept="dog", branch="uncond"), "carries 'dog'"),
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
    assert interval([1, 1, 0, 0], ["a", "a", "b", "b"]) == [0.5, 0.0, 1.0]
    assert interval([1.0] * 3, "abc") == [1.0] * 3 and interval([], []) == [None] * 3


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
def bench() -> Bench:
    config = GenerationConfig(steps=6, guidance=3.0, blocks=(BLOCK,), branches=("cond",))
    saes = {site: SparseAutoencoder(SAEConfig(32, 64, 8)).initialise(1).requires_grad_(False) for site in SITES}
    return Bench(Generator(tiny_pipeline(), config), saes, Finder(), Finder(), CONCEPTS, batch_size=4)


def test_a_restart_gives_the_same_picture_as_a_whole_run(bench: Bench) -> None:
    assert can_restart(bench.pipe) and bench.first == {"early": 0, "middle": 2, "final": 4}
    starts = [Start("a red house", 3), Start("a dog at night", 4)]
    plain = bench.base(starts)
    edit = Edit(targets=(Target(BLOCK, "cond", 0.5, (3, 4)),), window=(0.2, 0.6), strength=2.0)
    for stage in bench.first:
        assert all(map(np.array_equal, bench.edited(starts, [[], []], stage), plain))
    short = bench.edited(starts, [[edit], []], "middle")
    whole = bench.edited(starts, [[edit], []], "early")  # from step 0; the window still says middle
    assert all(map(np.array_equal, short, whole))
    assert np.array_equal(short[1], plain[1]) and not np.array_equal(short[0], plain[0])
    with pytest.raises(RuntimeError), starting_at(bench.pipe, 2):
        raise RuntimeError
    assert "set_timesteps" not in vars(bench.pipe.scheduler)
    bench.pipe.scheduler.set_timesteps(6)
    assert len(bench.pipe.scheduler.timesteps) == 6


def test_the_evaluation_reports_every_stage_and_method(bench: Bench, run: RunFolder) -> None:
    config = SteerConfig(words=("night",), judge="x:y", strengths=(0.5, 2.0), cases=4, tuning=2)
    vocabulary = Vocabulary(VocabularyConfig(CONCEPTS))
    result = Evaluation(bench, run, config, vocabulary, PROMPTS, Brightness()).run()
    assert set(result["spatial"]) == set(result["global"]) == {"early", "middle", "final"}
    for stage, methods in result["spatial"].items():
        assert set(methods) == {"gazetteer", "random_features", "random_direction", "none"}
        assert result["unlabelled"][stage] == ["boat"]  # no feature, so not tried, and said so
        assert result["outside_change"][stage]["none"] == [0.0, 0.0, 0.0]
        assert result["spatial_strength"][stage] in (0.5, 2.0)
        for mean, low, high in methods.values():
            assert 0.0 <= low <= mean <= high <= 1.0
        assert set(result["side_effects"][stage]) <= {"dog", "house"}
        assert set(result["spatial_map"][stage]) == set(methods)
    assert result["global_detail"]["early"]["gazetteer"]["success"] == result["global"]["early"]


def test_the_halves_share_no_prompt_and_cells_are_even(bench: Bench, run: RunFolder) -> None:
    config = SteerConfig(cases=24, tuning=12)
    made = Evaluation(bench, run, config, Vocabulary(VocabularyConfig(CONCEPTS)), PROMPTS)
    tuning, cases = made.cases.spatial("discovery", 24), made.cases.spatial("heldout", 24)
    assert not {c.start.prompt for c in tuning} & {c.start.prompt for c in cases}
    named = {c.name for c in cases}
    counts = {(n, q): sum((c.name, c.quadrant) == (n, q) for c in cases) for n in named for q in QUADRANTS}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert Region().everywhere and torch.is_tensor(bench._bases[Start("a red house", 3)].latents["early"])


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.cli import main

    for arguments, sentence in ((["steer"], "needs --edits, --prompt, --out"), (["steer", "evaluate"], "needs --run")):
        assert main(arguments) == 2
        assert sentence in capsys.readouterr().err


def test_every_edit_is_drawn_in_each_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.cli import main

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
    assert main(["steer", *arguments, "--config", str(tmp_path / "tiny.yaml"), "--stages", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((out / "steer.json").read_text())["pictures"] == result["pictures"]
    for i, row in enumerate(result["pictures"]):
        assert row["files"] == {name: f"{i}-{name}.png" for name in ("plain", "early", "middle", "final")}
        assert set(row["change"]) == {"early", "middle", "final"} and row["change"]["early"] > 0
        windows = [result["edits"][digest].get("window", list(STAGES["early"])) for digest in row["edits"]]
        assert windows == [list(window) for window in STAGES.values() for _ in range(i + 1)]
    kept = json.loads(Image.open(out / "0-middle.png").text["gazetteer"])["edits"]
    assert [edit["window"] for edit in kept] == [list(STAGES["middle"])]
