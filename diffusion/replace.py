"""Put something else in place of a block's update while the U-Net runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from gazetteer.diffusion.capture import find_block, states_around, with_states
from gazetteer.diffusion.watch import hooked


@contextmanager
def replaced_update(unet: nn.Module, block: str, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, the block's output is its input plus ``replace(update)``, update = output − input.

    `replace` is given and returns [batch, channels, height, width]. The hook is gone when the context ends, however
    it ends.

    Raises:
        InputError: an unknown block path, or the U-Net ran without coming by it.
    """

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        before, after = states_around(args, kwargs, output)
        return with_states(output, before + replace(after - before).to(before.dtype))

    find_block(unet, block)
    with hooked(unet, {block: hook}):
        yield
