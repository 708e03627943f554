"""Training: it learns, it keeps its promises about the decoder, and a killed run ends in the same bytes."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.kernels.adam import EPSILON, Adam
from gazetteer.sae.kernels.median import geometric_median
from gazetteer.sae.model.checkpoint import load_pretrained, load_site_saes
from gazetteer.sae.training.config import TrainConfig
from gazetteer.sae.training.source import TensorSource
from gazetteer.sae.training.tensor_file import write_tensors
from gazetteer.sae.training.train import SNAPSHOT, identity_of, train_sae
from gazetteer.sae.training.trainer import Trainer
from tests.support.system.running import kill_at

SITE = Site("mid_block.attentions.0", "cond", 0.5)
SMALL = TrainConfig(k=3, n=24, lr=3e-3, batch_size=64, steps=40, checkpoint_every=7, dead_after=256, k_aux=8)


def synthetic(count: int, d: int = 16, n: int = 24, k: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Vectors that are sums of k of n known unit directions about a non-zero mean, and those directions."""
    # Not the seed that the autoencoder starts from: it would be handed the true directions.
    generator = torch.Generator().manual_seed(1000 + seed)
    directions = F.normalize(torch.randn(n, d, generator=generator), dim=1)
    chosen = torch.rand(count, n, generator=generator).argsort(dim=1)[:, :k]
    weights = 1 + torch.rand(count, k, generator=generator)
    codes = torch.zeros(count, n).scatter_(1, chosen, weights)
    return codes @ directions + 3 * torch.ones(d), directions


def source(count: int = 1000, seed: int = 0) -> TensorSource:
    return TensorSource(synthetic(count, seed=seed)[0], digest=f"synthetic-{seed}")


def trained(out: Path, config: TrainConfig = SMALL, **keywords):
    return train_sae(source(), 16, config, out, **keywords)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_it_recovers_a_known_dictionary(tmp_path: Path):
    vectors, directions = synthetic(20_000)
    config = TrainConfig(k=3, n=48, lr=1e-2, batch_size=512, steps=400, decay=0.3)
    result = train_sae(TensorSource(vectors[:-1000]), 16, config, tmp_path, heldout=[vectors[-1000:]])
    best = (directions @ result.sae.decoder.T).max(dim=1).values
    assert float(best.median()) > 0.97
    assert float((best > 0.9).float().mean()) > 0.85
    assert result.metrics is not None
    assert result.metrics.explained_variance > 0.9
    assert result.history[-1]["loss"] < 0.2 * result.history[0]["loss"]


def test_the_first_step_by_hand():
    # Adam's first step moves every weight by lr against the sign of its gradient (eps is tiny).
    trainer = Trainer(16, replace(SMALL, alpha=0.0), steps=40)
    vectors = synthetic(256)[0]
    trainer.start(vectors)
    before = {name: value.clone() for name, value in trainer.sae.state_dict().items()}
    gradients = trainer.advance(vectors).gradients
    used = gradients.encoder != 0
    moved = (trainer.sae.encoder - before["encoder"])[used]
    torch.testing.assert_close(moved, -3e-3 * gradients.encoder[used].sign(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(trainer.sae.bias - before["bias"], -3e-3 * gradients.bias.sign(), rtol=1e-2, atol=1e-5)


def test_it_starts_tied_at_the_geometric_median_with_the_loss_in_units_of_variance():
    trainer, vectors = Trainer(16, SMALL, steps=40), synthetic(256)[0]
    trainer.start(vectors)
    assert torch.equal(trainer.sae.encoder, trainer.sae.decoder)
    torch.testing.assert_close(trainer.sae.bias, geometric_median(vectors))
    assert trainer.mse_scale == pytest.approx(1 / float((vectors - vectors.mean(0)).square().mean()))


def test_concept_vectors_stay_on_the_unit_sphere_and_gradients_in_its_tangent():
    trainer, vectors = Trainer(16, SMALL, steps=40), synthetic(256)[0]
    trainer.start(vectors)
    for _ in range(10):
        directions = trainer.sae.decoder.clone()
        gradient = trainer.advance(vectors).gradients.decoder  # projected in place before Adam sees it
        torch.testing.assert_close((gradient * directions).sum(dim=1), torch.zeros(24), atol=1e-6, rtol=0)
        torch.testing.assert_close(trainer.sae.decoder.norm(dim=1), torch.ones(24))


def test_a_feature_is_dead_after_enough_idle_vectors_and_auxk_revives_it():
    trainer, vectors = Trainer(16, replace(SMALL, dead_after=512, alpha=1.0), steps=40), synthetic(256)[0]
    trainer.start(vectors)
    # Feature 0 looks away from every vector but can still be positive once its bias-centred input is.
    trainer.sae.encoder[0] *= 0.01
    assert len(trainer.dead()) == 0
    trainer.idle[0] = 512
    assert trainer.dead().tolist() == [0]
    before = trainer.sae.encoder[0].clone()
    step = trainer.advance(vectors)
    assert float(step.auxk) > 0
    assert not torch.equal(trainer.sae.encoder[0], before)
    fired = step.codes.indices[step.codes.values > 0].unique()
    assert trainer.idle[fired].eq(0).all()


def test_adam_is_torchs_own_to_the_last_bit():
    generator = torch.Generator().manual_seed(3)
    ours = [torch.randn(5, 7, generator=generator), torch.randn(7, generator=generator)]
    theirs = [tensor.clone().requires_grad_() for tensor in ours]
    adam, reference = Adam(ours), torch.optim.Adam(theirs, lr=1.0, eps=EPSILON, fused=True)
    for rate in (0.1, 0.03, 0.5):
        gradients = [torch.randn(tensor.shape, generator=generator) for tensor in ours]
        adam.advance(gradients, rate)
        for tensor, gradient in zip(theirs, gradients, strict=True):
            tensor.grad = gradient
        reference.param_groups[0]["lr"] = rate
        reference.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_state_is_a_safetensors_file_of_every_tensor_as_it_was(tmp_path: Path):
    tensors = {
        "half": torch.randn(3, 5).half(), "brain": torch.randn(2).bfloat16(), "bytes": torch.arange(7).byte(),
        "none": torch.zeros(0, 4), "scalar": torch.tensor(2.5), "turned": torch.randn(4, 6).double().T,
        "long": torch.arange(9), "flags": torch.tensor([True, False, True]),
    }  # fmt: skip
    write_tensors(tmp_path / "state", tensors, {"text": "ä"})
    with safe_open(tmp_path / "state", framework="pt") as file:
        assert file.metadata() == {"text": "ä"}
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert read.keys() == tensors.keys()
    assert all(read[name].dtype == value.dtype and torch.equal(read[name], value) for name, value in tensors.items())


def test_the_learning_rate_warms_up_and_decays():
    config = TrainConfig(lr=1.0, warmup=0.2, decay=0.5)
    rates = [config.learning_rate(step, 10) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_dead_after_defaults_to_a_tenth_of_the_run():
    assert TrainConfig(batch_size=100).dead_threshold(steps=50) == 500
    assert TrainConfig(dead_after=7).dead_threshold(steps=50) == 7


def test_the_paper_preset():
    config = TrainConfig.paper()
    assert config.shape(1280).n == 5120
    assert (config.k, config.lr, config.batch_size, config.alpha, config.k_aux) == (
        10,
        1e-4,
        4096,
        1 / 32,
        256,
    )
    assert config.total_steps(51_200_000) == 12_500
    assert config.total_steps(12_800_000) == 3_125
    assert TrainConfig.paper(20).k == 20
    with pytest.raises(InputError, match="k=10 and k=20, not 15"):
        TrainConfig.paper(15)


def test_the_geometric_median_ignores_an_outlier():
    # Of four corners of a convex quadrilateral it is where the diagonals cross, however far one corner lies.
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [500.0, 500.0]])
    torch.testing.assert_close(geometric_median(points), torch.tensor([1.0, 1.0]), atol=1e-3, rtol=0)
    assert geometric_median(torch.full((4, 2), 3.0)).tolist() == [3.0, 3.0]


def test_a_finished_run_is_not_repeated(tmp_path: Path):
    first = trained(tmp_path, site=SITE, heldout=[synthetic(64)[0]], metadata={"model_digest": "abc"})
    stamp = (tmp_path / "model.safetensors").stat().st_mtime_ns
    again = trained(tmp_path, site=SITE)
    assert again.already_done
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == stamp
    assert again.metrics == first.metrics
    assert again.history == first.history
    assert torch.equal(again.sae.encoder, first.sae.encoder)
    assert not (tmp_path / SNAPSHOT).exists()
    assert load_pretrained(tmp_path)[1]["model_digest"] == "abc"


def test_another_config_is_another_run(tmp_path: Path):
    trained(tmp_path)
    with pytest.raises(InputError, match=r"differing: config.lr \(0.003 there, 0.001 now\)"):
        trained(tmp_path, replace(SMALL, lr=1e-3))
    with pytest.raises(InputError, match=r"data.digest \(synthetic-0 there, synthetic-1 now\)"):
        train_sae(source(seed=1), 16, SMALL, tmp_path)
    with pytest.raises(InputError, match="site"):
        trained(tmp_path, site=SITE)
    assert not trained(tmp_path, replace(SMALL, lr=1e-3), resume=False).already_done


def test_what_the_engine_chooses_by_size_is_part_of_the_run():
    def chosen(d: int, candidates: bool | None = None) -> bool:
        return identity_of(TrainConfig(candidates=candidates), None, d, 1, "")["config"]["candidates"]

    assert (chosen(96), chosen(1280), chosen(96, True), chosen(1280, False)) == (False, True, True, False)


class Stop(Exception):
    """Stands for anything that ends a run from outside."""


@pytest.mark.parametrize("stop_at", [1, 7, 20, 35, 40])
def test_a_run_stopped_at_any_step_resumes_to_the_same_bytes(tmp_path: Path, stop_at: int):
    def stop(step: int, steps: int) -> None:
        if step == stop_at:
            raise Stop

    trained(tmp_path / "whole")
    with pytest.raises(Stop):
        trained(tmp_path / "stopped", on_step=stop)
    resumed = trained(tmp_path / "stopped", replace(SMALL, checkpoint_every=11))
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert resumed.history == trained(tmp_path / "whole").history


KILLED = """
import sys
from pathlib import Path
import torch
from tests.sae.training.test_train import trained
torch.set_num_threads(1)
def report(step, steps):
    print(step, flush=True)
    sys.stdin.readline()
trained(Path(sys.argv[1]), on_step=report)
"""


def test_kill_9_at_a_random_step_then_resume_gives_the_same_bytes(tmp_path: Path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trained(tmp_path / "whole")
        stop_at = random.randint(8, 39)
        kill_at(str(stop_at), KILLED, str(tmp_path / "killed"))
        assert (tmp_path / "killed" / SNAPSHOT).exists()
        assert not (tmp_path / "killed" / "config.json").exists()
        trained(tmp_path / "killed")
        assert weights(tmp_path / "killed") == weights(tmp_path / "whole"), f"killed at step {stop_at}"
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_vectors_stop_the_run_with_the_site_and_the_step(tmp_path: Path, bad: float):
    class Spoiled(TensorSource):
        def batches(self, batch_size, seed, start_step=0, epochs=None):
            for step, x in enumerate(super().batches(batch_size, seed, start_step, epochs), start_step):
                if step == 30:
                    x[3, 2] = bad
                yield x

    with pytest.raises(InputError, match=rf"{SITE.slug} stopped: the activations of step 30 hold NaN or infinity"):
        train_sae(Spoiled(synthetic(1000)[0]), 16, replace(SMALL, median_vectors=64), tmp_path, site=SITE)


def test_divergence_stops_the_run(tmp_path: Path):
    with pytest.raises(GazetteerError, match=r"diverged: the loss is \w+ at step \d+; lower sae\.train\.lr\.") as error:
        trained(tmp_path, replace(SMALL, lr=1e30), site=SITE)
    assert SITE.slug in str(error.value)
    assert not (tmp_path / "model.safetensors").exists()


def test_what_cannot_be_trained_on_is_said(tmp_path: Path):
    with pytest.raises(InputError, match="read 17 channels, but the vectors have 16"):
        train_sae(source(), 17, SMALL, tmp_path)
    with pytest.raises(InputError, match=r"1000 vectors do not fill one batch of sae\.train\.batch_size=4096"):
        trained(tmp_path, TrainConfig())
    with pytest.raises(InputError, match="all the same"):
        train_sae(TensorSource(torch.ones(100, 16)), 16, SMALL, tmp_path)


def test_a_damaged_state_is_refused(tmp_path: Path):
    def stop(step: int, steps: int) -> None:
        if step == 7:
            raise Stop

    with pytest.raises(Stop):
        trained(tmp_path, on_step=stop)
    content = (tmp_path / SNAPSHOT).read_bytes()
    for damaged in (b"not a state", content[:-1], b""):
        (tmp_path / SNAPSHOT).write_bytes(damaged)
        with pytest.raises(InputError, match=r"training.safetensors is damaged; delete it to start over"):
            trained(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"k": 0},
        {"n": 0},
        {"lr": 0},
        {"lr": "fast"},
        {"lr": float("nan")},
        {"batch_size": 1.5},
        {"epochs": True},
        {"alpha": -1.0},
        {"dead_after": -1},
        {"warmup": 0.7, "decay": 0.7},
    ],
)
def test_settings_out_of_range_are_named(settings: dict):
    with pytest.raises(InputError, match=f"sae.train.{next(iter(settings))}"):
        TrainConfig(**settings)


def test_training_loads_no_compiler_that_it_does_not_use():
    # torch's compiler is 900 modules and 0.15 GB; torch.optim would bring it along.
    program = (
        "import sys, torch; from gazetteer.sae.training.config import TrainConfig\n"
        "from gazetteer.sae.training.trainer import Trainer\n"
        "x, trainer = torch.randn(64, 8), Trainer(8, TrainConfig(k=2), 2)\n"
        "trainer.start(x); trainer.advance(x); trainer.advance(x)\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_a_site_the_signal_is_left_unsaid(tmp_path: Path) -> None:
    """Nobody said what the vectors are, so it serves what its user states, and nothing before that."""
    train_sae(TensorSource(synthetic(1000)[0]), 16, SMALL, tmp_path)
    assert load_pretrained(tmp_path)[1]["signal"] is None
    saes = {"*": str(tmp_path)}
    for signal in ("update", "output"):
        site = replace(SITE, signal=signal)
        with pytest.raises(InputError, match=re.escape(f"say so with sae_check.signal={signal}")):
            load_site_saes(saes, [site])
        assert load_site_saes(saes, [site], signal=signal)[site].signal == signal
