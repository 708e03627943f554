"""Two libraries, one set of weights: names and fused tensors translated both ways.

A rule pairs the name of a weight in the original package with its name in transformers. `{}` stands
for an index and `*` for any rest; both are carried over. Where the original keeps query, key and value
in one tensor, the right side is a tuple of names: the tensor is cut into equal parts along its rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from gazetteer.data.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Rule = tuple[str, str | tuple[str, ...]]


class KeyMap:
    """The names of one architecture in both libraries; the first rule that fits a name wins."""

    def __init__(
        self, what: str, rules: Iterable[Rule], original_only: Iterable[str], transformers_only: Iterable[str]
    ) -> None:
        """what: the architecture, for error messages.

        original_only, transformers_only: templates of what the other side has no use for (tied copies,
        index tables that follow from the sizes, layers that no result depends on); these are left out.
        """
        self.what = what
        self._forward: list[tuple[re.Pattern[str], tuple[str, ...]]] = []
        self._backward: list[tuple[re.Pattern[str], str, int, int]] = []
        for original, names in rules:
            targets = (names,) if isinstance(names, str) else names
            self._forward.append((_pattern(original), targets))
            self._backward += [(_pattern(t), original, part, len(targets)) for part, t in enumerate(targets)]
        self._original_only = [_pattern(template) for template in original_only]
        self._transformers_only = [_pattern(template) for template in transformers_only]

    def transformers_names(self, original: str) -> tuple[str, ...]:
        """What a weight of the original is called in transformers: one name, several (fused), or none.

        Raises:
            InputError: the architecture has no such weight.
        """
        if any(pattern.fullmatch(original) for pattern in self._original_only):
            return ()
        for pattern, targets in self._forward:
            if match := pattern.fullmatch(original):
                return tuple(_fill(target, match.groups()) for target in targets)
        raise InputError(f"The weight {original!r} is not part of {self.what} as its authors publish it.")

    def original_name(self, name: str) -> tuple[str, int, int] | None:
        """Original name of a transformers weight, which part of it this is, of how many; None: left out.

        Raises:
            InputError: the architecture has no such weight.
        """
        if any(pattern.fullmatch(name) for pattern in self._transformers_only):
            return None
        for pattern, original, part, parts in self._backward:
            if match := pattern.fullmatch(name):
                return _fill(original, match.groups()), part, parts
        raise InputError(f"The weight {name!r} is not part of {self.what} in transformers.")

    def to_transformers(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights under their names in transformers' saved files; fused tensors are cut."""
        converted: dict[str, Tensor] = {}
        for name, tensor in state.items():
            targets = self.transformers_names(name)
            if len(targets) == 1:
                converted[targets[0]] = tensor
            elif targets:
                # clones, because views of one tensor cannot be written to a safetensors file
                converted.update(zip(targets, (part.clone() for part in tensor.chunk(len(targets))), strict=True))
        return converted

    def to_original(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights under their original names; parts are fused.

        Raises:
            InputError: an unknown weight, or a part is missing.
        """
        import torch

        pieces: dict[str, list[Tensor | None]] = {}
        for name, tensor in state.items():
            if place := self.original_name(name):
                original, part, parts = place
                pieces.setdefault(original, [None] * parts)[part] = tensor
        converted: dict[str, Tensor] = {}
        for name, tensors in pieces.items():
            present = [tensor for tensor in tensors if tensor is not None]
            if len(present) < len(tensors):
                missing = self.transformers_names(name)[tensors.index(None)]
                raise InputError(f"The weights of {self.what} lack {missing!r}.")
            converted[name] = present[0] if len(present) == 1 else torch.cat(present)
        return converted


def _pattern(template: str) -> re.Pattern[str]:
    pieces = {"{}": r"(\d+)", "*": "(.+)"}
    return re.compile("".join(pieces.get(piece, re.escape(piece)) for piece in re.split(r"(\{\}|\*)", template)))


def _fill(template: str, values: Iterable[str]) -> str:
    left = iter(values)
    return re.sub(r"\{\}|\*", lambda _: next(left), template)
