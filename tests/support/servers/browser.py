"""Headless Chromium for tests; where it is missing they fail and say how to get it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

HOW_TO = (
    "Pages are tested in a browser and {} is missing: run tests/install_system.sh (apt-get install chromium "
    "chromium-driver; pip install selenium), or set GAZETTEER_NO_BROWSER=1 to leave these tests out."
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-dev-shm-usage", "--window-size=1280,900",
)  # fmt: skip


def program(*names: str) -> str:
    """The first of `names` on the path; the test fails with advice when there is none."""
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.fail(HOW_TO.format(names[0]), pytrace=False)
    return found


PATIENCE = 300
"""Seconds that a page has to show what is waited for: minutes on a machine that is busy with other things, and a wait
that is fulfilled ends at once."""

CONTRAST = """
const element = document.querySelector(arguments[0]);
if (!element) return null;
const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const light = (text) => {
  const [r, g, b] = numbers(text).map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
let behind = element;
while (behind && (numbers(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
const a = light(getComputedStyle(element).color), b = light(getComputedStyle(behind || document.body).backgroundColor);
return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
"""


class Page:
    """A browser on the pages below one address."""

    def __init__(self, driver: Any, root: str) -> None:
        self.driver = driver
        self.root = root

    def open(self, name: str, /, **query: Any) -> None:
        """Open a page afresh (a new hash alone would not load it again) and wait until it shows something."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.root}/{name}.html" + ("#" + urlencode(query) if query else ""))
        self.wait("return document.querySelector('#entries > li, main h1, [role=alert], #ask') !== null")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str) -> None:
        """Wait until `script` returns something true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, PATIENCE, 0.05).until(lambda driver: driver.execute_script(script), script)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """What the elements say, in one round trip."""
        return self.run(f"return [...document.querySelectorAll({selector!r})].map((e) => e.textContent)")

    def contrast(self, selector: str) -> float:
        """WCAG's contrast of an element's text with what lies behind it; infinite where there is none."""
        return float(self.run(CONTRAST, selector) or "inf")

    def found(self) -> int:
        """How many features the status line says were found."""
        return int(self.one("#status").text.split()[0].replace(",", "").replace("No", "0"))

    def set(self, field: str, value: str) -> None:
        """Set a filter as a reader would, and wait until the list has followed."""
        self.run(
            "const e = document.getElementById(arguments[0]); document.getElementById('status').textContent = '';"
            "if (e.type === 'checkbox') e.checked = true; else e.value = arguments[1];"
            "e.dispatchEvent(new Event('input', {bubbles: true}))",
            field,
            value,
        )
        self.wait("return document.getElementById('status').textContent !== ''")


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A driver of the browser, with its profile in this folder."""
    try:
        from selenium import webdriver
    except ImportError:
        pytest.fail(HOW_TO.format("selenium"), pytrace=False)
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(program("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


@contextmanager
def dark(driver: Any) -> Iterator[None]:
    """While open, the reader prefers dark pages."""
    wish = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wish)
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@contextmanager
def phone(driver: Any) -> Iterator[None]:
    """While open, the window is a phone's, 360 px wide."""
    size = {"width": 360, "height": 780, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def complaints(driver: Any) -> list[str]:
    """What the console has said since it was last asked, of weight."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
