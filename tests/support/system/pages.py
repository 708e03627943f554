"""The pages that people read, as tests see them: blocks of code, commands, links and the files they name."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.support.system.running import ROOT

BLOCK = re.compile(r"(?:^<!-- not run: (?P<why>[^\n]*) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.S | re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and why it is not run where a comment above it says so."""

    language: str
    text: str
    why: str | None = None

    @property
    def file(self) -> str | None:
        """The name that the first line gives, `# NAME`: the block is a file of that name."""
        found = re.match(r"# ([\w.-]+\.(?:yaml|txt))\n", self.text)
        return found[1] if found else None

    def commands(self) -> list[list[str]]:
        """The words of every command of a shell block, continued lines joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def pages() -> list[Path]:
    """Every page: README, CONTRIBUTING, and all of docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def title(page: Path) -> str:
    """A page's place in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str = "") -> list[Block]:
    """The page's fenced blocks, in order."""
    return [block for block in blocks_in(page.read_text(encoding="utf-8")) if language in ("", block.language)]


def blocks_in(text: str) -> list[Block]:
    """The fenced blocks of a text, in order."""
    return [Block(m["language"], m["text"], m["why"]) for m in BLOCK.finditer(text)]
