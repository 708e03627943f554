"""`gazetteer explore` as scripts meet it: who is let in, what is answered, and how it ends."""

from __future__ import annotations

import base64
import io
import json
import shlex
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder, open_finished
from gazetteer.data.tables.masks import mask_to_struct
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.explore import world
from gazetteer.jobs.explore.notes import Note, Notes
from gazetteer.labeling.tables import load_features
from tests.jobs.explore.conftest import PROMPT, Explored, exploring
from tests.support.system.running import in_process

MID = {"block": "mid_block.attentions.0", "branch": "cond", "t": 0.5}
SITE = "mid_block.attentions.0-cond-t0.50"


def painted(size: int = 32) -> dict[str, Any]:
    mask = np.zeros((size, size), bool)
    mask[: size // 2, size // 2 :] = True
    return {"mask": mask_to_struct(mask)}


def picture(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_it_listens_on_the_loopback_address_alone(explored: Explored) -> None:
    port = int(explored.base.rpartition(":")[2])
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [row[1] for row in listening if row[3] == "0A" and row[1].endswith(f":{port:04X}")] == [
        f"0100007F:{port:04X}"
    ]
    with pytest.raises(OSError), socket.create_connection(("::1", port), timeout=2):
        pass


def test_a_model_that_is_being_loaded_is_waited_for(scenes_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    def slow(*_: Any) -> None:
        time.sleep(0.5)
        ended.append(True)
        raise InputError("There is no model.")

    monkeypatch.setattr(world, "Studio", slow)
    opened = world.World(load_config(), open_finished(scenes_run), world.Recipe(str(scenes_run), None, ()))
    opened.load()
    opened.close()
    assert ended == [True]


@pytest.mark.parametrize(
    ("headers", "token", "said"),
    [
        ({}, "", "The token is missing"),
        ({}, "wrong", "The token is wrong"),
        ({}, "gaz\u00ff", "The token is wrong"),
        ({"origin": "http://evil.example"}, None, "Another site's page"),
        ({"origin": "null"}, None, "Another site's page"),
        ({"host": "evil.example"}, None, "answers to 127.0.0.1 and localhost only"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/world", "/data/atlas.js", "/assets/core.js"])
def test_strangers_get_a_sentence(
    explored: Explored, path: str, headers: dict[str, str], token: str | None, said: str
) -> None:
    status, content, _ = explored.ask(path, token=token, **headers)
    assert status == 403
    assert said in str(content)


def test_the_token_in_the_address_becomes_a_cookie_that_opens_the_rest(explored: Explored) -> None:
    status, page, headers = explored.ask(f"/?token={explored.token}", token="")
    assert status == 200 and "<title>Gazetteer: studio</title>" in page
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert explored.ask("/api/world", token="", cookie=cookie.split(";")[0])[0] == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "://" not in headers["content-security-policy"].replace("data:", "").replace("blob:", "")
    status, _, headers = explored.ask("/api/world", origin=explored.base)
    assert status == 200 and "set-cookie" not in headers


EDIT = {**PROMPT, "edits": [{"concept": "sky", "choice": "contrast", "region": "everywhere"}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/api/edit", b"{", 400, "not valid JSON"),
        ("/api/edit", b'{"prompt": NaN}', 400, "NaN is no number"),
        ("/api/edit", b"[" * 100_000, 400, "not valid JSON"),
        ("/api/edit", b"\xff", 400, "not valid JSON"),
        ("/api/edit", [], 400, "must be an object"),
        ("/api/edit", {**EDIT, "more": 1}, 400, "unknown key 'more'"),
        ("/api/edit", PROMPT, 400, "lacks 'edits'"),
        ("/api/edit", {**EDIT, "seed": 0.5}, 400, "seed must be a whole number"),
        ("/api/edit", {**EDIT, "seed": "0.5"}, 400, "seed must be a whole number"),
        ("/api/edit", {**EDIT, "seed": str(2**63)}, 400, "seed must be a whole number"),
        ("/api/edit", {**EDIT, "seed": 2**63}, 400, "seed must be a whole number"),
        ("/api/edit", {**EDIT, "prompt": 3}, 400, "prompt must be text"),
        ("/api/edit", {**EDIT, "prompt": "a" * 2001}, 400, "at most 2,000 letters"),
        ("/api/edit", b'{"prompt": "\\ud800", "seed": 1, "edits": []}', 400, "half a character"),
        ("/api/edit", {**EDIT, "edits": [{"concept": "unicorn"}]}, 400, "unicorn"),
        ("/api/edit", {**EDIT, "edits": [{"concept": "sky", "strength": "x"}]}, 400, "Edit 1: strength must be"),
        ("/api/edit", {**EDIT, "edits": [{"concept": "sky", "region": {"mask": "/x.png"}}]}, 400, "no files are read"),
        ("/api/edit", {**EDIT, "edits": [{"concept": "sky", "window": [0.9, 0.1]}]}, 400, "Edit 1: An edit's window"),
        ("/api/edit", {**EDIT, "edits": [{"concept": "sky"}] * 33}, 400, "at most 32"),
        ("/api/edit", {**EDIT, "edits": [{"targets": [{**MID, "features": [9999]}]}]}, 404, "no feature 9999"),
        ("/api/edit", {**EDIT, "edits": [{"targets": [{**MID, "t": 0.3, "features": [1]}]}]}, 404, "has no site"),
        ("/api/edit", {**EDIT, "edits": [{"targets": [{**MID, "block": "x", "features": [1]}]}]}, 404, "has no site"),
        ("/api/edit", b"x" * 1_000_001, 413, "at most 1,000,000 bytes"),
        ("/api/place", {**PROMPT, "x": 2, "y": 0}, 400, "x is a share"),
        ("/api/note", {"site": "x", "feature": 1, "star": True, "text": ""}, 404, "no site 'x'"),
        ("/api/note", {"site": SITE, "feature": 9999, "star": True, "text": ""}, 404, "no feature 9999"),
        ("/api/note", {"site": SITE, "feature": 1, "star": 1, "text": ""}, 400, "true or false"),
        ("/api/note", {"site": SITE, "feature": 1, "star": True, "text": "a" * 10_001}, 400, "at most 10,000 letters"),
        ("/api/draw", None, 405, "asked in another way"),
        ("/api/nothing", {}, 404, "nothing at this address"),
    ],
)  # fmt: skip
def test_bad_requests_get_a_sentence(explored: Explored, path: str, body: Any, status: int, said: str) -> None:
    found = explored.ask(path, body)
    assert (found[0], list(found[1])) == (status, ["error"])
    assert said in found[1]["error"]


@pytest.mark.parametrize(
    "path", ["/data/../../../etc/passwd", "/data/%2e%2e/%2e%2e/atlas.js", "/assets/..%2fapi.py", "/x"]
)
def test_nothing_else_is_served(explored: Explored, path: str) -> None:
    assert explored.ask(path)[0] == 404


def test_a_picture_comes_with_the_layout_that_was_seen_in_it(explored: Explored) -> None:
    assert explored.ask("/api/layout")[:2] == (200, {"problem": ""})  # until then pictures come without
    status, text, _ = explored.ask("/api/draw", PROMPT)
    lines = [json.loads(line) for line in text.splitlines()]
    assert status == 200
    assert Counter(line["kind"] for line in lines) == {"step": 4, "picture": 1}
    assert [line["t"] for line in lines[:-1]] == [1.0, 0.6667, 0.3333, 0.0]
    assert lines[0]["concepts"] == ["dog", "grass", "sky"]
    world = explored.ask("/api/world")[1]
    red, green, blue = world["colours"]["grass"]
    assert green > max(red, blue)
    red, green, blue = world["colours"]["sky"]
    assert blue > max(red, green)
    assert lines[0]["inks"] == [world["colours"][name] for name in lines[0]["concepts"]]
    cells = lines[0]["height"] * lines[0]["width"]
    assert len(base64.b64decode(lines[0]["levels"])) == 3 * cells
    assert picture(lines[-1]["png"]).shape == (128, 128, 3)


@pytest.mark.parametrize("window", [[0.6, 1.0], [0.0, 0.4]])
def test_the_yaml_and_the_script_draw_the_same_picture(
    explored: Explored, window: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two edits at once: a concept painted in a mask, and a feature everywhere; one from the noise, one resumed."""
    target = {**MID, "features": [int(load_features(explored.run, **MID)["feature"][0].as_py())]}
    edits = [
        {"concept": "sky", "choice": "contrast", "region": painted(), "strength": 2.0, "window": window},
        {"targets": [target], "region": "everywhere", "strength": -0.5, "window": [0.0, 0.4], "branch": "both"},
    ]
    status, made, _ = explored.ask("/api/edit", {**PROMPT, "edits": edits})
    assert status == 200, made
    assert made["change"] > 0.002
    assert made["step"] == (0 if window[1] == 1.0 else 2)
    monkeypatch.chdir(tmp_path)
    Path("edits.yaml").write_text(made["yaml"])
    program, *words = shlex.split(made["command"])
    assert program == "gazetteer"
    done = in_process(*words)
    assert done.returncode == 0, done.stderr
    drawn = Image.open("pictures/0-edited.png")
    assert np.array_equal(np.asarray(drawn), picture(made["png"]))
    inside = json.loads(Image.open(io.BytesIO(base64.b64decode(made["png"]))).text["gazetteer"])
    assert {name: inside[name] for name in ("prompt", "seed")} == PROMPT
    assert len(inside["edits"]) == 2
    if window[1] < 1.0:
        exec(compile(made["python"], "copied", "exec"), {})
        assert np.array_equal(np.asarray(Image.open("edited.png")), picture(made["png"]))


def test_what_does_nothing_or_more_than_was_painted_is_said(explored: Explored) -> None:
    dot = np.zeros((128, 128), bool)
    dot[0, 0] = True
    tiny = {"concept": "sky", "choice": "contrast", "outside": "keep", "region": {"mask": mask_to_struct(dot)}}
    missed = {"concept": "sky", "choice": "contrast", "window": [0.1, 0.2]}
    _, made, _ = explored.ask("/api/edit", {**PROMPT, "edits": [tiny, missed]})
    assert made["change"] > 0
    assert made["said"] == [
        "Edit 1 (sky) changes one whole cell at every block, the nearest: its place holds none there.",
        "Edit 2 (sky) does nothing: no sampler step lies in its window.",
    ]
    _, made, _ = explored.ask("/api/edit", {**PROMPT, "edits": [missed]})
    assert made["change"] == 0
    status, answer, _ = explored.ask(
        "/api/edit", {**PROMPT, "edits": [{**tiny, "outside": "remove", "strength": -1.0}]}
    )
    assert status >= 400 and "say outside: keep" in str(answer)


def test_a_place_names_what_fires_there_as_the_tables_do(explored: Explored) -> None:
    status, found, _ = explored.ask("/api/place", {**PROMPT, "x": 1.0, "y": 0.1})
    assert status == 200
    assert len(found["sites"]) == 24
    mid = next(site for site in found["sites"] if site["site"] == SITE)
    assert (mid["row"], mid["column"]) == (int(0.1 * mid["height"]), mid["width"] - 1)
    names = {row["feature"]: row["best_label"] for row in load_features(explored.run, **MID).to_pylist()}
    assert mid["features"] and len(mid["features"]) <= mid["active"]
    assert all(names[one["feature"]] == one["name"] for one in mid["features"])
    fractions = [one["share"] or 0.0 for one in mid["features"]]
    assert fractions == sorted(fractions, reverse=True)


def test_notes_of_two_pages_are_all_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path).open_or_create({})
    one, other = Notes(run), Notes(run)
    one.put(SITE, 1, Note(True, ""))
    other.put(SITE, 2, Note(False, "roofs"))
    assert one.all() == other.all() == {
        f"{SITE}/1": {"star": True, "text": ""}, f"{SITE}/2": {"star": False, "text": "roofs"},
    }  # fmt: skip
    other.put(SITE, 1, Note())
    assert list(one.all()) == [f"{SITE}/2"]


def test_notes_survive_and_ctrl_c_ends_it(explored: Explored) -> None:
    note = {"site": SITE, "feature": 1, "star": True, "text": "fires on <b>roofs</b>"}
    assert explored.ask("/api/note", note)[1] == {f"{SITE}/1": {"star": True, "text": note["text"]}}
    with exploring(explored.run) as again:
        assert again.ask("/api/notes")[1] == {f"{SITE}/1": {"star": True, "text": note["text"]}}
        assert again.token != explored.token
        code, said = again.stop(signal.SIGINT)
    assert code == 130
    assert said.endswith("gazetteer: stopped.\n")
    assert explored.ask("/api/note", {**note, "star": False, "text": ""})[1] == {}
    assert in_process("verify", str(explored.run)).returncode in (0, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nowhere"], "is not a finished run"), (["{run}", "--port", "70000"], "--port is 0 to 65535"),
     (["{run}", "--port", "{port}"], "cannot be used"), (["{run}", "--set", "generation.guidance=3"], "these differ")],
)  # fmt: skip
def test_what_cannot_be_served_is_refused(explored: Explored, arguments: list[str], said: str) -> None:
    port = explored.base.rpartition(":")[2]
    done = in_process("explore", *(one.format(run=explored.run, port=port) for one in arguments), "--no-browser")
    assert done.returncode == 2
    assert said in done.stderr
