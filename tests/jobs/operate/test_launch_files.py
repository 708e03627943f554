"""Every launching file holds what its system accepts, calls commands that exist, and keeps to the security rules."""

from __future__ import annotations

import copy
import json
import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from gazetteer import __version__
from gazetteer.jobs.cli.main import main, parser
from tests.support.system.running import ROOT

LAUNCH = ROOT / "jobs" / "operate" / "launch"
TEXTS = {str(path.relative_to(LAUNCH)): path.read_text() for path in sorted(LAUNCH.rglob("*")) if path.is_file()}
DOCS = (ROOT / "docs/reference/launching.md").read_text()


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(TEXTS[name]))


def commands(text: str) -> list[list[str]]:
    """Every `gazetteer VERB …` of a file, as words: of shell lines, of comments, and of YAML lists."""
    joined = re.sub(r"\\\n\s*", " ", text)
    joined = re.sub(r"\n\s*- (?=(gazetteer|submit|nightly|workers=2|--)\S*$)", " ", joined, flags=re.M)
    joined = re.sub(r"(>-\n\s+[^\n]*)\n\s+(--[^\n]*)", r"\1 \2", joined)
    joined = re.sub(r"\n\s+(--(?:set|log) [^\n]*)", r" \1", joined)
    found = re.findall(r"(?<![\w@./-])(?:/opt/gazetteer/bin/)?gazetteer ((?:[a-z]+ )+--?[^\n`&>]*)", joined)
    return [shlex.split(one, comments=True) for one in found]


def test_the_files_are_those_that_the_documentation_lists() -> None:
    assert set(re.findall(r"^\| `([^`]+)` \| [^|]+ \| [^|]+ \|$", DOCS, re.M)) == set(TEXTS)


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_is_one_that_exists(name: str) -> None:
    found = commands(TEXTS[name])
    assert found or name in ("Dockerfile", "systemd/gazetteer-nightly.timer", "grafana/gazetteer.json")
    for words in found:
        asked = parser().parse_args(words)
        if asked.verb == "submit":
            parser().parse_args(asked.command[1:])


def test_the_command_copies_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", str(tmp_path / "launch")]) == 0
    copied = {str(p.relative_to(tmp_path / "launch")) for p in (tmp_path / "launch").rglob("*") if p.is_file()}
    assert copied == set(TEXTS)
    assert main(["launch", str(tmp_path / "launch")]) == 2
    assert "new or empty" in capsys.readouterr().err


# ray up: Ray's own preparation and schema.


def ray_config(name: str) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = documents(name)[0]
    validate_config(prepare_config(copy.deepcopy(config)))
    return config


@pytest.mark.parametrize("name", ["ray/cluster-aws.yaml", "ray/cluster-lan.yaml"])
def test_ray_up_files(name: str) -> None:
    config = ray_config(name)
    head, worker = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in head
    for command in (head, worker):
        assert "RAY_AUTH_MODE=token" in command
        assert "RAY_USAGE_STATS_ENABLED=0" in command
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]


def test_nodes_of_a_cloud_install_the_wheel_of_this_version_which_they_are_given() -> None:
    config = documents("ray/cluster-aws.yaml")[0]
    wheel = f"/home/ubuntu/gazetteer-{__version__}-py3-none-any.whl"
    assert Path(config["file_mounts"][wheel]).name == Path(wheel).name
    assert [line for line in config["setup_commands"] if f'"{wheel}[' in line]


def test_ray_up_refuses_what_is_wrong() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = documents("ray/cluster-aws.yaml")[0]
    for wrong in ({"max_worker": 3}, {"head_node_type": "nobody"}, {"max_workers": "many"}):
        with pytest.raises(Exception, match=str(next(iter(wrong))) + "|nobody|many"):
            validate_config(prepare_config({**copy.deepcopy(config), **wrong}))


# KubeRay: the operator's own schema, made strict.


@cache
def cron_schema() -> dict[str, Any]:
    packed = ROOT / "tests" / "jobs" / "operate" / "kuberay" / "ray.io_raycronjobs.yaml.xz"
    crd = yaml.load(lzma.decompress(packed.read_bytes()), yaml.CSafeLoader)
    (version,) = crd["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object"}
    return strict(schema)


def strict(schema: Any) -> Any:
    """The schema with unknown keys refused, as the API server does with strict field validation."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if made.get("x-kubernetes-int-or-string") is True:
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", made.get("x-kubernetes-preserve-unknown-fields") is True)
    return made


def check_kuberay(document: dict[str, Any]) -> None:
    """A RayJob's spec is a RayCronJob's jobTemplate, and a RayCluster's spec is part of that."""
    schema = cron_schema()["properties"]["spec"]
    for kind, key in (("RayJob", "jobTemplate"), ("RayCluster", "rayClusterSpec")):
        if document["kind"] != "RayCronJob":
            schema = schema["properties"][key]
        if document["kind"] == kind:
            break
    assert document["apiVersion"] == ("ray.io/v1" if document["kind"] != "RayCronJob" else document["apiVersion"])
    jsonschema.validate(document["spec"], schema)


KUBERAY = [
    (name, number)
    for name in TEXTS
    if name.startswith("kubernetes/")
    for number, document in enumerate(documents(name))
    if document["apiVersion"].startswith("ray.io/")
]


@pytest.mark.parametrize(("name", "number"), KUBERAY)
def test_kuberay_files(name: str, number: int) -> None:
    document = documents(name)[number]
    check_kuberay(document)
    spec = document["spec"]
    job = spec.get("jobTemplate", spec)
    cluster = job.get("rayClusterSpec", job)
    assert cluster["authOptions"]["mode"] == "token"
    assert "runtimeEnvYAML" not in job
    assert "backoffLimit" not in spec or spec["backoffLimit"] >= 1


@pytest.mark.parametrize(
    ("name", "path", "key", "value"),
    [
        ("kubernetes/raycronjob.alpha.yaml", ["spec"], "concurrencyPolicy", "Forbid"),
        ("kubernetes/raycronjob.alpha.yaml", ["spec", "jobTemplate"], "shutdownAfterJobFinish", True),
        ("kubernetes/rayjob.yaml", ["spec", "rayClusterSpec"], "authOption", {"mode": "token"}),
        ("kubernetes/rayjob.yaml", ["spec", "rayClusterSpec", "workerGroupSpecs", 0], "replicas", "two"),
        ("kubernetes/cronjob.yaml", ["spec", "headGroupSpec", "template", "spec", "containers", 0], "images", "x"),
    ],
)
def test_kuberay_refuses_what_is_wrong(name: str, path: list[Any], key: str, value: Any) -> None:
    document = documents(name)[0]
    place: Any = document
    for step in path:
        place = place[step]
    place[key] = value
    with pytest.raises(jsonschema.ValidationError):
        check_kuberay(document)


def test_the_kind_of_the_alpha_api_is_the_one_of_the_operator() -> None:
    packed = ROOT / "tests" / "jobs" / "operate" / "kuberay" / "ray.io_raycronjobs.yaml.xz"
    head = lzma.decompress(packed.read_bytes())[:4000].decode()
    (document,) = documents("kubernetes/raycronjob.alpha.yaml")
    assert f"kind: {document['kind']}" in head
    version = document["apiVersion"].removeprefix("ray.io/")
    assert version in re.findall(r"name: (v1\w*)", lzma.decompress(packed.read_bytes()).decode())
    assert "ALPHA" in TEXTS["kubernetes/raycronjob.alpha.yaml"]


# Plain Kubernetes: the schemas of the API server.


def test_the_cron_job_and_its_network_policy() -> None:
    _, cron, policy = documents("kubernetes/cronjob.yaml")
    for document in (cron, policy):
        kubernetes_validate.validate(document, "1.31", strict=True)
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    job = cron["spec"]["jobTemplate"]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    (rule,) = job["podFailurePolicy"]["rules"]  # codes that the command returns itself are not tried again
    assert rule["action"] == "FailJob" and {1, 2, 3, 75} == set(rule["onExitCodes"]["values"])
    assert rule["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    cron["spec"]["concurencyPolicy"] = "Forbid"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(cron, "1.31", strict=True)


# Slurm: the script runs against stand-ins of Slurm's commands, which write down what they are asked.


def test_the_slurm_script(tmp_path: Path) -> None:
    script = LAUNCH / "slurm" / "label.sbatch"
    assert subprocess.run(["bash", "-n", script], capture_output=True, check=False).returncode == 0
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    stand_ins = {
        "scontrol": 'if [ "$1" = show ]; then printf "node1\\nnode2\\n"; else echo "scontrol $*" >>"$CALLS"; fi',
        "srun": 'case "$*" in *hostname*) echo 10.0.0.1;; *) printf "%s\\n" "$@" >"$CALLS"; exit "${CODE:-0}";; esac',
    }
    for name, body in stand_ins.items():
        (bin_folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (bin_folder / name).chmod(0o755)
    environment = {
        "PATH": f"{bin_folder}:{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path),
        "CALLS": str(tmp_path / "calls"), "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_ID": "7", "VENV": str(tmp_path / "none"), "OUT": "/shared/run",
    }  # fmt: skip
    for code in (0, 3):
        done = subprocess.run(
            ["bash", script], env={**environment, "CODE": str(code)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        words = (tmp_path / "calls").read_text().splitlines()
        ray, own = words[words.index("ray") :], words[words.index("gazetteer") + 1 :]
        assert ray[:6] == ["ray", "symmetric-run", "--address", "10.0.0.1:6379", "--min-nodes", "2"]
        asked = parser().parse_args(own)
        assert asked.out == "/shared/run"
        assert "ray_address=10.0.0.1:6379" in asked.overrides
        assert "ray_address=auto" not in TEXTS["slurm/label.sbatch"]


def test_symmetric_run_knows_the_options_of_the_slurm_script() -> None:
    from ray.scripts.scripts import start
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args, symmetric_run

    assert {"address", "min_nodes"} <= {one.name for one in symmetric_run.params}
    assert "--include-dashboard" in {name for one in start.params for name in one.opts}
    kept = curate_and_validate_ray_start_args(["--address", "10.0.0.1:6379", "--include-dashboard=false"])
    assert "--include-dashboard=false" in kept


# systemd and cron.


def test_the_systemd_units(tmp_path: Path) -> None:
    for name in ("gazetteer-nightly.service", "gazetteer-nightly.timer"):
        text = TEXTS[f"systemd/{name}"].replace("/opt/gazetteer/bin/gazetteer", sys.executable)
        (tmp_path / name).write_text(text)
    sections = {"Unit", "Service", "Timer", "Install"}
    for path in tmp_path.iterdir():
        assert set(re.findall(r"^\[(\w+)\]$", path.read_text(), re.M)) <= sections
    if shutil.which("systemd-analyze"):  # it says what is wrong, but ends with 0
        done = subprocess.run(
            ["systemd-analyze", "verify", *map(str, tmp_path.iterdir())], capture_output=True, text=True, check=False,
            env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        )  # fmt: skip
        assert [line for line in done.stderr.splitlines() if "gazetteer-nightly" in line] == []
        (when,) = re.findall(r"OnCalendar=(.*)", TEXTS["systemd/gazetteer-nightly.timer"])
        calendar = subprocess.run(["systemd-analyze", "calendar", when], capture_output=True, text=True, check=False)
        assert calendar.returncode == 0, calendar.stderr


def test_the_service_hides_homes_and_keeps_what_lies_there_elsewhere() -> None:
    text = TEXTS["systemd/gazetteer-nightly.service"]
    assert "ProtectHome=yes" in text and "SuccessExitStatus=75\n" in text
    (writable,) = re.findall(r"^ReadWritePaths=(.*)$", text, re.M)
    set_to = dict(word.split("=", 1) for line in re.findall(r"^Environment=(.*)$", text, re.M) for word in line.split())
    for name in ("HF_HOME", "RAY_AUTH_TOKEN_PATH"):
        assert Path(set_to[name]).is_relative_to(writable)
    assert f"gazetteer token --file {set_to['RAY_AUTH_TOKEN_PATH']}\n" in text


def test_the_crontab_line() -> None:
    (line,) = [line for line in TEXTS["gazetteer.crontab"].splitlines() if line and not line.startswith("#")]
    minute, hour, *rest = line.split()[:5]
    assert 0 <= int(minute) < 60
    assert 0 <= int(hour) < 24
    assert rest == ["*"] * 3
    assert "%" not in line, "cron would read it as the end of the line"


# The image.


def test_the_dockerfile_copies_what_there_is_and_runs_as_nobody_special() -> None:
    lines = [line.split() for line in TEXTS["Dockerfile"].splitlines() if line[:1].isupper()]
    copied = [word for line in lines if line[0] == "COPY" for word in line[1:-1]]
    assert all((ROOT / word).exists() for word in copied)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages <= set(copied)
    assert ["USER", "1000"] in lines
    assert "RAY_AUTH_MODE=token" in TEXTS["Dockerfile"]


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, LAUNCH / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    bad = subprocess.run([linter, "-"], input="FROM python\n", capture_output=True, text=True, check=False)
    assert "DL3006" in bad.stdout


# Grafana: the metrics that a run offers, each shown, and none that there is not.


def test_the_dashboard_shows_every_metric_of_a_run_and_no_other() -> None:
    metrics = (ROOT / "jobs" / "executors" / "ray" / "metrics.py").read_text()
    names = set(re.findall(r'^        "(\w+)": "', metrics, re.M))  # the counters
    names |= {"stage_seconds"}
    offered = {f"ray_gazetteer_{name}_total" for name in names} | {"ray_gazetteer_seconds_left"}
    dashboard = json.loads(TEXTS["grafana/gazetteer.json"])
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert set(re.findall(r"ray_gazetteer_\w+", " ".join(asked))) == offered
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24


def test_no_file_holds_a_secret_or_opens_a_dashboard() -> None:
    for name, text in TEXTS.items():
        assert not re.search(r"0\.0\.0\.0|AKIA|BEGIN [A-Z ]*PRIVATE KEY|auth_token: *\"", text), name
        assert "ray_address=auto" not in text
        assert not re.search(r"(?i)pip:|working_dir", text), name
