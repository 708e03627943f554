"""The chain of trainings: what is done, what is done again, and the command lines of its programs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.scenes import chain
from benchmarks.scenes.autoencoder.evaluate import again
from benchmarks.scenes.options import views
from benchmarks.scenes.text_to_image.counts import counts_asked, counts_right
from gazetteer.data.scenes.render import render
from gazetteer.data.scenes.world import TRAIN_SEEDS, VIEWS
from gazetteer.data.storage.lock import hold
from gazetteer.labeling.detect.protocol import Detection

ROOT = Path(__file__).resolve().parents[3]


def setting(build: Path) -> chain.Setting:
    return chain.Setting(build, VIEWS, "cpu", 1, dict(chain.MINUTES))


def finished(build: Path, calls: list[list[str]]) -> list[str]:
    for folder in ("sae", "sae_dit"):
        (build / folder / "saes").mkdir(parents=True, exist_ok=True)
    return chain.run(setting(build), chain.STEPS, calls.append)


def test_steps_come_after_what_they_need() -> None:
    names = [step.name for step in chain.STEPS]
    assert len(set(names)) == len(names)
    for step in chain.STEPS:
        assert all(names.index(need) < names.index(step.name) for need in step.needs)
    assert set(chain.MINUTES) <= set(names)


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    calls: list[list[str]] = []
    assert finished(tmp_path, calls) == [step.name for step in chain.STEPS] and len(calls) == len(chain.STEPS)
    assert finished(tmp_path, calls) == [] and len(calls) == len(chain.STEPS)


def test_a_newer_part_makes_what_needs_it_start_anew(tmp_path: Path) -> None:
    finished(tmp_path, [])
    old = tmp_path / "text_to_image" / "checkpoint.pt"
    old.parent.mkdir()
    old.touch()
    averages = old.with_name("averages.safetensors")
    averages.touch()
    later = (tmp_path / "saes.done").stat().st_mtime_ns + 10**9
    os.utime(tmp_path / "latents.done", ns=(later, later))
    steps = [step for step in chain.STEPS if not chain.is_done(tmp_path, step.name)]
    assert [step.name for step in steps] == ["text_to_image", "text_to_image_dit"]
    left = [tmp_path / "sae" / "saes" / "mid" / "config.json", tmp_path / "models" / "saes" / "mid" / "config.json"]
    for file in left:
        file.parent.mkdir(parents=True)
        file.touch()
    assert finished(tmp_path, []) == ["text_to_image", "saes", "text_to_image_dit", "saes_dit"]
    assert not old.exists() and not averages.exists() and not any(file.exists() for file in left)


def test_a_build_of_other_views_is_refused_and_nothing_of_other_views_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("build", "kept"):
        (tmp_path / folder / "models").mkdir(parents=True)
        (tmp_path / folder / "models" / "world.json").write_text('{"views": ["sky"], "training": {}}')
    (tmp_path / "kept" / "detector.done").touch()
    monkeypatch.setattr(chain, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(chain, "restorable", lambda build: ["detector"])
    with pytest.raises(SystemExit):
        chain.main(["--build", str(tmp_path / "build"), "--plan"])
    assert "is of the views sky; name them with --views" in capsys.readouterr().err
    for words, state in ((["--views", "sky"], "kept"), ([], "to do")):
        assert chain.main(["--build", str(tmp_path / "new"), "--plan", "--only", "detector", *words]) == 0
        assert capsys.readouterr().out.startswith(state)


def test_two_chains_do_not_train_one_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second waits for the first, and finds its work done."""
    lock, calls, said = hold(tmp_path / "detector.lock"), list[list[str]](), ""
    second = threading.Thread(
        target=chain.run, args=(setting(tmp_path), chain.chosen(None, ["detector"]), calls.append)
    )
    second.start()
    while "waits for another chain" not in said:
        assert second.is_alive() and not calls
        said += capsys.readouterr().out
    (tmp_path / "detector.done").touch()
    lock.release_and_unlink()
    second.join()
    assert not calls and not list(tmp_path.glob("*.lock"))


def test_a_step_that_fails_is_tried_again_from_its_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "autoencoder" / "checkpoint.pt"
    checkpoint.parent.mkdir()
    checkpoint.touch()

    def fail(command: list[str]) -> None:
        raise subprocess.CalledProcessError(1, command)

    with pytest.raises(subprocess.CalledProcessError):
        chain.run(setting(tmp_path), chain.STEPS, fail)
    assert checkpoint.exists() and not list(tmp_path.glob("*.done"))


@pytest.mark.parametrize(
    "step", [s for s in chain.STEPS if s.name not in ("saes", "saes_dit")], ids=lambda step: step.name
)
def test_the_programs_know_every_option_that_they_are_given(step: chain.Step, tmp_path: Path) -> None:
    module, *words = step.command(setting(tmp_path))
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text() + (ROOT / "benchmarks/scenes/options.py").read_text()
    assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == []


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "restorable", lambda build: [])


@pytest.mark.usefixtures("nothing_kept")
def test_the_plan_is_said_and_nothing_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chain.main(["--build", str(tmp_path / "new"), "--plan", "--until", "latents"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["to do    autoencoder", "to do    latents"]
    assert not (tmp_path / "new").exists()


def test_the_plan_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chain, "restorable", lambda build: ["detector", "text_to_image"])
    (tmp_path / "prompts.done").touch()
    assert chain.main(["--build", str(tmp_path), "--plan", "--until", "prompts"]) == 0
    said = dict(line.split(":")[0].split()[::-1][:2] for line in capsys.readouterr().out.splitlines())
    assert said == {
        "autoencoder": "do", "latents": "do", "text_to_image": "on", "detector": "kept", "segmenter": "do",
        "style_classifier": "do", "concept_classifier": "do", "prompts": "done",
    }  # fmt: skip


@pytest.mark.usefixtures("nothing_kept")
def test_some_steps_alone_come_in_order_and_need_what_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chain.main(["--build", str(tmp_path), "--plan", "--only", "prompts", "detector"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["to do    detector", "to do    prompts"]
    with pytest.raises(SystemExit):
        chain.main(["--build", str(tmp_path), "--only", "prompts", "saes"])
    assert "saes needs text_to_image, which is not done" in capsys.readouterr().err
    (tmp_path / "text_to_image.done").touch()
    chain.ready(setting(tmp_path), chain.chosen(None, ["saes", "prompts"]))


def test_unknown_steps_and_views_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--minutes", "vae=3"], ["--views", "below"]):
        with pytest.raises(SystemExit):
            chain.main([*words, "--plan"])
    errors = capsys.readouterr().err
    assert "unknown step 'vae'" in errors and "unknown view 'below'" in errors
    assert views("all") == VIEWS and views("none") == () and views("sky,above") == ("sky", "above")


def test_prompts_are_disjoint_lists_without_training_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.scenes import prompts

    monkeypatch.setattr(prompts, "LABEL_PROMPTS", 30)
    monkeypatch.setattr(prompts, "SAE_PROMPTS", 20)
    painted = {render(TRAIN_SEEDS[i], views=VIEWS).caption for i in range(100)}
    assert prompts.training_captions(VIEWS, 100) == painted, "captions of plans are those of pictures"
    assert set(prompts.prompt_pool(60, 1, VIEWS)) & prompts.training_captions(VIEWS, 3000), "none to leave out"
    prompts.write_prompts(tmp_path, VIEWS, 3000)
    label, sae = ((tmp_path / name).read_text().splitlines() for name in ("prompts.txt", "prompts_sae.txt"))
    assert len(set(label)) == 30 and len(set(sae)) == 20 and not set(label) & set(sae)
    assert not {*label, *sae} & prompts.training_captions(VIEWS, 3000)


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("a dog and two cars on a road", {"dog": 1, "car": 2}),
        ("The moon, three clouds and trees at night", {"moon": 1, "cloud": 3}),
        ("dogs on grass", {}),
        ("a painting of a dog", {"dog": 1}),
        ("a mountain and the sea", {}),
    ],
)
def test_prompts_ask_for_numbers_of_things(prompt: str, asked: dict[str, int]) -> None:
    assert counts_asked(prompt) == asked


def test_counts_are_right_where_the_picture_has_as_many() -> None:
    right = counts_right(["a dog", "two dogs and a car"], [{"dog": 1}, {"dog": 1, "car": 1}])
    assert right == {"dog": (1, 2), "car": (1, 1)}


def test_what_is_found_again_is_the_same_concept_in_about_the_same_place() -> None:
    def found(concept: str, x: float) -> Detection:
        return Detection(concept, 0.9, (x, 0.0, x + 10, 10.0))

    before = [found("dog", 0), found("dog", 50), found("car", 0)]
    assert again(before, before) == (3, 3)
    # Boxes moved by 2 of 10 overlap by 8 / 12, by 6 of 10 by 4 / 16; a car is no dog.
    assert again(before, [found("dog", 2), found("dog", 56), found("dog", 0)]) == (1, 3)
    assert again([], before) == (0, 0)


def test_the_program_that_trains_all_says_what_it_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scenes.chain", "--plan"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "benchmarks.scenes.autoencoder.train" in done.stdout
