"""What an atlas may hold besides labels: causal evidence, layouts over sampling, steering sheets; also in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import Edit
from gazetteer.data.inputs.regions import QUADRANTS, Region
from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.schemas import CAUSAL
from gazetteer.labeling.atlas import AtlasSummary, write_atlas
from gazetteer.labeling.atlas.inks import inks
from gazetteer.labeling.atlas.sheets import write_edits, write_layouts
from tests.support.runs.atlas_run import HOSTILE_CONCEPT, HOSTILE_PROMPT, Plan, make_run, sites
from tests.support.runs.runs import PROVENANCE, blank
from tests.support.servers.browser import Page, complaints, phone

SITE = "mid_block.attentions.0-cond-t1.00"


def picture(shade: int) -> bytes:
    return encode_image(np.full((16, 16, 3), shade, np.uint8))


def layout_folder(path: Path) -> Path:
    """Three steps on 2 x 2 cells: sky is predicted at the top from the second step on."""
    path.mkdir(parents=True)
    where = np.zeros((3, 3, 2, 2), np.float32)
    where[1:, 2, 0] = 0.9
    where[:, 1] = 0.25
    np.savez_compressed(
        path / "layout.npz", where=where, whether=np.ones((3, 3)), thresholds=np.full((3, 3), 0.5, np.float32),
        t=np.array([1.0, 0.5, 0.0], np.float32), concepts=np.array(["boat", "ground", "sky"]),
    )  # fmt: skip
    (path / "layout.json").write_text(json.dumps({"prompt": HOSTILE_PROMPT, "seed": 7, "named": ["sky", "ground"]}))
    (path / "picture.png").write_bytes(picture(90))
    return path


def edit_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    files = {name: f"0-{name}.png" for name in ("plain", "early", "middle", "final")}
    for shade, file in enumerate(files.values()):
        (path / file).write_bytes(picture(40 * shade))
    # As `gazetteer steer` writes it: what is the default is left out.
    edit = Edit(concept="sky", strength=2.0, region=Region(box=QUADRANTS["top left"]))
    row = {"prompt": "a boat", "seed": 3, "edits": [edit.digest], "change": {"early": 0.1}, "files": files}
    (path / "steer.json").write_text(json.dumps({"pictures": [row], "edits": {edit.digest: edit.as_dict()}}))
    return path


def weights_folder(path: Path) -> Path:
    """As `gazetteer attribute sheet` writes it."""
    path.mkdir(parents=True)
    files = {title: f"0-{title}.png" for title in ("original", "erased", "amplified")}
    for shade, file in enumerate(files.values()):
        (path / file).write_bytes(picture(40 * shade))
    row = {"prompt": "a boat", "seed": 3, "edits": ["erase boat by steps: 12 weights"], "files": files}
    (path / "weights.json").write_text(json.dumps({"pictures": [row]}))
    return path


def causal_rows() -> pa.Table:
    """Feature 1 of the site: its name is confirmed, something else appears and something is only named."""
    rows = []
    for concept, labelled, area, verdict in (
        (HOSTILE_CONCEPT, True, 0.125, "confirmed"), ("sky", True, -0.001, "no effect"),
        ("ground", False, 0.05, "effect without label"), ("boat", False, 0.0, "none"),
    ):  # fmt: skip
        values = {name: 0.0 for name in CAUSAL.names if name.startswith("causal_") and name != "causal_verdict"}
        values |= {"causal_area": area, "causal_area_low": area - 0.01, "causal_area_high": area + 0.01}
        values |= {"causal_images": 16, "causal_verdict": verdict}
        place = {**Site.from_slug(SITE).columns(), "feature": 1, "concept": concept, "labelled": labelled}
        rows.append(blank(CAUSAL, **place, **values))
    return pa.Table.from_pylist(rows, schema=CAUSAL)


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> AtlasSummary:
    root = tmp_path_factory.mktemp("sheets")
    run = make_run(root / "run", Plan(sites=sites(2, 2), images=8, features=40, named=31, grid=8))
    run.write_final("causal", causal_rows(), PROVENANCE)
    return write_atlas(
        run,
        root / "pages",
        layouts=[layout_folder(root / "layout")],
        edits=[edit_folder(root / "edits"), weights_folder(root / "weights")],
    )


def load(atlas: AtlasSummary, key: str) -> Any:
    text = (atlas.index.parent / "data" / f"{key}.js").read_text(encoding="ascii")
    return json.loads(text[len(f'Atlas.put("{key}",') : -len(");\n")])


def test_pages_get_what_the_folders_hold(sheets: AtlasSummary) -> None:
    assert load(sheets, "atlas")["extras"] == {"layouts": 1, "edits": 2}
    (head,), maps = load(sheets, "layouts"), load(sheets, "layouts/0")
    assert head["prompt"] == HOSTILE_PROMPT and head["t"] == [1, 0.5, 0]
    assert maps["concepts"] == ["sky", "ground"] and (maps["height"], maps["width"]) == (2, 2)
    assert maps["inks"] == [list(ink) for ink in inks(["ground", "sky"]).values()][::-1]
    row, of_weights = load(sheets, "edits")
    assert list(of_weights["files"]) == ["original", "erased", "amplified"]
    assert of_weights["edits"] == ["erase boat by steps: 12 weights"]
    assert list(row["files"]) == ["plain", "early", "middle", "final"]
    assert row["edits"] == ["sky in the top left, strength 2 update_norm, t 1 to 0.6, cond"]
    for file in (head["file"], *row["files"].values(), *of_weights["files"].values()):
        assert (sheets.index.parent / file).is_file()


@pytest.mark.parametrize(
    ("kind", "spoil", "said"),
    [
        ("layouts", "layout.json", r"layout.json is missing or damaged; gazetteer layout predict writes it"),
        ("layouts", "layout.npz", r"layout.npz is missing or damaged; run gazetteer layout predict again"),
        ("layouts", "picture.png", r"picture.png cannot be read"),
        ("edits", "steer.json", r"steer.json is missing or damaged; gazetteer steer writes it"),
        ("edits", "0-middle.png", r"0-middle.png cannot be read"),
    ],
)
def test_a_folder_that_lacks_something_gets_a_sentence(tmp_path: Path, kind: str, spoil: str, said: str) -> None:
    run = make_run(tmp_path / "run", Plan(sites=sites(1, 1), images=4, features=4, named=3, grid=4))
    folder = (layout_folder if kind == "layouts" else edit_folder)(tmp_path / "folder")
    (folder / spoil).unlink()
    with pytest.raises(InputError, match=re.escape(said)):
        write_atlas(run, tmp_path / "pages", **{kind: [folder]})
    assert not (tmp_path / "pages").exists()


@pytest.mark.parametrize(
    "said",
    ["[]", "3", "null", "{}", "[" * 100_000, '{"named": "sky", "prompt": "a", "seed": 1}',
     '{"named": [[]], "prompt": 3, "seed": 1}'],
)  # fmt: skip
def test_a_layout_of_another_shape_gets_a_sentence(tmp_path: Path, said: str) -> None:
    folder = layout_folder(tmp_path / "layout")
    (folder / "layout.json").write_text(said)
    with pytest.raises(InputError, match=r"layout\.json is (missing or damaged|not what gazetteer layout predict)"):
        write_layouts([folder], tmp_path)


EDITED = {"prompt": "a", "seed": 1, "edits": [], "files": {}}


@pytest.mark.parametrize(
    "pictures",
    [{}, "", 3, [3], [EDITED | {"edits": "abc"}], [EDITED | {"files": 3}], [EDITED | {"files": {"a": 3}}],
     [EDITED | {"files": {"a": "\0"}}]],
)  # fmt: skip
@pytest.mark.parametrize("name", ["weights.json", "steer.json"])
def test_edits_of_another_shape_get_a_sentence(tmp_path: Path, name: str, pictures: Any) -> None:
    (tmp_path / name).write_text(json.dumps({"pictures": pictures, "edits": {}}))
    with pytest.raises(InputError, match=r"is not what gazetteer .* writes; run it again|cannot be read: "):
        write_edits([tmp_path], tmp_path)


def test_an_empty_steer_file_gets_a_sentence(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Plan(sites=sites(1, 1), images=4, features=4, named=3, grid=4))
    (edit_folder(tmp_path / "folder") / "steer.json").write_text('{"pictures": [{}], "edits": {}}')
    with pytest.raises(InputError, match="not what gazetteer steer writes"):
        write_atlas(run, tmp_path / "pages", edits=[tmp_path / "folder"])


def test_an_edit_that_is_read_as_another_than_was_drawn_is_refused(tmp_path: Path) -> None:
    """Before strengths were always written down, none meant 1."""
    run = make_run(tmp_path / "run", Plan(sites=sites(1, 1), images=4, features=4, named=3, grid=4))
    file = edit_folder(tmp_path / "folder") / "steer.json"
    about = json.loads(file.read_text())
    for edit in about["edits"].values():
        del edit["strength"]
    file.write_text(json.dumps(about))
    with pytest.raises(InputError, match="was written down by a version with other defaults"):
        write_atlas(run, tmp_path / "pages", edits=[tmp_path / "folder"])


@pytest.fixture
def page(driver: Any, sheets: AtlasSummary) -> Iterator[Page]:
    complaints(driver)
    shown = Page(driver, sheets.index.parent.as_uri())
    yield shown
    assert complaints(driver) == []
    asked = shown.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in asked if not name.startswith(("file:", "data:"))] == []


@pytest.mark.browser
class TestInBrowser:
    """Everything that needs a browser."""

    def test_a_feature_shows_what_it_causes(self, page: Page) -> None:
        page.open("feature", site=SITE, f=1)
        assert page.texts(".causal tbody th") == [HOSTILE_CONCEPT, "sky", "ground"]
        verdicts = page.texts(".causal .verdict")
        assert "confirmed" in verdicts[0] and "no sure effect" in verdicts[1] and "not a name" in verdicts[2]
        assert page.texts(".causal tbody tr:first-child td:nth-child(2)") == ["+12.5 [+11.5, +13.5]"]
        assert "Switched on in 16 pictures, beside another feature" in page.one("#causal-title + .note").text
        page.open("feature", site=SITE, f=0)
        assert page.texts(".causal") == []

    def test_the_slider_walks_from_noise_to_the_picture(self, page: Page) -> None:
        page.open("layout")
        painted = (
            "return [...document.querySelector('.layout canvas').getContext('2d').getImageData(0, 0, 2, 2).data]"
            ".filter((v, i) => i % 4 === 3).map((v) => v > 0)"
        )
        assert page.one("output").text == "step 1 of 3, t = 1.00" and page.run(painted) == [False] * 4
        page.run(
            "const e = document.querySelector('input[type=range]'); e.value = 1;"
            "e.dispatchEvent(new Event('input', {bubbles: true}))"
        )
        assert page.one("output").text == "step 2 of 3, t = 0.50" and page.run(painted) == [True, True, False, False]
        colour = painted.replace(".filter((v, i) => i % 4 === 3).map((v) => v > 0)", ".slice(0, 3)")
        red, green, blue = page.run(colour)
        assert blue > green > red, "sky is blue"
        assert "every feature" in page.one(".lede").text
        assert page.texts(".inked") == ["sky", "ground"] and page.texts("figcaption q") == [HOSTILE_PROMPT]
        page.wait("return document.querySelector('.layout img').naturalWidth === 16")

    def test_a_sheet_shows_every_stage(self, page: Page) -> None:
        page.open("steering")
        assert page.texts(".panel-title")[:4] == ["original", "early", "middle", "final"]
        assert page.texts(".panel-title")[4:] == ["original", "erased", "amplified"]
        page.run("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
        page.wait("return [...document.images].every((image) => image.complete && image.naturalWidth === 16)")
        assert "sky in the top left" in page.one(".said").text

    def test_the_extra_pages_are_linked_and_fit_a_phone(self, page: Page) -> None:
        page.open("index")
        page.wait("return document.querySelector('.series a[href=\"steering.html\"]') !== null")
        with phone(page.driver):
            for name, query in (("layout", {}), ("steering", {}), ("feature", {"site": SITE, "f": 1})):
                page.open(name, **query)
                assert page.run("return document.documentElement.scrollWidth") <= 360, name
