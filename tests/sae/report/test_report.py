"""The report of a set of autoencoders: tables any reader opens, and a page that shows what they say."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.report.page import bars, curve
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
    assert tags.seen.count("svg") == 4  # three curves and a histogram of the one that was trained
    assert not {"script", "link", "img"} & set(tags.seen)


def test_a_curve_by_hand():
    # The largest value touches the top (y = 8), half of it stands in the middle of 8 … 102.
    drawn = curve([(0, 2.0), (10, 1.0)])
    assert 'points="40.0,8.0 272.0,55.0"' in drawn
    assert ">2</text>" in drawn


def test_bars_name_their_classes():
    drawn = bars([1, 0, 0, 2, 0, 0, 3])
    assert "never: 1 features" in drawn
    assert "≤ 0.001: 2 features" in drawn


def test_an_empty_folder_gets_a_sentence(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="holds no finished SAE"):
            write_report(folder)
