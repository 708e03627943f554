"""Train the tiny text-to-image model of the Scenes world from scratch, on a few CPU cores.

    python -m benchmarks.scenes.text_to_image.train --out build/train/text_to_image --minutes 60 --workers 2
    python -m benchmarks.scenes.text_to_image.train --out build/train/text_to_image --resume --workers 2
    ... --export data/scenes/models/text_to_image

needs build/train/vae (benchmarks.scenes.text_to_image.vae) and build/train/latents
(benchmarks.scenes.text_to_image.latents).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.scenes.loop import (
    Average,
    Budget,
    cosine_rate,
    load_checkpoint,
    save_checkpoint,
    save_sheet,
    set_rate,
)
from benchmarks.scenes.parallel import average_gradients, rank, run, shared, workers
from benchmarks.scenes.text_to_image.latents import LatentFiles, open_files
from benchmarks.scenes.text_to_image.model import (
    assemble,
    build_scheduler,
    build_text_encoder,
    build_unet,
    export,
)
from benchmarks.scenes.text_to_image.tokens import encode
from gazetteer.data.scenes.prompts import prompt_pool

EMPTY_CAPTIONS = 0.1
# t = T u^0.55: more of the noisy samples, because layouts and objects are decided there and what
# remains at small t is mostly texture.
NOISE_BIAS = 0.55
# Cells that things cover weigh up to 1 + this: they are a fifth of the picture and all that is hard in it.
THING_WEIGHT = 3.0
PEAK_RATE = 1.2e-3
WARMUP = 60
FEWEST_ROWS = 1000
GUIDANCE, SAMPLING_STEPS = 4.0, 20


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

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of both trained networks."""
        return [*self.unet.parameters(), *self.text_encoder.parameters()]


def prepare(latents: Path, budget: Budget, seed: int) -> Training:
    """Fresh networks, their averages and the optimiser."""
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(latents / "tokenizer")
    unet, text_encoder = build_unet(), build_text_encoder(tokenizer)
    # Plain matrix products beat the fused attention's backward pass on a CPU at this size (1.35 x).
    unet.set_attn_processor(AttnProcessor())
    average = Average((unet, text_encoder), decay=0.999)
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
    files = open_files(latents)
    return Training(unet, text_encoder, tokenizer, average, optimizer, files, budget)


def wait_for_rows(files: LatentFiles, rows: int) -> None:
    """Sleep until enough scenes are encoded to start with."""
    while files.ready < min(rows, len(files.tokens)):
        time.sleep(2)


def diffusion_loss(training: Training, batch: int, signal: Tensor, empty: Tensor) -> Tensor:
    """Weighted squared error of v = sqrt(a) noise - sqrt(1 - a) x (Salimans & Ho 2022, eq. 11).

    `signal` [T] is the cumulative product a_t of the schedule, `empty` [32] the empty caption.
    """
    rows = torch.randint(training.files.ready, (batch,))
    latents, things, tokens = training.files.batch(rows)
    tokens = torch.where(torch.rand(batch, 1) < EMPTY_CAPTIONS, empty, tokens)
    t = (len(signal) * torch.rand(batch) ** NOISE_BIAS).long().clamp(max=len(signal) - 1)
    keep = signal[t].sqrt()[:, None, None, None]
    spoil = (1 - signal[t]).sqrt()[:, None, None, None]
    noise = torch.randn_like(latents)
    with torch.autocast("cpu", torch.bfloat16):
        states = training.text_encoder(tokens).last_hidden_state
        output = training.unet(keep * latents + spoil * noise, t, states).sample
    errors = (output.float() - (keep * noise - spoil * latents)).square().mean(dim=1)
    weights = 1 + THING_WEIGHT * things
    return (weights * errors).sum() / weights.sum()


def snapshot(training: Training) -> dict[str, object]:
    """State from which a run continues as if it had not stopped."""
    return {
        "unet": training.unet.state_dict(),
        "text_encoder": training.text_encoder.state_dict(),
        "average": training.average.shadow,
        "optimizer": training.optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "step": training.budget.step,
        "seconds": training.budget.seconds,
    }


def restore(training: Training, path: Path) -> None:
    """Continue from a checkpoint."""
    state = load_checkpoint(path)
    training.unet.load_state_dict(state["unet"])
    training.text_encoder.load_state_dict(state["text_encoder"])
    training.average.load(state["average"])
    training.optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    training.budget.step, training.budget.seconds = state["step"], state["seconds"]


def draw_sheet(training: Training, vae: AutoencoderKL, path: Path, count: int = 18) -> None:
    """Sample fixed unseen prompts with the averaged weights; leaves the random state alone."""
    training.average.swap()
    pipeline = assemble(vae, training.text_encoder, training.tokenizer, training.unet)
    result = pipeline(
        prompt_pool(count),
        height=128,
        width=128,
        num_inference_steps=SAMPLING_STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    save_sheet((result.images * 255).round().astype("uint8"), path)
    training.average.swap()


def train(training: Training, vae: AutoencoderKL, out: Path, batch: int, every: float) -> None:
    """Train until the budget is used up; checkpoint and sheet every `every` minutes."""
    signal = build_scheduler().alphas_cumprod
    empty = torch.tensor(encode(training.tokenizer, [""])[0])
    wait_for_rows(training.files, FEWEST_ROWS)
    budget, running, saved = training.budget, 0.0, training.budget.seconds
    budget.restart_clock()
    while budget.fraction < 1:
        set_rate(training.optimizer, cosine_rate(PEAK_RATE, budget, WARMUP))
        loss = diffusion_loss(training, batch, signal, empty)
        loss.backward()
        average_gradients(training.parameters())
        torch.nn.utils.clip_grad_norm_(training.parameters(), 1.0)
        training.optimizer.step()
        training.optimizer.zero_grad()
        training.average.update(budget.step)
        budget.tick()
        budget.seconds = shared(budget.seconds)
        running = 0.98 * running + 0.02 * loss.item() if running else loss.item()
        if budget.step % 25 == 0 and rank() == 0:
            print(
                f"step {budget.step} {budget.seconds:.0f}s loss {running:.4f} rows {training.files.ready}",
                flush=True,
            )
        if budget.seconds - saved > 60 * every or budget.fraction >= 1:
            saved = budget.seconds
            if rank() == 0:
                save_checkpoint(out / "checkpoint.pt", snapshot(training))
                draw_sheet(training, vae, out / f"sheet_{budget.step:06d}.png")
            shared(saved)  # the others wait here, so that their clocks leave it out too
            budget.restart_clock()


def averaged_pipeline(training: Training, vae: AutoencoderKL) -> StableDiffusionPipeline:
    """The pipeline of the averaged weights."""
    training.average.swap()
    return assemble(vae, training.text_encoder, training.tokenizer, training.unet)


def main() -> None:
    """Parse the command line, train and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vae", type=Path, default=Path("build/train/vae"))
    parser.add_argument("--latents", type=Path, default=Path("build/train/latents"))
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=16, help="samples of a step in each worker")
    parser.add_argument("--every", type=float, default=5.0, help="minutes between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--resume", action="store_true", help="exact with one worker")
    parser.add_argument("--export", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.minutes is None and options.steps is None:
        options.minutes = 60.0
    run(work, options.workers, options)


def work(options: argparse.Namespace) -> None:
    """Train in this process; the first one exports."""
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(options.vae).eval()
    training = prepare(options.latents, Budget(options.minutes, options.steps), options.seed)
    if options.resume:
        restore(training, options.out / "checkpoint.pt")
    if rank() > 0:
        torch.manual_seed(options.seed + workers() * training.budget.step + rank())
    train(training, vae, options.out, options.batch, options.every)
    if options.export and rank() == 0:
        export(averaged_pipeline(training, vae), options.export)


if __name__ == "__main__":
    main()
