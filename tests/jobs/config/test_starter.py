"""A first configuration for one's own model loads as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.config.starter import Starter, chosen_blocks, write_starter
from tests.support.system.running import ROOT, in_process

MODEL = str(ROOT / "data" / "scenes" / "models" / "text_to_image")
UNET = [
    "down_blocks.0.attentions.0", "down_blocks.2.attentions.1", "mid_block.attentions.0", "up_blocks.1.attentions.0",
]  # fmt: skip


@pytest.mark.parametrize(
    ("blocks", "chosen"),
    [
        (UNET, UNET[1:]),
        ([f"transformer_blocks.{i}" for i in range(24)], [f"transformer_blocks.{i}" for i in (6, 12, 18)]),
        (["transformer_blocks.0"], ["transformer_blocks.0"]),
    ],
)
def test_blocks_to_begin_with(blocks: list[str], chosen: list[str]) -> None:
    assert chosen_blocks(blocks) == chosen


def test_prompts_are_written_where_none_are_named(tmp_path: Path) -> None:
    start = Starter(MODEL, ["dog", "hot dog", "tree"], device="cuda")
    files = write_starter(start, UNET, tmp_path / "new" / "mine.yaml")
    assert [file.name for file in files] == ["mine.yaml", "mine-prompts.txt"]
    assert files[1].read_text().splitlines()[2:4] == ["a photo of tree", "a photo of dog and hot dog"]
    config = load_config(files[0])
    assert config.vocabulary.concepts == ("dog", "hot dog", "tree") and list(config.generation.blocks) == UNET[1:]
    assert config.sae is not None and (config.prompts.side, config.sae.prompts.side) == ("dictionary", "sae")
    assert (config.model.device, config.detector.exact, config.sae.device) == ("cuda", False, "cuda")
    with pytest.raises(InputError, match=r"mine.yaml is there already"):
        write_starter(start, UNET, files[0])


def test_a_list_of_concepts_needs_prompts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name the prompts too"):
        write_starter(Starter(MODEL, ["coco"]), UNET, tmp_path / "mine.yaml")
    captions = tmp_path / "captions.txt"
    captions.write_text("a dog\n")
    write_starter(Starter(MODEL, ["coco"], prompts=str(captions)), UNET, tmp_path / "mine.yaml")
    config = load_config(tmp_path / "mine.yaml")
    assert (config.vocabulary.path, config.prompts.path) == ("coco", str(captions))


def test_what_no_configuration_may_have_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one concept twice"):
        write_starter(Starter(MODEL, ["hot dog", "hot-dog"]), UNET, tmp_path / "mine.yaml")
    assert list(tmp_path.iterdir()) == []


def test_the_command_finds_the_blocks(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    done = in_process("init", MODEL, "--concepts", "Dog,tree", "sky", "--out", str(file))
    assert done.returncode == 0, done.stderr
    assert f"gazetteer label runs/mine --config {file}" in done.stdout
    assert load_config(file).vocabulary.concepts == ("dog", "tree", "sky")
