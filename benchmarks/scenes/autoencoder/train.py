"""Train the autoencoder (f = 8, 16 channels) that the text-to-image model works in.

    python -m benchmarks.scenes.autoencoder.train --out build/world/autoencoder --minutes 150 --resume --workers 2
    ... --out build/world/decoder --minutes 40 --decoder-of build/world/vae --rate 0.006 --export build/world/vae

A killed run goes on from its last checkpoint with the same command; `curve.jsonl` beside the checkpoint holds the error
on unseen scenes by step, pictures seen and hours. `--export` writes the averaged weights as a folder of float16.
With `--decoder-of` the decoder of a finished autoencoder is trained on, as where the looks of scenes changed: latents
stay what they are, and what was trained on them stays of use.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from benchmarks.scenes.autoencoder.loss import critic_loss, critic_term, reconstruction_loss
from benchmarks.scenes.autoencoder.model import build_autoencoder, build_critic, encoder_digest, set_scale
from benchmarks.scenes.autoencoder.pictures import (
    PictureStream,
    absolute_error,
    normalise,
    picture_pool,
    reconstructed,
)
from benchmarks.scenes.options import add_views
from benchmarks.scenes.training.loop import (
    Average,
    Budget,
    Resumable,
    Threads,
    cosine_rate,
    save_sheet,
    set_rate,
    step_if_finite,
)
from benchmarks.scenes.training.muon import Muon, hidden_weights
from benchmarks.scenes.training.parallel import average_gradients, rank, run, shared, workers
from benchmarks.scenes.training.places import forget_places
from gazetteer.data.scenes.world import EVAL_SEEDS, TRAIN_SEEDS, VIEWS

PEAK_RATE, CRITIC_RATE = 2e-2, 4e-4
CROP = 64
WHOLE_EVERY = 4
"""Every so many steps see whole pictures instead of crops."""

_FRESH = 2
# Scenes that the error during training is measured on; the model card uses others.
_HELD_OUT = EVAL_SEEDS[70_000:70_048]


@dataclass
class Options:
    """How to train.

    Attributes:
        pool: rendered scenes held in memory.
        batch: crops of a step in each worker; whole pictures are a quarter as many.
        checkpoints: steps between checkpoints.
        reports: steps between measurements on unseen scenes.
        critic_from: share of the budget after which the critic joins; 1 leaves it out.
        threads: of a step; 0 finds out now and then whether one or all are faster.
        decoder_of: the folder of an autoencoder that keeps its encoder; None: a fresh one.
        rate: the highest learning rate.
    """

    out: Path
    pool: int = 2000
    batch: int = 8
    seed: int = 0
    device: str = "cpu"
    resume: bool = False
    checkpoints: int = 200
    reports: int = 500
    critic_from: float = 0.75
    threads: int = 0
    views: tuple[str, ...] = VIEWS
    decoder_of: Path | None = None
    rate: float = PEAK_RATE


class Run:
    """Everything that training the autoencoder changes."""

    def __init__(self, options: Options, budget: Budget) -> None:
        torch.manual_seed(options.seed)
        self.options, self.budget, self.device = options, budget, torch.device(options.device)
        begun = options.decoder_of
        vae = AutoencoderKL.from_pretrained(begun, torch_dtype=torch.float32) if begun else build_autoencoder()
        self.vae, self.critic = vae.to(self.device).train(), build_critic().to(self.device)
        self.probe = nn.Conv2d(self.vae.config.latent_channels, 3, 1).to(self.device)
        modules = [self.vae.decoder, self.vae.post_quant_conv] if begun else [self.vae]
        self.vae.requires_grad_(not begun)
        for module in modules:
            module.requires_grad_(True)
        self.parameters = [p for p in (*self.vae.parameters(), *self.probe.parameters()) if p.requires_grad]
        inside, rest = hidden_weights(modules, edges=("conv_in", "conv_out", "quant_conv"))
        self.optimizer = Muon(inside, [*rest, *self.probe.parameters()], options.rate)
        self.critic_optimizer = torch.optim.AdamW(self.critic.parameters(), lr=CRITIC_RATE, betas=(0.5, 0.95))
        self.average = Average([self.vae], 0.999)
        parts = (self.probe, self.critic, self.critic_optimizer, self.average)
        path = options.out / "checkpoint.pt"
        about = {
            "views": list(options.views),
            "seed": options.seed,
            "encoder": encoder_digest(begun) if begun else None,
        }
        self.state = Resumable(path, (self.vae,), self.optimizer, budget, options.checkpoints, parts, about=about)

    def step(self, stream: PictureStream) -> tuple[Tensor, Tensor]:
        """One step of the autoencoder, and of the critic once it takes part; returns loss and KL."""
        step = self.budget.step
        whole = step % WHOLE_EVERY == WHOLE_EVERY - 1
        count, side = (max(1, self.options.batch // 4), 128) if whole else (self.options.batch, CROP)
        pixels = normalise(stream.crops(count, side).to(self.device))
        loss, kl, output = reconstruction_loss(self.vae, self.probe, pixels, half_size=step % 2 == 0)
        total = loss
        judged = self.budget.fraction >= self.options.critic_from
        if judged:
            self.critic.requires_grad_(False)
            total = loss + critic_term(self.vae, self.critic, loss, output)
            self.critic.requires_grad_(True)
        self.optimizer.zero_grad()
        total.backward()
        average_gradients(self.parameters)
        step_if_finite(self.optimizer, nn.utils.clip_grad_norm_(self.parameters, 1.0))
        if judged:
            self.critic_optimizer.zero_grad()
            critic_loss(self.critic, pixels, output).backward()
            average_gradients(list(self.critic.parameters()))
            self.critic_optimizer.step()
        self.average.update(step)
        return loss.detach(), kl.detach()

    def pictures_seen(self) -> float:
        """Whole pictures' worth of pixels trained on."""
        return self.budget.step * self.options.batch * workers() / 4

    def report(self, held_out: Tensor, loss: float, kl: float) -> None:
        """Append the error on unseen scenes, by the averaged weights, to the curve; keep a sheet of them."""
        self.average.swap()
        made = reconstructed(self.vae.eval(), held_out)
        self.average.swap()
        self.vae.train()
        row = {
            "step": self.budget.step, "hours": round(self.budget.seconds / 3600, 4),
            "pictures": self.pictures_seen(), "loss": round(loss, 5), "kl": round(kl, 3),
            "error": round(absolute_error(made, held_out), 4),
        }  # fmt: skip
        with (self.options.out / "curve.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        both = torch.stack([held_out[:24], made[:24]], dim=1).flatten(0, 1).permute(0, 2, 3, 1).numpy()
        save_sheet(both, self.options.out / "reconstructions.png", columns=8)


def train(options: Options, budget: Budget) -> AutoencoderKL:
    """Train, or go on training, until the budget is used up; returns the averaged network with its latents scaled."""
    training = Run(options, budget)
    training.state.start(options.resume)
    if rank() > 0:  # other crops of the same scenes
        torch.manual_seed(options.seed + workers() * budget.step + rank())
    threads = Threads(options.threads)
    stream = PictureStream(TRAIN_SEEDS, options.views, options.pool, _FRESH, budget.step)
    held_out = picture_pool(_HELD_OUT, options.views) if rank() == 0 else torch.empty(0)
    losses: list[tuple[Tensor, Tensor]] = []
    budget.restart_clock()
    while budget.fraction < 1:
        rate = cosine_rate(1.0, budget, warmup=200)
        set_rate(training.optimizer, options.rate * rate)
        losses.append(threads.timed(lambda: training.step(stream)))
        stream.advance()
        budget.tick()
        budget.seconds = shared(budget.seconds)
        ends = budget.fraction >= 1
        if (budget.step % options.checkpoints == 0 or ends) and rank() == 0:
            training.state.save()
        if budget.step % options.reports == 0 or ends:
            means = torch.tensor(losses).mean(dim=0).tolist()
            if rank() == 0:
                training.report(held_out, *means)
            shared(0.0)  # the others wait here, so that their clocks leave it out too
            losses.clear()
            budget.restart_clock()
    return averaged(training, stream.pool[:256])


def averaged(training: Run, pictures: Tensor) -> AutoencoderKL:
    """The network of the averaged weights, ready for use."""
    training.average.swap()
    vae = training.vae.cpu().eval()
    if training.options.decoder_of is None:  # whose latents have their scale already
        set_scale(vae, normalise(pictures))
    return vae


def export(vae: AutoencoderKL, folder: Path) -> None:
    """Write the folder with float16 weights; converts the network in place."""
    vae.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    forget_places(folder)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--pool", type=int, default=2000, help="scenes held in memory")
    parser.add_argument("--batch", type=int, default=8, help="crops of a step in each worker")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--decoder-of", type=Path, metavar="FOLDER", help="an autoencoder that keeps its encoder")
    parser.add_argument("--rate", type=float, default=PEAK_RATE, help="the highest learning rate")
    parser.add_argument("--critic-from", type=float, default=0.75, help="share of the training before the critic joins")
    parser.add_argument("--threads", type=int, default=0, help="0 keeps trying whether one or all are faster")
    parser.add_argument("--workers", type=int, default=1, help="processes; several have one thread each")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out, if there is one")
    parser.add_argument("--export", type=Path, help="folder for the averaged weights, also of an unfinished run")
    add_views(parser)
    given = parser.parse_args()
    if given.decoder_of and not (given.decoder_of / "diffusion_pytorch_model.safetensors").is_file():
        parser.error(f"--decoder-of {given.decoder_of} holds no autoencoder")
    return given


def work(given: argparse.Namespace) -> None:
    """Train in this process; the first one exports."""
    options = Options(
        given.out, given.pool, given.batch, given.seed, given.device, given.resume, critic_from=given.critic_from,
        threads=given.threads if workers() == 1 else 1, views=given.views, decoder_of=given.decoder_of,
        rate=given.rate,
    )  # fmt: skip
    vae = train(options, Budget(given.minutes, given.steps))
    if given.export and rank() == 0:
        export(vae, given.export)


def main() -> None:
    """Parse the command line and train."""
    given = parse()
    run(work, given.workers, given)


if __name__ == "__main__":
    main()
