"""Training the autoencoder of the Scenes world: losses, its stream of pictures, resuming, the scale of latents."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from benchmarks.scenes.autoencoder import train as training
from benchmarks.scenes.autoencoder.loss import critic_loss, critic_term, reconstruction_loss, slopes
from benchmarks.scenes.autoencoder.model import build_autoencoder, build_critic, encoder_digest, set_scale
from benchmarks.scenes.autoencoder.pictures import PictureStream, absolute_error, normalise, picture_pool, reconstructed
from benchmarks.scenes.training import loop
from benchmarks.scenes.training.loop import Average, Budget, Threads
from gazetteer.data.core.errors import InputError
from gazetteer.data.scenes.world import VIEWS
from tests.support.system.running import ROOT


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_pictures_of_128_pixels_become_16_channels_of_16_cells() -> None:
    vae = build_autoencoder().eval()
    assert 3e6 < sum(parameter.numel() for parameter in vae.parameters()) < 4e6
    with torch.no_grad():
        latents = vae.encode(torch.zeros(1, 3, 128, 128)).latent_dist.mean
        assert latents.shape == (1, 16, 16, 16)
        assert vae.decode(latents).sample.shape == (1, 3, 128, 128)


def test_slopes_see_edges_at_three_scales_and_no_shift() -> None:
    assert slopes(torch.full((1, 3, 8, 8), 0.3)) == 0
    # Columns 0..3 are 0, the rest 1: one of 7 differences at full size, of 3 at half, of 1 at a quarter; rows alike.
    step = torch.zeros(1, 3, 8, 8)
    step[..., 4:] = 1
    assert float(slopes(step)) == pytest.approx((1 / 7 + 1 / 3 + 1) / 2)


def test_the_loss_counts_colours_the_latents_do_not_tell() -> None:
    torch.manual_seed(0)
    vae, probe = build_autoencoder(), nn.Conv2d(16, 3, 1)
    pixels = normalise(picture_pool(range(2), VIEWS))[..., :64, :64]
    torch.manual_seed(1)
    loss, kl, output = reconstruction_loss(vae, probe, pixels, half_size=False)
    assert output.shape == pixels.shape and kl > 0
    nn.init.zeros_(probe.weight)
    nn.init.constant_(probe.bias, 5.0)
    torch.manual_seed(1)
    worse = reconstruction_loss(vae, probe, pixels, half_size=False)[0]
    assert worse > loss + 5
    torch.manual_seed(1)
    assert reconstruction_loss(vae, probe, pixels, half_size=True)[0] > worse


def test_the_critic_pulls_a_tenth_as_hard_as_the_loss() -> None:
    torch.manual_seed(0)
    vae, critic = build_autoencoder(), build_critic()
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    output = vae.decode(vae.encode(pixels).latent_dist.mean).sample
    loss = (output - pixels).abs().mean()
    last = vae.decoder.conv_out.weight
    term = critic_term(vae, critic, loss, output)
    (pull,) = torch.autograd.grad(loss, last, retain_graph=True)
    (push,) = torch.autograd.grad(term, last, retain_graph=True)
    assert float(push.norm() / pull.norm()) == pytest.approx(0.1, rel=0.01)
    before = [parameter.grad for parameter in vae.parameters()]
    critic_loss(critic, pixels, output).backward()
    assert [parameter.grad for parameter in vae.parameters()] == before


def test_a_stream_replaces_its_oldest_pictures_and_can_start_at_any_step() -> None:
    stream = PictureStream(range(1000), VIEWS, size=6, fresh=2)
    assert torch.equal(stream.pool, picture_pool(range(6), VIEWS))
    for _ in range(4):
        stream.advance()
    rows = {picture.numpy().tobytes() for picture in stream.pool}
    assert rows == {picture.numpy().tobytes() for picture in picture_pool(range(8, 14), VIEWS)}
    assert torch.equal(PictureStream(range(1000), VIEWS, size=6, fresh=2, step=4).pool, stream.pool)
    assert stream.crops(3, 64).shape == (3, 3, 64, 64)


def test_scaled_latents_have_unit_spread_and_decode_to_the_same_pictures() -> None:
    torch.manual_seed(0)
    vae = build_autoencoder().eval()
    pixels = normalise(picture_pool(range(4), VIEWS))
    with torch.no_grad():
        before = vae.decode(vae.encode(pixels).latent_dist.mean).sample
        set_scale(vae, pixels)
        latents = vae.encode(pixels).latent_dist.mean
        assert torch.allclose(vae.decode(latents).sample, before, atol=1e-4)
    assert float(latents.std()) * vae.config.scaling_factor == pytest.approx(1, abs=1e-3)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-4


def test_the_error_is_in_steps_of_255() -> None:
    black, grey = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.full((2, 3, 4, 4), 10, dtype=torch.uint8)
    assert absolute_error(black, grey) == 10
    vae = build_autoencoder().eval()
    made = reconstructed(vae, picture_pool(range(3), VIEWS), batch=2)
    assert made.dtype == torch.uint8 and made.shape == (3, 3, 128, 128)


def trained(out: Path, budget: Budget, resume: bool = False) -> dict[str, Tensor]:
    options = training.Options(out, pool=8, batch=4, resume=resume, checkpoints=2, reports=2, threads=1)
    return training.train(options, budget).state_dict()


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The critic joins at step 3 of 4; the kill comes after its first step, before the next checkpoint."""
    whole = trained(tmp_path / "whole", Budget(None, 4))
    tick = Budget.tick

    def stop(budget: Budget) -> None:
        tick(budget)
        if budget.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Budget, "tick", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "killed", Budget(None, 4))
    resumed = trained(tmp_path / "killed", Budget(None, 4), resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "curve.jsonl").read_text().splitlines()]
    assert [(row["step"], row["pictures"]) for row in rows] == [(2, 2.0), (4, 4.0)]
    assert {"hours", "loss", "kl", "error"} <= set(rows[0])
    assert (tmp_path / "whole" / "reconstructions.png").exists()


def test_a_decoder_alone_is_trained_on_and_latents_stay_what_they_are(tmp_path: Path) -> None:
    training.export(build_autoencoder(), tmp_path / "vae")
    options = training.Options(
        tmp_path / "out", pool=8, batch=4, checkpoints=2, reports=2, threads=1, decoder_of=tmp_path / "vae", rate=1e-2
    )
    before = AutoencoderKL.from_pretrained(tmp_path / "vae").state_dict()
    after = training.train(options, Budget(None, 4))  # the critic joins at the last step
    changed = {
        name.split(".")[0] for name, values in after.state_dict().items() if not torch.equal(values, before[name])
    }
    assert changed == {"decoder", "post_quant_conv"}
    with pytest.raises(InputError, match="was trained with encoder"):
        trained(tmp_path / "out", Budget(None, 6), resume=True)  # of a fresh one, where the decoder's training lies
    training.export(after, tmp_path / "new")
    assert encoder_digest(tmp_path / "new") == encoder_digest(tmp_path / "vae")
    training.export(build_autoencoder(), tmp_path / "another")
    assert encoder_digest(tmp_path / "another") != encoder_digest(tmp_path / "vae")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert str(tmp_path) not in json.dumps(config), "no path of the machine it was trained on"
    (tmp_path / "new" / "config.json").write_text(json.dumps(config | {"scaling_factor": 2 * config["scaling_factor"]}))
    assert encoder_digest(tmp_path / "new") != encoder_digest(tmp_path / "vae"), "other latents by their scale"


def test_two_workers_train_one_network(tmp_path: Path) -> None:
    words = ["--workers", "2", "--steps", "2", "--pool", "8", "--batch", "2", "--critic-from", "0.5"]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.scenes.autoencoder.train", "--out", str(tmp_path), *words,
         "--export", str(tmp_path / "vae")],
        cwd=ROOT, check=True,
    )  # fmt: skip
    (row,) = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert (row["step"], row["pictures"]) == (2, 2.0)  # of two steps with 2 x 2 crops of a quarter of a picture
    assert AutoencoderKL.from_pretrained(tmp_path / "vae").config.latent_channels == 16


def test_an_average_survives_its_state() -> None:
    layer = nn.Linear(2, 2)
    average = Average([layer], 0.5)
    with torch.no_grad():
        layer.weight += 1
    average.update(1000)
    other = Average([nn.Linear(2, 2)], 0.5)
    other.load_state_dict(average.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(average.shadow, other.shadow, strict=True))


@pytest.mark.parametrize(("one", "all_", "best"), [(1.0, 0.6, 2), (1.0, 1.2, 1), (1.0, 9.0, 1)])
def test_steps_get_the_number_of_threads_that_is_faster(
    one: float, all_: float, best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = [2]
    monkeypatch.setattr(loop.torch, "get_num_threads", lambda: threads[0])
    monkeypatch.setattr(loop.torch, "set_num_threads", lambda n: threads.__setitem__(0, n))
    clock = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    chosen = Threads(0)
    used: list[int] = []

    def step() -> None:
        used.append(threads[0])
        clock[0] += one if threads[0] == 1 else all_

    for _ in range(2 * Threads.SHORTEST):
        chosen.timed(step)
    assert used[:4] == [1, 1, 1, 2]
    assert set(used[2 * Threads.TRIAL : Threads.SHORTEST - 2]) == {best}
    # A trial that cost much ended with its first step; one that won is repeated sooner than one that lost.
    assert used[: 2 * Threads.TRIAL].count(2) == (1 if all_ > 1.5 else Threads.TRIAL)
    assert (used[Threads.SHORTEST :].count(2) > 0) == (best == 2)


def test_a_fixed_number_of_threads_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(loop.torch, "set_num_threads", calls.append)
    chosen, numbers = Threads(3), count()
    assert [chosen.timed(lambda: next(numbers)) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert calls == [3]
