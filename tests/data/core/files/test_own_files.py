"""What a command left in a folder it may write anew; what is anybody else's, or was changed, it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import LIST, OwnFiles, claim_folder, require_empty, try_folder
from tests.support.system.running import ROOT


def test_its_own_files_are_written_anew(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    for content in (b"one", b"two", b"three", b"three"):
        assert OwnFiles(folder, ["a.txt"]).write("a.txt", content) == folder / "a.txt"
        assert (folder / "a.txt").read_bytes() == content
    assert sorted(place.name for place in folder.iterdir()) == [LIST, "a.txt"]


_CLAIM = """
import os, sys
from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.core.files.own_files import claim_folder, try_folder
claim_folder(sys.argv[1])
os.chmod(sys.argv[1], 0o500)
for claim in (claim_folder, try_folder):
    try:
        claim(sys.argv[1])
    except GazetteerError as error:
        print(error)
"""


def test_a_folder_is_claimed_where_it_can_be_written_into(tmp_path: Path) -> None:
    """In a process that modes hold for, root's too."""
    rights = "-dac_override,-dac_read_search,-fowner"
    plain = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"] if os.geteuid() == 0 else []
    command = [*plain, sys.executable, "-c", _CLAIM, str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (tmp_path / "out").chmod(0o700)
    again = "put that right and run the same command again."
    assert done.stdout == 2 * f"Cannot write {tmp_path / 'out'} (Permission denied); {again}\n", done.stderr
    (tmp_path / "file").write_text("mine")
    for claim in (claim_folder, try_folder):
        with pytest.raises(InputError, match="file is a file; name a folder"):
            claim(tmp_path / "file")


def test_a_folder_that_is_tried_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for place in ("there", "there/new/out", "new"):
        try_folder(tmp_path / place)
        assert sorted(tmp_path.rglob("*")) == before


def test_what_a_killed_command_had_announced_counts_as_its_own(tmp_path: Path) -> None:
    OwnFiles(tmp_path).write("a.txt", b"old")
    listed = (tmp_path / LIST).read_bytes()
    OwnFiles(tmp_path).write("a.txt", b"new")
    announced = (tmp_path / LIST).read_bytes()
    for before, content in ((announced, b"old"), (announced, b"new"), (listed, b"old")):
        (tmp_path / LIST).write_bytes(before)
        (tmp_path / "a.txt").write_bytes(content)
        OwnFiles(tmp_path, ["a.txt"])


@pytest.mark.parametrize("damage", ["theirs", "changed", "link", "folder", "list"])
def test_nobody_elses_file_is_touched(tmp_path: Path, damage: str) -> None:
    place = tmp_path / "a.txt"
    if damage != "theirs":
        OwnFiles(tmp_path).write("a.txt", b"ours")
    if damage in ("theirs", "changed"):
        place.write_bytes(b"by hand")
    elif damage == "link":
        place.rename(tmp_path / "elsewhere.txt")
        place.symlink_to(tmp_path / "elsewhere.txt")
    elif damage == "folder":
        place.unlink()
        place.mkdir()
    else:
        (tmp_path / LIST).write_text('{"files": [1]}')
    for ask in (
        lambda: OwnFiles(tmp_path, ["a.txt"]),
        lambda: OwnFiles(tmp_path, suffix=".txt"),
        lambda: OwnFiles(tmp_path).write("a.txt", b"new"),
    ):
        with pytest.raises(InputError, match=r"a\.txt is there already and is not what gazetteer left there"):
            ask()
    assert place.is_dir() or place.read_bytes() in (b"by hand", b"ours")


def test_other_files_of_the_folder_do_not_matter_and_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("by hand")
    OwnFiles(tmp_path, ["a.txt"], suffix=".svg").write("a.txt", b"ours")
    with pytest.raises(InputError, match="is a file; name a folder"):
        OwnFiles(tmp_path / "theirs.txt", ["a.txt"])


def test_a_folder_of_somebody_elses_files_is_refused_where_it_has_to_be_the_commands_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("theirs")
    for make in (lambda: OwnFiles(tmp_path, ["a.txt"], alone=True), lambda: require_empty(tmp_path)):
        with pytest.raises(
            InputError, match=r"neither empty nor .* it holds thesis\.tex; choose a new or empty folder"
        ):
            make()
    assert [place.name for place in tmp_path.iterdir()] == ["thesis.tex"]
    OwnFiles(tmp_path / "new", ["a.txt"], alone=True).write("a.txt", b"ours")
    (tmp_path / "new" / "notes.txt").write_text("theirs, put there since")
    OwnFiles(tmp_path / "new", ["a.txt"], alone=True).write("a.txt", b"anew")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".git").mkdir()
    require_empty(tmp_path / "hidden")
    require_empty(tmp_path / "absent")
