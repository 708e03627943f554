"""JSON that says itself whether it is what was written: an object with the SHA-256 of the rest under ``sha256``.

It tells damage and hand-made changes from what a run recorded; it is no signature, whoever means to can seal anew.
"""

from __future__ import annotations

import json
from typing import Any

from gazetteer.data.core.digests import digest_json
from gazetteer.data.runs.publish import json_bytes

SEAL = "sha256"


def seal(value: dict[str, Any]) -> bytes:
    """The file of an object without the key ``sha256``; ValueError for NaN."""
    plain = json.loads(json_bytes(value))  # digested as it will be read: tuples are lists, keys are text
    return json_bytes({**plain, SEAL: digest_json(plain)})


def unseal(content: bytes) -> dict[str, Any] | None:
    """The object of a sealed file, without its seal; None when it is not what was written."""
    try:
        value = json.loads(content)
        whole = isinstance(value, dict) and value.pop(SEAL, None) == digest_json(value)
    except (ValueError, RecursionError):
        return None
    return value if whole else None
