"""The commands of the page on pools and faults repair a run."""

from __future__ import annotations

from pathlib import Path

from tests.support.system.pages import blocks
from tests.support.system.running import FEW, ROOT, gazetteer

PAGE = ROOT / "docs/reference/cluster.md"


def test_its_commands_run_in_order(tmp_path: Path) -> None:
    typed = [words for block in blocks(PAGE, "sh") for words in block.commands()]
    assert [words[:2] for words in typed] == [["gazetteer", "label"], *[["gazetteer", "verify"]] * 2]
    for _, verb, *words in typed:
        words = [word.replace("runs/small", str(tmp_path / "run")) for word in words]
        if verb == "label":
            # Fewer pictures than a reader would want, so that the test is short; the flag goes before --set's values.
            words = ["--retry-failed", *(word for word in words if word != "--retry-failed"), *FEW, "images=4"]
        done = gazetteer(verb, *words)
        assert done.returncode == 0, f"{verb} {words}: {done.stderr}"
