"""The summary of a finished run, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import CANDIDATES, FAILURES, FEATURES, IMAGES, LABELS
from gazetteer.jobs.label.card import write_card
from gazetteer.jobs.label.summary import print_summary, summarise
from tests.support.runs.runs import PROVENANCE, SITE, blank, finished_run, parts

MANIFEST = {
    "shards": ["s0", "s1"], "images": 2, "segments": 5, "failing": ["i7"],
    "seconds": {"detect": 3.5}, "wall_seconds": 9,
}  # fmt: skip


def feature(number: int, t: float, **values: object) -> dict[str, object]:
    return blank(FEATURES, model="tiny", **SITE, t=t, feature=number, **values)


def named(concept: str, rank: int, heldout: float | None, iou: float = 0.3) -> dict[str, object]:
    ious = {"dataset_iou": iou, "heldout_dataset_iou": heldout}
    return blank(LABELS, model="tiny", **SITE, t=0.3, concept=concept, rank=rank, **ious)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = finished_run(tmp_path / "run")
    features = [
        feature(0, 0.3, dead=True, images_short=4),
        feature(1, 0.3, labels=2),
        feature(2, 0.3, images_short=3),
        feature(0, 1.0, labels=1, images_short=1),
    ]
    labels = [named("dog", 1, 0.5, 0.4), named("dog", 1, None), named("dog", 1, 0.75), named("cat", 2, 0.9)]
    labels.append(named("sky", 1, None))
    run.write_final("features", pa.Table.from_pylist(features, schema=FEATURES), PROVENANCE)
    run.write_final("candidates", CANDIDATES.empty_table(), PROVENANCE)
    run.write_final("labels", pa.Table.from_pylist(labels, schema=LABELS), PROVENANCE)
    run.finish(MANIFEST)
    return run


def test_counts_by_hand(run: RunFolder) -> None:
    found = summarise(run.path)
    assert found["sites"] == [
        {**SITE, "t": 1.0, "features": 1, "alive": 1, "labelled": 1, "short": 1},
        {**SITE, "t": 0.3, "features": 3, "alive": 2, "labelled": 1, "short": 1},
    ]
    assert [found[name] for name in ("features", "alive", "labelled", "short")] == [4, 3, 2, 2]
    assert [found[name] for name in ("images", "segments", "failing", "wall_seconds")] == [2, 5, 1, 9]
    # Second labels do not count; what was never measured held out is no number; the best is best on discovery pictures.
    assert found["concepts"] == [
        {"concept": "dog", "features": 3, "best_heldout_iou": 0.5},
        {"concept": "sky", "features": 1, "best_heldout_iou": None},
    ]


def test_a_person_reads_the_same(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(summarise(run.path))
    said = capsys.readouterr().out
    for line in (
        "2 pictures, 5 segments, 1 failures",
        "3 of 4 features alive, 2 labelled",
        "dog 3 (0.50), sky 1 (none)",
    ):
        assert line in said


def test_cut_prompts_and_kinds_of_failures_are_counted(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    tables = parts(2)
    place = tables["images"].schema.get_field_index("tokens_cut")
    tables["images"] = tables["images"].set_column(place, IMAGES.field("tokens_cut"), pa.array([5], pa.int32()))
    failed = {"stage": "generate", "item": "i7", "error": "BlackedOut", "message": "the safety checker", "attempts": 1}
    tables["failures"] = pa.Table.from_pylist([failed, failed | {"item": "i2"}], schema=FAILURES)
    run.commit_shard("s2", tables, {}, PROVENANCE)
    run.finish({**MANIFEST, "shards": ["s0", "s1", "s2"]})
    found = summarise(run.path)
    assert (found["prompts_cut"], found["failures"]) == (1, {"BlackedOut": 1})  # i2 has a picture of a later try
    print_summary(found)
    said = capsys.readouterr().out
    assert "1 failures (1 BlackedOut)" in said
    assert "1 pictures were drawn from the beginning of their prompt alone" in said
    assert found["prompts_repeated"] == 2 and "2 pictures repeat the prompt of another" in said


def test_places_alone_are_labels_too(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    labels = [named("top left", 1, None) | {"kind": "place", "feature": n} for n in range(3)]
    run.write_final("labels", pa.Table.from_pylist(labels, schema=LABELS), PROVENANCE)
    print_summary(summarise(run.path))
    said = capsys.readouterr().out
    assert "3 place" in said and "why no thing, stuff or part is labelled" in said and "why nothing" not in said
    run.write_final("labels", LABELS.empty_table(), PROVENANCE)
    print_summary(summarise(run.path))
    said = capsys.readouterr().out
    assert "why nothing is labelled" in said and "by kind" not in said


@pytest.mark.parametrize("streams", [("text",), ("image", "text")])
def test_words_are_listed_and_explain_no_lack_of_things(
    run: RunFolder, capsys: pytest.CaptureFixture[str], streams: tuple[str, ...]
) -> None:
    """Of a run of words alone nothing can be a thing, so that nobody asks why none is."""
    sites = [feature(0, 0.3, labels=1) | {"stream": stream} for stream in streams]
    words = [named("dog", 1, 0.5) | {"kind": "word", "stream": "text"}]
    pairs = [blank(CANDIDATES, model="tiny", **SITE, t=0.3, concept="dog") | {"kind": "word", "stream": "text"}]
    for name, rows, schema in (
        ("features", sites, FEATURES),
        ("labels", words, LABELS),
        ("candidates", pairs, CANDIDATES),
    ):
        run.write_final(name, pa.Table.from_pylist(rows, schema=schema), PROVENANCE)
    found = summarise(run.path)
    assert (found["concepts"], found["words"]) == ([], [{"concept": "dog", "features": 1, "best_heldout_iou": 0.5}])
    assert found["pairs"]["pairs"] == (1 if streams == ("text",) else 0)
    print_summary(found)
    said = capsys.readouterr().out
    assert "features best labelled with where a word is in the prompt" in said and "dog 1 (0.50)" in said
    assert ("why no thing, stuff or part is labelled" in said) == ("image" in streams)
    run.write_final("labels", LABELS.empty_table(), PROVENANCE)
    print_summary(summarise(run.path))
    assert "why nothing is labelled" in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nope is not a finished run: there is no such folder"):
        summarise(tmp_path / "nope")


def test_a_run_under_way_has_none(run: RunFolder) -> None:
    run.clear_success()
    with pytest.raises(InputError, match="is not a finished run"):
        summarise(run.path)


def test_a_card_counts_the_features_of_every_kind(run: RunFolder) -> None:
    labels = [
        named("dog", 1, 0.5),
        named("cat", 2, 0.9),
        *({**named(c, 1, None), "kind": "style"} for c in ("night",) * 2),
    ]
    labels += [{**named(f"word {i}", 1, None), "kind": "word"} for i in range(42)]
    run.write_final("labels", pa.Table.from_pylist(labels, schema=LABELS), {**PROVENANCE, "config": {"name": "tiny"}})
    write_card(run)
    said = (Path(run.path) / "README.md").read_text().splitlines()
    at = said.index("Features by the concept that labels them best:")
    thing, style, word = said[at + 4 : at + 7]
    assert (thing, style) == ("| thing | 1 | dog (1) |", "| style | 2 | night (2) |")
    assert word.startswith("| word | 42 | word 0 (1), word 1 (1), ") and word.endswith(", and 2 more |")
