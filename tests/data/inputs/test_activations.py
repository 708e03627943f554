"""Activation shards: what is written is read, truly shuffled, and damage is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gazetteer.data.core.digests import digest_file, digest_json
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.activation_dataset import ActivationDataset
from gazetteer.data.inputs.activations import ActivationWriter
from tests.support.system.running import ROOT

A = Site("down_blocks.2.attentions.1", "cond", 0.5)
B = Site("mid_block.attentions.0", "cond", 0.5)
IMAGES, SHARDS, CELLS = 10, 4, 16


def image_id(shard: int, image: int) -> str:
    return f"img-{shard}-{image}"


def vectors_of(site: Site, shard: int, d: int = 3) -> np.ndarray:
    """Every vector says where it comes from: (shard, image, cell), and −cell at the other site."""
    sign = 1 if site == A else -1
    grid = [(shard, image, sign * cell) for image in range(IMAGES) for cell in range(CELLS)]
    return np.asarray(grid, dtype=np.float16)[:, :d]


def write(root: Path, shards: int = SHARDS) -> ActivationWriter:
    writer = ActivationWriter(root, [B, A])
    for shard in range(shards):
        ids = [image_id(shard, image) for image in range(IMAGES)]
        writer.add(f"shard-{shard:04d}", {A: vectors_of(A, shard), B: vectors_of(B, shard, 2)}, ids)
    return writer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "acts")
    return tmp_path / "acts"


def test_what_is_written_is_read(root: Path):
    dataset = ActivationDataset(root, A, "all")
    assert (dataset.d, dataset.vectors) == (3, SHARDS * IMAGES * CELLS)
    expected = np.concatenate([vectors_of(A, shard) for shard in range(SHARDS)]).astype(np.float32)
    assert torch.equal(torch.cat(list(dataset.in_order(100))), torch.from_numpy(expected))
    assert ActivationDataset(root, B, "all").d == 2


def test_images_are_held_out_whole(root: Path):
    train, heldout = (ActivationDataset(root, A, split) for split in ("train", "heldout"))
    assert train.vectors + heldout.vectors == SHARDS * IMAGES * CELLS
    assert not set(train.image_ids) & set(heldout.image_ids)
    for dataset in (train, heldout):
        cells = next(iter(dataset.in_order(10_000)))
        origins = {image_id(int(shard), int(image)) for shard, image, _ in cells.tolist()}
        assert origins == set(dataset.image_ids)
        assert len(cells) == len(origins) * CELLS


def test_an_image_stays_on_its_side_when_shards_are_added(tmp_path: Path):
    write(tmp_path, 3)
    before = set(ActivationDataset(tmp_path, A, "heldout", 0.3).image_ids)
    write(tmp_path, 4)
    after = set(ActivationDataset(tmp_path, A, "heldout", 0.3).image_ids)
    assert before == {name for name in after if not name.startswith("img-3-")}


def test_about_the_stated_share_is_held_out_and_at_least_one_image(tmp_path: Path):
    writer = ActivationWriter(tmp_path, [A])
    writer.add("many", {A: np.zeros((2000, 1))}, [f"image {i}" for i in range(2000)])
    assert 60 <= ActivationDataset(tmp_path, A, "heldout").vectors <= 140
    assert ActivationDataset(tmp_path, A, "heldout", 0.0).vectors == 1


def test_every_vector_comes_once_an_epoch(root: Path):
    dataset = ActivationDataset(root, A, "all")
    rows = torch.cat(list(dataset.batches(64, seed=1, epochs=1)))
    assert len(rows) == dataset.vectors
    assert len({tuple(row) for row in rows.tolist()}) == dataset.vectors


def test_a_batch_mixes_images_and_shards(root: Path):
    # A batch of 64 cells out of 40 images: drawn one by one they come from about 32 images, never from 4.
    batch = next(ActivationDataset(root, A, "all").batches(64, seed=1))
    assert len({tuple(row) for row in batch[:, :2].tolist()}) > 24
    assert set(batch[:, 0].tolist()) == {0.0, 1.0, 2.0, 3.0}


def test_any_step_can_be_entered_directly(root: Path):
    dataset = ActivationDataset(root, A)
    whole = list(dataset.batches(50, seed=3, epochs=4))
    for start in (0, 1, 11, 12, 13, len(whole) - 1):
        rest = list(dataset.batches(50, seed=3, start_step=start, epochs=4))
        assert len(rest) == len(whole) - start
        assert all(torch.equal(x, y) for x, y in zip(rest, whole[start:], strict=True))


def test_a_finished_shard_is_skipped(root: Path):
    writer = ActivationWriter(root, [A, B])
    assert writer.finished("shard-0000")
    assert not writer.finished("shard-0009")
    path = root / A.slug / "shard-0000.safetensors"
    stamp = path.stat().st_mtime_ns
    assert not writer.add("shard-0000", {A: np.zeros((1, 3)), B: np.zeros((1, 2))}, ["x"])
    assert path.stat().st_mtime_ns == stamp


def test_a_shard_without_its_record_does_not_exist(root: Path):
    # Killed after the arrays and before the record: invisible to readers, written again by the next run.
    (root / "_shards" / "shard-0003.json").unlink()
    assert ActivationDataset(root, A, "all").vectors == (SHARDS - 1) * IMAGES * CELLS
    write(root)
    assert ActivationDataset(root, A, "all").vectors == SHARDS * IMAGES * CELLS


def test_damage_is_named(root: Path):
    path = root / A.slug / "shard-0002.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    with pytest.raises(InputError, match=r"shard-0002.safetensors is damaged"):
        ActivationDataset(root, A, verify=False)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"shard-0002.safetensors is damaged"):
        ActivationDataset(root, A)
    path.unlink()
    with pytest.raises(InputError, match=r"shard-0002.safetensors is missing"):
        ActivationDataset(root, A)
    ActivationDataset(root, B)
    record = root / "_shards" / "shard-0001.json"
    record.write_text(record.read_text().replace("img-1-0", "img-1-9"))
    with pytest.raises(InputError, match=r"shard-0001.json is not what was written; it is damaged"):
        ActivationDataset(root, B)
    record.write_text("{")
    with pytest.raises(InputError, match=r"shard-0001.json is not valid JSON"):
        ActivationDataset(root, B)


DAMAGES = ["flip", "cut", "grow"]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damage_anywhere_is_refused_by_name_or_changes_nothing(tmp_path_factory: pytest.TempPathFactory, data):
    """A byte flipped, bytes lost or added, in any file of the set: never other vectors than those written."""
    whole = tmp_path_factory.getbasetemp() / "whole"
    if not whole.exists():
        write(whole, 2)
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and B.slug not in path.parts)
    path = data.draw(st.sampled_from(files), label="file")
    content = bytearray(path.read_bytes())
    damage, place = data.draw(st.sampled_from(DAMAGES)), data.draw(st.integers(0, len(content) - 1))
    if damage == "flip":
        content[place] ^= data.draw(st.integers(1, 255))
    elif damage == "cut":
        del content[place:]
    else:
        content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
    path.write_bytes(content)
    said, found = "", None
    try:
        found = ActivationDataset(folder, A, "all")
    except InputError as error:
        said = str(error)
    if found is None:
        assert path.name in said or (path.name == "sites.json" and str(folder) in said)
    else:
        sound = ActivationDataset(whole, A, "all")
        assert found.image_ids == sound.image_ids
        assert torch.equal(next(found.in_order(1000)), next(sound.in_order(1000)))
    shutil.rmtree(folder)


KILLS = """
import os, sys
from pathlib import Path
from tests.support.system.killer import killed_everywhere
from tests.data.inputs.test_activations import write

calls = [(Path, "write_bytes"), (os, "fsync"), (os, "replace"), (os, "mkdir")]
print(killed_everywhere(calls, lambda at: write(Path(sys.argv[1]) / str(at), 1)))
"""


def test_a_kill_at_any_moment_of_writing_then_the_same_again_gives_the_same_files(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout)
    assert kills >= 4 * 3  # the index, a record, two files: each written, flushed and renamed
    whole = files_of(tmp_path / str(kills))
    for at in range(kills):
        folder = tmp_path / str(at)
        visible = {name: content for name, content in files_of(folder).items() if "/." not in f"/{name}"}
        assert visible.items() <= whole.items()  # what a reader sees is whole
        write(folder, 1)
        assert files_of(folder) == whole, f"killed at call {at}"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_of_the_stated_size_that_is_no_shard_is_not_read(root: Path):
    path = root / A.slug / "shard-0002.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(InputError, match=r"shard-0002.safetensors is damaged"):
        ActivationDataset(root, A, verify=False)


def test_files_are_mapped_into_memory_and_any_reader_of_safetensors_opens_them(root: Path):
    dataset = ActivationDataset(root, A, "all")
    path = root / A.slug / "shard-0003.safetensors"
    assert str(path) in Path("/proc/self/maps").read_text()
    assert torch.equal(load_file(path)["vectors"].float(), dataset.gather(np.arange(480, 640)))


def test_sets_of_words_state_a_format_that_readers_of_format_2_refuse(tmp_path: Path):
    """Such a reader would cut the rows evenly among the images."""
    words = Site("transformer_blocks.0", "cond", 0.5, stream="text")
    for folder, site, cells in ((tmp_path / "words", words, [1, 3]), (tmp_path / "grid", A, [2, 2])):
        writer = ActivationWriter(folder, [site])
        writer.add("s", {site: np.arange(8.0).reshape(4, 2)}, ["one", "two"], {site: cells})
        stated = [json.loads((folder / name).read_text())["format"] for name in ("sites.json", "_shards/s.json")]
        assert stated == ([3, 3] if site is words else [2, 2])
        found = ActivationDataset(folder, site, "all")
        assert found.gather(np.arange(4)).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    index = json.loads((tmp_path / "words/sites.json").read_text())
    (tmp_path / "words/sites.json").write_text(json.dumps({**index, "format": 2}))  # begun by an older version
    assert ActivationDataset(tmp_path / "words", words, "all").vectors == 4
    ActivationWriter(tmp_path / "words", [words])
    assert json.loads((tmp_path / "words/sites.json").read_text()) == index


def test_the_digest_follows_the_contents_and_the_split(root: Path, tmp_path: Path):
    write(tmp_path / "copy")
    assert ActivationDataset(root, A).digest == ActivationDataset(tmp_path / "copy", A).digest
    assert ActivationDataset(root, A).digest != ActivationDataset(root, A, "heldout").digest
    write(tmp_path / "fewer", 3)
    assert ActivationDataset(root, A).digest != ActivationDataset(tmp_path / "fewer", A).digest


def test_nothing_to_read_is_said(root: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"it has no sites\.json"):
        ActivationDataset(tmp_path / "nowhere", A)
    with pytest.raises(InputError, match="have no site"):
        ActivationDataset(root, Site("mid_block.attentions.0", "uncond", 0.5))
    with pytest.raises(InputError, match="Unknown split 'test'; accepted: train, heldout, all"):
        ActivationDataset(root, A, "test")
    ActivationWriter(tmp_path / "empty", [A])
    with pytest.raises(InputError, match="no finished shard yet"):
        ActivationDataset(tmp_path / "empty", A)
    ActivationWriter(tmp_path / "one", [A]).add("s", {A: np.zeros((4, 2))}, ["only"])
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "sites.json").write_text(json.dumps({"format": 1, "sites": [A.slug]}))
    for open_set in (lambda: ActivationDataset(tmp_path / "old", A), lambda: ActivationWriter(tmp_path / "old", [A])):
        with pytest.raises(InputError, match=r"sites.json states format 1; this version reads 2 and 3"):
            open_set()
    with pytest.raises(InputError, match=r"The train split .* is empty"):
        ActivationDataset(tmp_path / "one", A)


def test_what_does_not_fit_is_refused(tmp_path: Path):
    writer = ActivationWriter(tmp_path, [A])
    with pytest.raises(InputError, match="other sites"):
        ActivationWriter(tmp_path, [A, B])
    with pytest.raises(InputError, match="at least one site"):
        ActivationWriter(tmp_path / "none", [])
    with pytest.raises(InputError, match=f"differing: {B.slug}"):
        writer.add("s", {A: np.zeros((4, 2)), B: np.zeros((4, 2))}, ["a"])
    with pytest.raises(InputError, match="same number of vectors of each of 3 images"):
        writer.add("s", {A: np.zeros((4, 2))}, ["a", "b", "c"])
    with pytest.raises(InputError, match="not finite in float16"):
        writer.add("s", {A: np.full((4, 2), 1e5)}, ["a"])
    with pytest.raises(InputError, match="cannot name a shard"):
        writer.add("../s", {A: np.zeros((4, 2))}, ["a"])
    assert not writer.finished("s")


def test_images_may_differ_in_their_vectors(tmp_path: Path):
    # 20 prompts of 1, 2, 3, 1, … words; every vector is the number of its image. 40 divides among 20: not two each.
    counts = [1 + number % 3 for number in range(20)]
    values = np.repeat(np.arange(20), counts)[:, None].astype(np.float16)
    writer = ActivationWriter(tmp_path, [A])
    for wrong in (counts[:-1], [*counts[:-1], counts[-1] + 1], [2] * 20):
        with pytest.raises(InputError, match="does not hold the vectors of each of 20 images"):
            writer.add("s", {A: values}, [f"i{number}" for number in range(20)], {A: wrong})
    writer.add("s", {A: values}, [f"i{number}" for number in range(20)], {A: counts})
    sides = [
        set(torch.cat(list(ActivationDataset(tmp_path, A, side).in_order(7))).flatten().tolist()) for side in SIDES
    ]
    assert sides[0] | sides[1] == set(range(20))
    assert not sides[0] & sides[1], "no image stands on both sides"
    both = ActivationDataset(tmp_path, A, "all")
    assert torch.cat(list(both.in_order(6))).flatten().tolist() == values[:, 0].tolist()


SIDES = ("train", "heldout")


def test_the_record_says_what_is_there(root: Path):
    record = json.loads((root / "_shards" / "shard-0001.json").read_text())
    assert record["image_ids"][:2] == ["img-1-0", "img-1-1"]
    assert record["sites"][A.slug]["rows"] == IMAGES * CELLS
    assert not list(root.rglob("*.partial"))


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.complex64, torch.bfloat16, torch.float64, torch.bool])
def test_numbers_of_another_kind_are_not_read(root: Path, kind: torch.dtype):
    """A file that its record vouches for, of a type that was never written."""
    path = next((root / A.slug).glob("*.safetensors"))
    save_file({"vectors": torch.zeros(IMAGES * CELLS, 3).to(kind)}, path)
    record_path = root / "_shards" / f"{path.stem}.json"
    record = json.loads(record_path.read_bytes())
    del record["sha256"]
    record["sites"][A.slug].update(bytes=path.stat().st_size, sha256=digest_file(path))
    record_path.write_text(json.dumps(record | {"sha256": digest_json(record)}))
    with pytest.raises(InputError, match=f"{path.name} is damaged"):
        ActivationDataset(root, A, "all")


@pytest.mark.parametrize(
    "change",
    [{"shard": "../../elsewhere"}, {"image_ids": 5}, {"image_ids": [1]}, {"sites": []}, {"sites": {A.slug: {}}},
     {"sites": {A.slug: {"rows": "1", "d": 3, "bytes": 3, "sha256": ""}}}],
)  # fmt: skip
def test_a_record_edited_and_sealed_anew_is_damaged_all_the_same(root: Path, change: dict[str, object]):
    path = next((root / "_shards").glob("*.json"))
    record = json.loads(path.read_bytes()) | change
    del record["sha256"]
    path.write_text(json.dumps(record | {"sha256": digest_json(record)}))
    with pytest.raises(InputError, match=f"{path.name} is not what was written"):
        ActivationDataset(root, A, "all")
