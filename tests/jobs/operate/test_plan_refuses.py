"""What label refuses by the configuration alone, plan refuses by the same sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.label.job import label
from gazetteer.jobs.operate.plan import plan
from gazetteer.jobs.operate.rates import Rates
from tests.support.system.running import SMALL


@pytest.mark.parametrize(
    "settings",
    [
        ["vocabulary.concepts=[dog, dogs]"],
        [f"prompts.path={__file__}"],
        ["pictures.split=val"],
        ["generation.steps=3", "generation.t=[0.6, 0.5]"],
        ["generation.steps=1", "generation.t=[1.0, 0.0]"],
    ],
)
def test_plan_refuses_what_label_refuses(tmp_path: Path, settings: list[str]) -> None:
    config = load_config(None, [*SMALL, *settings])
    with pytest.raises(InputError) as refused:
        label(config, tmp_path / "run")
    with pytest.raises(InputError) as planned:
        plan(config, Rates())
    assert str(planned.value) == str(refused.value)


def test_a_t_that_is_no_step_is_said_once_and_every_plan_says_what_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    few = ["generation.blocks=[mid_block.attentions.0]", "generation.branches=[cond]", "sae.train.steps=null"]
    config = load_config(None, [*SMALL, *few, "saes=none", "generation.steps=3", "generation.t=[0.33, 0.0, 0.9]"])
    assert plan(config, Rates())["moments"] == {0.33: 0.5, 0.0: 0.0, 0.9: 1.0}
    (said,) = [record.getMessage() for record in caplog.records]
    assert "of 3 sampler steps 0.33 is heard at t = 0.50, and 0.9 is heard at t = 1.00" in said
    caplog.clear()
    exact = load_config(None, [*SMALL, *few, "saes=none", "generation.steps=4", "generation.t=[0.33, 0.67]"])
    assert plan(exact, Rates())["moments"] == {0.33: pytest.approx(1 / 3), 0.67: pytest.approx(2 / 3)}
    embedded = plan(load_config(None), Rates())
    assert embedded["moments"] == {1.0: 1.0, 0.5: pytest.approx(7 / 15), 0.0: 0.0} and not caplog.records


def test_prompts_that_are_not_here_yet_are_assumed() -> None:
    priced = plan(load_config(None, [*SMALL, "prompts.path=nowhere.txt"]), Rates())
    assert any("nowhere.txt is not on this machine" in sentence for sentence in priced["assumed"])
