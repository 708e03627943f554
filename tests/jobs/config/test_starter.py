"""A first configuration for one's own model loads as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.diffusion.config.generation import check_moments
from gazetteer.jobs.config import starter
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


@pytest.mark.parametrize(
    ("steps", "t"),
    [(1, (1.0,)), (2, (1.0, 0.0)), (3, (1.0, 0.5, 0.0)), (4, (1.0, 0.33, 0.0)), (6, (1.0, 0.4, 0.0)),
     (9, (1.0, 0.5, 0.0)), (50, (1.0, 0.5, 0.0))],
)  # fmt: skip
def test_every_t_that_is_written_is_a_step(
    tmp_path: Path, steps: int, t: tuple[float, ...], caplog: pytest.LogCaptureFixture
) -> None:
    write_starter(Starter(MODEL, ["dog", "tree"], steps=steps), UNET, tmp_path / "mine.yaml")
    generation = load_config(tmp_path / "mine.yaml").generation
    check_moments(generation)
    assert generation.t == t and not caplog.records


def test_prompts_are_written_where_none_are_named(tmp_path: Path) -> None:
    start = Starter(MODEL, ["dog", "hot dog", "tree"], device="cuda")
    files = write_starter(start, UNET, tmp_path / "new" / "mine.yaml")
    assert [file.name for file in files] == ["mine.yaml", "mine-prompts.txt"]
    lines = files[1].read_text().splitlines()
    assert lines[2:4] == ["a photo of tree", "a close-up photo of dog"] and len(lines) == len(set(lines)) == 3 * 12 + 3
    assert lines[-3] == "a photo of dog and hot dog"
    config = load_config(files[0])
    assert config.vocabulary.concepts == ("dog", "hot dog", "tree") and list(config.generation.blocks) == UNET[1:]
    assert config.sae is not None and (config.prompts.side, config.sae.prompts.side) == ("dictionary", "sae")
    assert (config.model.device, config.detector.exact, config.sae.device) == ("cuda", False, "cuda")
    with pytest.raises(InputError, match=r"mine.yaml is there already"):
        write_starter(start, UNET, files[0])


def test_kinds_of_labels_are_there_to_be_taken(tmp_path: Path) -> None:
    write_starter(Starter(MODEL, ["dog", "tree"]), UNET, tmp_path / "mine.yaml")
    text = (tmp_path / "mine.yaml").read_text()
    assert load_config(tmp_path / "mine.yaml").labels.styles == ()
    (tmp_path / "mine.yaml").write_text(text.replace("# labels:", "labels:"))
    labels = load_config(tmp_path / "mine.yaml").labels
    assert labels.stuff == ("sky", "grass")
    prompts = (tmp_path / "mine-prompts.txt").read_text()
    assert labels.styles and all(style in prompts for style in labels.styles)


def test_guidance_is_written_as_it_was_asked_for(tmp_path: Path) -> None:
    write_starter(Starter(MODEL, ["dog", "tree"], guidance=3.1415927), UNET, tmp_path / "mine.yaml")
    assert load_config(tmp_path / "mine.yaml").generation.guidance == 3.1415927


@pytest.mark.parametrize("concept", ["dog", "Cat", "fire hydrant", "犬"])
def test_one_concept_has_prompts_on_both_sides(tmp_path: Path, concept: str) -> None:
    write_starter(Starter(MODEL, [concept]), UNET, tmp_path / "mine.yaml")
    config = load_config(tmp_path / "mine.yaml")
    assert config.sae is not None
    sides = set(read_prompts(config.prompts)), set(read_prompts(config.sae.prompts))
    assert all(sides) and not sides[0] & sides[1] and len(sides[0] | sides[1]) == 12
    assert f"concepts: [{concept.lower()}]" in (tmp_path / "mine.yaml").read_text()


def test_prompts_of_one_side_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "TEMPLATES", ("a photo of {}",))
    with pytest.raises(InputError, match=r"The 1 prompts .* fall on one side.*name more --concepts"):
        write_starter(Starter(MODEL, ["dog"]), UNET, tmp_path / "mine.yaml")
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_concepts_needs_prompts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name the prompts too"):
        write_starter(Starter(MODEL, ["coco"]), UNET, tmp_path / "mine.yaml")
    captions = tmp_path / "captions.txt"
    captions.write_text("a dog\n")
    write_starter(Starter(MODEL, ["coco"], prompts=str(captions)), UNET, tmp_path / "mine.yaml")
    config = load_config(tmp_path / "mine.yaml")
    assert (config.vocabulary.path, config.prompts.path) == ("coco", str(captions))


def test_a_list_known_by_name_is_no_folder_that_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "captions.txt").write_text("a dog\n")
    monkeypatch.chdir(tmp_path)
    write_starter(Starter(MODEL, ["coco"], prompts="captions.txt"), UNET, "mine.yaml")
    assert load_config("mine.yaml").vocabulary.path == "coco"


def test_what_no_configuration_may_have_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one concept twice"):
        write_starter(Starter(MODEL, ["hot dog", "hot-dog"]), UNET, tmp_path / "mine.yaml")
    with pytest.raises(InputError, match="--concepts names one concept twice: 'Dogs' and 'dogs'"):
        write_starter(Starter(MODEL, ["Dogs", "dogs"]), UNET, tmp_path / "mine.yaml")
    assert list(tmp_path.iterdir()) == []


def test_the_command_finds_the_blocks(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    done = in_process("init", MODEL, "--concepts", "Dog,tree", "sky", "--out", str(file))
    assert done.returncode == 0, done.stderr
    assert f"gazetteer label runs/mine --config {file}" in done.stdout
    assert load_config(file).vocabulary.concepts == ("dog", "tree", "sky")
    assert "gazetteer sae train" in done.stdout


def test_trained_autoencoders_are_not_trained_again(tmp_path: Path) -> None:
    saes = ROOT / "data" / "scenes" / "models" / "saes"
    done = in_process("init", MODEL, "--concepts", "dog", "--saes", str(saes), "--out", str(tmp_path / "mine.yaml"))
    assert done.returncode == 0, done.stderr
    assert "sae train" not in done.stdout and "gazetteer plan" in done.stdout


@pytest.mark.parametrize("saes", ["saes", "./saes", "work/mine", "org/autoencoders"])
def test_autoencoders_to_come_need_a_place_that_training_fills(tmp_path: Path, saes: str) -> None:
    done = in_process("init", MODEL, "--concepts", "dog", "--saes", saes, "--out", str(tmp_path / "mine.yaml"))
    assert done.returncode == 2 and "work/saes" in done.stderr
    assert list(tmp_path.iterdir()) == []
