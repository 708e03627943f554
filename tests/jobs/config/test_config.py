"""Files named in a configuration: found beside it, and part of what makes the run."""

from __future__ import annotations

from pathlib import Path

from gazetteer.jobs.config.fingerprint import fingerprint, portable_config
from gazetteer.jobs.config.schema import DEFAULT_CONFIG, load_config


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
    before = fingerprint(config)
    assert before == fingerprint(load_config(path))
    assert str(tmp_path) not in str(before)
    assert portable_config(config)["detector.config"] == "settings.json"
    with_detector_settings(tmp_path, '{"hidden_dim": 256}')
    changed = {key for key, value in fingerprint(load_config(path)).items() if before[key] != value}
    assert changed == {"detector.config"}


def test_names_that_are_no_files_stay_names(tmp_path: Path) -> None:
    settings = ["detector.library=groundingdino", "detector.config=GroundingDINO_SwinT_OGC"]
    config = load_config(with_detector_settings(tmp_path, "{}"), settings)
    assert config.detector.config == "GroundingDINO_SwinT_OGC"
    assert config.detector.text_encoder == ""
    assert fingerprint(config)["detector.config"] == "GroundingDINO_SwinT_OGC"
