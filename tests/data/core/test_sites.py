"""What a site is called, and that its names lead back to it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import (
    BRANCHES,
    SIGNALS,
    SITE_COLUMNS,
    STREAMS,
    Port,
    Site,
    called_alike,
    nearest_t,
    step_of,
)


def test_the_usual_stream_and_signal_are_not_named() -> None:
    assert Site("mid_block.attentions.0", "cond", 0.5).slug == "mid_block.attentions.0-cond-t0.50"
    assert Site("blocks.1", "uncond", 1.0, "text", "output").slug == "blocks.1-text-output-uncond-t1.00"
    assert Site("blocks.1", "cond", 0.0, signal="output").slug == "blocks.1-output-cond-t0.00"
    assert str(Port("blocks.1", "text")) == "blocks.1-text"


def test_every_slug_leads_back_to_its_site_and_no_two_are_alike() -> None:
    sites = [
        Site("a.0", b, t, stream, signal) for b, t, stream, signal in product(BRANCHES, (0.0, 1.0), STREAMS, SIGNALS)
    ]
    assert [Site.from_slug(site.slug) for site in sites] == sites
    assert len({site.slug for site in sites}) == len(sites)


def test_columns_and_place_are_those_of_the_tables() -> None:
    site = Site("a.0", "uncond", 0.25, "text", "output")
    assert tuple(site.columns()) == SITE_COLUMNS and Site(**site.columns()) == site
    assert site.place == ("a.0", "text", "output", "uncond") and site.port == Port("a.0", "text", "output")
    assert site.at(1.0) == Site("a.0", "uncond", 1.0, "text", "output")


def test_a_site_at_a_third_is_that_which_tables_give_back() -> None:
    site = Site("a.0", "cond", 1 / 3)
    assert site == Site("a.0", "cond", round(float(np.float32(1 / 3)), 6)) and site.t == 0.333333
    assert step_of(site.t, 4) == step_of(1 / 3, 4) == 2


def test_what_is_heard_lies_at_a_step() -> None:
    assert [nearest_t(t, 3) for t in (1.0, 0.6, 0.33, 0.0)] == [1.0, 0.5, 0.5, 0.0]
    assert nearest_t(0.33, 4) == pytest.approx(1 / 3) and nearest_t(0.0, 1) == 1.0
    assert all(step_of(nearest_t(t / 50, 28), 28) == step_of(t / 50, 28) for t in range(51))


@pytest.mark.parametrize("slug", ["a.0-output-text-cond-t0.50", "a.0-image-cond-t0.50", "a.0-cond", "a.0-cond-tx", ""])
def test_what_names_no_site_is_refused(slug: str) -> None:
    with pytest.raises(InputError, match="not a site name"):
        Site.from_slug(slug)


@pytest.mark.parametrize("wrong", [{"stream": "audio"}, {"signal": "gradient"}, {"branch": "both"}])
def test_unknown_words_are_answered_with_the_known_ones(wrong: dict[str, str]) -> None:
    with pytest.raises(InputError, match="accepted: "):
        Site(**{"block": "a", "branch": "cond", "t": 0.5, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("per", [1000, 72])  # thousandths, and eighths among the steps of a sampler
def test_what_is_called_alike_is_the_same_site_also_in_32_bits(per: int) -> None:
    moments = [number / per for number in range(per + 1)]
    stored = np.array(moments, np.float32)
    slugs = np.array([Site("a", "cond", round(float(t), 6)).slug for t in stored])
    for t in moments:
        low, high = called_alike(t)
        assert ((stored >= low) & (stored <= high)).tolist() == (slugs == Site("a", "cond", t).slug).tolist(), t
