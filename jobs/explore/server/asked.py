"""What a page asks for, read from JSON and checked: starts, edits, places, notes; InputError or Refused otherwise."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request

from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edit_files import read_edit
from gazetteer.data.inputs.edits import Edit
from gazetteer.diffusion.edit_sampler import Start
from gazetteer.jobs.explore.notes import Note
from gazetteer.jobs.explore.server.door import MOST_BYTES
from gazetteer.jobs.explore.server.refused import Refused

LONGEST_PROMPT = 2000
MOST_EDITS = 32


async def asked(request: Request, *keys: str) -> dict[str, Any]:
    """The body of a request: an object with these keys and no others; `Refused` otherwise."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > MOST_BYTES:
            raise Refused(413, f"A request holds at most {MOST_BYTES:,} bytes.")
    try:
        body = json.loads(content.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The request is not valid JSON: {first_line(error)}.") from error
    if not isinstance(body, dict):
        raise Refused(400, f"The request must be an object with {', '.join(keys)}.")
    if unknown := sorted(set(body) - set(keys)):
        raise Refused(400, f"The request has the unknown key {unknown[0]!r}; accepted: {', '.join(keys)}.")
    if missing := [key for key in keys if key not in body]:
        raise Refused(400, f"The request lacks {missing[0]!r}.")
    return body


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def start_of(body: Mapping[str, Any]) -> Start:
    """The picture that is meant; a seed may be text, for a page's numbers do not hold all of its digits."""
    prompt, seed = body["prompt"], body["seed"]
    if isinstance(seed, str) and re.fullmatch(r"[0-9]{1,19}", seed):
        seed = int(seed)
    if not isinstance(prompt, str) or len(prompt) > LONGEST_PROMPT:
        raise InputError(f"prompt must be text of at most {LONGEST_PROMPT:,} letters.")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InputError("prompt holds half a character.") from error
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"seed must be a whole number from 0 to 2^63 - 1, not {seed!r}.")
    return Start(prompt, seed)


def edits_of(body: Mapping[str, Any]) -> list[Edit]:
    """The edits, as `gazetteer steer` reads them from a file; masks must be given, not named."""
    rows = body["edits"]
    if not isinstance(rows, list) or len(rows) > MOST_EDITS:
        raise InputError(f"edits must be a list of at most {MOST_EDITS}.")
    edits = []
    for number, row in enumerate(rows, start=1):
        try:
            region = row.get("region") if isinstance(row, Mapping) else None
            if isinstance(region, Mapping) and isinstance(region.get("mask"), str):
                raise InputError("a region's mask must be {size, counts} here; no files are read.")
            edits.append(replace(read_edit(row), images=()))
        except InputError as error:
            raise InputError(f"Edit {number}: {error}") from error
    return edits


def place_of(body: Mapping[str, Any]) -> tuple[float, float]:
    """x and y as shares of width and height."""
    for name in ("x", "y"):
        value = body[name]
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or not 0 <= value <= 1
        ):
            raise InputError(f"{name} is a share of the picture's side, 0 to 1, not {value!r}.")
    return float(body["x"]), float(body["y"])


def note_of(body: Mapping[str, Any], sites: Mapping[str, Mapping[int, Any]]) -> tuple[str, int, Note]:
    """Site, feature and note; `Refused` (404) for a feature that the run does not have."""
    site, feature, star, text = (body[name] for name in ("site", "feature", "star", "text"))
    if not isinstance(star, bool) or not isinstance(text, str):
        raise InputError("A note has a star, true or false, and a text.")
    if not isinstance(site, str) or site not in sites:
        raise Refused(404, f"This run has no site {site!r}.")
    if isinstance(feature, bool) or not isinstance(feature, int) or feature not in sites[site]:
        raise Refused(404, f"There is no feature {feature!r} at {site}.")
    return site, feature, Note(star, text)


def check_features(edits: list[Edit], sizes: Mapping[Site, int]) -> None:
    """`Refused` (404) when an edit names a site or a feature that there is not; `sizes` are the autoencoders'."""
    for edit in edits:
        for target in edit.targets:
            if not target.features:
                continue
            if target.site not in sizes:
                raise Refused(404, f"This run has no site {target.site.slug}.")
            if max(target.features) >= sizes[target.site]:
                raise Refused(
                    404, f"There is no feature {max(target.features)} at {target.site.slug}, "
                    f"which has {sizes[target.site]:,}."
                )  # fmt: skip
