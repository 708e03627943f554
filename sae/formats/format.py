"""What a format is: how its files are recognised, what they state, and how their tensors are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SIGNALS, STREAMS
from gazetteer.sae.formats.keys import Keys, understood
from gazetteer.sae.formats.parts import Folded

OF_UNET = "unet."
"""What hooks of a U-Net begin with; those of a transformer stand alone."""

_UNET = ("down_blocks", "mid_block", "up_blocks")
_LISTS = ("transformer_blocks", "single_transformer_blocks", "layers", "blocks")
_BLOCK = re.compile(rf"(?:mid_block|(?:{'|'.join((*_UNET, *_LISTS))})\.\d+)(?:\.(?:\d+|[A-Za-z_]\w*))*")
"""The blocks of every denoiser that can be listened to, and parts of them, each a number or a name."""

ReadConfig = Callable[[Path], dict[str, Any]]
ReadParts = Callable[[Path, Mapping[str, Any]], Folded]


@dataclass(frozen=True)
class Format:
    """One project's way to store an autoencoder.

    Attributes:
        name: as tables and sentences call it.
        find: the file of the weights, of a folder or file in this format; None for anything else.
        stated: what it says of itself, given the weights' file: `described`.
        parts: its tensors, given the weights' file and what `stated` gave.
        beside: the names of what it reads in the folder of the weights, as far as it is there; what it states first.
        keys: that are known of what it states (`gazetteer.sae.formats.keys`); of none, nothing is asked.
        revision: of the weights' file, what marks that its tensors are read otherwise than they once were here; empty
            where they are read as ever. A run that was begun before does not go on with it.
    """

    name: str
    find: Callable[[Path], Path | None]
    stated: ReadConfig
    parts: ReadParts
    beside: tuple[str, ...] = ()
    keys: Keys = field(default_factory=dict)
    revision: Callable[[Path], str] = lambda _: ""

    def files(self, place: Path) -> list[Path]:
        """Everything that reading an autoencoder opens, the weights first; raises InputError where it is none."""
        weights = self._weights(place)
        return [weights, *(path for name in self.beside if (path := weights.with_name(name)).is_file())]

    def config(self, place: Path) -> dict[str, Any]:
        """``d``, ``n``, ``k``, options of the formula and ``layout``; what it said itself under ``original``.

        Raises:
            InputError: it is broken, or states something that cannot be computed here or that is not understood.
        """
        weights = self._weights(place)
        file = weights.with_name(self.beside[0]) if self.beside else weights
        with self._understood(weights):
            stated = self.stated(weights)
            understood(stated["original"], self.keys, file, self.name)
        _expect_input(stated, file)
        config = {"layout": self.name, "normalisation": "none", "site": None, "metrics": None, **stated}
        if not all(type(config[name]) is int for name in ("d", "n", "k")):
            raise InputError(f"{place} must give the width, the number of features and k as whole numbers.")
        return config

    def tensors(self, place: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
        """``encoder``, ``decoder``, ``bias`` and, where there are some, ``latent_bias`` and ``threshold``.

        Raises:
            InputError: the weights are damaged or incomplete.
        """
        path = self._weights(place)
        with self._understood(path):
            return self.parts(path, config).tensors()

    @contextmanager
    def _understood(self, path: Path) -> Iterator[None]:
        """InputError for what a reader stumbles over in a file that is damaged or not what it seems to be."""
        try:
            yield
        except InputError:
            raise
        except KeyError as error:
            raise InputError(f"{path} has no {error}; it is not a complete {self.name} autoencoder.") from error
        except (RuntimeError, AttributeError, IndexError) as error:
            raise InputError(f"{path} holds tensors whose shapes do not fit each other.") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{path} is not what a {self.name} autoencoder looks like: {error}.") from error

    def _weights(self, place: Path) -> Path:
        path = self.find(place)
        if path is None:
            raise InputError(f"{place} is no autoencoder of the format {self.name}.")
        return path


def pair(config: str, weights: str) -> Callable[[Path], Path | None]:
    """A `Format.find` of folders that hold two files; the weights' file itself is found as well."""

    def find(place: Path) -> Path | None:
        folder = place.parent if place.name == weights else place
        path = folder / weights
        return path if path.is_file() and (folder / config).is_file() else None

    return find


def described(d: Any, n: Any, k: Any, original: Any, signal: str | None = None, **more: Any) -> dict[str, Any]:
    """What `Format.stated` gives.

    Args:
        d, n, k: width, features, and features a vector uses at most.
        original: what the file says itself; where ``stream`` or ``block`` is among it, so is it among what is given.
        signal: what of a block it reads, where that is known and the file has no ``signal`` of its own.
        more: options of `SAEConfig`, and what else is worth keeping.
    """
    stated = original if isinstance(original, dict) else {}
    stream = {"stream": stated["stream"]} if stated.get("stream") is not None else {}
    heard = {"signal": stated.get("signal") or signal, "block": more.get("block") or stated.get("block"), **stream}
    return {"d": d, "n": n, "k": k, **more, **heard, "original": original}


def _expect_input(stated: Mapping[str, Any], file: Path) -> None:
    """InputError where what `described` gave of the block, stream and signal is nothing that there is."""
    for key, accepted in (("signal", SIGNALS), ("stream", STREAMS)):
        if stated.get(key) not in (None, *accepted):
            raise InputError(f"{file}: {key} is {stated[key]!r}; accepted: {', '.join(accepted)}.")
    original = stated["original"] if isinstance(stated["original"], dict) else {}
    said, block = original.get("block"), stated["block"]
    if said is not None and not (isinstance(said, str) and _BLOCK.fullmatch(said)):
        raise InputError(
            f"{file}: block is {said!r}; accepted: the path of a block in diffusers, as mid_block.attentions.0 or "
            "transformer_blocks.1."
        )
    if said not in (None, block):
        raise InputError(f"{file} says that its block is {said}, and its folder or hook says {block}.")


def hook_block(name: Any) -> str | None:
    """The block that the name of a hook means, where it is a path of a diffusion pipeline's denoiser."""
    path = name.removeprefix(OF_UNET).removeprefix("transformer.") if isinstance(name, str) else ""
    # "blocks.3.hook_resid_post" is TransformerLens' name for a place of a language model.
    return path if _BLOCK.fullmatch(path) and "hook_" not in path else None


def block_hook(block: str) -> str:
    """The name of the hook at a block of a pipeline's denoiser, which `hook_block` reads back."""
    return f"{OF_UNET}{block}" if block.startswith(_UNET) else block
