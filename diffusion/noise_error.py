"""How much worse the denoiser predicts when what a block gives is replaced: what an autoencoder is worth to the model.

For a picture x_0 of the model itself and noise ε, x_t is what its sampler noises to t: √ā x_0 + √(1−ā) ε, or of flow
matching (1 − σ) x_0 + σ ε. The error is the training's loss of one guidance branch, mean((ε̂ − ε)²), or of flow matching
mean((v̂ − (ε − x_0))²); of models in EDM's form, whose output F means D = c_skip x_t + c_out F, ε̂ = (x_t − D) / σ. It
is taken as it is, and with the update (or output) of the image stream replaced by the SAE's reconstruction, by zero,
and by its mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import TEXT, Port, Site
from gazetteer.diffusion.capture import cells
from gazetteer.diffusion.denoisers.registry import network
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.noised import Noised, by_place, initial_scale, visiting
from gazetteer.diffusion.schedule import edm_form, samples_flows
from gazetteer.diffusion.watch import Passing, hooked, patched, watched
from gazetteer.sae.model.autoencoder import SparseAutoencoder

Replace = Callable[[Tensor], Tensor]
Visit = tuple[int, str]
"""Which of the wanted calls, and which branch of it."""

MEASURED = "updates and outputs of the image stream"


@dataclass(frozen=True)
class NoiseErrors:
    """Mean squares of what is predicted wrongly, in squared units of noise, or of velocity; means over pictures.

    Attributes:
        plain: with what the block gives as it is.
        sae: with the reconstruction in its place.
        zero: with zero in its place.
        mean: with the mean in every cell; NaN where no mean was given.
    """

    plain: float
    sae: float
    zero: float
    mean: float


def mean_errors(errors: list[NoiseErrors]) -> NoiseErrors:
    """The mean over pictures, at least one."""
    return NoiseErrors(*(sum(values) / len(errors) for values in zip(*map(astuple, errors), strict=True)))


def measurable(port: Port) -> bool:
    """Whether what is given at a port can be replaced: in the text stream padding, which no autoencoder has seen, would
    be replaced as well, and an input is given by what lies before."""
    return port.stream != TEXT and port.signal != "input"


@torch.inference_mode()
def noise_errors(
    generator: Generator,
    prompt: str,
    seed: int,
    saes: Mapping[Site, SparseAutoencoder],
    means: Mapping[Site, Tensor],
) -> dict[Site, NoiseErrors]:
    """The errors of every site of `saes` on one picture.

    The picture is sampled from (prompt, seed); the noise added to it follows from the seed as well.

    Args:
        saes: by site; all of them sites of `generator`.
        means: [channels], the mean of what a site hears, where it is known.

    Raises:
        InputError: a site that is not `measurable`, or a model that predicts neither noise nor velocity.
    """
    if not all(measurable(Port(*site.port)) for site in saes):
        raise InputError(f"Loss recovered is measured on {MEASURED}; sae.recover=0 leaves it out.")
    places = sorted({generator.schedule.place(site.t) for site in saes})
    passes = _Passes(generator, prompt, seed, places, sorted({site.branch for site in saes}))
    plain = passes.errors()
    errors: dict[Site, NoiseErrors] = {}
    for port in sorted({site.port for site in saes}):
        # Neither branches nor calls see each other, so that all of them share a pass.
        here = {(places.index(generator.schedule.place(s.t)), s.branch): s for s in saes if s.port == port}
        sae = passes.errors(Port(*port), {visit: _reconstruction(saes[site]) for visit, site in here.items()})
        zero = passes.errors(Port(*port), dict.fromkeys(here, torch.zeros_like))
        known = {visit: _constant(means[site]) for visit, site in here.items() if site in means}
        mean = passes.errors(Port(*port), known) if known else {}
        for visit, site in here.items():
            average = mean[visit] if visit in known else float("nan")
            errors[site] = NoiseErrors(plain[visit], sae[visit], zero[visit], average)
    return errors


class _Passes:
    """One picture of the model, noised to the wanted calls of its sampler, before the denoiser again and again."""

    def __init__(self, generator: Generator, prompt: str, seed: int, places: Sequence[int], branches: Sequence[str]):
        """Samples the picture. places: of the wanted calls; branches: that are wanted."""
        self.generator, self.prompt, self.places, self.branches = generator, prompt, places, branches
        pipe = generator.pipe
        self.denoiser = network(pipe)
        self.kind = _predicted(pipe.scheduler)
        clean = self._sampled(seed)
        generator.set_timesteps()
        noises = [generator.noise(by_place(seed, place + 1)) for place in places]  # none is the picture's own
        self.noises = [generator.adapter.stepped(pipe, noise).to(clean) for noise in noises]
        each = zip(places, self.noises, strict=True)
        self.states = [Noised(pipe.scheduler, place, clean, noise) for place, noise in each]
        self.clean, ones, zeros = clean, torch.ones_like(clean), torch.zeros_like(clean)
        alone = [[Noised(pipe.scheduler, place, *of) for of in ((ones, zeros), (zeros, ones))] for place in places]
        self.scales = [[own.read(own.noisy) for own in both] for both in alone]  # of the picture, of the noise

    def _sampled(self, seed: int) -> Tensor:
        """The latents of the picture, as the sampler gives them last."""
        last: list[Tensor] = []

        def step(usual: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            given = usual(*args, **kwargs)
            last[:] = [given[0]]
            return given

        made, own = self.generator, torch.Generator("cpu").manual_seed(seed)
        noise = made.noise(seed, own)  # a sampler that adds noise at its steps goes on with the seed's own
        with patched(made.pipe.scheduler, "step", step):
            made.pipe(
                latents=made.latents([noise]), generator=[own], output_type="latent", **made.arguments([self.prompt])
            )  # fmt: skip
        return last[0]

    def errors(self, port: Port | None = None, values: Mapping[Visit, Replace] | None = None) -> dict[Visit, float]:
        """The error of every wanted call and branch, with what a port gives at some of them replaced."""
        outputs: dict[Visit, Any] = {}
        predicted = {(visit, "cond"): made for visit, made in self._run(port, values or {}, outputs).items()}
        if "uncond" in self.branches:
            others = {visit: outputs[visit, "uncond"] for visit in range(len(self.places))}
            predicted |= {(visit, "uncond"): made for visit, made in self._replayed(others).items()}
        return {visit: self._error(visit[0], made) for visit, made in predicted.items() if visit[1] in self.branches}

    def _run(self, port: Port | None, values: Mapping[Visit, Replace], outputs: dict[Visit, Any]) -> dict[int, Tensor]:
        """What the sampler is given at every visit if the prompt's branch stands in the place of both.

        outputs: filled with what the denoiser itself gives, by branch.
        """

        def on_block(passing: Passing) -> Any:
            assert port is not None
            before, after = passing.states(port.stream)
            given = after - before if port.signal == "update" else after
            halves = self.generator.split(given, 1, watch.now.branches)
            wanted = {branch: values.get((visit[0], branch)) for branch in halves}
            if not any(wanted.values()):
                return None
            parts = [replace(halves[branch]) if replace else halves[branch] for branch, replace in wanted.items()]
            new = torch.cat(parts).to(after.dtype)
            return passing.replaced(before + new if port.signal == "update" else new, port.stream)

        def on_output(_: nn.Module, __: Any, output: Any) -> Any:
            rows, branches = len(output[0]), watch.now.branches
            held = branches if rows == len(branches) else ("cond",)
            outputs.update({(visit[0], branch): _of(output, [row]) for row, branch in enumerate(held)})
            return _of(outputs[visit[0], "cond"], [0] * rows)

        predicted: dict[int, Tensor] = {}
        with ExitStack() as stack:
            visit = stack.enter_context(self._visits(predicted))
            watch = stack.enter_context(watched(self.generator.pipe))
            if port is not None:
                stack.enter_context(hooked(self.generator.pipe, {port.block: on_block}))
            stack.callback(self.denoiser.register_forward_hook(on_output).remove)
            self._generate()
        return predicted

    def _replayed(self, outputs: Mapping[int, Any]) -> dict[int, Tensor]:
        """What the sampler is given where the denoiser gives these outputs in all rows, at every visit."""
        predicted: dict[int, Tensor] = {}

        def forward(_: Any, *args: Any, **kwargs: Any) -> Any:
            first = (
                kwargs[name] if (name := self.generator.adapter.inputs[0]) in kwargs else (*args, kwargs.get("x"))[0]
            )
            return _of(outputs[visit[0]], [0] * len(first))

        with self._visits(predicted) as visit, patched(self.denoiser, "forward", forward):
            self._generate()
        return predicted

    def _visits(self, predicted: dict[int, Tensor]) -> Any:
        given = [state.noisy for state in self.states]
        return visiting(self.generator, self.places, self.states, given, predicted.__setitem__)

    def _generate(self) -> None:
        made, first = self.generator, self.states[0].noisy
        start = made.adapter.resumable(made.pipe, first / initial_scale(made), made.latent_size)
        made.pipe(latents=start, output_type="latent", **made.arguments([self.prompt]))

    def _error(self, visit: int, predicted: Tensor) -> float:
        noise, made = self.noises[visit].float(), predicted.float()
        if self.kind == "edm":
            made = self.states[visit].noise_in(made)
        elif self.kind == "v_prediction":
            signal, sigma = self.scales[visit]
            made = signal * made + sigma * self.states[visit].read(self.states[visit].noisy).float()
        target = noise - self.clean.float() if self.kind == "flow" else noise
        return float((made - target).double().square().mean())


def _predicted(scheduler: Any) -> str:
    """What a sampler takes the network's output for: ``epsilon``, ``v_prediction``, ``edm`` or ``flow``."""
    name, kind = type(scheduler).__name__, scheduler.config.get("prediction_type")
    if samples_flows(name) or kind == "flow_prediction":
        return "flow"
    if kind not in ("epsilon", "v_prediction"):
        raise InputError(
            f"Loss recovered needs a model that predicts noise or velocity (epsilon, v_prediction, flow matching), not "
            f"{kind} of {name}; set sae.recover=0 to leave it out."
        )
    return "edm" if edm_form(scheduler) else str(kind)


def _of(output: Any, rows: Sequence[int]) -> Any:
    """A denoiser's output of these rows of its batch: a tuple or an output class, of a tensor or of one a picture."""
    first = output[0]
    chosen = first[list(rows)] if isinstance(first, Tensor) else [first[row] for row in rows]
    return (chosen, *output[1:]) if isinstance(output, tuple) else type(output)(chosen)


def _reconstruction(sae: SparseAutoencoder) -> Replace:
    def replace(update: Tensor) -> Tensor:
        x = cells(update)[0].to(sae.bias.device, sae.bias.dtype)
        return sae(x).T.reshape(update.shape).to(update)

    return replace


def _constant(mean: Tensor) -> Replace:
    return lambda update: mean.to(update)[None, :, None, None].expand_as(update)
