"""Train the text-to-image model of the Scenes world from scratch, on a few CPU cores or a GPU.

    python -m benchmarks.scenes.text_to_image.train --out build/world/text_to_image --minutes 600 --resume \\
        --workers 2 --vae build/world/vae --latents build/world/latents --export build/world/models/text_to_image

A killed run goes on from its last checkpoint with the same command. `curve.jsonl` holds steps, hours, pictures seen and
losses, that of unseen scenes by the averaged weights among them. What is learned knows captions and pictures alone: no
mask, no detector, and no weight of a cell depends on what is in it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.scenes.options import add_views
from benchmarks.scenes.text_to_image.latents import HELD_OUT, LatentFiles, open_files
from benchmarks.scenes.text_to_image.model import assemble, build_scheduler, build_text_encoder, build_unet, export
from benchmarks.scenes.text_to_image.tokens import encode
from benchmarks.scenes.training.loop import (
    Average,
    Budget,
    Resumable,
    cosine_rate,
    save_sheet,
    set_rate,
    spread,
    step_if_finite,
)
from benchmarks.scenes.training.muon import Muon, hidden_weights
from benchmarks.scenes.training.parallel import average_gradients, rank, run, shared, workers
from gazetteer.data.scenes.prompts import prompt_pool
from gazetteer.data.scenes.world import VIEWS

EMPTY_CAPTIONS = 0.1
# Of all samples a third at any step, the others around a log SNR of -3 (t = 700): between 550 and 850 shapes are made,
# and there what is sampled goes wrong (Esser et al. 2024, section 3.1, for flows).
EVEN, LOG_SNR, SPREAD = 0.35, -3.0, 1.5
# Weights min(SNR, 5) + 1 over SNR + 1 (Hang et al. 2023, for v): 1 where there is noise, less where hardly any is.
SNR_LIMIT = 5.0
PEAK_RATE = 2e-2
WARMUP = 200
FEWEST_ROWS = 2000
GUIDANCE, SAMPLING_STEPS = 6.0, 16


@dataclass
class Training:
    """Everything that a run changes, and what it reads."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    average: Average
    optimizer: torch.optim.Optimizer
    files: LatentFiles
    budget: Budget
    device: torch.device

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of both trained networks."""
        return [*self.unet.parameters(), *self.text_encoder.parameters()]

    def checkpoint(self, path: Path) -> Resumable:
        """What is written and read again: both networks, their averages, the optimiser, the budget."""
        modules = (self.unet, self.text_encoder)
        about = self.files.about
        return Resumable(path, modules, self.optimizer, self.budget, 1 << 60, (self.average,), self.average, about)


def prepare(latents: Path, budget: Budget, seed: int, device: str = "cpu") -> Training:
    """Fresh networks, their averages and the optimiser."""
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(latents / "tokenizer")
    unet, text_encoder = build_unet().to(device), build_text_encoder(tokenizer).to(device)
    if device == "cpu":
        # Plain matrix products beat the fused attention's backward pass on a CPU at this size (1.35 x).
        unet.set_attn_processor(AttnProcessor())
    average = Average((unet, text_encoder), decay=0.9995)
    inside, rest = hidden_weights((unet, text_encoder), edges=("conv_in", "conv_out", "time_embedding"))
    optimizer = Muon(inside, rest, PEAK_RATE, rest_scale=0.06)
    files = open_files(latents)
    return Training(unet, text_encoder, tokenizer, average, optimizer, files, budget, torch.device(device))


def wait_for_rows(files: LatentFiles, rows: int) -> None:
    """Sleep until enough scenes are encoded to start with."""
    while files.ready < min(rows, len(files.tokens)):
        time.sleep(2)


def velocity_loss(training: Training, rows: Tensor, t: Tensor, signal: Tensor, empty: Tensor) -> Tensor:
    """Weighted squared error of v = sqrt(a) noise - sqrt(1 - a) x (Salimans & Ho 2022, eq. 11).

    `rows` [B] are the scenes, `t` [B] their steps, `signal` [T] the cumulative product a_t of the schedule, `empty`
    [32] the empty caption.
    """
    latents, tokens = training.files.batch(rows)
    tokens = torch.where(torch.rand(len(rows), 1) < EMPTY_CAPTIONS, empty, tokens)
    noise = torch.randn_like(latents)
    keep, spoil = signal[t].sqrt()[:, None, None, None], (1 - signal[t]).sqrt()[:, None, None, None]
    noised, wanted = keep * latents + spoil * noise, keep * noise - spoil * latents
    device = training.device
    with torch.autocast(device.type, torch.bfloat16):
        states = training.text_encoder(tokens.to(device)).last_hidden_state
        output = training.unet(noised.to(device), t.to(device), states).sample
    errors = (output.float() - wanted.to(device)).square().mean(dim=(1, 2, 3))
    return (snr_weights(signal[t]).to(device) * errors).mean()


def snr_weights(signal: Tensor) -> Tensor:
    """Weights of the error of v for signal shares a in [0, 1]: (min(SNR, 5) + 1) / (SNR + 1), SNR = a / (1 - a)."""
    ratio = signal / (1 - signal).clamp(min=1e-6)
    return (ratio.clamp(max=SNR_LIMIT) + 1) / (ratio + 1)


def diffusion_loss(training: Training, batch: int, signal: Tensor, empty: Tensor) -> Tensor:
    """The loss of random rows and steps."""
    first = min(HELD_OUT, training.files.ready // 2)
    rows = torch.randint(first, training.files.ready, (batch,))
    return velocity_loss(training, rows, noise_steps(signal, spread(batch)), signal, empty)


def noise_steps(signal: Tensor, u: Tensor) -> Tensor:
    """Steps [B] of the schedule for uniform numbers [B]: the inverse of `EVEN` and a normal distribution of log SNR."""
    ratio = (signal / (1 - signal).clamp(min=1e-6)).clamp(min=1e-6).log()
    above = 1 - torch.special.ndtr((ratio - LOG_SNR) / SPREAD)  # with less noise than each step
    even = torch.arange(1, len(signal) + 1) / len(signal)
    share = EVEN * even + (1 - EVEN) * above / above[-1]
    return torch.searchsorted(share, u).clamp(max=len(signal) - 1)


@torch.no_grad()
def held_out_loss(training: Training, signal: Tensor, empty: Tensor) -> float:
    """The loss of the averaged weights on scenes that are not trained on, always with the same noise."""
    count = min(HELD_OUT, training.files.ready // 2)
    training.average.swap()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        steps = torch.linspace(0, len(signal) - 1, count).long()[torch.randperm(count)]
        parts = torch.arange(count).split(32)
        losses = [float(velocity_loss(training, part, steps[part], signal, empty)) * len(part) for part in parts]
    training.average.swap()
    return sum(losses) / count


def draw_sheet(training: Training, vae: AutoencoderKL, path: Path, views: Sequence[str], count: int = 24) -> None:
    """Sample fixed unseen prompts with the averaged weights; leaves the random state alone."""
    training.average.swap()
    pipeline = assemble(vae, training.text_encoder, training.tokenizer, training.unet)
    result = pipeline(
        prompt_pool(count, views=views),
        height=128,
        width=128,
        num_inference_steps=SAMPLING_STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    save_sheet((result.images * 255).round().astype("uint8"), path, columns=8)
    training.average.swap()


@dataclass
class Log:
    """Where a run writes, what it draws, and how often.

    Attributes:
        every: minutes between checkpoints and lines of the curve.
        sheets: checkpoints between sheets of pictures.
    """

    out: Path
    vae: AutoencoderKL | None
    views: Sequence[str] = VIEWS
    every: float = 5.0
    sheets: int = 6

    def write(self, training: Training, signal: Tensor, empty: Tensor, loss: float, batch: int, number: int) -> None:
        """Write the checkpoint, a line of the curve, and now and then a sheet."""
        budget = training.budget
        training.checkpoint(self.out / "checkpoint.pt").save()
        row = {
            "step": budget.step, "hours": round(budget.seconds / 3600, 4), "pictures": budget.step * batch * workers(),
            "loss": round(loss, 5), "held_out": round(held_out_loss(training, signal, empty), 5),
            "rows": training.files.ready,
        }  # fmt: skip
        with (self.out / "curve.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        if self.vae is not None and (number % self.sheets == 0 or budget.fraction >= 1):
            draw_sheet(training, self.vae, self.out / f"sheet_{budget.step:06d}.png", self.views)


def train(training: Training, log: Log, batch: int) -> None:
    """Train until the budget is used up; a checkpoint and a line of the curve every few minutes."""
    signal = build_scheduler().alphas_cumprod
    empty = torch.tensor(encode(training.tokenizer, [""])[0])
    wait_for_rows(training.files, FEWEST_ROWS)
    budget, running, saved, number = training.budget, 0.0, training.budget.seconds, 0
    budget.restart_clock()
    while budget.fraction < 1:
        set_rate(training.optimizer, cosine_rate(PEAK_RATE, budget, WARMUP))
        loss = diffusion_loss(training, batch, signal, empty)
        training.optimizer.zero_grad()
        loss.backward()
        average_gradients(training.parameters())
        step_if_finite(training.optimizer, nn.utils.clip_grad_norm_(training.parameters(), 1.0))
        training.average.update(budget.step)
        budget.tick()
        budget.seconds = shared(budget.seconds)
        running = 0.98 * running + 0.02 * loss.item() if running else loss.item()
        if budget.seconds - saved > 60 * log.every or budget.fraction >= 1:
            saved, number = budget.seconds, number + 1
            if rank() == 0:
                log.write(training, signal, empty, running, batch, number)
            shared(saved)  # the others wait here, so that their clocks leave it out too
            budget.restart_clock()


def averaged_pipeline(training: Training, vae: AutoencoderKL) -> StableDiffusionPipeline:
    """The pipeline of the averaged weights."""
    training.average.swap()
    return assemble(vae, training.text_encoder.cpu(), training.tokenizer, training.unet.cpu())


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vae", type=Path, default=Path("build/world/vae"))
    parser.add_argument("--latents", type=Path, default=Path("build/world/latents"))
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=16, help="samples of a step in each worker")
    parser.add_argument("--every", type=float, default=5.0, help="minutes between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument(
        "--resume", action="store_true", help="from the checkpoint in --out, exactly with one worker, or its averages"
    )
    parser.add_argument("--export", type=Path)
    add_views(parser)
    return parser.parse_args()


def work(options: argparse.Namespace) -> None:
    """Train in this process; the first one exports."""
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(options.vae, torch_dtype=torch.float32).eval()
    training = prepare(options.latents, Budget(options.minutes, options.steps), options.seed, options.device)
    checkpoint = training.checkpoint(options.out / "checkpoint.pt")
    checkpoint.start(options.resume)
    if rank() > 0:
        torch.manual_seed(options.seed + workers() * training.budget.step + rank())
    drawn = vae.to(options.device)
    train(training, Log(options.out, drawn, options.views, options.every), options.batch)
    if options.export and rank() == 0:
        export(averaged_pipeline(training, vae.cpu()), options.export)


def main() -> None:
    """Parse the command line, train and export."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.minutes is None and options.steps is None:
        options.minutes = 600.0
    run(work, options.workers, options)


if __name__ == "__main__":
    main()
