"""Train the transformer of the Scenes world from scratch by flow matching, on a few CPU cores or a GPU.

    python -m benchmarks.scenes.text_to_image_dit.train --out build/world/text_to_image_dit --minutes 720 --resume \\
        --workers 2 --vae build/world/vae --latents build/world/latents --export build/world/models/text_to_image_dit

It reads the latents and captions of the U-Net (`benchmarks.scenes.text_to_image.latents`). A killed run goes on from
its last checkpoint with the same command; `curve.jsonl` holds steps, hours, pictures seen and losses.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTokenizer

from benchmarks.scenes.options import add_views
from benchmarks.scenes.text_to_image.latents import HELD_OUT, LatentFiles, open_files
from benchmarks.scenes.text_to_image.tokens import encode
from benchmarks.scenes.text_to_image_dit.attention import JointAttention
from benchmarks.scenes.text_to_image_dit.model import (
    NO_T5,
    assemble,
    build_text_encoder,
    build_transformer,
    conditioning,
    export,
)
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

EMPTY_CAPTIONS = 0.1
PEAK_RATE = 2e-2
WARMUP = 200
FEWEST_ROWS = 2000
GUIDANCE, SAMPLING_STEPS = 4.0, 20
LOGIT_MEAN = 1.0
"""σ = sigmoid of a normal number about it (Esser et al. 2024, section 3.1); of these latents, shapes are made between
signal-to-noise ratios of .15 and .02, that is σ = .72 to .88."""


@dataclass
class Training:
    """Everything that a run changes, and what it reads."""

    transformer: Any
    attention: JointAttention
    encoders: Any
    tokenizer: CLIPTokenizer
    average: Average
    optimizer: torch.optim.Optimizer
    files: LatentFiles
    budget: Budget
    device: torch.device

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Everything that is trained."""
        return (self.transformer, *self.encoders)

    def parameters(self) -> list[nn.Parameter]:
        """Of everything that is trained."""
        return [parameter for module in self.modules for parameter in module.parameters()]

    def checkpoint(self, path: Path) -> Resumable:
        """What is written and read again: networks, their averages, the optimiser, the budget."""
        about = self.files.about
        return Resumable(path, self.modules, self.optimizer, self.budget, 1 << 60, (self.average,), self.average, about)


def prepare(latents: Path, budget: Budget, seed: int, device: str = "cpu") -> Training:
    """Fresh networks, their averages and the optimiser."""
    torch.manual_seed(seed)
    tokenizer, files = CLIPTokenizer.from_pretrained(latents / "tokenizer"), open_files(latents)
    transformer: Any = build_transformer(*files.latents.shape[1:3])
    transformer.set_attn_processor(attention := JointAttention(NO_T5, device))
    encoders: Any = tuple(build_text_encoder(tokenizer) for _ in range(2))
    modules: tuple[nn.Module, ...] = (transformer, *encoders)
    for module in modules:
        module.to(device)
    average = Average(modules, decay=0.9995)
    edges = ("pos_embed", "proj_out", "time_text_embed", "text_projection", ".norm1.linear", ".norm1_context.linear")
    optimizer = Muon(*hidden_weights(modules, edges=edges), PEAK_RATE, rest_scale=0.06)
    return Training(
        transformer, attention, encoders, tokenizer, average, optimizer, files, budget, torch.device(device)
    )


def flow_loss(training: Training, rows: Tensor, sigma: Tensor, empty: Tensor) -> Tensor:
    """Mean squared error of the velocity noise − x at x_σ = (1 − σ) x + σ noise, for rows [B] and σ [B]."""
    latents, tokens = training.files.batch(rows)
    tokens = torch.where(torch.rand(len(rows), 1) < EMPTY_CAPTIONS, empty, tokens)
    noise = torch.randn_like(latents)
    at = sigma[:, None, None, None]
    device = training.device
    with torch.autocast(device.type, torch.bfloat16):
        words, pooled = conditioning(training.encoders, tokens.to(device), empty=1)
        output = training.transformer(
            ((1 - at) * latents + at * noise).to(device), words, pooled, (1000 * sigma).to(device), return_dict=False
        )[0]
    return (output.float() - (noise - latents).to(device)).square().mean()


def random_loss(training: Training, batch: int, empty: Tensor) -> Tensor:
    """The loss of random rows and σ, and of text with 1 to 256 empty places, whatever `max_sequence_length` says."""
    training.attention.empty.fill_(round(NO_T5 ** float(torch.rand(()))))
    first = min(HELD_OUT, training.files.ready // 2)
    rows = torch.randint(first, training.files.ready, (batch,))
    sigma = torch.sigmoid(LOGIT_MEAN + torch.special.ndtri(spread(batch).clamp(min=2**-24)))
    return flow_loss(training, rows, sigma, empty)


@torch.compiler.set_stance("force_eager")
@torch.no_grad()
def held_out_loss(training: Training, empty: Tensor) -> float:
    """The loss of the averaged weights on scenes that are not trained on, always with the same noise."""
    training.attention.empty.fill_(NO_T5)
    count = min(HELD_OUT, training.files.ready // 2)
    training.average.swap()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sigma = torch.linspace(0.01, 1.0, count)[torch.randperm(count)]
        parts = torch.arange(count).split(32)
        losses = [float(flow_loss(training, part, sigma[part], empty)) * len(part) for part in parts]
    training.average.swap()
    return sum(losses) / count


@torch.compiler.set_stance("force_eager")
def draw_sheet(training: Training, vae: Any, path: Path, views: Sequence[str], count: int = 16) -> None:
    """Sample fixed unseen prompts with the averaged weights; leaves the random state alone."""
    training.average.swap()
    training.attention.empty.fill_(NO_T5)
    pipeline = assemble(vae, training.encoders, training.tokenizer, training.transformer)
    side = vae.config.sample_size
    result = pipeline(
        prompt_pool(count, views=views), height=side, width=side, num_inference_steps=SAMPLING_STEPS,
        guidance_scale=GUIDANCE, generator=torch.Generator().manual_seed(0), output_type="np",
    )  # fmt: skip
    save_sheet((result.images * 255).round().astype("uint8"), path, columns=8)
    training.average.swap()


def train(training: Training, options: argparse.Namespace, vae: Any) -> None:
    """Train until the budget is used up; a checkpoint and a line of the curve every few minutes."""
    empty = torch.tensor(encode(training.tokenizer, [""])[0])
    while training.files.ready < min(FEWEST_ROWS, len(training.files.tokens)):
        time.sleep(2)
    budget, running, saved, number = training.budget, 0.0, training.budget.seconds, 0
    budget.restart_clock()
    while budget.fraction < 1:
        set_rate(training.optimizer, cosine_rate(PEAK_RATE, budget, WARMUP))
        loss = random_loss(training, options.batch, empty)
        training.optimizer.zero_grad()
        loss.backward()
        average_gradients(training.parameters())
        step_if_finite(training.optimizer, nn.utils.clip_grad_norm_(training.parameters(), 1.0))
        training.average.update(budget.step)
        budget.tick()
        budget.seconds = shared(budget.seconds)
        running = 0.98 * running + 0.02 * loss.item() if running else loss.item()
        if budget.seconds - saved > 60 * options.every or budget.fraction >= 1:
            saved, number = budget.seconds, number + 1
            if rank() == 0:
                write(training, options, vae, running, empty, number)
            shared(saved)  # the others wait here, so that their clocks leave it out too
            budget.restart_clock()


def write(training: Training, options: argparse.Namespace, vae: Any, loss: float, empty: Tensor, number: int) -> None:
    """The checkpoint, a line of the curve, and now and then a sheet of pictures."""
    budget = training.budget
    training.checkpoint(options.out / "checkpoint.pt").save()
    row = {
        "step": budget.step, "hours": round(budget.seconds / 3600, 4),
        "pictures": budget.step * options.batch * workers(), "loss": round(loss, 5),
        "held_out": round(held_out_loss(training, empty), 5), "rows": training.files.ready,
    }  # fmt: skip
    with (options.out / "curve.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)
    if options.sheets and (number % options.sheets == 0 or budget.fraction >= 1):
        draw_sheet(training, vae, options.out / f"sheet_{budget.step:06d}.png", options.views)


def work(options: argparse.Namespace) -> None:
    """Train in this process; the first one exports."""
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(options.vae, torch_dtype=torch.float32).eval().to(options.device)
    training = prepare(options.latents, Budget(options.minutes, options.steps), options.seed, options.device)
    training.checkpoint(options.out / "checkpoint.pt").start(options.resume)
    if options.compile:
        for block in training.transformer.transformer_blocks:
            block.compile(dynamic=False)
    if rank() > 0:
        torch.manual_seed(options.seed + workers() * training.budget.step + rank())
    train(training, options, vae)
    if options.export and rank() == 0:
        training.average.swap()
        for module in (*training.modules, vae):
            module.cpu()
        export(assemble(vae, training.encoders, training.tokenizer, training.transformer), options.export)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vae", type=Path, default=Path("build/world/vae"))
    parser.add_argument("--latents", type=Path, default=Path("build/world/latents"))
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=16, help="samples of a step in each worker")
    parser.add_argument("--every", type=float, default=5.0, help="minutes between checkpoints")
    parser.add_argument("--sheets", type=int, default=6, help="checkpoints between sheets of pictures; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--compile", action="store_true", help="compile the blocks (needs a C++ compiler)")
    parser.add_argument(
        "--resume", action="store_true", help="from the checkpoint in --out, exactly with one worker, or its averages"
    )
    parser.add_argument("--export", type=Path)
    add_views(parser)
    options = parser.parse_args(argv)
    if options.minutes is None and options.steps is None:
        options.minutes = 720.0
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, train and export."""
    options = parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    run(work, options.workers, options)


if __name__ == "__main__":
    main()
