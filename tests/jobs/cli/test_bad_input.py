"""What a user gets wrong is answered by one sentence and the right exit code, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from gazetteer.data.core.sites import Site
from gazetteer.diffusion.blocks import blocks_of
from gazetteer.jobs.cli.parser import parser
from gazetteer.jobs.config.schema import load_config
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.system.running import SMALL, digests, gazetteer, in_process, label
from tests.support.system.small_disk import resize, small_disk

MID = "mid_block.attentions.0"
ONE_SITE = [f"generation.blocks=[{MID}]", "generation.branches=[cond]", "generation.t=[0.5]", "executor=serial"]


def one_sentence(done: subprocess.CompletedProcess[str], code: int, *fragments: str) -> None:
    assert done.returncode == code, done.stderr
    said = [line for line in done.stderr.strip().splitlines() if line.startswith("gazetteer:")]
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for fragment in fragments:
        assert fragment in said[0]


@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        (["imagez=3"], ["Unknown configuration key imagez", "images"]),
        (["images=many"], ["images must be a whole number", "'many'"]),
        (["images=0"], ["images must be at least 1"]),
        (["seed=-1"], ["seed must be at least 0"]),
        (["seed=9223372036854775808"], ["seed must be below 9223372036854775808"]),
        (["labels.seed=99999999999999999999"], ["labels.seed must be below 9223372036854775808"]),
        (["sae.train.seed=99999999999999999999"], ["sae.train.seed must be below 9223372036854775808"]),
        (["executor=spark"], ["'spark'", "serial, ray"]),
        (["heldout=.nan"], ["heldout"]),
        (["generation.t=[2.0]"], ["t must lie between"]),
        (["generation.t=[0.5, 0.0, 0.501]"], ["generation.t", "0.5 and 0.501", "t0.50"]),
        (["generation.t=[0.5, 0.5]"], ["generation.t", "0.5 and 0.5"]),
        (["generation.guidance=1.0"], ["uncond"]),
        (["vocabulary.concepts=[]"], ["nothing to look for"]),
        (["images"], ["key=value"]),
    ],
)
def test_wrong_settings(tmp_path: Path, settings: list[str], fragments: list[str]) -> None:
    one_sentence(in_process("label", "--out", str(tmp_path / "run"), "--set", *settings), 2, *fragments)
    assert not (tmp_path / "run").exists()


def refused(out: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    """`gazetteer label` with the small settings, in this process."""
    return in_process("label", "--out", str(out), "--set", *SMALL, *settings)


def test_what_a_process_says_and_how_it_exits(tmp_path: Path) -> None:
    one_sentence(gazetteer("label", "--out", str(tmp_path / "run"), "--set", "imagez=3"), 2, "imagez")


def test_missing_config(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.yaml")
    one_sentence(in_process("label", "--config", missing, "--out", str(tmp_path / "run")), 2, missing)


def test_missing_model_folder(tmp_path: Path) -> None:
    done = refused(tmp_path / "run", "executor=serial", f"model.path={tmp_path}/nowhere")
    one_sentence(done, 2, f"{tmp_path}/nowhere", "model_index.json")


@pytest.mark.parametrize("executor", ["serial", pytest.param("ray", marks=pytest.mark.alone)])
def test_unknown_block_names_those_there_are(tmp_path: Path, executor: str) -> None:
    settings = [*listening_at("mid_block.nothing", tmp_path / "saes"), f"executor={executor}"]
    one_sentence(label(tmp_path / "run", *settings), 2, "mid_block.nothing", MID)


@pytest.mark.parametrize(
    "block",
    ["", "down_blocks.0", "down_blocks.0.downsamplers.0", f"{MID}.transformer_blocks.0"],
    ids=["the whole U-Net", "a stage", "a downsampler", "a layer of a block"],
)
def test_a_module_that_writes_no_update_is_refused(tmp_path: Path, block: str) -> None:
    done = refused(tmp_path / "run", *listening_at(block, tmp_path / "saes"))
    one_sentence(done, 2, f"The module {block!r} does not add an update to its input", MID)


def listening_at(block: str, saes: Path) -> list[str]:
    """Settings of a run at one block, for which there is an autoencoder."""
    site = Site(block, "cond", 0.5)
    SparseAutoencoder(SAEConfig(8, 16, 4)).initialise(0).save_pretrained(saes / site.slug, {"site": site})
    return [*ONE_SITE, f"generation.blocks=[{block!r}]", f"saes={saes}"]


def test_empty_prompt_file(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n  \n")
    one_sentence(refused(tmp_path / "run", "executor=serial", f"prompts.path={prompts}"), 2, str(prompts), "no prompts")


def mid_width() -> int:
    """Channels of the embedded model's mid block."""
    return next(block.channels for block in blocks_of(load_config().model) if block.block == MID)


def test_an_sae_of_the_wrong_width(tmp_path: Path) -> None:
    site = Site(MID, "cond", 0.5)
    folder = tmp_path / "saes" / site.slug
    SparseAutoencoder(SAEConfig(64, 256, 10)).initialise(0).save_pretrained(folder, {"site": site}, torch.float16)
    done = refused(tmp_path / "run", *ONE_SITE, f"saes={tmp_path / 'saes'}")
    one_sentence(done, 2, "64 channels", f"{MID} has {mid_width()}")


def test_missing_saes_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "saes").mkdir()
    (tmp_path / "saes" / "notes.txt").write_text("to be trained")
    done = refused(tmp_path / "run", *ONE_SITE, "generation.t=[0.5, 0.0]", f"saes={tmp_path / 'saes'}")
    one_sentence(done, 2, f"{MID}-cond-t0.50", f"{MID}-cond-t0.00")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    site = Site(MID, "cond", 0.5)
    folder = tmp_path / "saes" / site.slug
    folder.mkdir(parents=True)
    torch.save({"encoder": torch.zeros(2)}, folder / "model.pt")
    (folder / "config.json").write_text(json.dumps({"d": mid_width(), "n": 512, "k": 10}))
    one_sentence(refused(tmp_path / "run", *ONE_SITE, f"saes={tmp_path / 'saes'}"), 2, "model.safetensors")


def test_out_of_memory_is_a_failure_that_names_the_batch_size_to_try(tmp_path: Path) -> None:
    """Pictures of 2**26 x 2**26 px, which no machine can hold."""
    huge = [f"generation.{side}={2**26}" for side in ("height", "width")]
    done = label(tmp_path / "run", *ONE_SITE, *huge, "batch_size=4", "generation.exact=false")
    one_sentence(done, 1, "Out of memory while sampling pictures (1 at once); try model.dtype=float16")


def test_verbs_on_something_that_is_no_run(tmp_path: Path) -> None:
    for verb in ("summary", "atlas", "quality"):
        one_sentence(in_process(verb, str(tmp_path)), 2, str(tmp_path), "run gazetteer label")


@pytest.mark.mount
def test_no_space_left_loses_nothing(tmp_path: Path) -> None:
    """A full disk ends the run with a sentence; with room again, the same command finishes it."""
    with small_disk(tmp_path / "disk", "700k") as disk:
        one_sentence(label(disk / "run", *ONE_SITE), 1, "space")
        kept = digests(disk / "run")
        resize(disk, "200m")
        done = label(disk / "run", *ONE_SITE)
        assert done.returncode == 0, done.stderr
        after = digests(disk / "run")
    assert {name: after.get(name) for name in kept} == kept, "what was committed before is still there, unchanged"
    fresh = label(tmp_path / "fresh", *ONE_SITE)
    assert fresh.returncode == 0, fresh.stderr
    assert after == digests(tmp_path / "fresh")


@pytest.mark.parametrize("words", [["here"], ["--out", "here"], ["here", "--out", "here"]])
def test_a_run_to_make_is_named_by_its_first_word_or_by_an_option(words: list[str]) -> None:
    assert parser().parse_args(["label", *words]).out == "here"


@pytest.mark.parametrize(
    ("words", "said"), [([], "needs a run"), (["a", "--out", "b"], "one run, not both a and b")]
)  # fmt: skip
def test_a_run_to_make_has_one_name(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser().parse_args(["label", *words])
    assert end.value.code == 2 and said in capsys.readouterr().err
