"""Where prompts come from, and which of them a job may use."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.prompt_pool import SIDES, PromptConfig, read_prompts, side_of
from gazetteer.data.inputs.prompt_words import normalised
from gazetteer.jobs.config.schema import load_config

PROMPTS = ["a dog on grass", "two cats, by the sea", "“snow”\u2028and sun"]
MESSY = ["  a dog on grass ", "", "two cats, by the sea", "a dog on grass", "A dog, on grass.", PROMPTS[2]]


def read(path, **settings):
    return read_prompts(PromptConfig(str(path), **settings))


def write(path, prompts, column="prompt"):
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(pa.table({column: [*prompts, None], "n": [0] * (len(prompts) + 1)}), path)
        return path
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as stream:
        if kind == "txt":
            stream.write("\n".join(prompts) + "\r\n")
        elif kind == "csv":
            csv.writer(stream).writerows([["n", column], *([number, text] for number, text in enumerate(prompts))])
        else:
            stream.writelines(json.dumps({"n": 1, column: text}) + "\n" for text in prompts)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a.parquet", "a.txt.gz", "a.csv.gz", "A.JSONL.gz"])
def test_every_format_gives_the_same_prompts(tmp_path, name):
    assert read(write(tmp_path / name.lower(), MESSY)) == PROMPTS


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_another_column(tmp_path, name):
    path = write(tmp_path / name, MESSY, column="caption")
    assert read(path, column="caption") == PROMPTS
    with pytest.raises(InputError, match=r"no column 'prompt'.*caption"):
        read(path)


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa dog\n")
    assert read(tmp_path / "a.txt") == ["a dog"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"", "no prompts"),
        ("a.txt", b" \n\n", "no prompts"),
        ("a.txt", b"caf\xe9\n", "UTF-8"),
        ("a.csv", b"", "no column"),
        ("a.csv", b'prompt\n"open', "line"),
        ("a.jsonl", b'{"prompt": "a"}\nnonsense\n', "line 2"),
        ("a.jsonl", b'["a"]\n', "line 1"),
        ("a.jsonl", b'{"prompt": 3}\n', "not text"),
        ("a.jsonl", b"[" * 100_000, "line 1"),
        ("a.parquet", b"PAR1 not really", "Parquet"),
        ("a.txt.gz", b"not gzip", "cannot be read"),
        ("a.txt.gz", gzip.compress(b"a dog\n" * 99, mtime=0)[:30], "cannot be read"),
        ("a.pdf", b"%PDF", "accepted"),
        ("a.parquet.gz", b"", "accepted"),
    ],
)
def test_bad_files_get_a_sentence(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read(tmp_path / name)
    assert name in str(caught.value)


def test_missing_files_get_a_sentence(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path / "none"):
        with pytest.raises(InputError, match="accepted"):
            read(path)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2]), pa.array([True, False]), pa.array([1.5, float("nan")]), pa.array([0, 1], pa.timestamp("s")),
        pa.array([b"a dog", b"a cat"]), pa.array([[1], [2]]), pa.array([1, 1]).dictionary_encode(),
    ],
    ids=lambda values: str(values.type),
)  # fmt: skip
def test_a_parquet_column_of_something_else_than_text_is_refused(tmp_path, values):
    pq.write_table(pa.table({"prompt": values}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: 'prompt' is not text but "):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_text_in_parquet_is_read_however_it_is_stored(tmp_path, kind):
    pq.write_table(pa.table({"prompt": pa.array(["a dog", None, "a cat"]).cast(kind)}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ["a dog", "a cat"]


def of_lines(folder, *lines):
    path = folder / "prompts.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


LINES = ["a dog", "A cat on a mat", "two hot dogs at night", "the DOG and the cat", "abcdefghij klm", "42 boats at sea"]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"min_chars": 6, "max_chars": 14}, [1, 4]),
        ({"min_words": 4, "max_words": 4}, [5]),
        ({"matching": r"^a\s"}, [0, 1]),
        ({"not_matching": r"\d|night"}, [0, 1, 3, 4]),
        ({"with_words": ("dog", "hot dogs")}, [0, 2, 3]),
        ({"without_words": ("cat", "at sea")}, [0, 2, 4]),
        ({"with_words": ("cat",), "without_words": ("dog",)}, [1]),
        ({"limit": 2, "min_words": 4}, [1, 2]),
        ({}, range(6)),
    ],
)
def test_filters(tmp_path, settings, kept):
    assert read(of_lines(tmp_path, *LINES), **settings) == [LINES[i] for i in kept]


def test_filters_that_leave_nothing_get_a_sentence(tmp_path):
    path = of_lines(tmp_path, *LINES)
    with pytest.raises(InputError, match="None of the 6 prompts"):
        read(path, min_words=9)
    with pytest.raises(InputError, match="side evaluation"):
        read(path, side="evaluation", shares=(1.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"matching": "("}, "regular expression"),
        ({"limit": -1}, "limit must be at least 0"),
        ({"side": "test"}, "sae, dictionary, evaluation"),
        ({"shares": (0.5, 0.5)}, "add up to 1"),
        ({"shares": (0.5, 0.6, -0.1)}, "add up to 1"),
        ({"with_words": ("dog", "...")}, "has no word"),
        ({"path": "hf:laion/coco"}, "limit"),
    ],
)
def test_senseless_settings_get_a_sentence(settings, says):
    with pytest.raises(InputError, match=says):
        PromptConfig(**{"path": "a.txt", **settings})


SHARES = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(
    lambda cuts: (min(cuts), max(cuts) - min(cuts), 1.0 - max(cuts))
)


@settings(max_examples=60)
@given(st.lists(st.text(max_size=12), max_size=12), SHARES, st.randoms())
def test_a_prompt_never_changes_side(prompts, shares, random):
    """Whatever else is there, in whatever order, however it is spaced or written: sides are disjoint and stay."""
    before = {normalised(prompt): side_of(prompt, shares) for prompt in prompts}
    rewritten = [random.choice([f"  {p}", f"{p}!", f"({p})\n", p.casefold(), p.replace(" ", "  ")]) for p in prompts]
    random.shuffle(rewritten)
    for prompt in rewritten:
        assert side_of(prompt, shares) == before.get(normalised(prompt), side_of(prompt, shares))
    sides = {side: {normalised(p) for p in prompts if side_of(p, shares) == side} for side in SIDES}
    assert sum(map(len, sides.values())) == len(set().union(*sides.values())) == len(before)


@given(st.lists(st.sampled_from(["dog", "cat", "sea", "night", "two", "red"]), min_size=1, max_size=5), st.randoms())
def test_spelling_of_the_same_words_is_one_prompt(words, random):
    spelled = "".join(random.choice([w, w.upper(), w.title()]) + random.choice([" ", ", ", "  ", " - "]) for w in words)
    assert normalised(spelled) == " ".join(words)


def test_the_sides_of_a_file_are_disjoint_complete_and_of_about_their_shares(tmp_path):
    lines = [f"prompt number {n}" for n in range(4000)]
    first, second = of_lines(tmp_path, *lines), tmp_path / "other.csv"
    write(second, [line.upper() + "." for line in reversed(lines)], column="caption")
    mine = {side: read(first, side=side, shares=(0.5, 0.3, 0.2)) for side in SIDES}
    theirs = {side: read(second, column="caption", side=side, shares=(0.5, 0.3, 0.2)) for side in SIDES}
    for side in SIDES:
        assert {normalised(p) for p in mine[side]} == {normalised(p) for p in theirs[side]}
    assert Counter(p for side in SIDES for p in mine[side]) == Counter(lines)
    assert [round(len(mine[side]) / 4000, 1) for side in SIDES] == [0.5, 0.3, 0.2]


def test_a_side_once_given_must_never_change():
    found = [side_of(p, (0.4, 0.3, 0.3)) for p in ("a dog", "a cat", "the sea at night", "seven", "one red house")]
    assert found == ["sae", "sae", "evaluation", "sae", "evaluation"]


def test_a_folder_is_read_by_datasets_as_a_stream(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    folder = tmp_path / "captions"
    folder.mkdir()
    for part in range(3):
        rows = {"caption": [f"picture {part} {n}" for n in range(50)], "width": list(range(50))}
        pq.write_table(pa.table(rows), folder / f"train-{part}.parquet")
    assert read(folder, column="caption", limit=60) == [
        *(f"picture 0 {n}" for n in range(50)), *(f"picture 1 {n}" for n in range(10))
    ]  # fmt: skip
    assert len(read(folder, column="caption")) == 150
    with pytest.raises(InputError, match=r"no column 'text'.*caption, width"):
        read(folder, column="text")
    with pytest.raises(InputError, match="not text"):
        read(folder, column="width")
    with pytest.raises(InputError, match=r"split nothing.*nothing"):
        read(folder, column="caption", split="nothing")


def test_a_folder_without_data_gets_a_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path, column="caption")


def test_two_jobs_cannot_be_on_one_side_or_cut_differently():
    with pytest.raises(InputError, match="both dictionary"):
        load_config(None, ["prompts.side=dictionary", "sae.prompts.side=dictionary"])
    with pytest.raises(InputError, match="shares"):
        load_config(None, ["prompts.side=dictionary", "sae.prompts.side=sae", "prompts.shares=[0.4, 0.4, 0.2]"])
    config = load_config(None, ["prompts.side=dictionary", "sae.prompts.side=sae", "prompts.with_words=[dog, cat]"])
    assert config.prompts.with_words == ("dog", "cat")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", rb'{"prompt": "a \ud83d dog"}', "line 1: 'prompt' holds half of a character"),
        ("a.jsonl", b'{"prompt": "a dog"}\n{"prompt": "a", "prompt": "b"}', "line 2: .*'prompt' occurs twice"),
        ("a.csv", b"prompt,n,prompt\na dog,1,a cat\n", "has 2 columns 'prompt'"),
        ("a.csv", b"prompt\na dog\na boat, a red sea\n", "line 3: 2 fields where the header has 1; put a prompt with"),
        ("a.csv", b"id,prompt\n1,a dog\n2,\n3\n", "line 4: 1 of the header's 2 fields, and no 'prompt' among them"),
        ("a.csv", b'id,prompt\n1,"a cat, on\ngrass"\n2,a, b, c\n', "line 4: 4 fields where the header has 2"),
    ],
)
def test_what_would_be_half_heard_is_refused(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        read(tmp_path / name)


def test_whole_characters_outside_the_first_plane_are_read(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(rb'{"prompt": "a \ud83d\udc36 dog", "n": {"prompt": 1}}')
    assert read(tmp_path / "a.jsonl") == ["a \U0001f436 dog"]


def test_columns_of_one_name_in_parquet_are_refused(tmp_path):
    pq.write_table(
        pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt"] * 2), tmp_path / "a.parquet"
    )
    with pytest.raises(InputError, match="has 2 columns 'prompt'"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.parquet"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is a pipe"):
        read(tmp_path / name)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_any_system_ends_them(tmp_path, end):
    lines = {
        "a.txt": ["a dog", "a cat"],
        "a.csv": ["prompt", "a dog", "a cat"],
        "a.jsonl": ['{"prompt": "a dog"}', '{"prompt": "a cat"}'],
    }
    for name, own in lines.items():
        (tmp_path / name).write_bytes((end.join(own) + end).encode())
        assert read(tmp_path / name) == ["a dog", "a cat"]
    (tmp_path / "a.txt").write_bytes("a dog\u2028and\x0ba cat".encode())
    assert len(read(tmp_path / "a.txt")) == 1, "what else Unicode breaks a line at is text"
