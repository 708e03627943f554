"""Patterns of sites: which of several autoencoders serves a site (`sae.model.sources`).

| pattern | serves |
|---|---|
| ``*`` | every site |
| ``mid_block.attentions.0`` | that block, whatever stream, signal, branch and t |
| ``transformer_blocks.*-text-t0.50`` | the text stream of these blocks at t 0.50 |
| ``mid_block.attentions.0-output-cond-t1.00`` | one site, as folders are named (`Site.slug`) |
| ``block=up_blocks.*, branch=cond, t=0.5`` | the same by the names of a site's columns |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, TypeAlias

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import TextOrNames
from gazetteer.data.core.sites import BRANCHES, SIGNALS, STREAMS, Site

SaeSetting: TypeAlias = Annotated[
    str | dict[str, str], TextOrNames("a folder, or a mapping of at least one pattern of sites")
]
"""The key ``saes`` of a configuration: a folder of sites, or patterns with what serves their sites."""

ANY = "*"
ACCEPTED = "a block with * for any part of it, or block=…, stream=…, signal=…, branch=…, t=… between commas"


@dataclass(frozen=True)
class SitePattern:
    """What a site's columns have to be; ``*`` stands for anything, in a block also for a part of it."""

    block: str = ANY
    stream: str = ANY
    signal: str = ANY
    branch: str = ANY
    t: str = ANY

    @classmethod
    def of(cls, text: str) -> SitePattern:
        """Read a pattern; raises InputError that says what is accepted."""
        named = "=" in text
        columns = dict(_named(text) if named else _dashed(text))
        for name, accepted in (("branch", BRANCHES), ("stream", STREAMS), ("signal", SIGNALS)):
            if columns.get(name, ANY) not in (ANY, *accepted):
                raise InputError(
                    f"saes: the pattern {text!r} asks for {name} {columns[name]!r}; accepted: {', '.join(accepted)}, *."
                )
        if columns.get("t", ANY) != ANY:
            columns["t"] = _moment(columns["t"], text)
        return cls(**columns)

    def matches(self, site: Site) -> bool:
        """Whether a site is one of these."""
        values = _columns(site)
        return _like(self.block, values.pop("block")) and all(
            getattr(self, name) in (ANY, value) for name, value in values.items()
        )

    def within(self, other: SitePattern) -> bool:
        """Whether every site that this pattern matches is one of `other`'s."""
        columns = [(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)[1:]]
        # a star of this block's stands for anything, which only a star of the other's takes
        return _like(other.block, self.block) and all(theirs in (ANY, own) for own, theirs in columns)


def chosen(patterns: Iterable[str], sites: Sequence[Site]) -> tuple[dict[Site, str], list[str]]:
    """The pattern that serves each site, the most specific one that matches; sites that none matches are left out.

    Returns:
        the patterns by site, and those that match none of the sites.

    Raises:
        InputError: a text that is no pattern, or two that match a site and neither is more specific.
    """
    read = {text: SitePattern.of(text) for text in patterns}
    serving: dict[Site, str] = {}
    for site in sites:
        matching = [text for text, pattern in read.items() if pattern.matches(site)]
        best = [text for text in matching if all(read[text].within(read[other]) for other in matching)]
        if matching and len(best) != 1:
            first, second, *_ = best or matching
            raise InputError(
                f"saes: the patterns {first!r} and {second!r} both match {site.slug} and neither is more specific; "
                f"add one that says more, e.g. {site.slug!r}."
            )
        if best:
            serving[site] = best[0]
    idle = [text for text, pattern in read.items() if not any(pattern.matches(site) for site in sites)]
    return serving, idle


def _columns(site: Site) -> dict[str, str]:
    return {name: f"{value:.2f}" if name == "t" else value for name, value in site.columns().items()}


def _named(text: str) -> Mapping[str, str]:
    columns: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value or name not in [field.name for field in fields(SitePattern)] or name in columns:
            raise InputError(f"saes: {text!r} is no pattern of sites; accepted: {ACCEPTED}.")
        columns[name] = value
    return columns


def _dashed(text: str) -> Mapping[str, str]:
    """The columns of a pattern written as a folder's name; what is not named may be anything."""
    block, *rest = text.split("-")
    columns = {"block": block}
    for part in rest:
        kinds = (("stream", part in STREAMS), ("signal", part in SIGNALS), ("branch", part in BRANCHES))
        name = next((name for name, here in kinds if here), "t" if re.fullmatch(r"t(\*|[\d.]+)", part) else "")
        if part != ANY and (not name or name in columns):
            raise InputError(f"saes: {text!r} is no pattern of sites; accepted: {ACCEPTED}.")
        if part != ANY:
            columns[name] = part.removeprefix("t") if name == "t" else part
    if not block:
        raise InputError(f"saes: {text!r} is no pattern of sites; accepted: {ACCEPTED}.")
    return columns


def _moment(value: str, text: str) -> str:
    try:
        return f"{float(value):.2f}"
    except ValueError as error:
        raise InputError(f"saes: the pattern {text!r} asks for t {value!r}, which is no number.") from error


def _like(pattern: str, block: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split(ANY))), block) is not None
