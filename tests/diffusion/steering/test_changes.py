"""Taking away keeps to its region, and a place smaller than a cell is still a place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gazetteer.data.inputs.edits import UNITS, Edit, Target
from gazetteer.data.inputs.regions import QUADRANTS, Region
from tests.diffusion.test_steer import ALWAYS, MID, SITE, TARGET, VECTOR, Halves, inside, pipe, saes

__all__ = ["pipe", "saes"]

TOP, BELOW = Region(box=QUADRANTS["top left"]), Region(box=QUADRANTS["bottom right"])


ALIKE = Target(MID, t=0.5, features=(3, 9))


def fires(made: Halves, saes, shares: tuple[float, float] = (1.0, 1.0)) -> torch.Tensor:
    """Σ Z·f of the target's features in every cell, in these shares, [2, 16, 32]."""
    codes = saes[SITE].encode(made.update[2:].flatten(0, 1))
    dense = torch.zeros(32, 64).scatter_add_(1, codes.indices, codes.values)
    return (dense[:, [3, 9]] * torch.tensor(shares) @ saes[SITE].decoder[[3, 9]]).unflatten(0, (2, 16))


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_taken_away_in_a_region_stays_elsewhere(pipe, saes, unit: str) -> None:
    made = Halves(pipe, [Edit(targets=(TARGET,), strength=-1.0, unit=unit, region=TOP, window=ALWAYS)], saes)
    whole = Halves(pipe, [Edit(targets=(TARGET,), strength=-1.0, unit=unit, window=ALWAYS)], saes)
    there = inside("top left")
    assert made.cond[:, there].any() and fires(made, saes)[:, ~there].any(), "else this tests nothing"
    torch.testing.assert_close(made.cond[:, there], whole.cond[:, there])
    assert torch.equal(made.cond[:, ~there], torch.zeros(2, 12, 32))
    if unit == "code":
        torch.testing.assert_close(made.cond[:, there], -fires(made, saes)[:, there], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("region", [Region(box=QUADRANTS["bottom right"]), Region()], ids=["placed", "everywhere"])
def test_taking_a_feature_away_does_not_place_it(pipe, saes, region: Region) -> None:
    """What another edit removes outside of its own region goes there too, and what is switched off goes once."""
    placed = Edit(targets=(ALIKE,), unit="absolute", region=TOP, window=ALWAYS)
    alone, there = Halves(pipe, [placed], saes), inside("bottom right")
    gone = -fires(alone, saes)[:, there]
    assert gone.any(), "else this tests nothing"
    torch.testing.assert_close(alone.cond[:, there], gone, rtol=1e-4, atol=1e-5)
    summed = saes[SITE].decoder[3] + saes[SITE].decoder[9]
    for unit, strength, more in (("absolute", -0.1, -0.1 * summed), ("code", -1.0, 0.0), ("code", -0.25, 0.0)):
        taken = Edit(targets=(ALIKE,), strength=strength, unit=unit, region=region, window=ALWAYS)
        for edits in ([placed, taken], [taken, placed]):
            made = Halves(pipe, edits, saes).cond[:, there]
            torch.testing.assert_close(made, gone + more, rtol=1e-4, atol=1e-5)


def test_what_is_placed_by_weight_is_taken_away_by_weight(pipe, saes) -> None:
    """Of features 3 and 9 with scales 0.5 and 2, a quarter and all go; what another edit switched off counts."""
    placed = Edit(targets=(TARGET,), region=TOP, window=ALWAYS)
    there = inside("bottom right")
    alone = Halves(pipe, [placed], saes)
    torch.testing.assert_close(alone.cond[:, there], -fires(alone, saes, (0.25, 1.0))[:, there], rtol=1e-4, atol=1e-5)
    for strength, shares in ((-0.25, (0.25, 1.0)), (-0.5, (0.5, 1.0)), (-1.0, (1.0, 1.0))):
        taken = Edit(targets=(ALIKE,), strength=strength, unit="code", region=Region(), window=ALWAYS)
        for edits in ([placed, taken], [taken, placed]):
            made = Halves(pipe, edits, saes).cond[:, there]
            torch.testing.assert_close(made, -fires(alone, saes, shares)[:, there], rtol=1e-4, atol=1e-5)
    twice = Halves(pipe, [placed, Edit(targets=(ALIKE,), region=TOP, window=ALWAYS)], saes)
    torch.testing.assert_close(twice.cond[:, there], -fires(alone, saes)[:, there], rtol=1e-4, atol=1e-5)
    # Where another edit places as much of one of them, the rest of the other goes.
    other = Edit(targets=(Target(MID, t=0.5, features=(3, 9), scales=(4.0, 1.0)),), region=BELOW, window=ALWAYS)
    both, own = (Halves(pipe, edits, saes).cond[:, there] for edits in ([placed, other], [other]))
    torch.testing.assert_close(both, own - fires(alone, saes, (0.0, 0.75))[:, there], rtol=1e-4, atol=1e-5)
    for unit in ("absolute", "feature_p99", "code"):  # whose scales are lengths or percentiles, or nothing
        made = Halves(pipe, [Edit(targets=(TARGET,), unit=unit, region=TOP, window=ALWAYS)], saes).cond[:, there]
        torch.testing.assert_close(made, -fires(alone, saes)[:, there], rtol=1e-4, atol=1e-5)


def dots() -> np.ndarray:
    """bool [64, 64] with the middle of its mass in the second cell of the third row of 4 x 4."""
    mask = np.zeros((64, 64), bool)
    mask[40, 20], mask[41, 22:25] = True, True
    return mask


@pytest.mark.parametrize("outside", ["remove", "keep"])
@pytest.mark.parametrize("unit", UNITS)
def test_a_place_smaller_than_a_cell_is_the_nearest_cell(pipe, saes, unit: str, outside: str) -> None:
    cell = Region(box=(0.25, 0.5, 0.5, 0.75))
    whole = Halves(pipe, [Edit(targets=(TARGET,), unit=unit, region=cell, outside=outside, window=ALWAYS)], saes)
    assert unit == "code" or whole.cond[:, 9].any()
    for small in (Region(box=(0.26, 0.51, 0.3, 0.55)), Region.of_mask(dots())):
        made = Halves(pipe, [Edit(targets=(TARGET,), unit=unit, region=small, outside=outside, window=ALWAYS)], saes)
        assert torch.equal(made.cond, whole.cond)


def test_a_direction_without_an_autoencoder_is_placed_and_taken_alike(pipe) -> None:
    small = Region(box=(0.26, 0.51, 0.3, 0.55))
    for target in (VECTOR, Target(MID, vector=tuple(-v for v in VECTOR.vector))):
        made = Halves(pipe, [Edit(targets=(target,), strength=-1.0, region=small, window=ALWAYS)])
        assert made.cond.any(dim=2)[0].nonzero().flatten().tolist() == [9]
