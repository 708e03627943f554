"""Exports as supervision and Label Studio's own library read them, which fit no common environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.masks import struct_to_mask
from gazetteer.labeling.export.coco import export_coco
from gazetteer.labeling.export.labelstudio import export_labelstudio
from gazetteer.labeling.export.voc import export_voc
from gazetteer.labeling.tables import load_segments

PACKAGES = ("supervision>=0.27", "pyDeprecate", "defusedxml", "label-studio-sdk>=2", "ijson")
READER = Path(__file__).with_name("read_by_others.py")


@pytest.mark.full
def test_supervision_and_label_studio_read_the_masks_and_boxes_of_the_run(scenes_run: Path, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), *PACKAGES]
    subprocess.run(pip, check=True)
    run, coco, voc, tasks = RunFolder(scenes_run), tmp_path / "coco/a.json", tmp_path / "voc", tmp_path / "tasks.json"
    export_coco(run, coco)
    export_voc(run, voc)
    export_labelstudio(run, tasks)
    command = [sys.executable, str(READER), *map(str, (packages, coco, voc, tasks))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    areas: dict[str, list[list[object]]] = {}
    for row in load_segments(run).to_pylist():
        area = int(struct_to_mask(row["mask"]).sum())
        areas.setdefault(row["image_id"], []).append([row["concept"], area])
    assert areas
    for key, wanted in areas.items():
        assert found["coco"][key] == sorted(wanted) == found["labelstudio"][key]
        objects = ElementTree.parse(voc / "Annotations" / f"{key}.xml").iter("object")
        boxes = [[str(one.findtext("name")), _box(one)] for one in objects]
        assert found["voc"][key] == sorted(boxes)


def _box(one: ElementTree.Element) -> list[int]:
    """As supervision has it: from 0, the pixel after the last."""
    xmin, ymin, xmax, ymax = (int(str(one.findtext(f"bndbox/{name}"))) for name in ("xmin", "ymin", "xmax", "ymax"))
    return [xmin - 1, ymin - 1, xmax, ymax]
