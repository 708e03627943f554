"""The page on a run of a transformer, through the real command: draw, click a place, edit a feature or words, watch."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gazetteer.data.core.sites import Site
from gazetteer.diffusion.blocks import blocks_of
from gazetteer.diffusion.load import ModelConfig
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.jobs.explore.conftest import PROMPT, Explored, exploring
from tests.jobs.explore.test_studio import REDRAWN, Studio
from tests.support.models.dits import saved_dit, two_prompts
from tests.support.system.running import in_process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Explored, Site]]:
    folder = tmp_path_factory.mktemp("sd3")
    model = saved_dit("sd3", folder / "model")
    first = blocks_of(ModelConfig(path=str(model)))[0]
    site, words = (Site(first.block, "cond", 1.0, stream) for stream in ("image", "text"))
    sae = SparseAutoencoder(SAEConfig(first.channels, 64, 4)).initialise(0)
    for one in (site, words):
        sae.save_pretrained(folder / "saes" / one.slug, {"site": one})
    asked = [
        "executor=serial", "images=2", "coverage.first=1.0", "sae_check.pictures=0", "labels.permutations=50",
        "labels.refine=100", "labels.min_images=1", "threads=1", "generation.steps=2", "generation.guidance=3.0",
        "generation.branches=[cond]", "generation.t=[1.0]", "generation.height=64", "generation.width=64",
        f"model.path={model}", two_prompts(folder),
        f"generation.blocks=[{first.block}]", "generation.streams=[image,text]", f"saes={folder / 'saes'}",
    ]  # fmt: skip
    done = in_process("label", "--out", str(folder / "run"), "--set", *asked)
    assert done.returncode == 0, done.stderr
    with exploring(folder / "run") as running:
        yield running, site


def pixels(found: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found["png"])))).astype(int)


def test_it_draws_says_what_fires_and_edits(server: tuple[Explored, Site], tmp_path: Path) -> None:
    explored, site = server
    status, world, _ = explored.ask("/api/world")
    assert status == 200 and site.slug in str(world)
    status, found, _ = explored.ask("/api/place", {**PROMPT, "x": 0.3, "y": 0.7})
    assert status == 200
    (fires,) = found["sites"] if isinstance(found, dict) and "sites" in found else found
    assert fires["site"] == site.slug and len(fires["features"]) == 4
    assert found["left_out"] == [replace(site, stream="text").slug]  # words lie nowhere in the picture
    feature = fires["features"][0]["feature"]
    targets = [{"block": site.block, "branch": "cond", "t": 1.0, "features": [feature]}]
    edit = {"targets": targets, "region": "top left", "outside": "keep", "window": "early", "strength": 4.0}
    status, edited, _ = explored.ask("/api/edit", {**PROMPT, "edits": [edit]})
    assert status == 200 and pixels(edited).shape == (64, 64, 3)
    status, plain, _ = explored.ask("/api/edit", {**PROMPT, "edits": []})
    assert status == 200 and np.abs(pixels(edited) - pixels(plain)).max() > 0
    assert explored.ask("/api/layout")[0] == 200
    status, lines, _ = explored.ask("/api/draw", PROMPT)
    assert status == 200 and '"png"' in str(lines) and '"levels"' in str(lines)


@pytest.mark.browser
def test_a_feature_of_words_says_that_it_has_no_place_before_it_is_painted(
    server: tuple[Explored, Site], driver: Any
) -> None:
    explored, _ = server
    studio = Studio(driver, explored.base)
    studio.enter(explored)
    studio.draw()
    studio.one("#what").send_keys("no. 3")
    words = "[...document.querySelectorAll('#found li')].find((li) => li.textContent.includes('words, not a place'))"
    studio.wait(f"return {words} !== undefined")
    studio.run(f"{words}.dispatchEvent(new PointerEvent('pointerdown', {{bubbles: true, cancelable: true}}))")
    assert studio.texts("#layers .share") == ["in the words of the prompt"]
    studio.wait(REDRAWN)  # it acts at once, on the whole picture
    (edit,) = studio.recipe()["edits"]
    assert edit["targets"][0]["stream"] == "text" and "region" not in edit
    assert "cannot be painted" in studio.one("#placeless").text
    assert not studio.one("#brush").is_displayed() and not studio.one("#everywhere").is_displayed()
    studio.stroke((0.3, 0.3), (0.6, 0.6))
    assert studio.recipe()["edits"] == [edit]
