"""What docs/reference/security.md promises: tokens, named clusters only, nothing unpickled, nothing outside the run."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.executors.ray.security import make_token, secure_ray
from tests.support.runs.runs import PROVENANCE, failures
from tests.support.system.imports import python_files
from tests.support.system.running import ROOT


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("RAY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    # What secure_ray sets is undone with the test.
    for name in ("RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_private_ray_gets_a_token_of_its_own_and_follows_no_stray_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somebody.example.org:6379")
    assert secure_ray("") == ""
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize(("address", "reason"), [("auto", "name the cluster"), ("job", "gazetteer submit")])
def test_no_cluster_is_joined_unnamed(monkeypatch: pytest.MonkeyPatch, address: str, reason: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somebody.example.org:6379")
    with pytest.raises(InputError, match=reason):
        secure_ray(address)


def test_inside_a_ray_job_the_jobs_own_cluster_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t")
    assert secure_ray("job") == "10.0.0.1:6379"


def test_a_named_cluster_needs_a_token_that_nobody_else_can_read(tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    with pytest.raises(InputError, match=str(token)):
        secure_ray("10.0.0.1:6379")
    assert make_token(token)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert secure_ray("10.0.0.1:6379") == "10.0.0.1:6379"
    token.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        secure_ray("10.0.0.1:6379")


def test_the_token_command_makes_one_and_makes_one_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "token"
    assert main(["token", "--file", str(path)]) == 0
    content = path.read_text()
    assert len(content) == 64
    path.chmod(0o644)
    assert main(["token", "--file", str(path)]) == 0
    assert path.read_text() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_unpickled_evaluated_or_trusted() -> None:
    wrong = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name, options = ast.unparse(node.func), {one.arg: ast.unparse(one.value) for one in node.keywords}
            if (
                (name in ("eval", "exec", "yaml.load", "os.system", "pickle.load", "pickle.loads", "joblib.load"))
                or (name == "torch.load" and options.get("weights_only") != "True")
                or (name == "np.load" and options.get("allow_pickle", "False") != "False")
                or options.get("trust_remote_code", "False") != "False"
                # left out, transformers asks at a terminal, and runs what a model brings along after a "y"
                or (re.fullmatch(r"Auto\w+\.from_pretrained", name) and "trust_remote_code" not in options)
                or options.get("shell", "False") != "False"
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}")
    assert wrong == []


def test_code_of_a_model_is_not_even_asked_about_at_a_terminal(tmp_path: Path) -> None:
    """A detector of a type that only code of its own explains, loaded where somebody could answer "y"."""
    model, ran = tmp_path / "model", tmp_path / "ran"
    model.mkdir()
    auto = {"AutoConfig": "own.Config", "AutoTokenizer": "own.Config", "AutoImageProcessor": "own.Config"}
    (model / "config.json").write_text(json.dumps({"model_type": "unheard-of", "auto_map": auto}))
    (model / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto}))
    (model / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: ...\n")
    save_file({"w": torch.zeros(1)}, model / "model.safetensors")
    script = (
        "import sys\n"
        "from gazetteer.data.core.errors import InputError\n"
        "from gazetteer.labeling.detect.load import load_detector\n"
        "from gazetteer.labeling.detect.protocol import DetectorConfig\n"
        "try:\n    load_detector(DetectorConfig(path=sys.argv[1]))\n"
        "except InputError as error:\n    print('REFUSED', error)\n"
    )
    child, terminal = pty.fork()
    if not child:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", script, str(model)])
    said, answered = b"", False
    with contextlib.suppress(OSError):  # the terminal is gone with its process
        while more := os.read(terminal, 4096):
            said += more
            if b"[y/N]" in said and not answered:
                os.write(terminal, b"y\n")
                answered = True
    os.waitpid(child, 0)
    assert b"REFUSED" in said and not answered, said.decode(errors="replace")
    assert not ran.exists()


@pytest.mark.parametrize("name", ["../outside", "a/b", "/etc/x", ".hidden", "", "a\x00b", "x" * 200])
def test_names_from_outside_cannot_leave_the_run(tmp_path: Path, name: str) -> None:
    run = RunFolder(tmp_path / "run").open_or_create({"config": "abc"})
    before = sorted(tmp_path.rglob("*"))
    for act in (
        lambda: run.commit_shard(name, {"failures": failures("i")}, {}, PROVENANCE),
        lambda: run.write_final(name, failures("i"), PROVENANCE),
        lambda: run.write_top_json(name, {}),
        lambda: run.drop_shard(name),
    ):
        with pytest.raises(GazetteerError, match="not a usable name"):
            act()
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interrupted_or_empty_token_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is killed before its token has a name leaves no token; the next one makes it."""
    token = tmp_path / ".ray" / "auth_token"
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from gazetteer.jobs.executors.ray.security import make_token\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "make_token(Path(sys.argv[1]))\n"
    )
    token.parent.mkdir()
    killed = subprocess.run([sys.executable, "-c", script, str(token)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not token.exists()
    token.write_text("\n")
    token.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with pytest.raises(InputError, match="is empty"):
        secure_ray("10.0.0.1:6379")
    assert make_token(token)
    whole = token.read_text()
    assert len(whole) == 64 and stat.S_IMODE(token.stat().st_mode) == 0o600
    token.chmod(0o644)
    assert not make_token(token)
    assert token.read_text() == whole and stat.S_IMODE(token.stat().st_mode) == 0o600


def test_a_token_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path, tmp_path / "loop"):
        with pytest.raises(InputError, match="is not a file"):
            make_token(path)
