"""The report of a set of autoencoders: tables any reader opens, and a page that shows what they say."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import LIST
from gazetteer.data.core.sites import Site
from gazetteer.sae.report import page
from gazetteer.sae.report.page import figure
from gazetteer.sae.report.report import site_configs, write_report
from tests.sae.model.test_autoencoder import random_sae
from tests.sae.training.test_train import SITE, synthetic, trained

OTHER = Site("up_blocks.1.attentions.0", "uncond", 0.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One site that was trained and measured, one that was only saved, and a folder that holds no autoencoder."""
    trained(tmp_path / SITE.slug, site=SITE, heldout=[synthetic(200)[0]])
    random_sae(16, 24, 3).save_pretrained(tmp_path / OTHER.slug, {"site": OTHER})
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_one_row_a_site_with_its_metrics(root: Path):
    write_report(root)
    table = pd.read_parquet(root / "metrics.parquet")
    assert table[["block", "branch", "t"]].to_numpy().tolist() == [
        [SITE.block, "cond", 0.5],
        [OTHER.block, "uncond", 0.0],
    ]
    stated = site_configs(root)[SITE]["metrics"]
    assert table.explained_variance[0] == stated["explained_variance"]
    assert (table.steps[0], table.vectors[0], table.n[0]) == (40, 200, 24)
    assert table.density[0].sum() == 24
    assert table[["explained_variance", "steps", "loss_recovered"]].iloc[1].isna().all()


def test_the_history_has_a_row_for_every_logged_step(root: Path):
    write_report(root)
    table = pd.read_parquet(root / "history.parquet")
    assert table.step.tolist() == [0, 39]
    assert set(table.block) == {SITE.block}
    assert table.loss[1] < table.loss[0]


def test_files_of_others_beside_the_autoencoders_stay_as_they_are(root: Path) -> None:
    (root / "index.html").write_text("mine")
    with pytest.raises(InputError, match=r"index\.html is there already and is not what gazetteer left there"):
        write_report(root)
    assert (root / "index.html").read_text() == "mine" and not (root / "metrics.parquet").exists()


def test_a_report_from_before_files_were_listed_is_written_anew_and_one_changed_by_hand_is_not(root: Path) -> None:
    write_report(root)
    (root / LIST).unlink()
    random_sae(16, 24, 3).save_pretrained(root / "another", {"site": OTHER.at(0.5)})
    assert write_report(root).num_rows == len(pd.read_parquet(root / "metrics.parquet")) == 3
    with (root / "index.html").open("a") as page:
        page.write("my remarks")
    with pytest.raises(InputError, match="is not what gazetteer left there"):
        write_report(root)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)


def test_the_page_shows_the_numbers_and_needs_nothing_else(root: Path):
    metrics = write_report(root).to_pylist()
    page = (root / "index.html").read_text()
    assert f"{metrics[0]['explained_variance']:.1%}" in page
    assert "mid_block.attentions.0 · cond · t = 0.50" in page
    tags = Tags()
    tags.feed(page)
    assert tags.seen.count("tr") == 3
    assert tags.seen.count("img") == 1  # of the one that was trained
    assert not {"script", "link"} & set(tags.seen) and page.count("src=") == page.count('src="data:image/svg+xml;') == 1


def test_sites_that_differ_in_stream_signal_or_a_little_t_keep_their_curves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = {"block": "mid_block.attentions.0", "branch": "cond", "t": 0.5}
    sites = [
        {**place, "stream": s, "signal": n} for s, n in (("image", "update"), ("image", "output"), ("text", "update"))
    ]
    sites.append({**sites[0], "t": 0.501})
    history = [{**site, "step": step, "mse": float(number)} for number, site in enumerate(sites) for step in range(3)]
    drawn: list[set[float]] = []
    monkeypatch.setattr(page, "figure", lambda row, steps: drawn.append({step["mse"] for step in steps}))
    text = page.render(sites, history)
    assert drawn == [{0.0}, {1.0}, {2.0}, {3.0}]
    assert "mid_block.attentions.0-output · cond" in text and "mid_block.attentions.0-text · cond" in text


def test_two_autoencoders_of_one_site_are_refused(root: Path) -> None:
    random_sae(16, 24, 3).save_pretrained(root / "a-copy", {"site": OTHER})
    with pytest.raises(InputError, match=f"a-copy and {OTHER.slug} of .* are both of one site"):
        write_report(root)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("site", {"block": "m", "zz": 1}, "names no site"),
        ("site", "mid", "names no site"),
        ("metrics", [1], "metrics or a history that are none"),
        ("metrics", {"scaled_mse": "x"}, "metrics or a history that are none"),
        ("training", {"outcome": [1]}, "metrics or a history that are none"),
        ("training", {"outcome": {"history": [{"step": "a"}]}}, "metrics or a history that are none"),
    ],
)
def test_a_config_that_was_edited_is_a_sentence(key: str, value: object, words: str, tmp_path: Path) -> None:
    random_sae(16, 24, 3).save_pretrained(tmp_path / "one", {"site": OTHER})
    file = tmp_path / "one/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(InputError, match=words):
        write_report(tmp_path)


def test_the_curves_and_the_histogram_by_hand():
    history = [
        {"step": 0, "mse": 2.0, "auxk": None, "dead": 0},
        {"step": 9, "mse": 1.0, "auxk": 0.5, "dead": math.nan},
    ]
    drawn = figure({"density": [1, 0, 0, 2, 0, 0, 3]}, history)
    assert drawn is not None
    curve, bars = drawn.axes  # one point of AuxK and of dead features is no curve
    assert curve.lines[0].get_xydata().tolist() == [[0, 2.0], [9, 1.0]]
    assert [bar.get_height() for bar in bars.patches] == [1, 0, 0, 2, 0, 0, 3]
    assert [label.get_text() for label in bars.get_xticklabels()][:2] == ["never", "1e-5"]
    assert figure({"density": None}, history[:1]) is None


def test_an_empty_folder_gets_a_sentence(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="holds no finished SAE"):
            write_report(folder)
