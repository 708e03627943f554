"""A world that was trained takes the place of the one that ships, or nothing changes and a sentence says why."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.scenes import adopt
from benchmarks.scenes.steps import NEEDS, mark
from gazetteer.data.core.digests import digest_folder, digest_path
from gazetteer.data.scenes import concept_classifier, style_classifier
from gazetteer.data.scenes.weights import read_world, world_views
from gazetteer.jobs.config.schema import load_config
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.dits import saved_dit
from tests.support.models.original_models import random_detector, random_segmenter
from tests.support.models.tiny_pipeline import tiny_pipeline

VIEWS = ["above", "sky"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build as the chain leaves it, of tiny or random models."""
    build = tmp_path_factory.mktemp("build")
    models = build / "models"
    tiny_pipeline().save_pretrained(models / "text_to_image")
    random_detector(models / "detector")
    random_segmenter(models / "segmenter")
    style_classifier.save(style_classifier.StyleClassifier(("plain", "night")), models / "style_classifier")
    shown = concept_classifier.ConceptClassifier(("dog",), (8, 8, 8), (1,))
    concept_classifier.save(shown, models / "concept_classifier")
    about = {
        "model_digest": digest_path(str(models / "text_to_image")),  # as a training states it
        "training": {"outcome": {"steps": 40}, "config": {"seed": 5}},
    }
    for seed, site in enumerate(load_config().generation.sites):
        sae = SparseAutoencoder(SAEConfig(8, 16, 2)).initialise(seed)
        sae.save_pretrained(models / "saes" / site.slug, {"site": site, **about})
    for name in ("prompts", "latents", "autoencoder", "text_to_image", "detector"):
        (build / name).mkdir()
    (build / "prompts" / "prompts.txt").write_text("a dog on grass\n")
    (build / "prompts" / "prompts_sae.txt").write_text("a boat on the sea\n")
    (build / "latents" / "meta.json").write_text(json.dumps({"views": VIEWS, "count": 3}))
    for name, steps in (("autoencoder", 500), ("text_to_image", 900)):
        rows = [{"step": steps // 2, "hours": 0.1}, {"step": steps, "hours": 1.2345}]
        (build / name / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    torch.save({"step": 70, "seconds": 1800.0}, build / "detector" / "checkpoint.pt")
    for name in NEEDS:
        mark(build, name).touch()
    return build


@pytest.fixture
def build(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "build"))


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """What ships: a model of each kind as a file, and the transformer's place."""
    folder = tmp_path / "scenes"
    for name in (*adopt.NEEDED, "text_to_image_dit"):
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "OLD.txt").write_text("old")
    (folder / "prompts.txt").write_text("old\n")
    said = {"views": ["landscape"], "training": {"text_to_image_dit": {"steps": 9}, "detector": {"steps": 8}}}
    (folder / "models" / "world.json").write_text(json.dumps(said))
    return folder


def adopted(build: Path, scenes: Path, *more: str) -> int:
    return adopt.main(["--build", str(build), "--scenes", str(scenes), "--no-card", *more])


def test_one_call_puts_a_world_in_place(build: Path, scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adopted(build, scenes, "--check") == 0 and (scenes / "models/detector/OLD.txt").exists()
    assert adopted(build, scenes) == 0
    models = scenes / "models"
    assert [p.name for p in sorted(models.rglob("OLD.txt"))] == ["OLD.txt"], "what was not trained stays"
    assert (models / "text_to_image_dit" / "OLD.txt").exists()
    assert read_world(models)["others"] == {"text_to_image_dit": ["landscape"]}, "what stays is of the old views"
    for name in set(adopt.NEEDED) - {"detector", "segmenter"}:
        assert digest_folder(models / name) == digest_folder(build / "models" / name), name
    assert world_views(models) == tuple(VIEWS)
    assert read_world(models)["training"] == {
        "text_to_image_dit": {"steps": 9},
        "autoencoder": {"steps": 500, "hours": 1.23, "seed": 0},
        "text_to_image": {"steps": 900, "hours": 1.23, "seed": 0},
        "detector": {"steps": 70, "hours": 0.5, "seed": 0}, "saes": {"steps": 40, "seed": 5},
    }  # fmt: skip
    assert (scenes / "prompts.txt").read_text() == "a dog on grass\n" and (scenes / "prompts_sae.txt").exists()
    from transformers import GroundingDinoForObjectDetection, SamModel

    for kind, name in ((GroundingDinoForObjectDetection, "detector"), (SamModel, "segmenter")):
        assert kind.from_pretrained(models / name).dtype == torch.float32, "with no argument"
    assert "views above, sky" in capsys.readouterr().out and not list(scenes.glob(".models*"))


def test_the_transformer_has_a_limit_of_its_own_and_says_where_packages_lack_it(
    build: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved_dit("sd3", build / "models" / "text_to_image_dit")  # without T5, as the world's own
    shutil.copytree(build / "models" / "saes", build / "models" / "saes_dit")
    for file in (build / "models" / "saes_dit").glob("*/config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_digest": digest_path(str(model))}))
    heavy = build / "models" / "text_to_image_dit" / "weights"
    heavy.write_bytes(b"0" * 41_000_000)
    assert "more than 40" in refused(build, scenes, capsys)
    world = adopt.trained(build)
    heavy.unlink()
    assert adopted(build, scenes, "--check") == 0
    adopt.put_in_place(world, scenes)
    note = scenes / "models" / "text_to_image_dit" / "ABSENT.txt"
    assert "not in the package" in note.read_text() and (note.parent / "model_index.json").exists()


@pytest.mark.parametrize("left", ["new", "old", "renamed"])
def test_stopped_anywhere_the_same_call_finishes_it(build: Path, scenes: Path, left: str) -> None:
    """Killed while it copied, after all was in place, and between the two renamings."""
    world = adopt.trained(build)
    if left == "renamed":
        (scenes / "models").rename(scenes / ".models-old")
    else:
        shutil.copytree(scenes / "models", scenes / f".models-{left}")
    adopt.put_in_place(world, scenes)
    assert world_views(scenes / "models") == tuple(VIEWS) and not list(scenes.glob(".models*"))
    assert (scenes / "models" / "text_to_image_dit" / "OLD.txt").exists()


def refused(build: Path, scenes: Path, capsys: pytest.CaptureFixture[str]) -> str:
    before = digest_folder(scenes)
    assert adopted(build, scenes) == 2 and digest_folder(scenes) == before
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(".")
    return said


def test_what_does_not_hold_is_refused_and_nothing_changes(
    build: Path, scenes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(adopt.LOADERS, "detector", lambda _: None)  # loaded once above
    monkeypatch.setitem(adopt.LOADERS, "segmenter", lambda _: None)
    own = digest_path(str(build / "models" / "text_to_image"))
    of_before = scenes / "models" / "saes_dit" / "mid" / "config.json"
    of_before.parent.mkdir(parents=True)
    of_before.write_text(json.dumps({"model_digest": "that of what ships"}))
    shutil.copytree(build / "models" / "text_to_image", build / "models" / "text_to_image_dit")
    assert "mid was trained on another model" in refused(build, scenes, capsys), "a new transformer, old autoencoders"
    of_before.write_text(json.dumps({"model_digest": own}))
    assert adopted(build, scenes, "--check") == 0
    shutil.rmtree(build / "models" / "text_to_image_dit")
    shutil.rmtree(of_before.parents[1])
    before = mark(build, "autoencoder").stat().st_mtime_ns
    later = mark(build, "saes").stat().st_mtime_ns + 10**9
    os.utime(mark(build, "autoencoder"), ns=(later, later))
    assert "text_to_image is not done in" in refused(build, scenes, capsys), "its latents are of an earlier one"
    os.utime(mark(build, "autoencoder"), ns=(before, before))
    mark(build, "detector").unlink()
    assert "detector is not done in" in refused(build, scenes, capsys)
    mark(build, "detector").touch()
    (build / "models" / "saes_dit").mkdir()
    assert "saes_dit holds no autoencoders" in refused(build, scenes, capsys)
    (build / "models" / "saes_dit").rmdir()
    sae = next((build / "models" / "saes").glob("*/config.json"))
    about = json.loads(sae.read_text())
    sae.write_text(json.dumps(about | {"model_digest": "other"}))
    assert "was trained on another model" in refused(build, scenes, capsys)
    shutil.rmtree(build / "models" / "saes")
    assert "has no saes" in refused(build, scenes, capsys)
    (build / "models" / "saes").mkdir()  # reached after the text-to-image model alone
    half = build / "models" / "text_to_image" / "text_encoder" / "config.json"
    half.write_text(json.dumps(json.loads(half.read_text()) | {"dtype": "float16"}))
    assert "loads as torch.float16 with no argument" in refused(build, scenes, capsys)
    (build / "models" / "segmenter" / "more.bin").write_bytes(bytes(46_000_000))
    assert "more than 45" in refused(build, scenes, capsys)
    (build / "latents" / "meta.json").unlink()
    assert "name them with --views" in refused(build, scenes, capsys)
    (build / "prompts" / "prompts_sae.txt").write_text("a dog on grass\n")
    assert "is in both lists" in refused(build, scenes, capsys)
