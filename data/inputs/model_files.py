"""Model folders before they are read, and why a model could not be: in one sentence each.

Model libraries answer a missing network, a gated model or half a download with pages of traceback. What they raise
is told apart by the names of its classes, so that none of those libraries has to be imported here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from gazetteer.data.core.digests import files_below
from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.core.files.regular import has_file, read_regular, require_regular
from gazetteer.data.core.plain_json import json_object

PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"})
_UNREACHABLE = frozenset(
    {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectError", "ConnectionError", "ConnectTimeout"}
)
_LFS = b"version https://git-lfs"


def looks_like_folder(path: str) -> bool:
    """Whether a path is meant locally: a hub id is at most owner/name."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or Path(path).exists()


def why_not_loaded(what: str, path: str, error: BaseException, doing: str = "loaded") -> str:
    """One sentence for what a model library threw while it fetched or read a model.

    what: the model's role, such as "text-to-image model"; path: its folder or hub id; doing: what could not be done.
    """
    names = {kind.__name__ for cause in _chain(error) for kind in type(cause).__mro__}
    if "GatedRepoError" in names:
        return (
            f"The {what} {path} is gated: accept its terms at https://huggingface.co/{path}, "
            "then log in with `hf auth login` (or set HF_TOKEN)."
        )
    if "RevisionNotFoundError" in names:
        return f"The hub has the {what} {path}, but not the revision that the configuration names."
    if "RepositoryNotFoundError" in names:
        return f"The hub has no public model {path}; check the name, or log in with `hf auth login` if it is private."
    if names & _UNREACHABLE and not Path(path).exists():
        return (
            f"The {what} {path} is not on this machine and the hub cannot be reached; fetch it where there is a "
            f"network (hf download {path}), or name a folder that holds it."
        )
    return f"The {what} {path} could not be {doing}: {first_line(error)}"


def check_pipeline_folder(folder: Path, leave_out: frozenset[str] = frozenset(), weights: bool = True) -> None:
    """Raise InputError unless every part that ``model_index.json`` names is there, and whole, and only files are.

    leave_out: parts that are not going to be loaded; weights: whether they are, beside the configurations.
    """
    what = "text-to-image model"
    if not folder.is_dir() and has_file(f"The {what}", folder, "a diffusers folder, a hub id, or a .safetensors file"):
        raise InputError(
            f"The {what} {folder} is a single file; accepted: a .safetensors file, with model.config naming "
            "a folder or hub id of the same kind of pipeline."
        )
    expect_shipped(what, folder)
    if not has_file(f"The {what}'s index", folder / "model_index.json"):
        raise InputError(
            f"{folder} is not a diffusers pipeline folder: it has no model_index.json "
            "(accepted: such a folder, or a hub id like CompVis/stable-diffusion-v1-4)."
        )
    files_below(folder)  # nothing there is a pipe or a device, which a library would wait for or read for ever
    try:
        index = json_object(read_regular(folder / "model_index.json"))
        parts = [name for name, value in index.items() if isinstance(value, list) and value and value[0] is not None]
    except ValueError as error:
        raise InputError(f"{folder / 'model_index.json'} is damaged; download the {what} again.") from error
    for name in parts:
        if weights and name not in leave_out:
            check_model_folder(what, folder / name)


def expect_shipped(what: str, folder: Path) -> None:
    """Raise InputError for a folder that says itself, in ABSENT.txt, how what belongs there is made."""
    note = folder / "ABSENT.txt"
    if has_file("The note", note) and not (folder / "model_index.json").exists():
        raise InputError(f"The {what} {folder} is not there: {note.read_text(encoding='utf-8').strip()}")


def check_model_folder(what: str, folder: Path) -> None:
    """Raise InputError for a folder that a broken download left behind, or that holds only pickles.

    Whatever it holds must be regular files. A folder with a ``config.json`` must hold safetensors weights: every file
    of the index where there is one, none of them cut short or a pointer to a file elsewhere.
    """
    if not folder.is_dir():
        has_file(f"The {what}", folder, "a folder, or a hub id")
    if not folder.is_dir() or not any(folder.iterdir()):
        raise InputError(f"The {what} is incomplete: {folder} is missing or empty; download it again.")
    files_below(folder)
    if not (folder / "config.json").is_file():
        return
    weights = sorted(folder.glob("*.safetensors"))
    for index in sorted(folder.glob("*.safetensors.index.json")):
        missing = sorted(name for name in _shards(what, index) if not (folder / name).is_file())
        if missing:
            raise InputError(f"The {what} is incomplete: {folder} lacks {missing[0]}; download it again.")
    if not weights:
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
        if pickles:
            raise InputError(
                f"The {what} in {folder} is a pickle ({pickles[0]}), which can run code when opened and is refused; "
                "accepted: safetensors weights."
            )
        raise InputError(f"The {what} is incomplete: {folder} has no .safetensors weights; download it again.")
    for file in weights:
        check_safetensors(what, file)


def check_safetensors(what: str, file: Path) -> None:
    """Raise InputError for a safetensors file that is cut short, damaged or a git-lfs pointer; reads its header."""
    size = require_regular(file).st_size
    with file.open("rb") as stream:
        start = stream.read(len(_LFS))
        if start == _LFS:
            raise InputError(f"{file} is a git-lfs pointer, not the weights of the {what}; run git lfs pull there.")
        try:
            (length,) = struct.unpack("<Q", start[:8])
            if length > size:
                raise ValueError("the header is longer than the file")
            stream.seek(8)
            header = json_object(stream.read(length))
            ends = [value["data_offsets"][1] for key, value in header.items() if key != "__metadata__"]
            if not all(type(end) is int for end in ends):
                raise ValueError("an end of a tensor is no whole number")
        except (struct.error, ValueError, TypeError, LookupError, MemoryError) as error:
            raise InputError(f"{file} is not a readable safetensors file; download the {what} again.") from error
    wanted = 8 + length + max(ends, default=0)
    if size < wanted:
        raise InputError(f"{file} is cut short ({size} of {wanted} bytes); download the {what} again.")


def _shards(what: str, index: Path) -> set[str]:
    try:
        names = json_object(read_regular(index))["weight_map"].values()
        if not all(isinstance(name, str) for name in names):
            raise ValueError("the name of a file is no text")
        return set(names)
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{index} is damaged; download the {what} again.") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
