"""Autoencoders go out with their weights, in whatever format they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.jobs.publish.folder import publish_to_folder
from gazetteer.jobs.publish.saes import SaeBundle, sae_bundle
from tests.jobs.publish.test_again import Fixed

LAYOUTS = {
    "own": ("config.json", "model.safetensors"), "unbox": ("config.json", "state_dict.pth"),
    "learning": ("config.json", "ae.pt"), "lens": ("cfg.json", "sae_weights.safetensors"),
    "prisma": ("config.json", "n_images_9.pt"), "saev": (None, "sae.pt"), "overcomplete": (None, "any.pth"),
}  # fmt: skip
HEADS = {"saev": b'{"schema": 1}\n', "overcomplete": b"overcomplete.sae"}


def packed(root: Path) -> SaeBundle:
    made = {"saes": digest_path(str(root))}
    return sae_bundle(root, made, {"name": "x", "model.path": "m"}, license="", data="", where="FOLDER/saes")


def write(root: Path, layouts: list[str]) -> set[str]:
    for layout in layouts:
        stated, weights = LAYOUTS[layout]
        (root / layout).mkdir(parents=True)
        if stated:
            (root / layout / stated).write_text("{}")
        (root / layout / weights).write_bytes(HEADS.get(layout, b"x") + bytes(99))
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_weights_of_every_format_are_sent_and_every_site_is_listed(tmp_path: Path) -> None:
    names = write(tmp_path / "saes", list(LAYOUTS))
    (tmp_path / "saes" / "own" / "optimizer.pt").write_bytes(b"")
    (tmp_path / "saes" / "own" / ".cache").mkdir()
    (tmp_path / "saes" / "own" / ".cache" / "of-a-download.json").write_text("{}")
    bundle = packed(tmp_path / "saes")
    assert set(bundle.names) == {*names, "README.md"}
    publish_to_folder(Fixed(), tmp_path / "to", bundle)  # type: ignore[arg-type]
    assert all(
        (tmp_path / "to" / "saes" / name).read_bytes() == (tmp_path / "saes" / name).read_bytes() for name in names
    )
    card = bundle.read("README.md").decode()
    assert all(f"| `{site}` |" in card for site in LAYOUTS)


def test_a_configuration_alone_is_not_sent(tmp_path: Path) -> None:
    write(tmp_path, ["own", "lens"])
    (tmp_path / "config.json").write_text("{}")
    packed(tmp_path)
    (tmp_path / "lens" / "sae_weights.safetensors").rename(tmp_path / "lens" / "weights.npz")
    with pytest.raises(InputError, match="lens states an autoencoder, but holds no weights"):
        packed(tmp_path)


def test_a_folder_without_autoencoders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("to be trained")
    with pytest.raises(InputError, match="holds no autoencoder of a known format"):
        packed(tmp_path)


def test_other_autoencoders_and_a_persons_card_are_not_written_over(tmp_path: Path) -> None:
    write(tmp_path / "saes", ["own"])
    bundle, fixed, out = packed(tmp_path / "saes"), Fixed(), tmp_path / "to"
    others = out / "saes" / "own" / "model.safetensors"
    others.parent.mkdir(parents=True)
    others.write_bytes(b"another training's")
    with pytest.raises(InputError, match=r"saes holds something else \(own/model.safetensors\)"):
        publish_to_folder(fixed, out, bundle)  # type: ignore[arg-type]
    assert others.read_bytes() == b"another training's" and not (out / "_meta").exists(), "said before all else"
    others.unlink()
    publish_to_folder(fixed, out, bundle)  # type: ignore[arg-type]
    others.write_bytes(b"torn")
    (out / "saes" / "README.md").write_text("---\nlibrary_name: gazetteer\n---\n\n# Sparse autoencoders of x\n")
    assert publish_to_folder(fixed, out, bundle)["saes"]["written"] == 2, "damaged, and a card of before"  # type: ignore[arg-type]
    (out / "saes" / "README.md").write_text("my own")
    with pytest.raises(InputError, match=r"saes/README.md is not what gazetteer publish left there"):
        publish_to_folder(fixed, out, bundle)  # type: ignore[arg-type]


def test_autoencoders_that_a_mapping_named_are_sent_from_the_folder_that_they_lie_in(tmp_path: Path) -> None:
    root, names = tmp_path / "saes", write(tmp_path / "saes", ["own", "lens"])
    (tmp_path / "saes" / "none").mkdir()

    def sent(folder: Path, made: object) -> SaeBundle:
        return sae_bundle(folder, {"saes": made}, {"name": "x"}, license="", data="", where="FOLDER/saes")

    whole, own, lens = (digest_path(str(folder)) for folder in (root, root / "own", root / "lens"))
    assert set(sent(root, {"*": whole}).names) == {*names, "README.md"}
    assert set(sent(root, {"a": own, "b": lens}).names) == {*names, "README.md"}
    assert "config.json" in sent(root / "own", {"*": own}).names
    with pytest.raises(InputError, match=r"not hold the autoencoders that the run was labelled with \(several: a, b\)"):
        sent(root / "own", {"a": own, "b": lens})
    with pytest.raises(InputError, match=r"holds others than the run's, .*lens/sae_weights.safetensors among them"):
        sent(root, {"*": own})
