"""A finished run's own configuration serves the verbs that read the run, without --config and --set."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.fingerprint import fingerprint_of
from gazetteer.jobs.config.kept import RECORD, run_config, to_keep
from gazetteer.jobs.config.reference import as_yaml
from gazetteer.jobs.config.schema import RunConfig, load_config
from gazetteer.jobs.explore.settings import own_file
from gazetteer.jobs.label.job import label
from gazetteer.labeling.detect.grounding_dino.settings import PUBLISHED
from gazetteer.labeling.detect.protocol import PUBLISHED_CONFIGS
from gazetteer.labeling.vocabulary.concepts import Vocabulary
from tests.support.system.running import ROOT


def run_of(path: Path, config: RunConfig) -> RunFolder:
    run = RunFolder(path).open_or_create({"seed": config.seed})
    run.write_json(RECORD, dataclasses.asdict(config))
    return run


def test_it_is_what_the_run_was_made_with_under_new_overrides(tmp_path: Path) -> None:
    config = load_config(None, ["images=12", "generation.t=[0.5]", "executor=serial", "pools=[]"])
    run = run_of(tmp_path / "run", config)
    assert run_config(run.path) == config
    made_with = ["images=12", "generation.t=[0.5]", "executor=serial", "model.dtype=float32"]
    assert run_config(run.path, ["model.device=cuda"]) == load_config(None, [*made_with, "model.device=cuda"])


def test_paths_typed_from_one_folder_are_found_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "prompts.txt").write_text(f"a dog {folder}\n")
    monkeypatch.chdir(tmp_path / "here")
    Path("set").symlink_to(load_config().saes)
    config = load_config(None, ["prompts.path=prompts.txt", 'saes={"*": set}', "model.revision=main", "sae=null"])
    run = RunFolder(tmp_path / "run").open_or_create({})
    run.write_json(RECORD, to_keep(config))
    kept = run_config(run.path)
    monkeypatch.chdir(tmp_path / "there")
    assert run_config(run.path) == kept
    assert Path(kept.prompts.path).read_text() == "a dog here\n"
    assert kept.saes == {"*": str(tmp_path / "here" / "set")}


def test_a_labelled_run_has_it(scenes_run: Path) -> None:
    assert fingerprint_of(run_config(scenes_run)) == RunFolder(scenes_run).read_json("run.json")


def test_a_copied_run_takes_the_embedded_models_where_they_are_its_own(tmp_path: Path) -> None:
    """It names a checkout that is not here; by their digests the models are the same."""
    config = load_config(None, ["executor=serial"])
    run = run_of(tmp_path / "run", config)
    run.write_json("run.json", fingerprint_of(config))
    elsewhere = json.loads(json.dumps(dataclasses.asdict(config)).replace(str(ROOT), "/nowhere/checkout"))
    assert elsewhere["model"]["path"].startswith("/nowhere/")
    run.write_json(RECORD, elsewhere)
    assert fingerprint_of(run_config(run.path)) == fingerprint_of(config)
    run.write_json("run.json", {**fingerprint_of(config), "model.path": "another"})
    assert run_config(run.path).model.path == elsewhere["model"]["path"]


def test_a_copied_run_takes_the_embedded_autoencoders_of_a_mapping_too(tmp_path: Path) -> None:
    """The set as a whole, or one of its sites; what is not the embedded one stays what it was."""
    folder = Path(str(load_config().saes))
    site = sorted(place for place in folder.iterdir() if place.is_dir())[0]
    block = json.loads((site / "config.json").read_text())["site"]["block"]
    saes = {"*": str(folder), site.name: str(site), block: str(site)}
    config = load_config(None, [f"saes={json.dumps(saes)}", "executor=serial"])
    run = run_of(tmp_path / "run", config)
    recorded = fingerprint_of(config)
    recorded["saes"][block] = "sha256:another"
    run.write_json("run.json", recorded)
    run.write_json(RECORD, json.loads(json.dumps(dataclasses.asdict(config)).replace(str(folder), "/nowhere/saes")))
    assert run_config(run.path).saes == {**saes, block: f"/nowhere/saes/{site.name}"}


def test_a_run_of_before_is_taken_for_one_of_the_default(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").open_or_create({})
    assert run_config(tmp_path / "run") == load_config()


def test_one_of_another_version_is_said_to_be(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", load_config())
    run.write_json(RECORD, {**dataclasses.asdict(load_config()), "max_failed_share": 0.05})
    with pytest.raises(InputError, match=r"not one of this version; name its own with --config\. Unknown .*_fraction"):
        run_config(run.path)
    with pytest.raises(InputError, match=r"^Unknown configuration key imgaes"):
        run_config(run_of(tmp_path / "new", load_config()).path, ["imgaes=3"])


def test_code_that_a_run_folder_names_is_not_executed(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", load_config(None, ["vocabulary.nouns=os:system", "vocabulary.ask=both"]))
    with pytest.raises(InputError, match=r"vocabulary.nouns=os:system, which is code"):
        run_config(run.path)
    assert run_config(run.path, heard="labels.").vocabulary.nouns == "os:system", "nor is it where it is not heard"


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "head:6379", "job"])
def test_the_address_of_a_cluster_is_no_code(tmp_path: Path, address: str) -> None:
    run = run_of(tmp_path / "run", load_config(None, [f"ray_address={address}"]))
    assert run_config(run.path).ray_address == address


@pytest.mark.parametrize("wrong", ["generation.blocks=[nowhere]", "model.device=cuda:7"])
def test_what_is_refused_before_it_began_leaves_no_folder(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(InputError):
        label(load_config(None, [wrong, "executor=serial"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_is_said_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"detector.path: .*empty holds no files"):
        fingerprint_of(load_config(None, [f"detector.path={tmp_path / 'empty'}"]))


def test_lists_known_by_name_are_never_folders_that_are_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COCO's own data set is often a folder `coco` where one works."""
    set_to = ["vocabulary.path=coco", "vocabulary.concepts=[]"]
    detector = ["detector.library=groundingdino", "detector.config=GroundingDINO_SwinT_OGC"]
    plain = fingerprint_of(load_config(None, [*set_to, *detector]))
    (tmp_path / "coco").mkdir()
    (tmp_path / "GroundingDINO_SwinT_OGC").mkdir()
    (tmp_path / "coco" / "instances.json").write_text("{}")
    (tmp_path / "mine.yaml").write_text(as_yaml(load_config(None, set_to)))
    monkeypatch.chdir(tmp_path)
    config = load_config(None, [*set_to, *detector])
    assert fingerprint_of(config) == plain and plain["vocabulary.path"] == "coco"
    kept = to_keep(config)
    assert kept["vocabulary"]["path"] == "coco" and kept["detector"]["config"] == "GroundingDINO_SwinT_OGC"
    written = load_config("mine.yaml")
    assert written.vocabulary.path == "coco" and len(Vocabulary(written.vocabulary).concepts) == 80
    assert tuple(PUBLISHED) == PUBLISHED_CONFIGS


def test_a_preset_is_no_folder_that_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paper-sd14").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_config("paper-sd14").generation.steps == 50


def test_a_run_named_by_a_url_of_this_machine_is_explored_by_its_own_configuration(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", load_config())
    (tmp_path / "run" / "_meta" / "run.json").write_text('{"model.path": "sha256:of another"}')
    kept = str(tmp_path / "run" / "_meta" / "config.json")
    assert own_file(run, []) == own_file(RunFolder(f"file://{tmp_path}/run"), []) == kept


@pytest.mark.parametrize("said", ["[]", "3", "null"])
def test_a_kept_configuration_that_is_none_is_not_taken_for_the_embedded_one(tmp_path: Path, said: str) -> None:
    run = RunFolder(tmp_path).open_or_create({"seed": 1})
    run_config(run.path)
    (tmp_path / "_meta" / RECORD).write_text(said)
    with pytest.raises(InputError, match=r"_meta/config\.json is corrupt \(it holds no JSON object\)"):
        run_config(run.path)
