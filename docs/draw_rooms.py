"""Draw docs/images/rooms.svg: the rooms of every layer and who imports whom, read from the code.

``python docs/draw_rooms.py``. Drawn are the arrows between rooms of one layer, but for those that follow from others
(a → b → c for a → c); every layer may use all below it. The picture's ``<desc>`` lists all arrows between rooms, and a
test compares that list with the code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.house.test_layers import room_of  # noqa: E402
from tests.support.system.imports import LAYERS, arrows, name, python_files  # noqa: E402

PICTURE = ROOT / "docs" / "images" / "rooms.svg"
WIDTH, LEFT, BOX, GAP, PAD, BETWEEN = 1120, 150, (136, 42), 14, 14, 16
"""Of the picture; of its column of names; of a room's box; between boxes; around them; between layers. All in px."""
COLOURS = ("#e8f1e4", "#e4eef5", "#efe8f5", "#fdf3dc", "#fbe6de", "#e6ebf7", "#f3f3f3")
STYLE = (
    "text{font-family:system-ui,sans-serif;fill:#222}.room{fill:#fff;stroke:#555}.name{font-size:14px;font-weight:600}"
    ".size{font-size:11px;fill:#666}.layer{font-size:17px;font-weight:700}"
    ".arrow{fill:none;stroke:#456;stroke-width:1.3}"
)


@dataclass(frozen=True)
class Place:
    """The left upper corner of a room's box, px."""

    x: float
    y: float


@dataclass(frozen=True)
class Band:
    """A layer's band, px."""

    layer: str
    y: float
    height: float


@cache
def rooms() -> dict[str, tuple[int, int]]:
    """By room how many files and lines it has."""
    sizes: dict[str, tuple[int, int]] = {}
    for path in python_files():
        room = room_of(name(path))
        files, lines = sizes.get(room, (0, 0))
        sizes[room] = (files + (path.name != "__init__.py"), lines + len(path.read_text(encoding="utf-8").splitlines()))
    return {room: size for room, size in sizes.items() if size[0] or room == "gazetteer"}


def edges() -> list[tuple[str, str]]:
    """Every pair of rooms of which the first imports the second, sorted."""
    between = {
        (room_of(file), room_of(target))
        for file, targets in arrows(typing=False).items()
        for target in targets
        if target.split("/")[0] in LAYERS
    }
    drawn = set(rooms())
    return sorted((a, b) for a, b in between if a != b and {a, b} <= drawn)


def reduced(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The arrows that do not follow from others (transitive reduction of a graph without circles)."""
    below: dict[str, set[str]] = {}
    for a, b in pairs:
        below.setdefault(a, set()).add(b)

    def reach(node: str) -> set[str]:
        return set().union(*({target} | reach(target) for target in below.get(node, ())))

    return sorted((a, b) for a, bs in below.items() for b in bs if not any(b in reach(other) for other in bs - {b}))


def columns(layer: str, pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """The layer's rooms by how far above its lowest ones they stand, highest first."""
    own = [room for room in rooms() if room.split("/")[0] == layer]
    below = {room: [b for a, b in pairs if a == room and b in own] for room in own}

    def height(room: str) -> int:
        return max((1 + height(target) for target in below[room]), default=0)

    tallest = max(height(room) for room in own)
    return [[room for room in own if height(room) == level] for level in range(tallest, -1, -1)]


def places(pairs: list[tuple[str, str]]) -> tuple[dict[str, Place], list[Band]]:
    """Where every room stands, and the bands of the layers from the top; users stand left of what they use."""
    drawn_at: dict[str, Place] = {}
    bands = []
    y = 10.0
    for layer in reversed(LAYERS):
        stacks = columns(layer, pairs)
        tall = max(len(stack) for stack in stacks) * (BOX[1] + GAP) - GAP + 2 * PAD
        step = (WIDTH - LEFT - 24 - BOX[0]) / max(len(stacks) - 1, 1)
        for i, stack in enumerate(stacks):
            # Beside the middle of those who import it, so that arrows cross little.
            above = {room: [drawn_at[a].y for a, b in pairs if b == room and a in drawn_at] for room in stack}
            order = sorted(stack, key=lambda room: (sum(above[room]) / len(above[room]) if above[room] else 0.0, room))
            start = y + (tall - len(stack) * (BOX[1] + GAP) + GAP) / 2
            for j, room in enumerate(order):
                drawn_at[room] = Place(LEFT + i * step, start + j * (BOX[1] + GAP))
        bands.append(Band(layer, y, tall))
        y += tall + BETWEEN
    return drawn_at, bands


def arrow(start: Place, end: Place) -> str:
    """An arrow from the right edge of one box to the left edge of another."""
    x0, y0 = start.x + BOX[0], start.y + BOX[1] / 2
    x1, y1 = end.x - 3, end.y + BOX[1] / 2
    bend = max(20.0, (x1 - x0) * 0.5)
    path = f"M{x0:.0f},{y0:.0f} C{x0 + bend:.0f},{y0:.0f} {x1 - bend:.0f},{y1:.0f} {x1:.0f},{y1:.0f}"
    return f'<path class="arrow" marker-end="url(#tip)" d="{path}"/>'


def draw() -> str:
    """The picture as SVG."""
    pairs, sizes = edges(), rooms()
    within = [(a, b) for a, b in pairs if a.split("/")[0] == b.split("/")[0]]
    placed, bands = places(within)
    height = bands[-1].y + bands[-1].height + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img">',
        "<title>The rooms of Gazetteer and who imports whom</title>",
        f"<desc>{listing(pairs)}</desc>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#456"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>',
    ]
    for band, colour in zip(bands, reversed(COLOURS), strict=True):
        y, middle = band.y, band.y + band.height / 2
        size = f'width="{WIDTH - 16}" height="{band.height:.0f}"'
        parts.append(f'<rect x="8" y="{y:.0f}" {size} rx="8" fill="{colour}"/>')
        parts.append(f'<text class="layer" x="22" y="{middle + 6:.0f}">{band.layer}</text>')
        if band is not bands[-1]:
            end = y + band.height + BETWEEN - 3
            parts.append(f'<path class="arrow" marker-end="url(#tip)" d="M60,{middle + 16:.0f} L60,{end:.0f}"/>')
    parts += [arrow(placed[a], placed[b]) for a, b in reduced(within)]
    for room, place in placed.items():
        files, lines = sizes[room]
        size = f"{files} file{'s' * (files != 1)}, {lines:,} lines"
        x = place.x + BOX[0] / 2
        parts.append(
            f'<rect class="room" x="{place.x:.0f}" y="{place.y:.0f}" width="{BOX[0]}" height="{BOX[1]}" rx="5"/>'
            f'<text class="name" text-anchor="middle" x="{x:.0f}" y="{place.y + 18:.0f}">{room.split("/")[-1]}</text>'
            f'<text class="size" text-anchor="middle" x="{x:.0f}" y="{place.y + 33:.0f}">{size}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def listing(pairs: Iterable[tuple[str, str]]) -> str:
    """The arrows as text: `room → room`, one a line."""
    return escape("\n".join(f"{a} → {b}" for a, b in pairs))


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: {len(rooms())} rooms, {len(edges())} arrows")
