"""The atlas as a reader meets it: opened from disk in headless Chromium, typed into, clicked, resized.

Without a browser these tests fail and say how to get one; GAZETTEER_NO_BROWSER=1 leaves them out, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gazetteer.labeling.atlas import AtlasSummary, write_atlas
from tests.support.runs.atlas_run import HOSTILE_CONCEPT, HOSTILE_PROMPT, Plan, make_run, sites
from tests.support.servers.browser import Page, complaints, dark, phone

BLOCKS = ("down_blocks.2.attentions.1", "mid_block.attentions.0")
SITE = "mid_block.attentions.0-cond-t1.00"


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> AtlasSummary:
    """10,000 features, 30 of 2,500 named at each of four sites."""
    run = make_run(tmp_path_factory.mktemp("run"), Plan(sites=sites(2, 2), images=8, features=2500, named=31, grid=8))
    return write_atlas(run, tmp_path_factory.mktemp("atlas") / "pages")


@pytest.fixture
def page(driver: Any, atlas: AtlasSummary) -> Iterator[Page]:
    """A page that must not have said anything in the console, nor asked anything but the disk."""
    complaints(driver)
    shown = Page(driver, atlas.index.parent.as_uri())
    yield shown
    assert complaints(driver) == []
    asked = shown.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in asked if not name.startswith(("file:", "data:"))] == []
    assert driver.title.endswith(("Gazetteer", "index of features", "a feature", "a name"))


@pytest.mark.browser
class TestInBrowser:
    """Everything that needs a browser."""

    def test_ten_thousand_features_stay_a_short_page(self, page: Page) -> None:
        page.open("index")
        assert page.found() == 10_000
        assert len(page.texts("#entries > li")) == 36
        assert page.run("return document.querySelectorAll('*').length") < 1500
        assert "10,000 features" in page.one("#lede").text
        assert page.texts(".sheet b") == ["30"] * 4

    def test_typing_narrows_the_list(self, page: Page) -> None:
        page.open("index")
        page.one("#q").send_keys("dis")
        page.wait("return !document.getElementById('status').textContent.startsWith('10,000')")
        assert page.found() == 4 * 10
        assert set(page.texts(".entry .name")) == {HOSTILE_CONCEPT}
        page.set("q", "isc")  # words are found by their beginning
        assert page.found() == 0
        assert "Loosen a filter" in page.one("#status").text
        page.set("q", "#2047")
        assert page.found() == 4
        assert all("no. 2047" in place for place in page.texts(".entry .place"))

    @pytest.mark.parametrize(
        ("query", "found", "chips", "names"),
        [
            ("skies", 4 * 12, {"mid", "down 2.1"}, {"sky"}),
            ("no. 113", 4, {"mid", "down 2.1"}, {"unnamed"}),
            ("no.113 mid", 2, {"mid"}, {"unnamed"}),
            ("mid", 5000, {"mid"}, None),
            ("down 2.1", 5000, {"down 2.1"}, None),
            ("SKY mid", 2 * 12, {"mid"}, {"sky"}),
            ("sky ground", 0, set(), set()),
        ],
    )
    def test_a_search_finds_plurals_numbers_and_blocks(
        self, page: Page, query: str, found: int, chips: set[str], names: set[str] | None
    ) -> None:
        page.open("index")
        page.set("q", query)
        assert page.found() == found
        assert set(page.texts(".entry .chip")) <= chips
        assert names is None or set(page.texts(".entry .name")) == names

    def test_unnamed_features_can_be_looked_through(self, page: Page) -> None:
        page.open("index")
        page.set("named", "unnamed")
        assert page.found() == 4 * (2500 - 30)
        assert set(page.texts(".entry .name")) <= {"unnamed", "silent"}
        assert "named=unnamed" in page.run("return location.hash")

    def test_the_counts_are_those_of_the_tables(self, page: Page) -> None:
        page.open("index")
        assert "9,996 of them ever fire, 120 carry the name" in page.one("#lede").text

    def test_a_feature_shows_how_it_fires(self, page: Page) -> None:
        page.open("feature", site=SITE, f=1)
        assert len(page.texts(".histogram .bar-of")) == 24
        assert len(page.texts(".examples .plate")) == 2  # of eight pictures six are plates
        assert page.texts(".company") == []  # among 2,500 features nobody meets four times
        page.open("feature", site=SITE, f=2)
        assert page.texts(".histogram") == []

    def test_legends_are_drawn_as_the_charts_are(self, page: Page) -> None:
        page.open("feature", site=SITE, f=1)
        style = (
            "const one = (s) => { const c = getComputedStyle(document.querySelector(s));"
            " return [c.fill, c.stroke]; }; return [one(arguments[0]), one(arguments[1])]"
        )
        for kind in ("ring", "mark", "chance"):
            legend, chart = page.run(style, f".evidence .symbol .{kind}", f".evidence > .scalebar .{kind}")
            assert legend == chart, kind
        page.open("index")
        assert len(page.texts(".legend .spot")) == 1

    def test_the_dark_page_can_be_read(self, page: Page) -> None:
        with dark(page.driver):
            for name, query in (("index", {}), ("feature", {"site": SITE, "f": 1}), ("concept", {"c": "sky"})):
                page.open(name, **query)
                for selector in ("h1", "h2", ".note", ".small", ".chip"):
                    assert page.contrast(selector) >= 4.5, (name, selector)

    def test_filters_by_place(self, page: Page) -> None:
        page.open("index")
        page.set("block", BLOCKS[0])
        assert page.found() == 5000
        page.set("t", "0.50")
        assert page.found() == 2500
        page.set("branch", "cond")
        assert page.found() == 2500
        assert set(page.texts(".entry .chip")) == {"down 2.1"}
        page.one("button[type=reset]").click()
        page.wait("return document.getElementById('status').textContent.startsWith('10,000')")

    def test_filters_by_quality(self, page: Page) -> None:
        page.open("index")
        page.set("named", "named")
        assert page.found() == 4 * 30
        page.set("held", "0.5")
        kept = page.found()
        assert 0 < kept < 4 * 30
        assert all(float(text.split("chance")[1][:4]) >= 0.5 for text in page.texts(".entry .numbers"))
        page.set("qmax", "5")  # q at most 0.005; the labels have 0.004
        assert page.found() == kept
        page.set("qmax", "6")
        assert page.found() == 0

    def test_order_and_pages_live_in_the_address(self, page: Page) -> None:
        page.open("index", named="named", sort="held", page=2)
        assert "37 to 72 shown" in page.one("#status").text
        held = [float(text.split("chance")[1][:4]) for text in page.texts(".entry .numbers")]
        assert held == sorted(held, reverse=True)
        page.one("#pager button:last-child").click()
        page.wait("return location.hash.includes('page=3')")
        assert page.one("#pager input").get_attribute("value") == "3"

    def test_a_sheet_chooses_its_site(self, page: Page) -> None:
        page.open("index")
        page.one(".sheet").click()
        page.wait("return document.getElementById('status').textContent.startsWith('2,500')")
        assert page.texts(".sheet[aria-pressed=true] b") == ["30"]
        assert page.run("return document.getElementById('block').value") == BLOCKS[0]

    def test_keys_walk_the_index(self, page: Page) -> None:
        page.open("index")
        body = page.one("body")
        body.send_keys("/")
        assert page.run("return document.activeElement.id") == "q"
        page.run("document.activeElement.blur()")
        body.send_keys("\ue014")  # right arrow
        page.driver.switch_to.active_element.send_keys("\ue014")
        assert page.run("return [...document.querySelectorAll('.entry')].indexOf(document.activeElement)") == 1
        page.driver.switch_to.active_element.send_keys("\ue007")  # enter
        page.wait("return location.pathname.endsWith('feature.html') && document.querySelector('h1') !== null")

    def test_a_feature_shows_its_name_numbers_and_plates(self, page: Page) -> None:
        page.open("feature", site=SITE, f=1)
        assert page.one("h1 a").text == HOSTILE_CONCEPT
        assert "also sky" in page.one(".others").text
        assert "that took no part in choosing the name" in page.one(".evidence").text
        assert len(page.texts(".plates .plate")) == 6
        assert {"Overlap (IoU)", "By chance", "Lift", "q-value", "Held-out overlap"} <= set(page.texts(".ledger dt"))
        page.run("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
        page.wait("return [...document.images].every((image) => image.complete && image.naturalWidth === 64)")
        assert (
            page.run("return [...document.querySelectorAll('.plates canvas')].map((c) => [c.width, c.height])")
            == [[8, 8]] * 6
        )
        painted = page.run(
            "return [...document.querySelectorAll('.plates canvas')].map((c) => c.getContext('2d')"
            ".getImageData(0, 0, 8, 8).data.filter((v, i) => i % 4 === 3 && v > 0).length)"
        )
        assert all(0 < cells < 20 for cells in painted)  # the disc is small
        assert len(page.texts(".outline .line")) == 6

    def test_the_outline_follows_the_mask(self, page: Page) -> None:
        page.open("feature", site=SITE, f=1)
        # The square of rows 1-2, columns 1-2 in a 4 × 4 mask: 5 outside, 2 in, 2 out, 2 in, 5 out.
        path = page.run("return Atlas.outline.path(4, 4, arguments[0])", "52203")
        assert page.run("return Atlas.outline.runs(arguments[0])", "52203") == [5, 2, 2, 2, 5]
        points = {tuple(map(float, point.split())) for point in path.strip("MZ").split("L")}
        assert points == {(1.5, 1), (2.5, 1), (3, 1.5), (3, 2.5), (2.5, 3), (1.5, 3), (1, 2.5), (1, 1.5)}

    def test_hostile_text_stays_text(self, page: Page) -> None:
        for feature in (0, 1):
            page.open("feature", site=SITE, f=feature)
            assert page.run("return document.querySelectorAll('main script, main h1 b, img[src=x]').length") == 0
            assert "broken out" not in page.driver.title
        page.open("concept", c="ground")
        assert HOSTILE_PROMPT in page.texts("figcaption q")
        alts = page.run("return [...document.images].map((image) => image.alt)")
        assert f"Picture for the prompt: {HOSTILE_PROMPT}" in alts

    def test_unnamed_and_silent_features_say_so(self, page: Page) -> None:
        page.open("feature", site=SITE, f=40)
        assert page.one("h1").text.startswith("unnamed")
        assert "No name is given" in page.one(".evidence").text
        assert "Closest, but not trusted: ground" in page.one(".evidence").text
        page.open("feature", site=SITE, f=2)
        assert page.one("h1").text.startswith("silent")
        assert "never fired" in page.one(".evidence").text

    def test_the_same_name_is_found_elsewhere(self, page: Page) -> None:
        page.open("feature", site=SITE, f=0)
        assert len(page.texts(".multiple .chart")) == 2
        assert len(page.texts(".multiple .dot")) == 4
        assert len(page.texts(".multiple .here")) == 1
        target = page.run("return document.querySelector('.multiple a:not(.here)').getAttribute('href')")
        page.run("location.href = arguments[0]", target)
        page.wait("return document.querySelector('.chip').textContent === 'down 2.1'")
        assert page.one("h1 a").text == "sky"

    def test_arrows_lead_to_the_neighbours_across_chunks(self, page: Page) -> None:
        page.open("feature", site=SITE, f=127)
        page.one("body").send_keys("\ue014")
        page.wait("return document.querySelector('h1 .number').textContent.includes('128')")
        page.one("body").send_keys("\ue012")
        page.wait("return document.querySelector('h1 .number').textContent.includes('127')")
        page.open("feature", site=SITE, f=2499)
        assert page.texts(".steps .off") == ["last →"]

    def test_a_name_has_its_page_and_its_place_in_the_list(self, page: Page) -> None:
        page.open("concept")
        assert page.texts(".names a") == [HOSTILE_CONCEPT, "ground", "sky"]
        page.one("#q").send_keys("sk")
        page.wait("return document.querySelectorAll('.names a').length === 1")
        page.one(".names a").click()
        page.wait("return document.querySelector('h1').textContent === 'sky'")
        assert len(page.texts(".gallery .outline")) == 8
        assert len(page.texts(".best tbody tr")) == 4 * 5

    @pytest.mark.parametrize(
        ("name", "query", "said"),
        [
            ("feature", {"site": "nowhere", "f": 1}, "names no site"),
            ("feature", {"site": SITE, "f": 99999}, "no feature 99999"),
            ("concept", {"c": "<img src=x>"}, "“<img src=x>” is not a name"),
        ],
    )
    def test_a_wrong_address_gets_a_sentence(self, page: Page, name: str, query: dict[str, Any], said: str) -> None:
        page.open(name, **query)
        assert said in page.one("[role=alert]").text

    def test_nothing_sticks_out_on_a_phone(self, page: Page) -> None:
        with phone(page.driver):
            for name, query in (("index", {}), ("feature", {"site": SITE, "f": 1}), ("concept", {"c": "sky"})):
                page.open(name, **query)
                assert page.run("return document.documentElement.scrollWidth") <= 360, name
                tables = "[...document.querySelectorAll('.scroll')]"
                assert page.run(f"return {tables}.every((e) => e.scrollWidth <= e.clientWidth)"), name
