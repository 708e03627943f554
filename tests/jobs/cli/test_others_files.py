"""Verbs that write into a folder somebody names leave what others have there, and say what they do not touch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.system.running import ROOT, SMALL, in_process

SAES = str(ROOT / "data" / "scenes" / "models" / "saes")
MODEL = str(ROOT / "data" / "scenes" / "models" / "text_to_image")
SITE = f"{SAES}/mid_block.attentions.0-cond-t0.50"
NAMES = (
    "index.html", "labels.parquet", "metrics.parquet", "weights.json", "picture.png", "images/part-cat.parquet",
    "settings.json", "cache/settings.json", "saes/index.html", "activations/sites.json", "_meta/lock",
)  # fmt: skip
VERBS: dict[str, list[str]] = {
    "label": ["label", "--out", "{out}", "--set", *SMALL],
    "steer evaluate": ["steer", "evaluate", "{run}", "--out", "{out}", "--quick", "--set", "executor=serial", *SMALL],
    "sae report": ["sae", "report", "--saes", SAES, "--out", "{out}"],
    "sae train": ["sae", "train", "--out", "{out}"],
    "sae export": ["sae", "export", SITE, "--layout", "sae-lens", "--to", "{out}"],
    "atlas": ["atlas", "{run}", "--out", "{out}"],
    "rate": ["rate", "{run}", "--out", "{out}"],
    "publish": ["publish", "{run}", "--to", "{out}"],
    "export": ["export", "{run}", "--voc", "{out}"],
    "attribute score": ["attribute", "score", "--concept", "dog", "--out", "{out}"],
    "attribute protocol": ["attribute", "protocol", "imagenette", "--model", MODEL, "--out", "{out}"],
    "attribute evaluate": ["attribute", "evaluate", "--quick", "--out", "{out}"],
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_files_of_others_stay_as_they_are(verb: str, scenes_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    for name in NAMES:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    done = in_process(*(part.format(run=scenes_run, out=out) for part in VERBS[verb]))
    assert done.returncode == 2, (done.stdout, done.stderr)
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("gazetteer: ")]
    assert str(out) in sentence
    assert sorted(tmp_path.rglob("*")) == before and {(out / name).read_text() for name in NAMES} == {"mine"}
