"""The model under the page: draws a picture and remembers on the way what edits, maps and clicks will need."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.edits import Edit
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.codes import SparseMap
from gazetteer.diffusion.draw import pictures_of
from gazetteer.diffusion.edit_sampler import Start
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import load_pipeline
from gazetteer.diffusion.resume import can_resume, keep_latents, resumed_at
from gazetteer.diffusion.steer import steer
from gazetteer.diffusion.watch import Call, watched
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.explore.server.refused import Refused
from gazetteer.labeling.interventions.resolve import Resolver
from gazetteer.labeling.layout.live import predict_layout
from gazetteer.labeling.layout.model import LayoutModel, LayoutPrediction, fit_layout
from gazetteer.labeling.layout.run import open_run
from gazetteer.sae.model.checkpoint import load_site_saes

log = logging.getLogger(__name__)

KEPT = 12
"""Pictures whose latents and codes are remembered."""

OnStep = Callable[[int, int, LayoutPrediction | None], None]
"""Called with a 0-based step, how many there are, and what is predicted there, if anything is."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture without edits, and what came by while it was drawn.

    Attributes:
        image: uint8 [height, width, 3].
        codes: of every site.
        latents: by 0-based step, [1, channels, h, w].
        layouts: predictions, in order.
        tokens_cut: of the prompt, that the text encoders did not read.
        seconds: it took.
    """

    start: Start
    image: NDArray[np.uint8]
    codes: dict[Site, SparseMap]
    latents: dict[int, Tensor]
    layouts: tuple[LayoutPrediction, ...]
    tokens_cut: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Redrawn:
    """A picture with edits: `image` uint8 [height, width, 3], sampled from `step` (0-based) on in `seconds`."""

    image: NDArray[np.uint8]
    step: int
    seconds: float


class Studio:
    """One pipeline, one picture at a time; everything that uses it waits its turn.

    Attributes:
        layout: what predicts layouts, once `fit` has made it.
        layout_problem: why no layout can be predicted; empty when one can, or until `fit` has been through.
    """

    def __init__(self, config: RunConfig, run: RunFolder) -> None:
        """Load the model and the run's autoencoders; raises InputError as they do."""
        use_threads(config.threads)
        self.config, self.run = config, run
        self.generator = Generator(load_pipeline(config.model), config.generation)
        self.pipe = self.generator.pipe
        sites = config.generation.sites
        self.saes = load_site_saes(config.saes, sites, config.model.device, signal=config.sae_check.signal)
        self.resolver = Resolver(run)
        self.layout: LayoutModel | None = None
        self.layout_problem = ""
        self._drawn: OrderedDict[Start, Drawn] = OrderedDict()
        self._turn, self._closed, self._fitted = threading.Lock(), threading.Event(), threading.Event()

    def fit(self) -> None:
        """Fit the layouts, which takes twice as long as loading: pictures can be drawn meanwhile, without them."""
        branch = "cond" if "cond" in self.config.generation.branches else self.config.generation.branches[0]
        try:
            self.layout = fit_layout(open_run(self.run), self.saes, branch)
        except InputError as error:
            self.layout_problem = str(error)
        except Exception as error:  # painting goes on without
            log.error("unforeseen", exc_info=error)
            self.layout_problem = f"fitting them failed in a way that was not foreseen ({type(error).__name__})."
        finally:
            self._fitted.set()

    @property
    def fitted(self) -> bool:
        """Whether `fit` has been through."""
        return self._fitted.is_set()

    def wait_for_layout(self) -> None:
        """Return when `fit` has been through; Refused when the studio is closed."""
        while not self._fitted.wait(0.2):
            if self._closed.is_set():
                raise Refused(503, "The server is stopping.")

    @property
    def steps(self) -> int:
        """Sampler steps of a picture."""
        return len(set(self.generator.schedule.steps))

    def close(self) -> None:
        """Give up what is being drawn, and draw no more."""
        self._closed.set()

    def draw(self, start: Start, on_step: OnStep | None = None) -> Drawn:
        """The picture of a prompt and seed, once.

        Raises:
            InputError: as `gazetteer.diffusion.generate.Generator.sample`.
            Refused: the studio is closed.
        """
        with self._turn:
            known = self._drawn.pop(start, None)
            if known is not None and on_step is not None and self.layout is not None and not known.layouts:
                known = None  # drawn before layouts could be predicted
            drawn = known or self._draw(start, on_step)
            self._drawn[start] = drawn
            while len(self._drawn) > KEPT:
                self._drawn.popitem(last=False)
        if known is not None and on_step is not None:
            for layout in drawn.layouts:
                on_step(layout.step, self.steps, layout)
        return drawn

    def redraw(self, start: Start, edits: Sequence[Edit]) -> Redrawn:
        """The same picture with edits that have targets, from the latents at the first step that one of them changes.

        The same pixels as `gazetteer steer draw` draws. Raises: as `draw` and as `gazetteer.diffusion.steer.steer`.
        """
        drawn = self.draw(start)
        begun = time.monotonic()
        acting = [edit for edit in edits if edit.strength != 0.0]
        if not acting:
            return Redrawn(drawn.image, self.steps, 0.0)
        schedule, guided = self.generator.schedule, self.generator.guided
        step = (
            min(schedule.first_step((edit.window[0], edit.window[1])) for edit in acting)
            if can_resume(self.pipe)
            else 0
        )
        with self._turn, self._interruptible(None):
            if step == 0:
                with steer(self.pipe, acting, self.saes, guided=guided):
                    made = self.generator.sample([start.prompt], [start.seed], lambda *_: None)
                assert made is not None
                image: NDArray[np.uint8] = made[0]
            else:
                with resumed_at(self.pipe, step), steer(self.pipe, acting, self.saes, schedule=schedule, guided=guided):
                    image = self._rest(start.prompt, drawn.latents[step])
        return Redrawn(image, step, time.monotonic() - begun)

    def _draw(self, start: Start, on_step: OnStep | None) -> Drawn:
        begun, model, layouts = time.monotonic(), self.layout, list[LayoutPrediction]()

        def predicted(layout: LayoutPrediction) -> None:
            layouts.append(layout)
            if on_step is not None:
                on_step(layout.step, self.steps, layout)

        with ExitStack() as stack:
            stack.enter_context(self._interruptible(on_step if model is None else None))
            if model is not None:
                stack.enter_context(predict_layout(self.pipe, model, predicted, guided=self.generator.guided))
            resumable = range(1, self.steps) if can_resume(self.pipe) else ()
            latents = stack.enter_context(keep_latents(self.pipe, resumable, self.generator.latent_size))
            (picture,) = self.generator.pictures([start.prompt], [start.seed], self.saes)
        if picture.blacked_out:
            raise InputError(
                "The model's safety checker blacked this picture out; set model.safety_checker=false to see the model."
            )
        seconds = time.monotonic() - begun
        cut = picture.tokens_cut or 0
        return Drawn(start, picture.image, picture.codes, latents, tuple(layouts), cut, seconds)

    def _interruptible(self, on_step: OnStep | None) -> Any:
        """While open, a closed studio ends the sampling at its next step."""

        def called(call: Call, *_: Any) -> None:
            if self._closed.is_set():
                raise Refused(503, "The server is stopping.")
            if on_step is not None and call.first:
                on_step(call.step, self.steps, None)

        return watched(self.pipe, self.generator.schedule, on_call=called)

    @torch.inference_mode()
    def _rest(self, prompt: str, latents: Tensor) -> NDArray[np.uint8]:
        """The picture from these latents on."""
        output = self.pipe(latents=latents, output_type="np", **self.generator.arguments([prompt]))
        image: NDArray[np.uint8] = pictures_of(output)[0]
        return image
