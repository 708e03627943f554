"""A U-Net that is made deeper draws what it drew, trains in its new layers, and goes on from their averages."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.scenes.text_to_image.deepen import deepen, deepened
from benchmarks.scenes.text_to_image.model import build_scheduler, build_text_encoder, build_unet
from benchmarks.scenes.text_to_image.tokens import scenes_tokenizer
from benchmarks.scenes.text_to_image.train import noise_steps
from benchmarks.scenes.training.loop import spread


def test_a_deeper_network_draws_the_same_and_learns_in_every_new_layer() -> None:
    torch.manual_seed(0)
    shallow = build_unet(layers=1)
    with torch.no_grad():  # as drawn, some of its outputs are next to nothing
        for parameter in shallow.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    deep = deepened(shallow)
    inputs = torch.randn(2, 16, 16, 16), torch.tensor([30, 800]), torch.randn(2, 32, 128)
    output = deep(*inputs).sample
    torch.testing.assert_close(output, shallow(*inputs).sample, rtol=1e-4, atol=1e-4)
    output.square().mean().backward()
    fresh = [f"{block}.resnets.1.conv2" for block in ("down_blocks.0", "down_blocks.1", "up_blocks.0", "up_blocks.1")]
    fresh += ["down_blocks.0.attentions.1.proj_out", "up_blocks.1.attentions.1.proj_out"]
    for name in fresh:
        weight = deep.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor) and weight.grad is not None
        assert not weight.any() and weight.grad.any(), name


def test_averages_of_the_shallow_network_become_those_of_the_deep_one(tmp_path: Path) -> None:
    tokenizer = scenes_tokenizer(captions=50)
    torch.manual_seed(1)
    unet, encoder = build_unet(layers=1), build_text_encoder(tokenizer)
    parameters = [*unet.parameters(), *encoder.parameters()]
    said = {"step": "22000", "seconds": "23400.0", "about": '{"views": ["sky"]}'}
    path = tmp_path / "averages.safetensors"
    assert not deepen(path, build_unet(layers=1), encoder)  # nothing is there
    save_file({str(n): p.detach().half() for n, p in enumerate(parameters)}, path, said)
    assert deepen(path, build_unet(layers=1), build_text_encoder(tokenizer))
    wanted = [*deepened(unet).parameters(), *encoder.parameters()]
    with safe_open(path, "pt") as file:
        assert file.metadata() == said and len(file.keys()) == len(wanted)
        tensors = [file.get_tensor(str(number)) for number in range(len(wanted))]
    assert [tensor.shape for tensor in tensors] == [parameter.shape for parameter in wanted]
    named = dict(zip([name for name, _ in build_unet().named_parameters()], tensors, strict=False))
    old = dict(unet.named_parameters())
    torch.testing.assert_close(named["up_blocks.1.resnets.2.conv1.weight"].float(),
                               old["up_blocks.1.resnets.1.conv1.weight"], rtol=1e-3, atol=1e-4)  # fmt: skip
    torch.testing.assert_close(tensors[-1].float(), parameters[-1], rtol=1e-3, atol=1e-4)
    assert not deepen(path, build_unet(layers=1), encoder)  # nor is it done twice


def test_most_steps_are_drawn_where_shapes_are_made_and_none_is_left_out() -> None:
    signal = build_scheduler().alphas_cumprod
    torch.manual_seed(0)
    t = noise_steps(signal, spread(100_000))
    assert t.min() == 0 and t.max() == 999
    assert 0.55 < float(((t >= 550) & (t < 850)).float().mean()) < 0.7
    counts = torch.bincount(t, minlength=1000)
    assert counts[0] > 20 and counts[-1] > 20 and (counts > 0).all()
