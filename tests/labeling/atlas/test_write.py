"""What `write_atlas` puts on disk; tests/labeling/atlas/test_browser.py opens it."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.masks import mask_to_struct, struct_to_mask
from gazetteer.labeling.atlas import AtlasSummary, write_atlas
from gazetteer.labeling.atlas.maps import pack
from gazetteer.labeling.atlas.pictures import MASK_SIDE, SIDE, concept_images, outline_struct, write_thumbnail
from gazetteer.labeling.atlas.script import figure, safe_folder, safe_ids, to_script
from tests.support.runs.atlas_run import HOSTILE_CONCEPT, HOSTILE_PROMPT, PROVENANCE, Plan, make_run, sites

PLAN = Plan(sites=sites(2, 2, ("cond", "uncond")), images=12, features=150, shard=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("atlas") / "run", PLAN)


@pytest.fixture(scope="module")
def atlas(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> AtlasSummary:
    return write_atlas(run, tmp_path_factory.mktemp("atlas") / "pages")


def load(summary: AtlasSummary, key: str) -> Any:
    """The value a data script puts on the shelf."""
    text = (summary.index.parent / "data" / f"{key}.js").read_text(encoding="ascii")
    match = re.fullmatch(r'Atlas\.put\("([^"]+)",(.*)\);\n', text, re.DOTALL)
    assert match is not None
    assert match[1] == key
    return json.loads(match[2])


def unpack(text: str, cells: int) -> list[int]:
    """A level for every cell, read as the page reads it."""
    levels, at = [0] * cells, -1
    content = base64.b64decode(text)
    for gap, level in zip(content[::2], content[1::2], strict=True):
        at += gap
        levels[at] = level or levels[at]
    return levels


def test_summary_counts_what_is_there(atlas: AtlasSummary) -> None:
    files = [path for path in atlas.index.parent.rglob("*") if path.is_file()]
    assert (atlas.sites, atlas.features, atlas.labelled, atlas.concepts, atlas.images) == (8, 1200, 16, 3, 12)
    assert (atlas.files, atlas.bytes) == (len(files), sum(path.stat().st_size for path in files))
    assert len(list((atlas.index.parent / "images").iterdir())) == 12


def test_pages_use_only_files_of_the_atlas(atlas: AtlasSummary) -> None:
    for page in atlas.index.parent.glob("*.html"):
        links = re.findall(r'(?:href|src)="([^"]*)"', page.read_text(encoding="utf-8"))
        assert len(links) > 5
        for link in links:
            assert link.startswith(("#", "data:,")) or (page.parent / link).is_file(), link


def test_nothing_asks_the_network_or_runs_text(atlas: AtlasSummary) -> None:
    calls = ("fetch(", "XMLHttpRequest", "eval(", "new Function", "document.write")
    markup = ("innerHTML", "outerHTML", "insertAdjacentHTML", "@import", 'type="module"')
    root = atlas.index.parent
    for path in [*root.glob("*.html"), *(root / "assets").iterdir()]:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        for forbidden in ("http:", "https:", *calls, *markup):
            assert forbidden not in text, f"{path.name}: {forbidden}"


def test_data_scripts_are_plain_ascii_without_markup(atlas: AtlasSummary) -> None:
    for path in (atlas.index.parent / "data").rglob("*.js"):
        content = path.read_bytes()
        assert content.isascii()
        assert not re.search(rb"[<>&]", content)


def test_hostile_text_comes_back_as_it_was(atlas: AtlasSummary) -> None:
    prompts = [image["prompt"] for image in load(atlas, "images/0")]
    assert HOSTILE_PROMPT in prompts
    assert load(atlas, "atlas")["concepts"] == [HOSTILE_CONCEPT, "ground", "sky"]


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_every_text_survives_a_script(text: str) -> None:
    script = to_script("k", [text])
    assert json.loads(script[len('Atlas.put("k",') : -len(");\n")]) == [text]


def test_sites_follow_the_network_and_the_sampler(atlas: AtlasSummary) -> None:
    shown = load(atlas, "atlas")["sites"]
    assert [(s["block"], s["branch"], s["t"]) for s in shown] == [
        (block, branch, t)
        for block in ("down_blocks.2.attentions.1", "mid_block.attentions.0")
        for branch in ("cond", "uncond")
        for t in (1.0, 0.5)
    ]
    assert all((s["n"], s["labelled"], s["dead"], s["grid"]) == (150, 2, 1, [8, 8]) for s in shown)
    assert all(s["starts"] == [0, 128] for s in shown)


def test_index_has_a_value_for_every_feature_and_label(atlas: AtlasSummary) -> None:
    index = load(atlas, "features")
    assert len(index["f"]) == len(index["density"]) == len(index["labels"]) == 1200
    assert len(index["top"]) == len(index["cell"]) == 3 * 1200
    assert sum(index["labels"]) == len(index["concept"]) == len(index["q"]) == 8 * 3
    assert index["top"][3 * 2 : 3 * 3] == [-1, -1, -1]  # the silent feature


def test_a_feature_carries_its_labels_and_maps(atlas: AtlasSummary, run: RunFolder) -> None:
    shown = load(atlas, "atlas")
    site = next(s for s in shown["sites"] if s["slug"] == "mid_block.attentions.0-cond-t0.50")
    sky = load(atlas, f"{site['folder']}/0")[0]
    label = dict(zip(shown["label_columns"], sky["labels"][0], strict=True))
    want = run.read_final("labels").filter(
        _at(run.read_final("labels"), Site("mid_block.attentions.0", "cond", 0.5), 0)
    )
    assert shown["concepts"][label["concept"]] == "sky"
    assert label["dataset_iou"] == pytest.approx(want["dataset_iou"][0].as_py(), rel=1e-3)
    assert label["null_iou"] == pytest.approx(want["null_iou"][0].as_py(), rel=1e-3)
    assert label["paper_label"] is True
    image, value, _row, _column, height, width, packed = sky["top"][0]
    record = load(atlas, "images/0")[image]
    assert (value, height, width) == (4.2, 8, 8)
    assert unpack(packed, 64) == _levels(run, record["file"].removesuffix(".webp"), "mid_block.attentions.0", 0.5)


def _at(table: pa.Table, site: Site, feature: int) -> pa.Array:
    rows = table.select([*SITE_COLUMNS, "feature"]).to_pylist()
    return pa.array([row == {**site.columns(), "feature": feature} for row in rows])


def _levels(run: RunFolder, image_id: str, block: str, t: float) -> list[int]:
    """Feature 0 of one code, in 255ths of its largest value, rounded up."""
    rows = run.read_table("codes").to_pylist()
    row = next(r for r in rows if (r["image_id"], r["block"], r["branch"], r["t"]) == (image_id, block, "cond", t))
    cells = [0.0] * 64
    for slot, (feature, value) in enumerate(zip(row["feature"], row["value"], strict=True)):
        if feature == 0:
            cells[slot // row["k"]] = float(value)
    return [int(np.ceil(np.float32(255) * np.float32(v) / np.float32(max(cells)))) for v in cells]


def test_unnamed_features_say_what_came_closest_and_silent_ones_nothing(atlas: AtlasSummary) -> None:
    shown = load(atlas, "atlas")
    rows = load(atlas, f"{shown['sites'][0]['folder']}/0")
    near = [dict(zip(shown["near_columns"], row, strict=True)) for row in rows[5]["near"]]
    assert rows[5]["labels"] == []
    assert [shown["concepts"][row["concept"]] for row in near] == ["ground"]
    assert (rows[2]["dead"], rows[2]["labels"], rows[2]["near"], rows[2]["top"]) == (True, [], [], [])
    assert rows[0]["near"] == []  # a named feature needs none


def test_a_concept_lists_its_best_features_first(atlas: AtlasSummary) -> None:
    concepts = load(atlas, "atlas")["concepts"]
    sky = load(atlas, "concepts/0")[concepts.index("sky")]
    assert [[f for f, *_ in best] for best in sky["best"]] == [[0, 1]] * 8
    assert all(best[0][1] - best[0][2] >= best[1][1] - best[1][2] for best in sky["best"])
    assert (len(sky["images"]), sky["found"]) == (8, 12)
    assert load(atlas, "atlas")["carriers"][concepts.index("sky")] == 16


def test_the_same_run_gives_the_same_bytes(run: RunFolder, atlas: AtlasSummary, tmp_path: Path) -> None:
    again = write_atlas(run.path, tmp_path / "again")
    for path in atlas.index.parent.rglob("*"):
        if path.is_file():
            assert (again.index.parent / path.relative_to(atlas.index.parent)).read_bytes() == path.read_bytes()


def test_an_earlier_atlas_is_replaced_whole(run: RunFolder, tmp_path: Path) -> None:
    first = write_atlas(run, tmp_path / "pages", top=1)
    stale = first.index.parent / "data" / "stale.js"
    stale.write_text("old")
    seen: list[tuple[str, int, int]] = []
    second = write_atlas(run, tmp_path / "pages", top=2, progress=lambda *step: seen.append(step))
    assert not stale.exists()
    assert second.bytes > first.bytes
    assert [path.name for path in tmp_path.iterdir()] == ["pages"]
    assert seen[-1] == ("pages", 8, 8)
    assert ("pictures", 3, 3) in seen


def test_a_link_is_refused_before_anything_is_read(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "atlas").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        write_atlas(run, tmp_path / "atlas", progress=lambda *_: pytest.fail("begun"))


def test_other_peoples_files_are_left_alone(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="not empty and holds no atlas"):
        write_atlas(run, tmp_path)
    with pytest.raises(InputError, match="needs a folder"):
        write_atlas(run, tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_an_earlier_atlas_that_holds_the_run_is_not_replaced(
    run: RunFolder, atlas: AtlasSummary, tmp_path: Path
) -> None:
    pages, drawn = tmp_path / "pages", tmp_path / "pages" / "drawn"
    shutil.copytree(atlas.index.parent, pages)
    shutil.copytree(run.path, pages / "run")
    (tmp_path / "aside").mkdir()
    with pytest.raises(InputError, match=r"holds .*run; choose another folder"):
        write_atlas(pages / "run", tmp_path / "aside" / ".." / "pages")
    drawn.mkdir()
    with pytest.raises(InputError, match=r"holds .*drawn; choose another folder"):
        write_atlas(run, pages, edits=[drawn])
    assert drawn.is_dir() and (pages / "run" / "labels.parquet").is_file()


def test_an_unfinished_run_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a finished run"):
        write_atlas(tmp_path / "run", tmp_path / "pages")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", ["../../etc/passwd", "a/b", "", ".hidden", "-rf", "a b", "a\\b", "x" * 129, "é", "a\n"])
def test_image_ids_that_cannot_name_a_file_are_refused(bad: str) -> None:
    with pytest.raises(InputError, match="cannot name a file"):
        safe_ids(["fine-1.0_a", bad])


def test_image_ids_that_differ_in_case_only_are_refused() -> None:
    assert safe_ids(["a", "b"]) == ["a", "b"]
    with pytest.raises(InputError, match="differ in case only"):
        safe_ids(["cat", "Cat"])


def test_a_hostile_image_id_stops_the_atlas_before_it_is_written(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Plan(images=2))
    features = run.read_final("features").to_pylist()
    images = run.read_table("images").slice(0, 1).to_pylist()
    images[0]["image_id"] = features[0]["top_images"][0]["image_id"] = "../../escaped"
    run.commit_shard("extra", {"images": pa.Table.from_pylist(images)}, {}, PROVENANCE)
    run.write_final("features", pa.Table.from_pylist(features, schema=run.read_final("features").schema), PROVENANCE)
    run.finish({"shards": run.shard_ids()})
    with pytest.raises(InputError, match="escaped"):
        write_atlas(run, tmp_path / "deep" / "pages")
    assert not (tmp_path / "deep" / "pages").exists()
    assert list(tmp_path.rglob("escaped*")) == []


def test_folders_are_plain_and_distinct() -> None:
    taken: set[str] = set()
    assert safe_folder("mid_block-cond-t0.50", taken) == "mid_block-cond-t0.50"
    assert safe_folder("../x y-cond-t0.50", taken) == "_x_y-cond-t0.50"
    assert safe_folder("MID_block-cond-t0.50", taken) == "MID_block-cond-t0.50~2"


def test_pack_by_hand() -> None:
    # Two cells of k = 2: feature 5 fires in both (1.0, 2.0), feature 9 in the second; a slot of value 0 is unused.
    feature = np.array([5, 9, 9, 5], np.uint32)
    value = np.array([1.0, 0.0, 3.0, 2.0], np.float16)
    five, seven, nine = pack(feature, value, 2, np.array([5, 7, 9]))
    assert base64.b64decode(five) == bytes([1, 128, 1, 255])
    assert seven == ""
    assert base64.b64decode(nine) == bytes([2, 255])


@given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from([0.0, 0.5, 1.0, 4.0])), max_size=40), st.integers(1, 3))
@settings(max_examples=80, deadline=None)
def test_pack_gives_back_every_map(slots: list[tuple[int, float]], k: int) -> None:
    dense = np.zeros((1000, 2), np.float16)  # cells × features 0 and 1, at most one slot a feature and cell
    for cell, value in slots:
        dense[cell, cell % 2] = value
    feature, value = np.full((1000, k), 7, np.uint32), np.zeros((1000, k), np.float16)
    feature[:, 0] = np.arange(1000) % 2
    value[:, 0] = dense[np.arange(1000), np.arange(1000) % 2]
    for number, packed in enumerate(pack(feature.ravel(), value.ravel(), k, np.array([0, 1]))):
        peak = max(float(dense[:, number].max()), 1e-9)
        assert unpack(packed, 1000) == [int(np.ceil(255 * float(v) / peak)) for v in dense[:, number]]


def test_large_pictures_and_masks_are_shrunk(tmp_path: Path) -> None:
    Image.new("RGB", (1024, 512), (10, 200, 90)).save(tmp_path / "big.png")
    write_thumbnail((tmp_path / "big.png").read_bytes(), tmp_path / "small.webp")
    with Image.open(tmp_path / "small.webp") as small:
        assert small.size == (SIDE, SIDE // 2)
    mask = np.zeros((1024, 512), np.bool_)
    mask[:512] = True
    thin = struct_to_mask(outline_struct(mask_to_struct(mask)))
    assert max(thin.shape) <= MASK_SIDE
    assert thin.mean() == pytest.approx(0.5, abs=0.01)
    assert outline_struct(mask_to_struct(mask[:8, :8])) == mask_to_struct(mask[:8, :8])


def test_concept_images_are_those_it_fills_most() -> None:
    rows = [("a", "sky", 5), ("b", "sky", 3), ("a", "sky", 1), ("c", "sky", 6), ("gone", "sky", 99), ("c", "sun", 1)]
    columns = dict(zip(("image_id", "concept", "area"), map(list, zip(*rows, strict=True)), strict=True))
    examples, found = concept_images(pa.table(columns), {"a", "b", "c"}, most=2)
    assert examples == {"sky": ["a", "c"], "sun": ["c"]}
    assert found == {"sky": 3, "sun": 1}


@pytest.mark.parametrize(
    ("value", "shown"), [(0.123456, 0.1235), (None, None), (float("nan"), None), (float("inf"), None), (3.0, 3)]
)
def test_figures_are_short_or_missing(value: float | None, shown: float | None) -> None:
    assert figure(value) == shown
