"""Prompts and the names that follow from them: content decides, never order or batch."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from data.prompts import make_item, read_prompts, shards_of, split_of

PROMPTS = ["a dog on grass", "two cats, by the sea", "“snow”\u2028and sun"]
MESSY = ["  a dog on grass ", "", "two cats, by the sea", "a dog on grass", PROMPTS[2]]


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
    assert read_prompts(write(tmp_path / name.lower(), MESSY)) == PROMPTS


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_another_column(tmp_path, name):
    path = write(tmp_path / name, MESSY, column="caption")
    assert read_prompts(path, column="caption") == PROMPTS
    with pytest.raises(InputError, match=r"no column 'prompt'.*caption"):
        read_prompts(path)


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa dog\n")
    assert read_prompts(tmp_path / "a.txt") == ["a dog"]


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
        ("a.txt.gz", gzip.compress(b"a dog\n" * 99)[:30], "cannot be read"),
        ("a.pdf", b"%PDF", "accepted"),
        ("a.parquet.gz", b"", "accepted"),
    ],
)
def test_bad_files_get_a_sentence(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_prompts(tmp_path / name)
    assert name in str(caught.value)


def test_a_missing_file_and_a_folder_get_a_sentence(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(InputError, match="accepted"):
            read_prompts(path)


def test_numbers_in_a_parquet_column_are_text_but_lists_are_not(tmp_path):
    pq.write_table(pa.table({"prompt": [[1], [2]]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="text"):
        read_prompts(tmp_path / "a.parquet")


items = st.lists(st.builds(make_item, st.text(max_size=8), st.integers(0, 3), st.just("model")), max_size=30)


@given(items, st.integers(1, 7), st.randoms())
def test_shards_do_not_depend_on_order_or_repetition(some, size, random):
    shuffled = [*some, *some[:3]]
    random.shuffle(shuffled)
    shards = shards_of(some, size)
    assert shards_of(shuffled, size) == shards
    assert [item for shard in shards for item in shard.items] == sorted(set(some), key=lambda item: item.image_id)
    assert all(1 <= len(shard.items) <= size for shard in shards)
    assert len({shard.id for shard in shards}) == len(shards)


def test_a_shard_with_other_images_has_another_name():
    one, two = make_item("a", 0, "m"), make_item("b", 0, "m")
    ids = {shards_of(some, 2)[0].id for some in ([one], [two], [one, two])}
    assert len(ids) == 3


def test_an_image_is_named_by_prompt_seed_and_models():
    names = {
        make_item(prompt, seed, models).image_id
        for prompt, seed, models in [("a", 1, "m"), ("a", 2, "m"), ("b", 1, "m"), ("a", 1, "n"), ("a1", 1, "m")]
    }
    assert len(names) == 5
    assert make_item("a", 1, "m").image_id == "6086b937154d44f8"  # must never change: runs resume by it
    with pytest.raises(InputError, match="seed"):
        make_item("a", -1, "m")


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_the_split_is_monotone_in_the_share(prompt, less, more):
    less, more = sorted((less, more))
    if split_of(prompt, less) == "heldout":
        assert split_of(prompt, more) == "heldout"
    assert (split_of(prompt, 0.0), split_of(prompt, 1.0)) == ("discovery", "heldout")


def test_the_split_has_about_its_share():
    held = sum(split_of(f"prompt {number}", 0.2) == "heldout" for number in range(5000))
    assert 900 < held < 1100


def test_senseless_numbers_get_a_sentence():
    with pytest.raises(InputError, match="between 0 and 1"):
        split_of("a", 1.5)
    with pytest.raises(InputError, match="at least one"):
        shards_of([], 0)
