"""What a causal verdict rests on: sign flips, their tail, intervals, power, and pictures of one prompt."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom

from gazetteer.data.tables.schemas import CAUSAL_MEASURES
from gazetteer.labeling.interventions.causal_power import images_needed, power_of
from gazetteer.labeling.interventions.causal_table import (
    causal_table,
    judged,
    paired_interval,
    reached,
    sign_flip_p,
    summarise,
)
from tests.labeling.interventions.test_causal import effects, labels


def test_statistics_by_hand() -> None:
    one_sided = np.array([[1.0, 1, 1, 1, 1, 1], [1, -1, 1, -1, 1, -1], [0, 0, 0, 0, 0, 0], [0, 0, 0, 2, 0, 0]])
    p = sign_flip_p(one_sided)
    assert p[0] == pytest.approx(2 / 64, abs=0.005)
    assert p[1] == 1.0 and p[2] == 1.0 and p[3] == 1.0
    mean, low, high = paired_interval(one_sided)
    assert (mean[0], low[0], high[0]) == (1.0, 1.0, 1.0) and low[1] < 0 < high[1]
    # 99 pairs without label do not dilute the one that has it.
    area, p = np.ones(100), np.r_[0.04, np.ones(99)]
    assert judged(area, p, np.arange(100) == 0)[1][0] == "confirmed"
    assert judged(area, p, np.arange(100) < 0)[1][0] == "none"


def test_as_many_pictures_as_the_power_needs() -> None:
    # 9 differences of one sign give p = 2/512; of n pictures 30 % rise: P(Binom(n, .3) >= 9) >= .9 first at 41.
    assert images_needed(0.9, 0.3) == 41 and images_needed(0.9, 1.0) == 9
    rng = np.random.default_rng(1)
    quiet, loud = rng.normal(0, 0.001, 41), rng.normal(0, 0.2, 41)
    assert power_of(quiet, 0.05, 0.3) >= 0.85 > 0.3 > power_of(loud, 0.05, 0.3)
    assert power_of(quiet[:8], 0.05, 0.3) == 0.0 and power_of(np.zeros(0), 0.05, 0.3) == 0.0
    table = causal_table(effects([0.1] * 41, list(0.1 + quiet), [0.1] * 41), labels("dog"), ("dog",), 0.8)
    assert table["causal_verdict"].to_pylist() == ["no effect"]  # enough pictures: a rise would have been seen


def test_p_has_no_floor_and_is_never_below_what_all_sign_changes_say() -> None:
    p = sign_flip_p(np.ones((1, 40)))
    assert 2 / 2**40 * 0.999 <= p[0] < 1e-10  # 10,000 flips alone would say 1e-4
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 16)).reshape(16, -1)
    values = np.random.default_rng(0).normal(1.2, 0.5, (20, 16))
    exact = (np.abs(values @ signs) >= np.abs(values.sum(axis=1))[:, None] - 1e-9).mean(axis=1)
    told = sign_flip_p(values)
    bounded = told < 1 / 10_001
    assert bounded.sum() > 5 and (told[bounded] >= exact[bounded] * 0.999).all() and (told < 1e-3).all()


def test_pictures_of_one_prompt_are_one_difference() -> None:
    """Twelve pictures of three prompts that all rise: three signs, of which a quarter of the changes come as far."""
    on, plain = list(np.linspace(0.5, 0.6, 12)), [0.2] * 12
    prompts = {f"i{i}": f"prompt {i % 3}" for i in range(12)}
    apart, together = (
        causal_table(effects(on, [0.1] * 12, plain), labels("dog"), ("dog",), prompts=told).to_pylist()[0]
        for told in (None, prompts)
    )
    assert apart["causal_p_value"] == pytest.approx(2 / 2**12, rel=0.6)
    assert together["causal_p_value"] == pytest.approx(2 / 2**3, rel=0.05)
    assert together["causal_area"] == pytest.approx(apart["causal_area"]) and together["causal_images"] == 12
    assert (apart["causal_verdict"], together["causal_verdict"]) == ("confirmed", "undecided")


def test_one_prompt_has_no_interval() -> None:
    rows, prompts = effects([0.5, 0.4], [0.1, 0.3], [0.3, 0.2]), {"i0": "a dog", "i1": "a dog"}
    for told, some in ((prompts, False), (None, True)):
        (row,) = causal_table(rows, labels("dog"), ("dog",), prompts=told).to_pylist()
        assert row["causal_area"] == pytest.approx(0.25)
        ends = [value is not None for name, value in row.items() if name.endswith(("_low", "_high"))]
        assert ends == [some] * 2 * len(CAUSAL_MEASURES)


def test_rising_labels_and_other_pairs_are_cut_at_the_same_p() -> None:
    """One label and 400 other pairs rise in ten of ten pictures, p = 2/1024: beside so many q is above 0.05."""
    rng = np.random.default_rng(0)
    concepts = tuple(f"c{n:03d}" for n in range(401))
    rows = effects([0.5] * 10, [0.1] * 10, [0.2] * 10).to_pylist()
    for row in rows:
        row["concept"] = list(concepts[:2])
        row["area"] = [0.5 if row["state"] == "on" else 0.1] * 2
        if row["state"] == "on":  # the rest goes up and down
            row["concept"], row["area"] = list(concepts), [0.5, 0.5, *rng.choice([0.01, 0.0], 399).tolist()]
        if row["state"] == "random":
            row["concept"], row["area"] = list(concepts), [0.1, 0.1, *rng.choice([0.01, 0.0], 399).tolist()]
    table = causal_table(pa.Table.from_pylist(rows, schema=effects([], [], []).schema), labels("c000"), concepts)
    summary = summarise(table)
    assert summary["labels_rising"] == 1.0 and summary["confirmed"] == 1
    assert summary["other_pairs_rising"] >= 1 / 400 and summary["effect_without_label"] == 0


def test_no_effect_needs_the_power_at_the_p_that_a_label_needs_beside_the_others() -> None:
    p, labelled = np.r_[0.0004, np.full(49, 0.5), 1e-9], np.arange(51) < 50
    assert reached(p, labelled) == pytest.approx(0.05 / 50)  # one is sure
    assert reached(np.ones(10), np.arange(10) < 10) == pytest.approx(0.005)  # none: as the first would need
    assert reached(np.full(10, 0.001), np.arange(10) < 5) == pytest.approx(0.05)
    quiet = np.random.default_rng(1).normal(0, 0.001, 41)
    at = [power_of(quiet, 0.05, 0.3, alpha) for alpha in (0.005, 0.001, 0.0001)]
    least = [np.ceil(np.log2(2 / alpha)) for alpha in (0.005, 0.001, 0.0001)]
    assert at == pytest.approx([binom.sf(k - 1, 41, 0.3) for k in least], abs=0.15)
