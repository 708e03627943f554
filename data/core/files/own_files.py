"""Files that a command writes into a folder somebody names: its own are written anew, nobody else's are touched."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from gazetteer.data.core.digests import digest_bytes, digest_file
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import replace_file, write_errors
from gazetteer.data.core.files.regular import require_local

LIST = ".gazetteer.json"
"""In the folder: the names of the files that commands wrote there, with the SHA-256 of the last two contents."""


def require_empty(folder: Path) -> None:
    """InputError, naming some of it, when a folder is there and holds more than hidden files."""
    held = sorted(place.name for place in folder.iterdir() if not place.name.startswith(".")) if folder.is_dir() else []
    if held:
        raise InputError(
            f"{folder} is neither empty nor one that this command wrote: it holds {', '.join(held[:3])}"
            f"{' …' if len(held) > 3 else ''}; choose a new or empty folder."
        )


def require_own_folder(folder: str | Path, ours: bool = False) -> None:
    """InputError for a file, and unless a folder is new, empty, or one that a command has claimed or written into.

    ours: what lies there shows that the command made it, from before commands claimed their folders.
    """
    if not str(folder):  # which is the present folder to a path
        raise InputError("The name of the folder is empty (a variable that is not set?); name a folder.")
    if Path(folder).exists() and not Path(folder).is_dir():
        raise InputError(f"{folder} is a file; name a folder.")
    if not (ours or (Path(folder) / LIST).is_file()):
        require_empty(Path(folder))


def claim_folder(folder: str | Path, ours: bool = False) -> None:
    """Make a folder a command's own, for what it writes by other means, and see that it can be written into.

    Called before the work whose outcome goes there, which would else be lost.

    Raises:
        InputError: as `require_own_folder`.
        GazetteerError: nothing can be written there.
    """
    require_own_folder(folder, ours)
    if not (Path(folder) / LIST).exists():
        replace_file(Path(folder) / LIST, b'{"files": {}}\n')
        return
    with write_errors(str(folder)), TemporaryFile(dir=folder):
        pass  # a folder that was claimed before may have become read-only


def try_folder(folder: str | Path) -> None:
    """See that a folder can be claimed, and leave nothing there: for work that may end with nothing to write.

    Raises:
        InputError: as `require_own_folder`.
        GazetteerError: nothing can be written there.
    """
    require_own_folder(folder)
    place = Path(folder).absolute()
    made = [up for up in (place, *place.parents) if not up.exists()]
    with write_errors(str(folder)):
        place.mkdir(parents=True, exist_ok=True)
        try:
            with TemporaryFile(dir=place):
                pass
        finally:
            with suppress(OSError):  # another command wrote there meanwhile
                for up in made:
                    up.rmdir()


def says(file: str | Path, *keys: str) -> bool:
    """Whether a file is a JSON object that has all these keys, as the command's own settings do."""
    try:
        said = json.loads(Path(file).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.keys() >= set(keys)


class OwnFiles:
    """A folder to write into. What is there under a name counts as a command's own as long as it is as it was left.

    One writer a folder. A content is listed before it is written, so that a killed command's files are its own too.
    """

    def __init__(
        self,
        folder: str | Path,
        names: Collection[str] = (),
        suffix: str = "",
        *,
        alone: bool = False,
        ours: bool = False,
    ) -> None:
        """Look for what must not be written over, before anything costs time.

        Args:
            names: of the files that will be written, as far as they are known.
            suffix: all files there that end so count as well.
            alone: the folder has to be new, empty or one that a command has written into.
            ours: files of these names that are not listed are a command's own too, from before files were listed.

        Raises:
            InputError: the folder is a file, behind a URL, or holds a file of these names that no command left there
                as it is.
        """
        self.folder = require_local(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file; name a folder.")
        self._listed = self._read()
        if ours:
            places = {name: self.folder / name for name in names if name not in self._listed}
            self._listed |= {name: [digest_file(place)] for name, place in places.items() if place.is_file()}
        if alone:
            require_own_folder(self.folder)
        present = self.folder.glob(f"*{suffix}") if suffix and self.folder.is_dir() else ()
        for name in sorted({*names, *(place.name for place in present)}):
            self._require_own(name)

    def write(self, name: str, content: bytes) -> Path:
        """Write a file, all of it or nothing; returns its path.

        Raises:
            InputError: a file of this name is there and is nobody's here.
            GazetteerError: no space, or no permission.
        """
        self._require_own(name)
        digest = digest_bytes(content)
        if digest not in self._listed.get(name, ())[-1:]:
            self._listed[name] = [*self._listed.get(name, ())[-1:], digest]
            listed = json.dumps({"files": self._listed}, indent=1, sort_keys=True)
            replace_file(self.folder / LIST, f"{listed}\n".encode())
        replace_file(self.folder / name, content)
        return self.folder / name

    def _require_own(self, name: str) -> None:
        place = self.folder / name
        if not (place.exists() or place.is_symlink()):
            return
        if place.is_symlink() or not place.is_file() or digest_file(place) not in self._listed.get(name, ()):
            raise InputError(f"{place} is there already and is not what gazetteer left there; name another folder.")

    def _read(self) -> dict[str, list[str]]:
        try:
            files = json.loads((self.folder / LIST).read_text(encoding="utf-8"))["files"]
            return {str(name): [str(digest) for digest in digests] for name, digests in files.items()}
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return {}  # nothing counts as ours
