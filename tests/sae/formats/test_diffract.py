"""Time-conditioned autoencoders and transcoders of other widths: files written here, formulas written densely."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from safetensors.torch import save_file
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.model.checkpoint import expect_directions, load_pretrained, load_site_saes
from gazetteer.sae.model.export import export
from tests.sae.formats.test_topk_formats import D, N, X, near, numbers, write_lens, write_sparsify

WIDTH, OUT = 8, 9
SITE = Site("transformer_blocks.6", "cond", 0.5, signal="output")


class Temporal(nn.Module):
    """What DifFRACT's paper says, densely (section 2.1, and its model card)."""

    def __init__(self, d_out: int = D) -> None:
        super().__init__()
        torch.manual_seed(5)
        layers = (nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU())
        self.time_mlp, self.mod_linear = nn.Sequential(*layers), nn.Linear(WIDTH, 2 * D)
        self.encoder, self.decoder = nn.Linear(D, N), nn.Linear(N, d_out)

    @torch.no_grad()
    def forward(self, x: Tensor, t: float) -> Tensor:
        angles = get_timestep_embedding(torch.tensor([t]), WIDTH)
        scale, shift = self.mod_linear(self.time_mlp(angles)).chunk(2, dim=-1)
        return self.decoder(self.encoder(x * (1 + scale) + shift).relu())


def write(path: Path, d_out: int = D) -> Temporal:
    path.parent.mkdir(parents=True, exist_ok=True)
    model = Temporal(d_out)
    torch.save(model.state_dict(), path)
    return model


@pytest.mark.parametrize("timestep", [0.0, 250.0, 731.4, 1000.0])
def test_it_is_another_autoencoder_at_each_timestep(tmp_path: Path, timestep: float) -> None:
    model = write(tmp_path / "sae.pt")
    sae, config = load_pretrained(tmp_path / "sae.pt")
    assert (config["layout"], config["time_dim"], config["k"]) == ("diffract", WIDTH, N)
    near(sae.at(timestep)(X), model(X, timestep / 1000))
    with pytest.raises(InputError, match="conditioned on the timestep, which labelling tells it"):
        sae.encode(X)
    assert sae.at(timestep).encoder.data_ptr() == sae.encoder.data_ptr(), "weights are shared"
    sae.save_pretrained(tmp_path / "ours")
    again = load_pretrained(tmp_path / "ours")[0].at(timestep)
    assert torch.equal(again(X), sae.at(timestep)(X))
    sae.at(timestep).save_pretrained(tmp_path / "fixed")
    assert torch.equal(load_pretrained(tmp_path / "fixed")[0](X), sae.at(timestep)(X))


def test_its_file_says_where_it_listens(tmp_path: Path) -> None:
    write(tmp_path / "sae_img_6.pt")
    write(tmp_path / "transcoder_txt_3.pt")
    read = {path.stem: load_pretrained(path)[1] for path in tmp_path.iterdir()}
    assert {name: (one["block"], one["signal"]) for name, one in read.items()} == {
        "sae_img_6": ("transformer_blocks.6.ff", "output"),
        "transcoder_txt_3": ("transformer_blocks.3.ff_context", "input"),
    }
    with pytest.raises(InputError, match=r"was trained at transformer_blocks\.6\.ff, not at transformer_blocks\.6"):
        load_site_saes({"*": str(tmp_path / "sae_img_6.pt")}, [SITE])
    write(tmp_path / "mine" / "mine.pt")
    sae = load_site_saes({"*": str(tmp_path / "mine")}, [SITE], signal="output")[SITE]
    with pytest.raises(InputError, match="can be labelled, not steered with"):
        expect_directions(sae, SITE)
    with pytest.raises(InputError, match="scales each channel before encoding, which neither layout has a word for"):
        export(tmp_path / "mine", tmp_path / "theirs", "sae-lens")


def test_a_transcoder_may_write_another_width(tmp_path: Path) -> None:
    model = write(tmp_path / "transcoder_img_0.pt", OUT)
    sae, config = load_pretrained(tmp_path / "transcoder_img_0.pt")
    assert (config["transcoder"], config["d"], config["d_out"]) == (True, D, OUT)
    now = sae.at(500.0)
    near(now.decode(now.encode(X)), model(X, 0.5))
    with pytest.raises(InputError, match="is a transcoder: its concept vectors belong to another place"):
        expect_directions(now, SITE)


@pytest.mark.parametrize("d_out", [D, OUT])
def test_a_transcoder_of_sae_lens(tmp_path: Path, d_out: int) -> None:
    write_lens(tmp_path / "sae", architecture="transcoder", d_out=d_out, k=None)
    w_enc, w_dec, b_enc, b_dec = (
        numbers(D, N, seed=1),
        numbers(N, d_out, seed=2),
        numbers(N, seed=3),
        numbers(d_out, seed=4),
    )
    save_file(
        {"W_enc": w_enc, "W_dec": w_dec, "b_enc": b_enc, "b_dec": b_dec}, tmp_path / "sae" / "sae_weights.safetensors"
    )
    sae, _ = load_pretrained(tmp_path / "sae")
    near(sae.decode(sae.encode(X)), (X @ w_enc + b_enc).relu() @ w_dec + b_dec)


def test_a_transcoder_of_sparsify_says_what_it_leaves_out(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "sae", transcode=True, skip_connection=True)
    sae, config = load_pretrained(tmp_path / "sae")
    assert "skip connection" in config["differs"]
    assert float(sae.bias.abs().max()) == 0
    assert sae.output_bias is not None and float(sae.output_bias.abs().max()) > 0


@pytest.mark.parametrize(
    "options", [{"d_out": 9}, {"output_bias": True}, {"transcoder": True, "d_out": 0}, {"time_dim": 3}]
)
def test_what_cannot_be_is_refused(options: dict[str, Any]) -> None:
    from gazetteer.sae.model.shape import SAEConfig

    with pytest.raises(InputError, match=r"Only a transcoder|must be at least 1"):
        SAEConfig(D, N, 3, **options)
