"""The page that asks a person blind, and how far the answers agree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.schemas import IMAGES
from gazetteer.jobs.cli.main import main
from gazetteer.labeling.quality.rating import agreement, print_agreement, write_page
from tests.support.runs.atlas_run import Plan, make_run
from tests.support.runs.layout_runs import world_run
from tests.support.runs.runs import PROVENANCE
from tests.support.runs.small_world import MID, World, sky_world


class Pictured(World):
    """A world with a picture of its own for every image."""

    @property
    def images(self) -> pa.Table:
        rows = super().images.to_pylist()
        for number, row in enumerate(rows):
            picture = np.full((row["height"], row["width"], 3), 40 + 3 * number, np.uint8)
            row["image"] = {"bytes": encode_image(picture), "path": None}
        return pa.Table.from_pylist(rows, schema=IMAGES)


def labelled(path: Path, pictures: int) -> RunFolder:
    """A run whose feature 0 is labelled sky, a thing, and feature 1 top half, a place."""
    world = Pictured(sky_world(pictures).inputs, ("ball", "sky"))
    store = world_run(path, world, "a sky and a ball", {})
    for name, table in world.reduce({MID: 4}).items():
        store.write_final(name, table, PROVENANCE)
    return store


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rate") / "run"
    labelled(path, 60)
    return path


def name_on(page: Path) -> str:
    """What a page calls its run."""
    said = re.search(r"const about = (\{.*?\});", (page / "index.html").read_text())
    assert said
    return str(json.loads(said[1])["run"])


def answered(path: Path, run: str, answers: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"run": run, "answers": answers}))
    return path


def test_the_page_shows_every_feature_and_no_name(run: Path, tmp_path: Path) -> None:
    assert write_page(run, tmp_path, features=9) == 2
    page = (tmp_path / "index.html").read_text()
    assert sorted(re.findall(r'data-key="([^"]*)"', page)) == [f"{MID.slug}/0", f"{MID.slug}/1"]
    assert page.count("data:image/png;base64,") >= 6
    assert "src=http" not in page and "sky" not in page and "top half" not in page
    again = tmp_path / "again"
    write_page(run, again, features=9)
    assert (again / "index.html").read_text() == page
    assert write_page(run, again, features=1, seed=3) == 1


def test_answers_in_a_person_s_own_words(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_page(run, tmp_path)
    name = name_on(tmp_path)
    said = {f"{MID.slug}/0": "some skies", f"{MID.slug}/1": "a ball"}
    found = agreement(run, answered(tmp_path / "a.json", name, said))
    assert (found["answered"], found["skipped"], found["agree"][0]) == (2, 0, 0.5)
    assert found["spatial"] == {"answered": 1, "agree": [1.0, 0.2065, 1.0]}  # one answer proves little: Wilson's
    assert [(row["label"], row["kind"], row["answer"]) for row in found["disagreements"]] == [
        ("top half", "place", "a ball")
    ]
    assert found["by_chance"] < 0.5
    print_agreement(found)
    assert "50% [0%, 100%] of 2 answers agree" in capsys.readouterr().out
    silent = agreement(run, answered(tmp_path / "b.json", name, {f"{MID.slug}/0": "  "}))
    assert (silent["answered"], silent["skipped"], silent["agree"]) == (0, 1, [None] * 3)
    assert main(["rate", str(run), "--answers", str(tmp_path / "a.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agree"][0] == 0.5


def test_answers_for_features_that_lost_their_label_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after `gazetteer relabel` with stricter settings; what is no feature of the run is refused."""
    store = labelled(tmp_path / "run", 40)
    write_page(store.path, tmp_path / "page")
    name = name_on(tmp_path / "page")
    said = {f"{MID.slug}/0": "sky", f"{MID.slug}/2": "a dog", f"{MID.slug}/3": ""}  # 2 and 3 are not labelled
    found = agreement(store.path, answered(tmp_path / "a.json", name, said))
    assert (found["answered"], found["skipped"], found["unlabelled"], found["agree"][0]) == (1, 0, 2, 1.0)
    print_agreement(found)
    assert "2 features are left out: they have no label any more" in capsys.readouterr().out
    with pytest.raises(InputError, match="no label any more for any feature"):
        agreement(store.path, answered(tmp_path / "b.json", name, {f"{MID.slug}/2": "a dog"}))
    with pytest.raises(InputError, match=r"answers for .*/4, which is no feature"):
        agreement(store.path, answered(tmp_path / "c.json", name, said | {f"{MID.slug}/4": "sky"}))


def test_synonyms_of_the_run_and_everyday_words_of_places_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page without names cannot tell how a label is worded; how far its own wording was met stands beside it."""
    store = labelled(tmp_path / "run", 40)
    store.write_json("synonyms.json", {"sky": ["firmament"]})
    write_page(store.path, tmp_path / "page")
    name = name_on(tmp_path / "page")
    said = {f"{MID.slug}/0": "the firmament", f"{MID.slug}/1": "upper part of the picture"}
    rated = agreement(store.path, answered(tmp_path / "a.json", name, said))
    assert (rated["agree"][0], rated["strict"][0], rated["disagreements"]) == (1.0, 0.0, [])
    print_agreement(rated)
    assert "100% [" in (out := capsys.readouterr().out) and "0% by its own wording" in out


def test_who_denies_every_label_or_lists_all_of_them_does_not_agree(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_page(run, tmp_path)
    name = name_on(tmp_path)
    denied = {f"{MID.slug}/0": "certainly not sky", f"{MID.slug}/1": "no top half"}
    rated = agreement(run, answered(tmp_path / "a.json", name, denied))
    assert (rated["agree"][0], rated["strict"][0], rated["by_chance"], len(rated["disagreements"])) == (0, 0, 0, 2)
    listed = dict.fromkeys(denied, "sky, top half")
    rated = agreement(run, answered(tmp_path / "b.json", name, listed))
    assert (rated["agree"][0], rated["strict"][0], rated["by_chance"], rated["several"]) == (0.5, 0.5, 0.5, 2)
    print_agreement(rated)
    assert "2 of them name several labels, and agree with each by its share" in capsys.readouterr().out


def test_answers_for_one_concept_are_drawn_together(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not tell the sea from the lake errs on all of its features, which are one witness."""
    write_page(run, tmp_path)
    name = name_on(tmp_path)
    concepts = ["sea", "lake", "dog", "car"]
    rows = [
        {**MID.columns(), "feature": i, "concept": concepts[i // 10], "kind": "thing", "rank": 1} for i in range(40)
    ]
    monkeypatch.setattr(RunFolder, "read_final", lambda *_: pa.Table.from_pylist(rows))
    said = {f"{MID.slug}/{i}": concepts[i // 10] if i < 20 else "a cat" for i in range(40)}
    found = agreement(run, answered(tmp_path / "a.json", name, said))
    assert found["agree"] == found["spatial"]["agree"] == [0.5, 0.0, 1.0]


def test_answers_for_another_run_of_that_name_are_refused(tmp_path: Path) -> None:
    """Its feature 0 has other pictures, and what a person said of those says nothing here."""
    world, names = Pictured(sky_world(40).inputs, ("ball", "sky")), []
    for seed in range(2):
        store = world_run(tmp_path / f"run{seed}", world, "a sky and a ball", {"name": "world", "seed": seed})
        for name, table in world.reduce({MID: 4}).items():
            store.write_final(name, table, PROVENANCE)
        assert write_page(store.path, tmp_path / f"page{seed}") == 2
        page = (tmp_path / f"page{seed}" / "index.html").read_text()
        names += re.findall(r'"run": "(world [0-9a-f]{12})"', page)
    said = {f"{MID.slug}/0": "sky"}
    assert agreement(tmp_path / "run1", answered(tmp_path / "b.json", names[1], said))["answered"] == 1
    with pytest.raises(InputError, match="answers for the run"):
        agreement(tmp_path / "run1", answered(tmp_path / "a.json", names[0], said))


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "cannot be read"), ("[]", "holds no answers"), ('{"run": "x", "answers": {"a": 1}}', "holds no answers"),
     ('{"run": "elsewhere", "answers": {}}', "not for")],
)  # fmt: skip
def test_answers_that_are_none_are_refused(run: Path, tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match=says):
        agreement(run, path)
    with pytest.raises(InputError, match="cannot be read"):
        agreement(run, tmp_path / "missing.json")
    with pytest.raises(InputError, match="at least one"):
        write_page(run, tmp_path / "page", features=0)


def with_words(path: Path, alone: bool = False) -> Path:
    """A made-up run with one site of the image stream, and one of the text stream (`alone`: that one only)."""
    text = Site("transformer_blocks.1", "cond", 0.5, stream="text")
    make_run(path, Plan(sites=[text] if alone else [MID, text]))
    return path


def test_features_of_words_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = with_words(tmp_path / "run")
    assert write_page(run, tmp_path / "page") == 2
    assert "2 labelled features of words are left out" in capsys.readouterr().err
    page = (tmp_path / "page" / "index.html").read_text()
    assert sorted(re.findall(r'data-key="([^"]*)"', page)) == [f"{MID.slug}/0", f"{MID.slug}/1"]
    text = Site("transformer_blocks.1", "cond", 0.5, stream="text").slug
    name = name_on(tmp_path / "page")
    said = {f"{MID.slug}/0": "the sky", f"{text}/0": "sky", f"{text}/1": " "}
    found = agreement(run, answered(tmp_path / "a.json", name, said))
    assert (found["answered"], found["skipped"], found["left_out"], found["agree"][0]) == (1, 0, 2, 1.0)
    print_agreement(found)
    assert "2 features of words are left out" in capsys.readouterr().out
    with pytest.raises(InputError, match="no label but of words"):
        write_page(with_words(tmp_path / "words", alone=True), tmp_path / "none")


def test_options_of_the_page_are_refused_beside_answers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["--features", "3"], ["--seed", "0"], ["--out", "page"]):
        assert main(["rate", str(run), "--answers", "a.json", *more]) == 2
        assert "--answers writes no page" in capsys.readouterr().err
