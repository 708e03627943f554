"""The pages of an atlas: one frame (``static/frame.html``), and what each page puts into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

STATIC = resources.files("gazetteer.labeling.atlas.static")


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        name: of its file, and of its last script, which draws it.
        title: after "Gazetteer: ".
        scripts: that it needs before its own, in this order.
        headline: above everything else, with room for a line of numbers below; empty leaves both out.
        main: a file of `STATIC` with what stands there before the script draws; empty for nothing.
        foot: at its end.
    """

    name: str
    title: str
    scripts: tuple[str, ...]
    headline: str = ""
    main: str = ""
    foot: str = ""

    def html(self, more: Sequence[str] = (), live: bool = False) -> str:
        """The whole page.

        Args:
            more: scripts after its own.
            live: it is served, and its scripts may ask the server; a page opened from disk asks nobody.
        """
        return Template((STATIC / "frame.html").read_text(encoding="utf-8")).substitute(
            title=self.title,
            name=self.name,
            masthead="masthead" if self.headline else "masthead slim",
            headline=f'  <h1>{self.headline}</h1>\n  <p class="lede" id="lede"></p>\n' if self.headline else "",
            main="\n" + (STATIC / self.main).read_text(encoding="utf-8") if self.main else "",
            foot=f'<footer class="foot">{self.foot}</footer>\n' if self.foot else "",
            scripts="".join(
                f'<script src="assets/{script}.js"></script>\n' for script in (*self.scripts, self.name, *more)
            ),
            live="; connect-src 'self'" if live else "",
        )


PAGES = (
    Page(
        "index", "index of features", ("core", "search", "entries"),
        headline="Where the features are, and what they are called", main="finder.html",
        foot="Press <kbd>/</kbd> to search, <kbd>←</kbd> <kbd>→</kbd> to walk the entries, "
        "<kbd>Enter</kbd> to open one.",
    ),
    Page("concept", "a name", ("core", "outline", "heat", "plates", "chart", "names")),
    Page(
        "feature", "a feature", ("core", "outline", "heat", "plates", "chart", "evidence", "activity", "causal"),
        foot="Press <kbd>←</kbd> <kbd>→</kbd> for the neighbouring features of the same site.",
    ),
    Page("layout", "layouts over sampling", ("core", "heat")),
    Page("steering", "steering sheets", ("core",)),
)  # fmt: skip


def write_pages(out: Path) -> None:
    """Write the pages into `out`, and the styles and scripts that they name into ``assets`` below it."""
    for page in PAGES:
        (out / f"{page.name}.html").write_text(page.html(), encoding="utf-8", newline="")
    (out / "assets").mkdir()
    for source in (*STATIC.iterdir(), *(STATIC / "pages").iterdir()):
        if source.name.endswith((".css", ".js")):
            (out / "assets" / source.name).write_bytes(source.read_bytes())
