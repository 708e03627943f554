"""Digests and provenance: content alone decides."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazetteer.data.core import digests
from gazetteer.data.core.errors import InputError
from gazetteer.data.tables.provenance import provenance, read_provenance, with_provenance


def folder(path, files):
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def test_a_folder_is_its_names_and_contents(tmp_path):
    one = folder(tmp_path / "one", {"a/x": "1", "b": "2"})
    same = folder(tmp_path / "same", {"b": "2", "a/x": "1", ".cache/y": "z", "__pycache__/y": "z"})
    os.symlink(one / "b", same / "link")
    assert digests.digest_folder(one) != digests.digest_folder(same)
    (same / "link").unlink()
    assert digests.digest_folder(one) == digests.digest_folder(same)
    others = [{"a/x": "1"}, {"a/x": "2", "b": "1"}, {"ax": "1", "b": "2"}, {"a/x": "1", "b": "2 "}]
    found = {digests.digest_folder(folder(tmp_path / str(n), files)) for n, files in enumerate(others)}
    assert len(found | {digests.digest_folder(one)}) == 5


def test_a_changed_file_is_noticed_and_an_unchanged_one_not_read_again(tmp_path, monkeypatch):
    path = folder(tmp_path / "m", {"w": "1234"}) / "w"
    before = digests.digest_folder(path.parent)
    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", lambda *_: pytest.fail("read again"))
        assert digests.digest_folder(path.parent) == before
    path.write_text("1235")
    os.utime(path, ns=(1, 1))
    assert digests.digest_folder(path.parent) != before


def test_nothing_to_digest_gets_a_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=str(path)):
            digests.digest_folder(path)


def test_json_digests_ignore_key_order_only():
    assert digests.digest_json({"a": 1, "b": [1, 2]}) == digests.digest_json({"b": [1, 2], "a": 1})
    assert digests.digest_json([1, 2]) != digests.digest_json([2, 1])


def test_provenance_travels_in_the_file_and_names_no_machine(tmp_path):
    value = provenance({"sae": "abc"}, {"steps": 25})
    assert value["schema_version"] == 5
    assert "pyarrow" in value["packages"]
    assert set(value) == {"schema_version", "fingerprint", "config", "packages"}
    table = pa.table({"x": [1]}, schema=pa.schema([("x", pa.int64())], metadata={b"other": b"kept"}))
    pq.write_table(with_provenance(table, value), tmp_path / "x.parquet")
    assert read_provenance(tmp_path / "x.parquet") == value
    assert pq.read_schema(tmp_path / "x.parquet").metadata[b"other"] == b"kept"


def test_files_without_provenance_get_a_sentence(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="not written by gazetteer"):
        read_provenance(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read"):
        read_provenance(tmp_path / "y.parquet")


def test_only_regular_files_are_digested(tmp_path):
    """A pipe would wait for ever, a device never ends, and a link to a folder above never comes to an end either."""
    made = folder(tmp_path / "model", {"sub/config.json": "{}"})
    plain = digests.digest_folder(made)
    odd = {
        "pipe": lambda path: os.mkfifo(path),
        "device": lambda path: os.symlink("/dev/zero", path),
        "loop": lambda path: os.symlink("..", path),
        "itself": lambda path: os.symlink("itself", path),
        "nowhere": lambda path: os.symlink("nowhere-else", path),
    }
    for name, make in odd.items():
        make(made / "sub" / name)
        with pytest.raises(InputError, match=f"sub/{name}"):
            digests.digest_folder(made)
        if name in ("pipe", "device"):
            with pytest.raises(InputError, match=f"{name} is not a regular file"):
                digests.digest_file(made / "sub" / name)
        (made / "sub" / name).unlink()
    (tmp_path / "blob").write_text("w")
    os.symlink(tmp_path / "blob", made / "weights")  # as in a hub cache
    os.symlink(made / "sub", made / "again")  # the same folder twice, but not within itself
    assert digests.digest_folder(made) not in (plain, "")


def test_a_path_stands_for_what_lies_there_and_an_id_for_itself(tmp_path):
    made = folder(tmp_path / "m", {"w": "1"})
    assert digests.digest_path(str(made)) == f"sha256:{digests.digest_folder(made)}"
    assert digests.digest_path("owner/name") == "owner/name"
    assert digests.digest_path("") == ""


def test_a_file_replaced_in_its_own_size_and_time_is_read_again(tmp_path):
    path = tmp_path / "w"
    path.write_text("1234")
    os.utime(path, ns=(1, 1))
    before = digests.digest_file(path)
    (tmp_path / "other").write_text("1235")
    os.utime(tmp_path / "other", ns=(1, 1))
    os.replace(tmp_path / "other", path)
    assert digests.digest_file(path) != before
