"""The studio as a person meets it: painted in, searched, driven by keys, on a phone and in the dark, in Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from selenium.webdriver.common.action_chains import ActionChains

from gazetteer.data.inputs.edit_files import read_edits
from tests.jobs.explore.conftest import PROMPT, Explored
from tests.support.servers.browser import Page, complaints, dark, phone

SITE = "mid_block.attentions.0-cond-t0.50"
DRAWN = "return document.getElementById('status').textContent.startsWith('Drawn in')"
REDRAWN = "return !document.getElementById('after').hidden && !document.querySelector('.waiting')"


class Studio(Page):
    """A browser on the studio."""

    def enter(self, explored: Explored) -> None:
        """Get the cookie, by a page that needs no model: the studio would begin to draw, and be left while it does."""
        explored.settle("atlas")  # every page needs it
        self.driver.get(f"{explored.base}/concept.html?token={explored.token}")
        self.wait("return document.querySelector('main h1') !== null")

    def draw(self, **query: Any) -> None:
        """Open it afresh and wait for the picture and the index."""
        self.open("studio", **{**PROMPT, **query})
        self.wait(DRAWN)
        self.wait("return !document.getElementById('what').disabled")

    def choose(self, text: str) -> None:
        self.one("#what").send_keys(text)
        self.wait("return document.querySelectorAll('#found b').length > 0")
        self.one("#what").send_keys("\ue007")

    def stroke(self, *moves: tuple[float, float]) -> None:
        """Press at the first place and drag along the others, all as shares of the canvas."""
        canvas = self.one("#paint")
        width, height = canvas.size["width"], canvas.size["height"]
        x, y = moves[0]
        hand = ActionChains(self.driver, duration=10)
        hand.move_to_element_with_offset(canvas, int((x - 0.5) * width), int((y - 0.5) * height)).click_and_hold()
        for (x0, y0), (x1, y1) in pairwise(moves):
            hand.move_by_offset(int((x1 - x0) * width), int((y1 - y0) * height))
        hand.release().perform()

    def recipe(self) -> dict[str, Any]:
        return dict(yaml.safe_load(self.one("#yaml").get_attribute("textContent")))


@pytest.fixture
def studio(driver: Any, explored: Explored) -> Iterator[Studio]:
    """A studio that must have asked nobody but its own server, and said nothing in the console."""
    complaints(driver)
    shown = Studio(driver, explored.base)
    shown.enter(explored)
    yield shown
    asked = shown.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in asked if not name.startswith((explored.base, "data:", "blob:"))] == []
    assert complaints(driver) == []


@pytest.mark.browser
class TestInBrowser:
    """Everything that needs a browser."""

    def test_the_token_leaves_the_address(self, studio: Studio, explored: Explored) -> None:
        studio.driver.get(f"{explored.base}/?token={explored.token}")
        studio.wait(DRAWN)
        assert "token" not in str(studio.run("return location.href"))  # from where it would be copied

    def test_paint_becomes_a_picture_and_a_recipe(self, studio: Studio, tmp_path: Path) -> None:
        studio.draw()
        assert studio.texts("#layers .layer") == []
        studio.choose("sk")
        assert studio.texts("#layers b") == ["sky"]
        assert "paint where it should be" in studio.one("#layers").text
        studio.stroke((0.2, 0.2), (0.4, 0.2), (0.4, 0.4))
        studio.wait(REDRAWN)
        assert "of full scale changed" in studio.one("#edited-said").text
        assert studio.one("#download").get_attribute("download") == "edited.png"
        (tmp_path / "edits.yaml").write_text(yaml.safe_dump(studio.recipe()))
        (edit,) = read_edits(tmp_path / "edits.yaml")
        grid = edit.region.grid(8, 8)
        assert (
            edit.concept == "sky" and grid[1, 1:3].all() and grid[2, 3] and not grid[5:].any() and not grid[:, 5:].any()
        )
        assert "gazetteer steer draw" in studio.one("#command").text
        assert studio.one("#python").text.startswith("import gazetteer as gz")

    def test_taking_away_in_a_place_leaves_the_rest(self, studio: Studio) -> None:
        studio.draw()
        studio.choose("sky")
        studio.one("[data-outside=remove]").click()
        studio.stroke((0.2, 0.2), (0.4, 0.2))
        studio.wait(REDRAWN)
        assert studio.recipe()["edits"][0].get("outside", "remove") == "remove"
        studio.run("const s = document.getElementById('strength'); s.value = -1; s.dispatchEvent(new Event('change'));")
        studio.wait("return document.querySelector('#yaml').textContent.includes('strength: -1')")
        assert studio.recipe()["edits"][0]["outside"] == "keep"
        assert not studio.one("[data-outside=remove]").is_enabled() and studio.one("[data-outside=keep]").is_enabled()

    def test_edits_add_up_and_are_undone(self, studio: Studio) -> None:
        studio.draw()
        studio.choose("sky")
        studio.one("#everywhere").click()
        studio.wait(REDRAWN)
        first = studio.one("#after").get_attribute("src")
        studio.choose("no. 113")
        studio.one("[data-stage=final]").click()
        studio.one("[data-branch=both]").click()
        studio.stroke((0.7, 0.7), (0.8, 0.8))
        studio.wait("return document.querySelector('#yaml').textContent.includes('targets')")
        edits = studio.recipe()["edits"]
        assert [bool(edit.get("targets")) for edit in edits] == [False, True]
        assert edits[1]["targets"][0]["features"] == [113]
        assert (edits[1]["branch"], edits[1]["window"]) == ("both", [0.0, 1.0])
        for _ in range(4):
            studio.one("#undo").click()
        assert len(studio.texts("#layers .layer")) == 1
        studio.wait(f"return document.getElementById('after').src === {json.dumps(first)}")
        studio.one(".layer .mini").click()  # switched off
        studio.wait("return document.getElementById('after').hidden")

    def test_a_place_says_what_fires_there_and_lends_its_features(self, studio: Studio) -> None:
        studio.draw()
        studio.one("#mode [data-mode=look]").click()
        studio.stroke((0.3, 0.2))
        studio.wait("return !document.getElementById('here').hidden")
        assert len(studio.texts(".firing-table td .firing")) + len(studio.texts(".firing-table td > p")) == 24
        ActionChains(studio.driver, duration=10).move_to_element(studio.one(".firing li")).perform()
        studio.wait("return !document.getElementById('heat').hidden")
        name = studio.one(".firing b").text
        studio.one(".firing .mini").click()
        assert studio.texts("#layers b") == [name]
        assert studio.one("#mode [data-mode=paint]").get_attribute("aria-checked") == "true"

    def test_the_layout_appears_in_the_things_own_colours(self, studio: Studio) -> None:
        studio.draw()
        studio.wait("return document.querySelector('#final img') !== null")  # which may follow the picture
        assert studio.texts("#legend .inked") == ["dog", "grass", "sky"]
        colour = studio.run("return getComputedStyle(document.querySelectorAll('#legend .ink')[1]).backgroundColor")
        assert colour == "rgb(124, 186, 64)"
        assert studio.one("#step-said").text == "step 4 of 4, t = 0.00"
        studio.run("const s = document.getElementById('step'); s.value = 0; s.dispatchEvent(new Event('input'))")
        assert studio.one("#step-said").text == "step 1 of 4, t = 1.00"
        assert len(studio.texts("#each canvas")) == 3
        assert studio.run("return document.querySelectorAll('#final img, #final canvas').length") == 2

    def test_keys_choose_paint_and_undo(self, studio: Studio) -> None:
        studio.draw()
        body = studio.one("body")
        body.send_keys("/")
        assert studio.run("return document.activeElement.id") == "what"
        studio.driver.switch_to.active_element.send_keys("grass", "\ue007")
        size = int(studio.one("#size").get_attribute("value"))
        body.send_keys("]")
        body.send_keys("e")
        assert int(studio.one("#size").get_attribute("value")) == size + 1
        assert studio.one("#mode [data-mode=erase]").get_attribute("aria-checked") == "true"
        body.send_keys("p")
        studio.run("document.getElementById('paint').focus()")
        studio.driver.switch_to.active_element.send_keys("\ue014\ue015 ")  # right, down, space
        studio.wait(REDRAWN)
        assert "% of the picture" in studio.one(".share").text
        ActionChains(studio.driver).key_down("\ue009").send_keys("z").key_up("\ue009").perform()
        assert studio.one(".share").text == "paint where it should be"

    def test_a_feature_page_keeps_notes_and_leads_to_the_studio(self, studio: Studio, explored: Explored) -> None:
        studio.open("feature", site=SITE, f=1)
        studio.wait("return document.querySelector('.notes') !== null")
        assert len(studio.texts(".histogram, .lede")) >= 1
        studio.one(".star").click()
        studio.one(".notes textarea").send_keys("a <b>note</b>")
        studio.run("document.activeElement.blur()")
        studio.wait("return document.querySelector('.notes [role=status]').textContent === 'kept'")
        studio.open("feature", site=SITE, f=1)
        studio.wait("return document.querySelector('.notes') !== null")
        assert studio.one(".notes textarea").get_attribute("value") == "a <b>note</b>"
        assert studio.one(".star").get_attribute("aria-pressed") == "true"
        for wanted in ("starred", "noted"):
            studio.open("index", named=wanted)
            studio.wait("return document.querySelectorAll('.entry').length === 1")
            assert "no. 1" in studio.one(".entry .place").text
        assert explored.ask("/api/note", {"site": SITE, "feature": 1, "star": False, "text": ""})[1] == {}
        studio.driver.get("about:blank")
        studio.driver.get(f"{explored.base}/index.html#named=starred")  # with nothing to show, which `open` waits for
        studio.wait("return document.getElementById('status').textContent.startsWith('No feature matches')")
        studio.open("feature", site=SITE, f=1)
        studio.wait("return document.querySelector('.notes a') !== null")
        studio.one(".notes a").click()
        studio.wait("return document.querySelectorAll('#layers .layer').length === 1")
        assert "no. 1" in studio.one("#layers").text

    def test_a_seed_keeps_all_of_its_digits(self, studio: Studio) -> None:
        studio.draw(seed=2**53 + 1)
        studio.choose("sky")
        studio.one("#everywhere").click()
        studio.wait(REDRAWN)
        assert f"--seed {2**53 + 1} " in studio.one("#command").text
        studio.one("#another").click()
        studio.wait(f"return document.getElementById('command').textContent.includes('--seed {2**53 + 2} ')")
        assert studio.run("return new URLSearchParams(location.hash.slice(1)).get('seed')") == str(2**53 + 2)

    def test_what_fails_or_is_of_another_picture_is_not_offered(self, studio: Studio) -> None:
        studio.draw()
        studio.choose("sky")
        studio.one("#everywhere").click()
        studio.wait(REDRAWN)
        studio.run("Asking.post = async () => { throw new Error('No more.'); }")
        studio.one("#another").click()  # another picture, whose edits fail
        studio.wait("return document.getElementById('status').textContent === 'No more.'")
        assert [studio.one(one).is_displayed() for one in ("#after", "#download", "#take")] == [False] * 3

    def test_both_signals_of_a_block_are_said_to_fire(self, studio: Studio) -> None:
        studio.draw()
        studio.run("""
            const site = { block: "b.0", stream: "image", branch: "cond", t: 1, height: 1, width: 1 };
            const fires = (signal, feature) => ({ ...site, signal, features: [{ feature, name: null, share: 1 }] });
            Asking.post = async () => ({ sites: [fires("update", 5), fires("output", 7)], left_out: [] });
            places(() => {}, () => ({ prompt: "", seed: "0" })).look({ x: 0.5, y: 0.5 });
        """)
        studio.wait("return document.querySelectorAll('.firing-table tbody tr').length === 2")
        assert studio.texts(".firing-table tbody th") == ["b.0", "b.0-output"]
        assert [text.split(" · ")[0].split()[-1] for text in studio.texts(".firing .small")] == ["5", "7"]

    def test_a_note_is_kept_as_it_was_left(self, studio: Studio) -> None:
        studio.open("feature", site=SITE, f=1)
        studio.wait("return document.querySelector('.notes') !== null")
        studio.run("""
            window.sent = [];
            Asking.post = (path, note) => new Promise((answer) => window.sent.push({ note, answer: () => answer({}) }));
        """)
        studio.one(".star").click()
        note = studio.one(".notes textarea")
        note.send_keys("roofs", "\ue012\ue012", "x")  # two to the left: within the text, not to another feature
        studio.run("document.activeElement.blur()")
        studio.wait("return window.sent.length > 0")
        assert studio.run("return [window.sent.length, window.sent[0].note.text]") == [1, ""]
        studio.run("window.sent[0].answer()")
        studio.wait("return window.sent.length === 2")  # and not before the first one has been taken up
        assert studio.one(".notes [role=status]").text == ""
        studio.run("window.sent[1].answer()")
        studio.wait("return document.querySelector('.notes [role=status]').textContent === 'kept'")
        assert studio.run("return window.sent[1].note.text") == "rooxfs"
        assert studio.run("return new URLSearchParams(location.hash.slice(1)).get('f')") == "1"

    def test_a_mistake_is_said_where_the_reader_looks(self, studio: Studio) -> None:
        studio.draw()
        studio.run("document.getElementById('seed').value = '-3'")
        studio.one("#draw").click()
        assert studio.one("#status").get_attribute("role") == "alert"
        assert "whole number" in studio.one("#status").text

    def test_on_a_phone_and_in_the_dark(self, studio: Studio) -> None:
        with phone(studio.driver), dark(studio.driver):
            studio.draw()
            assert studio.run("return document.documentElement.scrollWidth") <= 360
            for selector in ("#status", "h2", ".note", "figcaption", "#layers", "button.strong", "label span"):
                assert studio.contrast(selector) >= 4.5, selector
            studio.choose("sky")
            ordered = ("#what", "#layers", "#paint", "#edited", "#settings")  # what to paint, where, what comes of it
            measured = "return arguments[0].map((one) => document.querySelector(one).getBoundingClientRect().top)"
            tops = studio.run(measured, ordered)
            assert tops == sorted(set(tops))
