"""Steer a generation: add feature vectors to what its blocks write, where and when the edits say (P1 section 3.5).

    with steer(pipe, edits, saes):
        images = pipe("a dog on grass").images

Nothing of a pipeline is copied: forward hooks change what the blocks give, the sampler's step checks how pictures are
stacked, and both go when the context ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import TEXT, Port
from gazetteer.data.inputs.edits import Edit, Target
from gazetteer.diffusion.capture import cells, check_inputs
from gazetteer.diffusion.changes import Action, changes_of, rows_of
from gazetteer.diffusion.denoisers.places import TextPlaces
from gazetteer.diffusion.denoisers.registry import adapter_of, device_of, network
from gazetteer.diffusion.schedule import Schedule
from gazetteer.diffusion.watch import Hook, Passing, hooked, patched, watched
from gazetteer.sae.model.checkpoint import expect_directions, expect_width
from gazetteer.sae.model.chunks import lengths_of
from gazetteer.sae.model.given import GivenSaes, Saes, loaded_saes


@contextmanager
def steer(
    pipe: Any,
    edits: Sequence[Edit],
    saes: GivenSaes | None = None,
    *,
    schedule: Schedule | None = None,
    guided: bool | None = None,
    signal: str = "",
) -> Iterator[None]:
    """While open, every generation of `pipe` is edited.

    Each edit's change is computed from the update the block really wrote, so the order of the edits does not matter.
    Inside its region an edit adds β·a·d, d the sum of its feature vectors and a what its unit says; outside it removes
    Z·f, by weight, once, however many edits ask for it, and never what another edit places there (or subtracts half of
    β·a·d, or, as with β < 0, keeps all). Strength 0, and pictures that no edit names, stay as they were, to the bit.
    Of the text stream the places that hold tokens of the pipeline's prompts change, those of padding do not.

    Args:
        pipe: a diffusers pipeline with a scheduler, and a U-Net or a transformer that the registry knows.
        edits: with targets (`gazetteer.labeling.interventions.resolve.resolve` turns concepts into them).
        saes: the autoencoders of the targets by their sites, or a configuration's ``saes``: a folder of sites, or
            patterns of sites with what serves them; not needed for plain directions.
        schedule: of the whole process, when the pipeline runs only a part of it; None asks the scheduler.
        guided: whether batches hold an unconditional half before the conditional one; None asks the pipeline. With
            guidance off there is no such half: an edit of ``both`` then acts on the conditional one alone.
        signal: what autoencoders that are loaded read where they do not say it: a configuration's ``sae_check.signal``.

    Raises:
        InputError: an edit without targets, an unknown block, an autoencoder that is missing or does not fit, a
            feature it does not have; during generation: a place in the batch that is not there, a timestep that is
            not in the schedule, the uncond branch without guidance, a pipeline that stacks more than the two halves, or
            embeddings in the place of prompts where the text stream is edited.
    """
    actions = _actions(pipe, [edit for edit in edits if edit.strength != 0.0], saes, signal)
    if not actions:
        yield
        return
    with _acting(pipe, actions, schedule, guided):
        yield


@contextmanager
def _acting(pipe: Any, actions: Sequence[Action], schedule: Schedule | None, guided: bool | None) -> Iterator[None]:
    """As `steer`, of at least one action."""
    # Of each edited call: inputs in its batch, inputs there should be of one picture.
    stacked, owed, places = list[tuple[int, int]](), _Owed(), TextPlaces(pipe)

    def hook_for(block: str) -> Hook:
        own = [action for action in actions if action.target.block == block]

        def hook(passing: Passing) -> Any:
            due = [action for action in own if action.edit.active(watch.now.t)]
            if not due:
                return None
            separate = len(watch.now.branches) == 1  # each branch has a call of its own
            halved = separate or (adapter_of(pipe).guided(pipe) if guided is None else guided)
            order, edited = watch.now.branches if halved else ("cond",), dict[str, Tensor]()
            for port in dict.fromkeys(action.target.site.port for action in due):
                here = [action for action in due if action.target.site.port == port]
                after = edited[port.stream] if port.stream in edited else passing.states(port.stream)[1]
                stacked.append((len(after), len(order)))
                held = passing.signal(port)
                edited[port.stream] = _edited(after, held, here, order, owed if separate else None, places)
            output = passing.call.output
            for stream, after in edited.items():
                output = passing.replaced(after, stream, output)
            return output

        return hook

    hooks = {block: hook_for(block) for block in sorted({action.target.block for action in actions})}
    with ExitStack() as stack:
        if any(action.target.stream == TEXT for action in actions) and hasattr(pipe, "check_inputs"):
            stack.enter_context(patched(pipe, "check_inputs", places.check_inputs))
        watch = stack.enter_context(watched(pipe, schedule, partial(_check_step, pipe, stacked, owed)))
        stack.enter_context(hooked(pipe, hooks))
        yield


class _Owed:
    """Where branches are calls of their own: what that of cond leaves for that of uncond.

    Attributes:
        both: by port, what was added to cond and is to be taken from uncond.
        uncond: ports with an edit that waits for the uncond call.
    """

    def __init__(self) -> None:
        self.both: dict[Port, Tensor] = {}
        self.uncond: set[Port] = set()

    def settle(self) -> None:
        """The step ends; raises InputError when an edit of the uncond branch found no such call."""
        waiting, self.uncond = self.uncond, set()
        self.both.clear()
        if waiting:
            raise InputError("An edit acts on the uncond branch, but this generation runs without guidance.")


def _check_step(pipe: Any, stacked: list[tuple[int, int]], owed: _Owed, latents: Tensor | None) -> None:
    """Refuse, after the first edited step, a pipeline that gives its U-Net other inputs than an edit expects."""
    owed.settle()
    noted = list(stacked)
    stacked.clear()
    check_inputs(pipe, noted, latents, "edits")


def _actions(pipe: Any, edits: Sequence[Edit], saes: GivenSaes | None, signal: str) -> list[Action]:
    unresolved = [edit.name for edit in edits if not edit.targets]
    if unresolved:
        raise InputError(f"The edit of {unresolved[0]!r} has no targets yet; resolve it with a labelled run first.")
    wanted = {target.site for edit in edits for target in edit.targets if target.features}
    adapter, denoiser = adapter_of(pipe), network(pipe)
    widths = {t.block: adapter.check(denoiser, t.site.port) for edit in edits for t in edit.targets}
    if wanted and saes is None:
        raise InputError("Edits with features need the autoencoders they belong to.")
    loaded = {} if saes is None else loaded_saes(saes, wanted, device_of(pipe), signal)
    given = next((t.site for edit in edits for t in edit.targets if t.site.signal == "input"), None)
    if given is not None:
        raise InputError(
            f"An edit names {given.port}: what a block is given is listened to alone. Edits act on what it gives; name "
            "features of its update or output."
        )
    missing = sorted(wanted - set(loaded))
    if missing:
        raise InputError(f"There is no autoencoder for {missing[0].slug}, which an edit names.")
    for site in wanted:
        expect_width(loaded[site], widths[site.block], site)
        expect_directions(loaded[site], site)
    return [
        Action(edit, target, _direction(edit, target, loaded, widths[target.block]), loaded.get(target.site))
        if target.features
        else Action(edit, target, _direction(edit, target, loaded, widths[target.block]), None)
        for edit in edits
        for target in edit.targets
    ]


def _direction(edit: Edit, target: Target, saes: Saes, width: int) -> Tensor:
    if target.vector:
        if len(target.vector) != width:
            raise InputError(f"An edit's vector has {len(target.vector)} numbers, but {target.block} has {width}.")
        direction = torch.tensor(target.vector)
    else:
        sae = saes[target.site]
        if max(target.features) >= sae.config.n:
            last = max(target.features)
            raise InputError(f"The autoencoder of {target.site.slug} has {sae.config.n} features; there is no {last}.")
        vectors = sae.decoder.detach()[list(target.features)].float()
        if target.scales:
            vectors = vectors * torch.tensor(target.scales, device=vectors.device)[:, None]
        elif edit.unit == "update_norm":  # where the direction is all that counts, no vector outweighs another
            vectors = vectors / lengths_of(vectors).clamp_min(1e-12)[:, None]
        direction = vectors.sum(dim=0)
    return direction / direction.norm().clamp_min(1e-12) if edit.unit == "update_norm" else direction


def _edited(
    after: Tensor, update: Tensor, due: Sequence[Action], order: Sequence[str], owed: _Owed | None, places: TextPlaces
) -> Tensor:
    """`after` [batch, d, h, w] with the changes added, computed from `update` of the same shape.

    Args:
        order: the branches that the batch holds.
        owed: where the branches are calls of their own, what one leaves for the other; all of `due` are of one port.
        places: of the text stream, which hold tokens.
    """
    images = update.shape[0] // len(order)
    starts = {branch: place * images for place, branch in enumerate(order)}
    out = after.clone()
    port = due[0].target.site.port
    if owed is not None and "uncond" in starts:
        owed.uncond.discard(port)
        if port in owed.both:
            out -= owed.both.pop(port)
    for source in ("cond", "uncond"):
        of_source = [action for action in due if action.source == source]
        if not of_source:
            continue
        if source not in starts and owed is not None:
            owed.uncond.update({port} if source == "uncond" else ())
            continue
        if source not in starts:
            raise InputError("An edit acts on the uncond branch, but this generation runs without guidance.")
        grid = (update.shape[2], update.shape[3])
        x = cells(update[starts[source] : starts[source] + images])
        read = places.read(source, images, grid[1]).to(x.device) if port.stream == TEXT else None
        for branch, change in changes_of(x, grid, of_source, read).items():
            rows = rows_of([action for action in of_source if action.edit.branch == branch], images)
            add = change[rows].transpose(1, 2).unflatten(2, grid).to(out.device, out.dtype)
            place = torch.tensor(rows, device=out.device)
            out.index_add_(0, place + starts[source], add)
            if branch == "both" and "uncond" in starts:
                out.index_add_(0, place + starts["uncond"], -add)
            elif branch == "both" and owed is not None:
                owed.both[port] = torch.zeros_like(out).index_add_(0, place, add)
    return out
