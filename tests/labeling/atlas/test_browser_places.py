"""In the browser, pages call two places of a network by two names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.core.sites import Site
from gazetteer.labeling.atlas import write_atlas
from tests.support.runs.atlas_run import Plan, make_run
from tests.support.servers.browser import Page

BLOCK = "down_blocks.2.attentions.1"


@pytest.mark.browser
def test_signals_of_a_block_and_parts_of_it_are_told_apart(driver: Any, tmp_path: Path) -> None:
    sites = [Site(BLOCK, "cond", 1.0, "image", signal) for signal in ("update", "output")]
    written = write_atlas(make_run(tmp_path / "run", Plan(sites=sites)), tmp_path / "atlas")
    page = Page(driver, written.index.parent.as_uri())
    page.open("index")
    name = page.run("return Atlas.load('atlas').then((a) => a.concepts[a.carriers.findIndex((n) => n > 0)])")
    page.open("concept", c=name)
    assert page.texts(".multiple figcaption") == ["down 2.1-output", "down 2.1"]
    assert page.run(f"return Atlas.port({{ block: '{BLOCK}', stream: 'text', signal: 'output' }})") == (
        str(Site(BLOCK, "cond", 1.0, "text", "output").port)
    )
    parts = [BLOCK, f"{BLOCK}.transformer_blocks.0", f"{BLOCK}.transformer_blocks.0-output"]
    shown = ["down 2.1", "down 2.1.transformer_blocks.0", "down 2.1.transformer_blocks.0-output"]
    assert page.run("return arguments[0].map(Atlas.shortBlock)", parts) == shown
