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
    ],
)
def test_plan_refuses_what_label_refuses(tmp_path: Path, settings: list[str]) -> None:
    config = load_config(None, [*SMALL, *settings])
    with pytest.raises(InputError) as refused:
        label(config, tmp_path / "run")
    with pytest.raises(InputError) as planned:
        plan(config, Rates())
    assert str(planned.value) == str(refused.value)


def test_prompts_that_are_not_here_yet_are_assumed() -> None:
    priced = plan(load_config(None, [*SMALL, "prompts.path=nowhere.txt"]), Rates())
    assert any("nowhere.txt is not on this machine" in sentence for sentence in priced["assumed"])
