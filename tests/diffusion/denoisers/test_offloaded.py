"""Networks that offloading keeps elsewhere are edited, noised and replaced as they are without it.

An accelerator is not needed: with the CPU as the device, weights lie on `meta` (sequential) while a layer rests. By
model nothing moves there, so that what is to be moved is told by a pipeline that says it works elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch

from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import Edit, Target
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.registry import device_of
from gazetteer.diffusion.edit_sampler import EditSampler, Start
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.noise_error import noise_errors
from gazetteer.diffusion.noised import encoded, noised_pictures
from gazetteer.diffusion.steer import steer
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_site_saes
from tests.support.models.dits import tiny_dit

SITE = Site("transformer_blocks.0", "cond", 0.5)
CONFIG = GenerationConfig(
    steps=4, guidance=3.0, height=32, width=64, blocks=(SITE.block,), branches=(SITE.branch,), t=(SITE.t,)
)
OFFLOADS = {"sequential": accelerate.cpu_offload, "model": accelerate.cpu_offload_with_hook}
START = Start("a red house", 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    saes = tmp_path_factory.mktemp("saes")
    SparseAutoencoder(SAEConfig(16, 48, 4)).initialise(0).save_pretrained(saes / SITE.slug, {"site": SITE})
    return saes


def done(pipe: Any, folder: Path) -> dict[str, np.ndarray]:
    """What is asked of a pipeline beside listening to it."""
    made, saes = Generator(pipe, CONFIG), load_site_saes(folder, {SITE})
    edit = Edit(targets=(Target(**SITE.columns(), features=(1, 2)),))
    sampler = EditSampler(made, saes)
    with steer(pipe, [edit], folder):
        steered = made.sample([START.prompt], [START.seed], lambda *_: None)
    picture = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    (given,) = noised_pictures(made, [picture], [START.prompt], [5], saes)
    errors = noise_errors(made, START.prompt, START.seed, saes, {})[SITE]
    return {
        "unedited": sampler.unedited([START])[0], "edited": sampler.edited([START], [[edit]], "early")[0],
        "steered": np.asarray(steered), "given": given.codes[SITE].value,
        "errors": np.array([errors.plain, errors.sae]),
    }  # fmt: skip


@pytest.mark.parametrize("how", sorted(OFFLOADS))
def test_what_is_offloaded_gives_the_same(how: str, folder: Path) -> None:
    plain, pipe = done(tiny_dit("sd3"), folder), tiny_dit("sd3")
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            OFFLOADS[how](part, execution_device=torch.device("cpu"))
    if how == "sequential":
        assert next(pipe.transformer.parameters()).device.type == "meta"
    assert device_of(pipe) == torch.device("cpu")
    for name, expected in done(pipe, folder).items():
        np.testing.assert_array_equal(expected, plain[name], err_msg=name)


def test_bfloat16_is_of_the_device_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise waits on the CPU; what is computed in less precision is what the pipeline's device computes."""
    pipe = tiny_dit("sd3")
    sampler = EditSampler(Generator(pipe, CONFIG), {}, dtype="bfloat16")
    monkeypatch.setattr(type(pipe), "_execution_device", torch.device("meta"))
    with pytest.raises(RuntimeError, match=r"unsupported autocast device_type 'meta'"):
        sampler.prepare([START])


def test_a_given_picture_goes_to_the_device_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """By model its autoencoder rests on the CPU until it is called."""
    made, heard = Generator(tiny_dit("sd3"), CONFIG), list[torch.device]()

    def encode(_: Any, __: Any, pixels: torch.Tensor) -> torch.Tensor:
        heard.append(pixels.device)
        return made.noise(0)

    monkeypatch.setattr(type(made.adapter), "encoded", encode)
    monkeypatch.setattr(type(made.pipe), "_execution_device", torch.device("meta"))
    encoded(made, np.zeros((32, 64, 3), np.uint8))
    assert heard == [torch.device("meta")]
