"""How alike the words of dictionaries are: by hand, whatever the order, and beside what chance gives."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import CANDIDATES, FEATURES
from gazetteer.labeling.quality.dictionaries import (
    MEASURES,
    cohesions,
    dictionary_quality,
    print_dictionaries,
    site_quality,
)
from tests.support.runs.runs import PROVENANCE, SITE, blank, finished_run
from tests.support.system.running import ROOT, gazetteer, in_process

VECTORS = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, -3.0]])
"""East, twice as long as north; south."""


def test_two_dictionaries_by_hand() -> None:
    """East and north, hit three times and once; and north alone."""
    found = site_quality(np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 0.0]]), VECTORS)
    assert (found["features"], found["several"], found["pairs"]) == (2, 1, 1)
    # The centre is (2, 1) / 2: cosines 2 / √5 and 1 / √5. Of one word the cosine is 1.
    alike = 1.5 / math.sqrt(5)
    assert found["cohesion"] == pytest.approx([(alike + 1) / 2, (1 - alike) / 2], abs=1e-4)
    assert found["cohesion_several"] == pytest.approx([alike, 0.0], abs=1e-4)
    assert found["separability"] == pytest.approx([1 / math.sqrt(5), 0.0], abs=1e-4)
    # With repetitions the centre is (6, 1) / 4.
    again = (3 * 6 + 1) / 4 / math.sqrt(37)
    assert found["repeated"]["cohesion_several"] == pytest.approx([again, 0.0], abs=1e-4)
    assert found["repeated"]["separability"] == pytest.approx([1 / math.sqrt(37), 0.0], abs=1e-4)


def test_the_spread_over_pairs_by_hand() -> None:
    """Three dictionaries of a word each, to the east, north and south: cosines 0, 0 and −1."""
    found = site_quality(np.eye(3), VECTORS)
    assert found["cohesion"] == [1.0, 0.0] and found["cohesion_several"] == [None, None]
    assert found["separability"] == pytest.approx([-1 / 3, math.sqrt(1 / 3 - 1 / 9)], abs=1e-4)
    assert cohesions(np.array([[0.0, 3.0, 1.0]]), VECTORS).tolist() == [0.0]  # north and south: there is no centre


def test_chance_draws_as_many_words_as_often() -> None:
    """Dictionaries of one word are of one word by chance too; those of all words cannot be others."""
    one = site_quality(np.eye(3)[[0, 1, 2, 1]], VECTORS)
    assert one["chance"]["cohesion"] == [1.0] * 3 and one["chance"]["cohesion_several"] == [None] * 3
    every = site_quality(np.ones((4, 3)), VECTORS)
    assert every["chance"]["cohesion"] == pytest.approx([every["cohesion"][0]] * 3)
    # Four features in five have east, hit once each; one has north and one its double, hit often: all of one word.
    skewed = np.eye(3)[[0] * 8 + [1, 2]] * [1.0, 50.0, 1.0]
    drawn = site_quality(skewed, np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]))
    assert drawn["chance"]["separability"][0] == pytest.approx(0.8**2 + 0.2**2, abs=0.04)
    # Ten times east and east's neighbour, ten times west and its own: by chance they mix.
    vectors = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    paired = np.repeat([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]], 10, axis=0)
    found = site_quality(paired, vectors)
    mean, low, high = found["chance"]["cohesion"]
    assert found["cohesion"][0] > 0.99 > high > mean > low > 0
    # A third of the pairs of words is alike (cohesion 0.995); two thirds are opposite, half of these have no centre.
    assert mean == pytest.approx((0.995 + 0.0995 + 0.0) / 3, abs=0.05)
    assert site_quality(paired, vectors) == found and site_quality(paired, vectors, seed=1) != found


@given(
    arrays(np.float64, (4, 5), elements=st.integers(0, 3).map(float)).filter(lambda one: bool(one.any(axis=1).all())),
    arrays(np.float64, (5, 3), elements=st.floats(-2, 2)).filter(
        lambda one: bool((np.linalg.norm(one, axis=1) > 0.1).all())
    ),
    st.permutations(range(4)),
    st.permutations(range(5)),
)  # fmt: skip
def test_cosines_whatever_the_order(counts, vectors, features, words) -> None:
    alike = cohesions(counts, vectors)
    assert np.all(np.abs(alike) <= 1 + 1e-9)
    assert alike[(counts > 0).sum(axis=1) == 1] == pytest.approx(1.0)
    np.testing.assert_allclose(cohesions(counts[:, words], vectors[words]), alike, atol=1e-6)
    np.testing.assert_allclose(cohesions(counts[features], vectors), alike[features], atol=1e-9)
    np.testing.assert_allclose(cohesions(7 * counts, vectors), alike, atol=1e-6)


def hit(feature: int, concept: str, hits: int, t: float = 0.3) -> dict:
    return blank(CANDIDATES, model="tiny", **SITE, t=t, feature=feature, concept=concept, hits=hits,
                 paper_label=hits > 0)  # fmt: skip


def run_with(path: Path, *rows: dict) -> RunFolder:
    run = finished_run(path)
    run.write_final("candidates", pa.Table.from_pylist(list(rows), schema=CANDIDATES), PROVENANCE)
    sites = [blank(FEATURES, model="tiny", **SITE, t=t, feature=0) for t in (0.3, 0.8)]
    run.write_final("features", pa.Table.from_pylist(sites, schema=FEATURES), PROVENANCE)
    return run


def test_a_run_has_a_row_for_every_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "words.txt").write_text("east 2 0\nnorth 0 1\n", encoding="utf-8")
    rows = [hit(4, "east", 3), hit(4, "north", 1), hit(6, "north", 2), hit(6, "east", 0), hit(4, "qqq", 5),
            hit(9, "qqq", 1)]  # fmt: skip
    run = run_with(tmp_path / "run", *rows)
    found = dictionary_quality(run.path, str(tmp_path / "words.txt"))
    assert found["unknown"] == ["qqq"]  # left out: of feature 9 nothing remains
    early, late = found["sites"]
    by_hand = site_quality(np.array([[3.0, 1.0], [0.0, 2.0]]), VECTORS[:2])
    assert late == {**SITE, "t": 0.3, **by_hand} and by_hand["features"] == 2
    nothing = {name: [None] * 2 for name in MEASURES} | {"chance": {name: [None] * 3 for name in MEASURES}}
    counts = {"features": 0, "several": 0, "pairs": 0}
    assert early == {**SITE, "t": 0.8, **counts, **nothing, "repeated": nothing}
    print_dictionaries(found)
    assert "without a vector: qqq" in capsys.readouterr().out
    json.dumps(found, allow_nan=False)


def test_vectors_that_know_nothing_and_runs_without_hits(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", hit(4, "east", 3))
    (tmp_path / "words.txt").write_text("west 1 0\n", encoding="utf-8")
    for source, sentence in ((tmp_path / "words.txt", "know none of the words"), ("nowhere", "does not exist")):
        with pytest.raises(InputError, match=sentence):
            dictionary_quality(run.path, str(source))
    bare = run_with(tmp_path / "bare", hit(4, "east", 0))
    assert [site["cohesion"] for site in dictionary_quality(bare.path, "nowhere")["sites"]] == [[None, None]] * 2


def test_the_command_that_measured_the_dictionaries(scenes_run: Path) -> None:
    text = (ROOT / "docs/results/labels.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^gazetteer quality .*--vectors.*$", text, re.M)
    words = [word.replace("runs/scenes", str(scenes_run)) for word in shlex.split(line, comments=True)[1:]]
    done = gazetteer(*words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["dictionaries"]
    assert found["vectors"] == "gazetteer.labeling.vocabulary.glove:vector" and not found["unknown"]
    assert len(found["sites"]) == 24 and any(site["features"] > 1 for site in found["sites"])
    assert "published dictionaries" in done.stderr
    own = ["quality", str(scenes_run), "--no-shuffle", "--no-accuracy", "--json", "--vectors", "model"]
    refused = in_process(*own, "--set", "generation.steps=5")  # not the run's
    assert refused.returncode == 2 and "generation.steps" in refused.stderr
    done = in_process(*own)
    assert done.returncode == 0, done.stderr
    other = json.loads(done.stdout.splitlines()[-1])["dictionaries"]["sites"]
    assert [site["features"] for site in other] == [site["features"] for site in found["sites"]]
    assert [site["cohesion"] for site in other] != [site["cohesion"] for site in found["sites"]]
