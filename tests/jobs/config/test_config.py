"""Files named in a configuration: found beside it, and part of what makes the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.jobs.config.fingerprint import fingerprint_of, portable_config
from gazetteer.jobs.config.kept import run_config
from gazetteer.jobs.config.overrides import apply_override
from gazetteer.jobs.config.reference import plain
from gazetteer.jobs.config.schema import DEFAULT_CONFIG, RunConfig, load_config
from gazetteer.jobs.executors.sources import require_unchanged, sources


def with_detector_settings(folder: Path, text: str) -> Path:
    """The embedded configuration, with a detector of the authors' format and its settings in a file beside it."""
    embedded = DEFAULT_CONFIG.read_text().replace("path: ", f"path: {DEFAULT_CONFIG.parent}/")
    detector = "detector:\n  library: groundingdino\n  config: settings.json\n"
    (folder / "config.yaml").write_text(embedded.replace("detector:\n", detector))
    (folder / "settings.json").write_text(text)
    return folder / "config.yaml"


def test_detector_settings_are_found_beside_the_configuration_and_digested(tmp_path: Path) -> None:
    path = with_detector_settings(tmp_path, "{}")
    config = load_config(path)
    assert config.detector.config == str(tmp_path / "settings.json")
    before = fingerprint_of(config)
    assert before == fingerprint_of(load_config(path))
    assert str(tmp_path) not in str(before)
    assert portable_config(config)["detector.config"] == "settings.json"
    with_detector_settings(tmp_path, '{"hidden_dim": 256}')
    changed = {key for key, value in fingerprint_of(load_config(path)).items() if before[key] != value}
    assert changed == {"detector.config"}


def test_what_is_typed_is_meant_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded world lies beside its configuration under the plainest of names."""
    monkeypatch.chdir(tmp_path)
    typed = ["prompts.path=prompts.txt", "saes=models/saes", "model.path=models/text_to_image"]
    config = load_config(None, typed)
    assert (config.prompts.path, config.saes, config.model.path) == tuple(pair.partition("=")[2] for pair in typed)
    assert Path(config.detector.path).is_absolute() and Path(config.sae.prompts.path).is_absolute()
    group = load_config(None, ['detector={"path": "models/detector", "box_threshold": 0.5}', "prompts.limit=5"])
    assert group.detector.path == "models/detector" and Path(group.prompts.path).is_absolute()


def test_names_that_are_no_files_stay_names(tmp_path: Path) -> None:
    settings = ["detector.library=groundingdino", "detector.config=GroundingDINO_SwinT_OGC"]
    config = load_config(with_detector_settings(tmp_path, "{}"), settings)
    assert config.detector.config == "GroundingDINO_SwinT_OGC"
    assert config.detector.text_encoder == ""
    assert fingerprint_of(config)["detector.config"] == "GroundingDINO_SwinT_OGC"


def refused(text: str, folder: Path, *overrides: str) -> str:
    (folder / "bad.yaml").write_text(text)
    with pytest.raises(InputError) as wrong:
        load_config(folder / "bad.yaml", overrides)
    return str(wrong.value)


def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path: Path) -> None:
    embedded = DEFAULT_CONFIG.read_text()
    assert "the key name stands there twice (line 2, column 1)" in refused("name: a\nname: b\n", tmp_path)
    assert "is empty" in refused("# nothing\n", tmp_path)
    assert "is a list" in refused("- a\n", tmp_path)
    assert "images must be a whole number, not '010'" in refused(
        embedded.replace("images: 560", "images: 010"), tmp_path
    )
    assert "not a regular file" in refused_path(tmp_path)
    (tmp_path / "latin").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(InputError, match=r"is not text in UTF-8: .* at byte 9"):
        load_config(tmp_path / "latin")


def refused_path(path: Path) -> str:
    with pytest.raises(InputError) as wrong:
        load_config(path)
    return str(wrong.value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("images=0x_", "images must be a whole number, not '0x_'"),
        ("images=2001-99-99", "images must be a whole number, not '2001-99-99'"),
        ("images=[", "--set images: '[' is not valid YAML"),
        (".images=3", "--set takes key=value"),
        ("imagez=3", "Unknown configuration key imagez; did you mean images? accepted: name, "),
        ("box_threshold=0.2", "did you mean detector.box_threshold?"),
        ("generation.stepz=3", "Unknown configuration key generation.stepz; did you mean steps? accepted: steps, guid"),
        ("generation.steps=0", "generation.steps must be at least 1, not 0."),
        ("generation.steps=2.0", "generation.steps must be a whole number, not 2.0."),
        ("generation.exact=no", "generation.exact must be true or false, not 'no'."),
        ("labels.max_q=.nan", "labels.max_q must be a finite number, not nan."),
        ("heldout=1.0", "heldout must be below 1, not 1.0."),
        ("generation.blocks=mid", "generation.blocks must be a list, not 'mid'."),
        ("generation=3", "generation must be a mapping of keys, not 3."),
        ("sae.train.k=0", "sae.train.k must be at least 1, not 0."),
        ("detector.library=yolo", "detector.library is 'yolo'; accepted: transformers, groundingdino."),
        ("steer.strengths=[]", "steer.strengths must not be empty."),
        ("name=~", 'name must be text, not null; an empty text is "".'),
        ("generation.blocks=", "generation.blocks must be a list, not None."),
    ],
)
def test_overrides_that_are_wrong_are_one_sentence_without_jargon(override: str, says: str) -> None:
    with pytest.raises(InputError) as wrong:
        load_config(None, [override])
    assert says in str(wrong.value)
    assert "pydantic" not in str(wrong.value) and "\n" not in str(wrong.value)


def test_a_text_that_is_set_to_nothing_is_empty_and_what_may_be_none_is_none(tmp_path: Path) -> None:
    config = load_config(None, ["segmenter.path=", "model.scheduler= ", "detector.dtype=", "sae=", "shard_size=8"])
    assert (config.segmenter.path, config.model.scheduler, config.sae) == ("", "", None)
    assert config.detector.dtype == "float32"  # what an empty one means there
    raw = {"segmenter": {"path": "there"}, "sae": {"gpus": 1}, "other": 3}
    for override in ("segmenter.path=", "sae.gpus=", "other="):
        apply_override(raw, override, RunConfig)
    assert raw == {"segmenter": {"path": ""}, "sae": {"gpus": None}, "other": None}
    RunFolder(tmp_path).write_json("config.json", plain(config))
    assert run_config(tmp_path, ["labels.style_classifier="]).labels.style_classifier == ""


def test_a_small_rate_may_be_written_as_people_write_it() -> None:
    config = load_config(None, ["sae.train.lr=1e-4"])
    assert config.sae is not None and config.sae.train.lr == 1e-4


def test_an_override_changes_one_of_two_groups_that_share_an_alias(tmp_path: Path) -> None:
    text = DEFAULT_CONFIG.read_text().replace("path: ", f"path: {DEFAULT_CONFIG.parent}/")
    finders = "detector: &finder {path: one}\nsegmenter: *finder\n"
    text = text[: text.index("detector:")] + finders + text[text.index("coverage:") :]
    (tmp_path / "shared.yaml").write_text(text)
    config = load_config(tmp_path / "shared.yaml", ["detector.path=other"])
    assert (config.detector.path, config.segmenter.path) == ("other", "one")


def test_settings_made_in_python_are_checked_as_those_of_a_file() -> None:
    with pytest.raises(InputError, match=r"generation\.steps must be at least 1, not 0\."):
        GenerationConfig(steps=0)
    assert GenerationConfig(blocks=["a", "b"]).blocks == ("a", "b")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^Unknown configuration key generation\.step; did you mean steps\?"):
        GenerationConfig(step=3)  # type: ignore[call-arg]


def test_saes_are_a_folder_or_a_mapping(tmp_path: Path) -> None:
    """Paths beside the configuration are found, and each is digested; on the command line they are meant from here."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.json").write_text("{}")
    hub = f"some/hub@{'a' * 40}"
    mapping = f'{{"*": one, "mid_block.*": "{hub}"}}'
    (tmp_path / "run.yaml").write_text(DEFAULT_CONFIG.read_text().replace("saes: models/saes", f"saes: {mapping}"))
    config = load_config(tmp_path / "run.yaml")
    assert config.saes == {"*": str(tmp_path / "one"), "mid_block.*": hub}
    typed = load_config(tmp_path / "run.yaml", [f"saes={mapping}"])
    assert typed.saes == {"*": "one", "mid_block.*": hub}
    fingerprint = fingerprint_of(config)["saes"]
    assert fingerprint["*"].startswith("sha256:")
    assert fingerprint["mid_block.*"] == hub
    assert portable_config(config)["saes"] == {"*": "one", "mid_block.*": hub}
    found = sources(config, fingerprint_of(config), ["saes"])
    assert [(source.key, source.stage, source.path) for source in found] == [
        ("saes[*]", "generate", str(tmp_path / "one")), ("saes[mid_block.*]", "generate", hub),
    ]  # fmt: skip
    (tmp_path / "one" / "config.json").write_text("{ }")
    with pytest.raises(InputError, match=r"saes\[\*\] on .* is not what this run was started with"):
        require_unchanged(found)
    for wrong in ("[]", "{}", "3", '{"*": 3}', '{"*": [a]}'):
        with pytest.raises(InputError, match=r"^saes is .*; accepted: a folder, or a mapping of at least one pattern"):
            load_config(tmp_path / "run.yaml", [f"saes={wrong}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nimagez: 3\n", r"my\.yaml, line 2, column 1: Unknown configuration key imagez; did you mean images"),
        ("prompts:\n  path: a.txt\n  min_words: many\n", r"line 3, column 3: prompts\.min_words must be a whole"),
        ("pools:\n- stages: [generate]\n- {workers: 0.5}\n", r"line 3, column 4: pools\[1\]\.workers must be a whole"),
        ("pools: [{stagez: 1}]\n", r"line 1, column 10: Unknown configuration key pools\[0\]\.stagez"),
        ("prompts: {min_words: 2}\n", r"line 1, column 1: The configuration key prompts\.path is missing"),
    ],
)
def test_a_wrong_value_is_named_by_its_place_in_the_file(text: str, said: str, tmp_path: Path) -> None:
    base = yaml.safe_load(DEFAULT_CONFIG.read_text(encoding="utf-8"))
    kept = {key: value for key, value in base.items() if f"{key}:" not in text}
    (tmp_path / "my.yaml").write_text(text + yaml.safe_dump(kept), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        load_config(tmp_path / "my.yaml")
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    with pytest.raises(InputError, match=r"^images must be at least 1"):  # nothing that the file says
        load_config(tmp_path / "my.yaml", ["images=0"])


@pytest.mark.parametrize(("images", "size"), [(1, 16), (10_000, 16), (10_001, 32), (20_001, 64), (240_000, 64)])
def test_shards_grow_with_a_run_unless_their_size_is_named(images: int, size: int) -> None:
    bare = {"shard_size": 0, "images": images}
    assert load_config(None, [f"{key}={value}" for key, value in bare.items()]).shard_size == size
    assert load_config(None, [f"images={images}", "shard_size=5"]).shard_size == 5
