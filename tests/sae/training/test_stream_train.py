"""All sites from one stream: it learns, it keeps nothing but its state, and a killed run ends in the same bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.model.checkpoint import load_pretrained
from gazetteer.sae.training import stream_train
from gazetteer.sae.training.config import TrainConfig
from gazetteer.sae.training.stream_train import StreamPlan, StreamTrainer, finished_stream
from tests.sae.training.test_train import Stop, synthetic, weights
from tests.support.system.running import kill_at

MID, UP = Site("mid_block.attentions.0", "cond", 0.5), Site("up_blocks.1.attentions.0", "cond", 0.5)
CELLS = {MID: 16, UP: 64}  # the coarser grid makes a quarter of the steps
PICTURES = 60
CONFIG = TrainConfig(k=3, n=48, lr=3e-3, batch_size=64, checkpoint_every=5, dead_after=512, k_aux=8, log_every=7)
PLANS = {site: StreamPlan(site, PICTURES, "sixty", CONFIG, 256) for site in CELLS}
PLAN = PLANS[UP]


def pictures(site: Site, start: int = 0, count: int = PICTURES, seed: int = 0) -> Iterator[Tensor]:
    """Pictures of float16 vectors, each site with directions of its own."""
    cells = CELLS[site]
    table = synthetic(count * cells, seed=seed + cells)[0].half()
    for number in range(start, count):
        yield table[number * cells :][:cells]


def run(out: Path, plan: StreamPlan = PLAN, after: Callable[[int], None] = lambda _: None) -> StreamTrainer:
    """The whole run of a site, or what is left of it; `after` hears the number of pictures taken in."""
    trainer = StreamTrainer(plan, out)
    for picture in pictures(plan.site, trainer.pictures):
        if trainer.wanted is not None and trainer.pictures >= trainer.wanted:
            break
        trainer.add(picture)
        after(trainer.pictures)
    trainer.drain()
    for picture in pictures(plan.site, count=4, seed=0):
        trainer.measure(picture)
    trainer.publish({"model_digest": "abc"})
    return trainer


def stopping(at: int) -> Callable[[int], None]:
    def after(done: int) -> None:
        if done == at:
            raise Stop

    return after


@pytest.mark.parametrize(("site", "steps"), [(MID, 15), (UP, 60)])
def test_a_site_learns_as_many_steps_as_its_vectors_give(tmp_path: Path, site: Site, steps: int):
    run(tmp_path, PLANS[site])
    result = finished_stream(PLANS[site], tmp_path)
    assert result is not None
    assert result.steps == steps
    assert result.history[-1]["loss"] < 0.9 * result.history[0]["loss"]
    assert result.metrics is not None
    assert result.metrics.vectors == 4 * CELLS[site]
    config = load_pretrained(tmp_path / site.slug)[1]
    assert config["model_digest"] == "abc"
    held = torch.cat([picture.float() for picture in pictures(site, count=4)])
    torch.testing.assert_close(torch.tensor(config["mean"]), held.mean(0), atol=1e-4, rtol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == [site.slug], "nothing of the state is left"


@pytest.mark.parametrize("stop_at", [1, 9, 33, 60])
def test_a_stopped_stream_resumes_to_the_same_bytes(tmp_path: Path, stop_at: int):
    run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "stopped", after=stopping(stop_at))
    run(tmp_path / "stopped", replace(PLAN, config=replace(CONFIG, checkpoint_every=3)))
    assert weights(tmp_path / "stopped" / UP.slug) == weights(tmp_path / "whole" / UP.slug)
    whole, stopped = (finished_stream(PLAN, tmp_path / name) for name in ("whole", "stopped"))
    assert whole is not None and stopped is not None
    assert stopped.history == whole.history


KILLED = """
import sys
from pathlib import Path
import torch
from tests.sae.training.test_stream_train import run
torch.set_num_threads(1)
def report(done):
    print(done, flush=True)
    sys.stdin.readline()
run(Path(sys.argv[1]), after=report)
"""


def test_kill_9_at_a_random_picture_then_resume_gives_the_same_bytes(tmp_path: Path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(tmp_path / "whole")
        stop_at = random.randint(15, 59)
        kill_at(str(stop_at), KILLED, str(tmp_path / "killed"))
        assert finished_stream(PLAN, tmp_path / "killed") is None
        assert run(tmp_path / "killed").pictures == PICTURES
        assert weights(tmp_path / "killed" / UP.slug) == weights(tmp_path / "whole" / UP.slug), stop_at
    finally:
        torch.set_num_threads(threads)


def test_the_state_is_kept_by_time_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream_train, "SAVE_SECONDS", -1.0)
    rare = replace(PLAN, config=replace(CONFIG, checkpoint_every=10_000))
    with pytest.raises(Stop):
        run(tmp_path, rare, stopping(2))
    assert StreamTrainer(rare, tmp_path).pictures == 2


def test_steps_that_are_given_end_the_stream_early(tmp_path: Path):
    plan = replace(PLANS[MID], config=replace(CONFIG, steps=5))
    trainer = run(tmp_path, plan)
    # A buffer of 256 vectors filled, and four more batches of 64 in: 512 vectors of 16 a picture.
    assert trainer.wanted == trainer.pictures == 32
    result = finished_stream(plan, tmp_path)
    assert result is not None and result.steps == 5


def test_what_cannot_be_streamed_is_said(tmp_path: Path):
    with pytest.raises(InputError, match="buffer of 32 vectors cannot give batches of 64"):
        replace(PLAN, capacity=32)
    with pytest.raises(InputError, match=r"raise sae.images instead of sae.train.epochs"):
        replace(PLAN, config=replace(CONFIG, epochs=2))
    with pytest.raises(InputError, match=r"sae.train.steps=16 at mid.* need 64 pictures, but the stream has 60"):
        run(tmp_path, replace(PLANS[MID], config=replace(CONFIG, steps=16)))
    trainer = StreamTrainer(PLAN, tmp_path)
    trainer.add(next(pictures(UP)))
    with pytest.raises(InputError, match=f"{UP.slug} has 63 vectors; the first had 64"):
        trainer.add(torch.zeros(63, 16).half())
    (tmp_path / "_stream").mkdir(exist_ok=True)
    (tmp_path / "_stream" / "state.json").write_text("{}")
    with pytest.raises(InputError, match="a training by an earlier version; delete it to start over"):
        StreamTrainer(PLAN, tmp_path)


def test_bad_vectors_stop_the_stream_with_the_site(tmp_path: Path):
    trainer, bad = StreamTrainer(PLAN, tmp_path), torch.full((64, 16), float("nan")).half()
    trainer.add(next(pictures(UP)))
    with pytest.raises(
        InputError, match=f"Training the SAE at {UP.slug} stopped: the activations of picture 2 hold NaN"
    ):
        trainer.add(bad)


def test_another_plan_or_a_damaged_state_is_refused(tmp_path: Path):
    with pytest.raises(Stop):
        run(tmp_path, after=stopping(30))
    with pytest.raises(InputError, match=r"config.lr \(0.003 there, 0.1 now\)"):
        StreamTrainer(replace(PLAN, config=replace(CONFIG, lr=0.1)), tmp_path)
    with pytest.raises(InputError, match=r"differing: data.digest"):
        StreamTrainer(replace(PLAN, capacity=300), tmp_path)
    for path in (tmp_path / "_stream").rglob("buffer"):
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match=f"{UP.slug} is damaged; delete it to start over"):
        StreamTrainer(PLAN, tmp_path)
    run(tmp_path / "done")
    with pytest.raises(InputError, match="belongs to another training run"):
        finished_stream(replace(PLAN, digest="others"), tmp_path / "done")


@pytest.mark.parametrize("said", ["[]", "3", "null", "{}", "[" * 100_000, '{"plan": 3}', '{"plan": {"config": 3}}'])
def test_a_state_of_another_shape_is_said(tmp_path: Path, said: str):
    folder = tmp_path / "_stream" / UP.slug
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(said)
    with pytest.raises(
        InputError, match=r"is damaged; delete it to start over|does not say any more how it was trained"
    ):
        StreamTrainer(PLAN, tmp_path)
