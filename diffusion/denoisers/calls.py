"""Guidance in calls of their own: with the prompt first, then without."""

from __future__ import annotations

from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import BRANCHES
from gazetteer.diffusion.config.generation import GenerationConfig


class TwoCalls:
    """For adapters of pipelines that call the denoiser once for each branch of guidance."""

    def order(self, context: str | None, calls: int) -> tuple[str, ...]:
        """One branch a call: as the pipeline names it to the network's cache, or else by its turn."""
        if context is not None and context not in BRANCHES:
            raise InputError(f"The denoiser was called for {context!r}, which is neither cond nor uncond.")
        if calls >= len(BRANCHES):
            raise InputError(f"The denoiser was called {calls + 1} times in a step; guidance as it is known takes two.")
        return (context or BRANCHES[calls],)

    def guided(self, pipe: Any) -> bool:
        """No call holds both branches."""
        return False

    def stacked(self, generation: GenerationConfig) -> bool:
        """No call holds both branches."""
        return False
