"""One trainer in one process: takes training steps and encodes on command, and says what each cost.

Runs under the environment that has the trainer, so it imports torch and that trainer, and nothing of the project but
for its own. Each line read is an order ("step", "step_auxk", "encode", "recover SEED STEPS START", "peak"); each line
written is a JSON answer. `Peer` subclasses do what one step of the trainer's own loop does, with its own defaults and
Adam.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import torch
from torch import Tensor

K_AUX, LR = 256, 1e-4
RECOVERY_BATCH = 4096


def vectors(count: int, d: int, seed: int, truths: int, active: int, noise: float) -> tuple[Tensor, Tensor]:
    """Sums of `active` of `truths` known unit directions with weights in [1, 2], off-centre, with noise.

    Returns:
        [count, d] and the directions [truths, d].
    """
    # Not a seed that a trainer may start from: the same seed would hand it the true directions.
    generator = torch.Generator().manual_seed(982_451_653 + seed)
    directions = torch.nn.functional.normalize(torch.randn(truths, d, generator=generator), dim=1)
    chosen = torch.randint(truths, (count, active), generator=generator)
    weights = 1 + torch.rand(count, active, generator=generator)
    x = torch.nn.functional.embedding_bag(chosen, directions, per_sample_weights=weights, mode="sum")
    mean = torch.randn(d, generator=generator) / d**0.5
    return x + mean + noise * torch.randn(count, d, generator=generator) / d**0.5, directions


class Peer(ABC):
    """A trainer over an SAE of shape (d, n, k), for a run of `steps` batches; `start` seeds its first weights."""

    def __init__(
        self, shape: tuple[int, int, int], lr: float, first: Tensor, steps: int, batch: int, start: int = 0
    ) -> None:
        (self.d, self.n, self.k), self.lr, self.steps, self.batch = shape, lr, steps, batch
        self.start = start
        self.vectors = steps * batch
        self.build(first)

    @abstractmethod
    def build(self, first: Tensor) -> None:
        """Make the SAE and its optimizer; `first` are vectors to start from."""

    @abstractmethod
    def step(self, x: Tensor, dead: int = 0) -> None:
        """One training step with the first `dead` features counted as dead, or its own count when -1."""

    @abstractmethod
    def encode(self, x: Tensor) -> object:
        """The k strongest features of every vector."""

    @abstractmethod
    def directions(self) -> Tensor:
        """Concept vectors [n, d]."""


class Gazetteer(Peer):
    """The engine as it comes; encoding as `gazetteer.sae.kernels.candidates` does it."""

    options: ClassVar[dict[str, Any]] = {}

    def build(self, first: Tensor) -> None:
        from gazetteer.sae.training.config import TrainConfig
        from gazetteer.sae.training.trainer import Trainer

        config = TrainConfig(
            k=self.k, n=self.n, lr=self.lr, k_aux=K_AUX, batch_size=self.batch, seed=self.start, **self.options
        )  # fmt: skip
        self.trainer = Trainer(self.d, config, steps=self.steps)
        self.trainer.start(first)

    def step(self, x: Tensor, dead: int = 0) -> None:
        if dead >= 0:
            self.trainer.idle.zero_()
            self.trainer.idle[:dead] = 1 << 40
            self.trainer.look()
        self.trainer.advance(x)

    def encode(self, x: Tensor) -> object:
        from gazetteer.sae.kernels.candidates import encode_by_candidates

        return encode_by_candidates(self.trainer.sae, x)

    def directions(self) -> Tensor:
        return self.trainer.sae.decoder


class GazetteerPlain(Gazetteer):
    """The engine with a float32 product for every code."""

    options: ClassVar[dict[str, Any]] = {"candidates": False}

    def encode(self, x: Tensor) -> object:
        return self.trainer.sae.encode(x)


class Sparsify(Peer):
    def build(self, first: Tensor) -> None:
        from sparsify import SparseCoder, SparseCoderConfig

        torch.manual_seed(self.start)
        self.sae = SparseCoder(self.d, SparseCoderConfig(num_latents=self.n, k=self.k))
        self.sae.b_dec.data = first.mean(dim=0)
        self.adam = torch.optim.Adam(self.sae.parameters(), lr=self.lr)
        self.idle = torch.zeros(self.n, dtype=torch.long)
        self.threshold = max(1, self.vectors // 10)

    def step(self, x: Tensor, dead: int = 0) -> None:
        if dead >= 0:
            self.idle.zero_()
            self.idle[:dead] = 1 << 40
        self.sae.set_decoder_norm_to_unit_norm()
        out = self.sae(x, dead_mask=self.idle > self.threshold)
        (out.fvu + out.auxk_loss / 32).backward()
        self.sae.remove_gradient_parallel_to_decoder_directions()
        self.adam.step()
        self.adam.zero_grad()
        fired = torch.zeros(self.n, dtype=torch.bool)
        fired[out.latent_indices.flatten()] = True
        self.idle += len(x)
        self.idle[fired] = 0
        float(out.fvu.detach())

    def encode(self, x: Tensor) -> object:
        return self.sae.encode(x)

    def directions(self) -> Tensor:
        return self.sae.W_dec.data


class DictionaryLearning(Peer):
    def build(self, first: Tensor) -> None:
        from dictionary_learning.trainers.top_k import TopKTrainer

        self.trainer = TopKTrainer(
            steps=self.steps, activation_dim=self.d, dict_size=self.n, k=self.k, layer=0, lm_name="", lr=self.lr,
            warmup_steps=0, seed=self.start, device="cpu",
        )  # fmt: skip
        self.trainer.dead_feature_threshold = max(1, self.vectors // 10)
        self.count = 0

    def step(self, x: Tensor, dead: int = 0) -> None:
        if dead >= 0:
            self.trainer.num_tokens_since_fired.zero_()
            self.trainer.num_tokens_since_fired[:dead] = 1 << 40
        self.trainer.update(self.count, x)
        self.count += 1

    def encode(self, x: Tensor) -> object:
        return self.trainer.ae.encode(x, return_topk=True)[1:3]

    def directions(self) -> Tensor:
        return self.trainer.ae.decoder.weight.data.T


class SaeLens(Peer):
    def build(self, first: Tensor) -> None:
        from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig

        torch.manual_seed(self.start)
        self.sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=self.d, d_sae=self.n, k=self.k))
        self.adam = torch.optim.Adam(self.sae.parameters(), lr=self.lr)
        self.idle = torch.zeros(self.n)
        self.threshold = max(1, self.steps // 10)
        self.frequencies = torch.zeros(self.n)
        self.count = 0

    def step(self, x: Tensor, dead: int = 0) -> None:
        from sae_lens.saes.sae import TrainStepInput

        if dead >= 0:
            self.idle.zero_()
            self.idle[:dead] = 1 << 20
        out = self.sae.training_forward_pass(
            TrainStepInput(
                sae_in=x, coefficients={}, dead_neuron_mask=self.idle > self.threshold,
                n_training_steps=self.count, is_logging_step=False,
            )
        )  # fmt: skip
        with torch.no_grad():
            firing = out.feature_acts.bool().float()
            self.idle += 1
            self.idle[firing.sum(-2).bool()] = 0
            self.frequencies += firing.sum(0)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)
        self.adam.step()
        self.adam.zero_grad()
        self.count += 1

    def encode(self, x: Tensor) -> object:
        return self.sae.encode(x)

    def directions(self) -> Tensor:
        return self.sae.W_dec.data


class Overcomplete(Peer):
    def build(self, first: Tensor) -> None:
        from overcomplete.sae import TopKSAE
        from overcomplete.sae.trackers import DeadCodeTracker

        torch.manual_seed(self.start)
        self.sae = TopKSAE(self.d, nb_concepts=self.n, top_k=self.k, device="cpu").train()
        self.adam = torch.optim.Adam(self.sae.parameters(), lr=self.lr)
        self.tracker = DeadCodeTracker(self.n, "cpu")

    def step(self, x: Tensor, dead: int = 0) -> None:
        from overcomplete.sae.losses import top_k_auxiliary_loss

        self.adam.zero_grad()
        before, codes, x_hat = self.sae(x)
        if dead:  # its auxiliary loss has no notion of dead features: it takes the rest of every vector
            loss = top_k_auxiliary_loss(x, x_hat, before, codes, self.sae.get_dictionary())
        else:
            loss = (x - x_hat).square().mean()
        self.tracker.update(codes)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)
        self.adam.step()

    def encode(self, x: Tensor) -> object:
        return self.sae.encode(x)

    def directions(self) -> Tensor:
        return self.sae.get_dictionary().detach()


class Floor(Peer):
    """What no exact trainer with a dense encoder can do without: the encoder's product and the top k of it."""

    def build(self, first: Tensor) -> None:
        self.encoder = torch.randn(self.n, self.d) / self.d**0.5

    def step(self, x: Tensor, dead: int = 0) -> None:
        (x @ self.encoder.T).topk(self.k, dim=1)

    encode = step

    def directions(self) -> Tensor:
        return self.encoder


PEERS: dict[str, type[Peer]] = {
    "floor": Floor,
    "gazetteer": Gazetteer,
    "gazetteer-plain": GazetteerPlain,
    "eai-sparsify": Sparsify,
    "dictionary-learning": DictionaryLearning,
    "overcomplete": Overcomplete,
    "sae-lens": SaeLens,
}


def recovered(name: str, seed: int, steps: int, start: int) -> float:
    """Mean over the true directions of the largest cosine with a learned one, after `steps` steps of 4096 vectors."""
    d, truths = 64, 192
    x, directions = vectors(65_536, d, seed, truths, active=3, noise=0.1)
    peer = PEERS[name]((d, 256, 3), 1e-3, x[:8192], steps, RECOVERY_BATCH, start)
    order = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        peer.step(x[torch.randint(len(x), (RECOVERY_BATCH,), generator=order)], dead=-1)
    learned = torch.nn.functional.normalize(peer.directions(), dim=1)
    return float((directions @ learned.T).max(dim=1).values.mean())


def main() -> None:
    name, (threads, d, n, k, batch, dead) = sys.argv[1], map(int, sys.argv[2:])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a trainer prints must not be taken for an answer
    torch.set_num_threads(threads)
    x, _ = vectors(2 * batch, d, 0, n, active=8, noise=1.0)
    batches = x.split(batch)
    peer = PEERS[name]((d, n, k), LR, x, 1_000_000, batch)
    print(json.dumps({"ready": name, "torch": torch.__version__}), file=answers)
    for done, line in enumerate(sys.stdin):
        order, *arguments = line.split()
        before = time.process_time()
        answer: float = math.nan
        if order == "step" or order == "step_auxk":
            peer.step(batches[done % len(batches)], dead=dead if order == "step_auxk" else 0)
        elif order == "encode":
            with torch.no_grad():
                peer.encode(batches[done % len(batches)])
        elif order == "recover":
            answer = recovered(name, *map(int, arguments))
        if order == "peak":
            answer = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(json.dumps({"cpu": time.process_time() - before, "answer": answer}), file=answers)


if __name__ == "__main__":
    main()
