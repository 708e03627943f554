"""Damaged results and folders that cannot hold any are one sentence, whatever is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from gazetteer.attribution.evaluation.cache import ResultCache
from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.jobs.cli.main import main

ARRAYS = {"one": np.arange(3.0), "two": np.eye(2)}


def test_whatever_is_damaged_of_a_result_is_refused(tmp_path: Path) -> None:
    """Each length and each byte in turn but for the archive's list of names: what is read is what was written."""
    cache = ResultCache(tmp_path)
    cache.arrays(("a",), lambda: ARRAYS)
    (path,) = tmp_path.glob("a-*.npz")
    whole, refused = path.read_bytes(), 0
    names = whole.index(b"PK\x01\x02")
    damaged = [whole[:length] for length in range(0, len(whole), 3)]
    damaged += [whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :] for at in range(names) for bit in (1, 64)]
    for content in damaged:
        path.write_bytes(content)
        try:
            read = cache.arrays(("a",), lambda: pytest.fail("made anew"))
        except InputError:
            refused += 1
        else:
            assert read.keys() == ARRAYS.keys() and all((read[name] == ARRAYS[name]).all() for name in ARRAYS)
    assert refused > len(damaged) / 2
    path.write_bytes(b"")
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))} is damaged; remove it and run again\.$"):
        cache.arrays(("a",), dict)


@pytest.mark.parametrize("content", ["[]", "3", "", "{", "[" * 100_000], ids=["list", "number", "none", "half", "deep"])
def test_damaged_settings_are_refused(content: str, tmp_path: Path) -> None:
    ResultCache(tmp_path, {"steps": 2})
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(InputError, match=r"settings\.json is damaged; remove it and run again"):
        ResultCache(tmp_path, {"steps": 2})


def test_a_file_is_no_folder_for_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    for verb in (["evaluate", "--quick"], ["score", "--concept", "dog"], ["edit", "--concept", "dog"]):
        assert main(["attribute", *verb, "--out", str(tmp_path / "file")]) == 2
        assert f"{tmp_path / 'file'} is a file; name a folder." in capsys.readouterr().err
    with pytest.raises(GazetteerError, match=r"^Cannot write .* \(Not a directory\)"):
        ResultCache(tmp_path / "file" / "cache")
    assert (tmp_path / "file").read_text() == "mine"
