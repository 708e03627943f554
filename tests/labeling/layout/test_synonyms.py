"""Prompts that name a concept by another of its names."""

from __future__ import annotations

from pathlib import Path

from gazetteer.labeling.layout.run import mentions, open_run
from gazetteer.labeling.vocabulary.synonyms import keep_synonyms
from tests.support.runs.layout_runs import world_run
from tests.support.runs.small_world import sky_world


def test_a_prompt_names_a_concept_by_its_other_names() -> None:
    synonyms = {"boat": ("sailing vessel",), "dog": ("puppy",)}
    named = mentions(["sailing vessels", "a house and puppies"], ["boat", "dog", "house"], synonyms)
    assert named.tolist() == [[True, False, False], [False, True, True]]


def test_a_layout_knows_the_other_names_that_its_run_kept(tmp_path: Path) -> None:
    run = world_run(tmp_path / "run", sky_world(), "a sky and a globe")
    before = open_run(run)
    assert not before.mentioned[:, before.concepts.index("ball")].any()
    (tmp_path / "words.txt").write_text("ball, globe, sphere\nsky\n")
    keep_synonyms(run, str(tmp_path / "words.txt"))
    after = open_run(run)
    assert after.mentioned.all() and after.synonyms == {"ball": ("globe", "sphere")}
