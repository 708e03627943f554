"""The model whose weights are studied, computed in a type that the hardware is fast in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gazetteer.attribution.edits.cast import Rounding, fitted
from gazetteer.attribution.edits.checkpoint_edit import as_stored
from gazetteer.attribution.edits.delta import Delta
from gazetteer.attribution.evaluation.cases import Prompts
from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.settings import Effect
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.jobs.config.fingerprint import marks_of
from gazetteer.jobs.config.schema import RunConfig


@dataclass(frozen=True)
class Studied:
    """A pipeline to study.

    Attributes:
        pipe: computes in `computed_in`.
        dtype: the type that the model was asked for in, in which edits are written.
        computed_in: a name of torch's types.
        variant: of the files that it was read from.
    """

    pipe: Any
    dtype: torch.dtype
    computed_in: str
    variant: str = ""

    def stored(self, name: str) -> torch.dtype | None:
        """The type of a parameter of the denoiser in an edit's file (`gazetteer.attribution.edits.cast.fitted`)."""
        return self.dtype if self.computed_in != _name(self.dtype) else None

    def written(self, delta: Delta) -> tuple[Delta, Rounding, str]:
        """An edit of this model as it is written: in the type that was asked for, or where the files hold more than
        that, with their own values; what became of new values; and `said`, with the latter."""
        from gazetteer.diffusion.denoisers.registry import network

        denoiser: Any = network(self.pipe)
        read_from = str(getattr(denoiser.config, "_name_or_path", "") or "")
        cast, rounding = fitted(delta, self.stored)
        edit = as_stored(cast, Path(read_from), self.variant) if read_from else cast
        kinds = {_name(c.old.dtype) for n, c in edit.changes.items() if c.old.dtype != cast.changes[n].old.dtype}
        own = f"the edit holds the values of the files, which are {' and '.join(sorted(kinds))}" if kinds else ""
        return edit, rounding, "; ".join(filter(None, (self.said, own)))

    @property
    def said(self) -> str:
        """What a user should know of it; empty where it computes as asked."""
        asked = _name(self.dtype)
        if self.computed_in == asked:
            return ""
        return f"computed in {self.computed_in} on weights rounded to {asked}: a CPU has no fast {asked}"


def model_marks(run: RunConfig) -> dict[str, Any]:
    """What of the configuration makes the weights that are studied what they are and predict what they do, for a
    provenance; what shapes the decoded picture alone is left out."""
    pictures = ("model.path", "model.safety_checker", "model.vae_slicing", "model.vae_tiling")
    marks = marks_of(run, {Effect.PICTURES}, "model")
    return {"model": marks["model.path"], **{key: value for key, value in marks.items() if key not in pictures}}


def prompt_marks(prompts: Prompts, known: Sequence[str]) -> dict[str, str]:
    """Digests of the prompts that edits are made from, with what each names, and of the concepts told apart."""
    source = {prompt: sorted(named) for prompt, named in prompts.source.items()}
    return {"prompts": digest_json(source), "vocabulary.concepts": digest_json(sorted(known))}


def load_studied(config: ModelConfig) -> Studied:
    """The pipeline; float16 on a CPU is read as float16, so that the weights are those, and computed in float32.

    A CPU multiplies float16 numbers several times more
    slowly than float32 ones (gradients of the embedded U-Net: 3 times), and sums of float16 products are the less
    exact. What comes out is thus that of float32 bit for bit where
    the files hold float16, as those of the embedded model do.

    Raises:
        InputError: a pipeline that is not known here, or one whose networks are to be offloaded.
    """
    from gazetteer.attribution.objective.problem import check_offload
    from gazetteer.diffusion.denoisers.registry import network, require_attributed

    check_offload(config.offload)
    pipe: Any = load_pipeline(config)
    require_attributed(pipe)
    denoiser: Any = network(pipe)
    dtype = denoiser.dtype
    if dtype != torch.float16 or denoiser.device.type != "cpu":
        return Studied(pipe, dtype, _name(dtype), config.variant)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.float()
    return Studied(pipe, dtype, "float32", config.variant)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
