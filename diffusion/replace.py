"""Put something else in place of a block's update while the U-Net runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from diffusion.capture import find_block


@contextmanager
def replaced_update(unet: nn.Module, block: str, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, the block's output is its input plus ``replace(update)``, update = output − input.

    `replace` is given and returns [batch, channels, height, width]. The hook is gone when the context ends, however
    it ends.

    Raises:
        InputError: an unknown block path.
    """

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        before: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        after: Tensor = output if isinstance(output, Tensor) else output[0]
        new = before + replace(after - before).to(before.dtype)
        if isinstance(output, Tensor):
            return new
        return (new, *output[1:]) if isinstance(output, tuple) else type(output)(sample=new)

    handle = find_block(unet, block).register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
