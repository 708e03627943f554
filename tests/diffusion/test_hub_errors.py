"""What the hub refuses, and a hub that is not there, in one sentence each: against a real server on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.support.servers.serving import serving
from tests.support.system.running import ROOT

LOAD = """
import json, sys
from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.diffusion.blocks import blocks_of
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import SegmenterConfig

loaders = {
    "model": lambda path: load_pipeline(ModelConfig(path=path)),
    "blocks": lambda path: blocks_of(ModelConfig(path=path)),
    "detector": lambda path: load_detector(DetectorConfig(path=path)),
    "segmenter": lambda path: load_segmenter(SegmenterConfig(path=path)),
}
said = {}
for role, path in json.loads(sys.argv[1]):
    try:
        loaders[role](path)
    except InputError as error:
        said[f"{role} {path}"] = str(error)
print(json.dumps(said))
"""


class Hub(BaseHTTPRequestHandler):
    """Answers as huggingface.co does for a gated repository and for one that does not exist."""

    def do_GET(self) -> None:
        gated = "gated" in self.path
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("X-Error-Message", "refused")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with serving(Hub) as address:
        yield address


def run_loaders(
    wanted: list[tuple[str, str]], home: Path, **variables: str
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    environment = os.environ | {"HF_HOME": str(home)} | variables
    environment |= {"DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(wanted)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def sentences(wanted: list[tuple[str, str]], home: Path, **variables: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(run_loaders(wanted, home, **variables).stdout.splitlines()[-1])
    assert len(found) == len(wanted)
    assert not any("\n" in one for one in found.values())
    return found


def test_a_gated_and_an_unknown_model(hub: str, tmp_path: Path) -> None:
    wanted = [(role, path) for role in ("model", "blocks", "detector", "segmenter") for path in ("a/gated", "a/absent")]
    for key, said in sentences(wanted, tmp_path, HF_ENDPOINT=hub).items():
        if key.endswith("a/gated"):
            assert "a/gated is gated: accept its terms at https://huggingface.co/a/gated" in said, key
        else:
            assert "The hub has no public model a/absent" in said, key


def test_a_hub_that_nobody_answers_for_is_asked_once_and_not_tried_again_and_again(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        wanted = [(role, "owner/name") for role in ("model", "blocks", "detector", "segmenter")]
        done = run_loaders(wanted, tmp_path, HF_ENDPOINT=endpoint)
    assert "Retrying" not in done.stderr, done.stderr
    for said in json.loads(done.stdout.splitlines()[-1]).values():
        assert "owner/name is not on this machine and the hub cannot be reached" in said


def test_a_model_that_is_not_here_while_the_hub_is_out_of_reach(tmp_path: Path) -> None:
    wanted = [(role, "owner/name") for role in ("model", "blocks", "detector", "segmenter")]
    for key, said in sentences(wanted, tmp_path, HF_HUB_OFFLINE="1").items():
        assert "owner/name is not on this machine and the hub cannot be reached" in said, key
        assert "hf download owner/name" in said, key
