"""A classifier of looks: what cannot be one costs no picture, and one that fails at the tables can be replaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gazetteer.data.scenes.truth import write_truth
from gazetteer.labeling.tables import load_candidates
from tests.support.system.running import FEW, digests, in_process

OURS = "gazetteer.data.scenes.style_classifier:load"


class Unsure:
    """Knows every look, and never says which."""

    labels = ("night", "watercolour", "pencil sketch")

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        return np.full((len(pictures), 3), np.nan)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a run on a few rendered scenes with their masks."""
    exact = tmp_path_factory.mktemp("exact") / "exact"
    write_truth(exact, 8)
    return [
        *FEW, f"pictures.table={exact}", "executor=serial", "images=8", "generation.streams=[image]",
        "labels.styles=[night, watercolour]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("classifier", "says"),
    [("os:getcwd", "makes no classifier"), ("nowhere:x", "cannot be imported"), (OURS, "does not know 'cubist'")],
)
def test_one_that_cannot_serve_is_refused_before_the_first_picture(
    settings: list[str], tmp_path: Path, classifier: str, says: str
) -> None:
    looks = ["labels.styles=[night, cubist]", f"labels.style_classifier={classifier}"]
    done = in_process("label", str(tmp_path / "run"), "--set", *settings, *looks)
    assert done.returncode == 2
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("gazetteer:"))
    assert "labels.style_classifier" in said and says in said
    assert not (tmp_path / "run").exists()


def test_a_run_that_stopped_at_its_tables_goes_on_with_another_one(settings: list[str], tmp_path: Path) -> None:
    run, straight = tmp_path / "run", tmp_path / "straight"
    bad, good = f"labels.style_classifier={__name__}:Unsure", f"labels.style_classifier={OURS}"
    done = in_process("label", str(run), "--set", *settings, bad)
    assert done.returncode == 2
    assert "answers nan" in done.stderr and "goes on with another labels.style_classifier" in done.stderr
    before = digests(run)
    assert before and not any(name == "labels.parquet" for name in before)
    refused = in_process("label", str(run), "--set", *settings, good, "seed=1")  # would need other pictures
    assert refused.returncode == 2 and "seed: was 0, now 1" in refused.stderr
    refused = in_process("label", str(run), "--set", *settings, "labels.style_classifier=os:getcwd")
    assert refused.returncode == 2 and "makes no classifier" in refused.stderr
    done = in_process("label", str(run), "--set", *settings, good)
    assert done.returncode == 0, done.stderr
    assert "the run goes on, for its tables alone follow from this" in done.stderr
    assert before.items() <= digests(run).items()  # nothing was drawn or heard again
    assert in_process("label", str(straight), "--set", *settings, good).returncode == 0
    assert load_candidates(run).equals(load_candidates(straight))
    assert in_process("verify", str(run)).returncode == 0
    assert "nothing to do" in in_process("label", str(run), "--set", *settings, good).stdout
    refused = in_process("label", str(run), "--set", *settings, good, "labels.min_lift=1.5")  # it has tables now
    assert refused.returncode == 2 and "relabel" in refused.stderr
