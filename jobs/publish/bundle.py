"""A publication ready to leave: what is unchanged of the run, and what is written for its readers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass

from gazetteer.data.core.digests import digest_bytes
from gazetteer.jobs.label import card as cards
from gazetteer.jobs.label.tables import tables_of
from gazetteer.jobs.publish import croissant as descriptions
from gazetteer.jobs.publish.content import MARK, Content, content_of


@dataclass(frozen=True)
class Bundle:
    """Files by name: those of the run are read when they are needed, the written ones are here.

    Attributes:
        content: of the run.
        written: ``README.md`` and ``croissant.json``.
    """

    content: Content
    written: dict[str, bytes]

    @property
    def names(self) -> list[str]:
        """Every name in the order of publishing: tables, records, what is written, the mark of completeness."""
        return [*(name for name in self.content.names if name != MARK), *sorted(self.written), MARK]

    @property
    def own(self) -> dict[str, Callable[[bytes], bool]]:
        """Card and description, and how ours are known."""
        return {cards.NAME: cards.is_card, descriptions.NAME: descriptions.is_ours}

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return self.written[name] if name in self.written else self.content.read(name)


def bundle(run: str | os.PathLike[str], published: cards.Published, url: str = "") -> Bundle:
    """Everything that is published of a finished, sound run.

    Args:
        url: of the repository, for the Croissant description.

    Raises:
        InputError: as `content_of`.
    """
    content = content_of(run)
    tables = tables_of(content.names)
    text = cards.card(content.run, tables, published)
    title = published.title or next(line[2:] for line in text.splitlines() if line.startswith("# "))
    lead = next(line for line in text.partition("\n# ")[2].splitlines()[1:] if line)
    description = descriptions.croissant(
        tables,
        {table.files: digest_bytes(content.read(table.files)) for table in tables if "*" not in table.files},
        name=title, description=lead, license=published.license, url=url,
    )  # fmt: skip
    written = {
        cards.NAME: text.encode(),
        descriptions.NAME: (json.dumps(description, indent=1, ensure_ascii=False) + "\n").encode(),
    }
    return Bundle(content, written)
