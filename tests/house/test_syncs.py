"""A GPU is not asked for single numbers in a loop: every wait in one is known, with the reason why it may stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.system.imports import name as file_name
from tests.support.system.imports import python_files
from tests.support.system.syncs import waits_in_loops

ROOMS = ("diffusion/", "labeling/", "sae/")
"""Where models run again and again; loops of attribution run over weights, and fetch the scores of each once."""

KNOWN = {
    "labeling/detect/detector_features.py: read": "all levels of a batch, by an evaluation of layouts alone",
    "labeling/detect/omdet.py: _call": "tensors that are on the CPU already",
    "labeling/detect/sam3.py: _find": "tensors that are on the CPU already",
    "labeling/detect/sam3.py: _scaled": "tensors that are on the CPU already",
    "sae/model/chunks.py: is_finite": "reading a file",
    "sae/model/files.py: write_folder": "writing a file",
    "sae/model/files.py: _check_tensors": "reading a file",
    "sae/training/tensor_file.py: write_tensors": "writing a file",
}


def test_no_loop_waits_for_the_device_but_for_a_reason() -> None:
    files = [path for path in python_files() if file_name(path).startswith(ROOMS)]
    found = {f"{file_name(path)}: {wait.partition(':')[0]}" for path in files for wait in waits_in_loops(path)}
    assert sorted(found - KNOWN.keys()) == [], "fetch it once behind the loop, or say here why it may wait"
    assert sorted(KNOWN.keys() - found) == [], "these wait no more; take them out"


@pytest.mark.parametrize(
    ("code", "waits"),
    [
        ("for x in xs:\n    total += x.sum().item()", ["x.sum().item()"]),
        ("while float(loss.mean()) > 1:\n    step()", ["float(loss.mean())"]),
        ("[bool(torch.isfinite(x).all()) for x in xs]", ["bool(torch.isfinite(x).all())"]),
        ("for x in xs.tolist():\n    use(float(x), float('1'), int(x.name))", []),
        ("[one.cpu() for row in rows for one in row]", ["one.cpu()"]),
        ("def f():\n    return x.item()\nfor x in xs:\n    pass", []),
        ("for x in xs:\n    f(lambda: x.cpu().numpy())", ["x.cpu().numpy()", "x.cpu()"]),
    ],
)
def test_what_counts_as_a_wait(tmp_path: Path, code: str, waits: list[str]) -> None:
    file = tmp_path / "code.py"
    file.write_text(code)
    assert waits_in_loops(file) == []  # whoever does not use torch has no device to wait for
    file.write_text(f"import torch\n{code}")
    assert [one.partition(": ")[2] for one in waits_in_loops(file)] == waits
