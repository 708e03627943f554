"""A Hugging Face hub on this machine: repositories, commits, large files, trees, as `huggingface_hub` asks for them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.servers.serving import serving

TOKEN = "hf_test"
OWNER = "ada"


@dataclass
class Repository:
    """One repository with its only branch.

    Attributes:
        private: as it was made.
        files: bytes by path.
        large: paths kept as large files.
        commits: message and changed paths of each, in order.
    """

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.parquet filter=lfs\n"})
    large: set[str] = field(default_factory=set)
    commits: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def head(self) -> str:
        """A commit id of its state."""
        return hashlib.sha1(f"{len(self.commits)}{sorted(self.files)}".encode()).hexdigest()


@dataclass
class Hub:
    """What a server holds, and what it was sent.

    Attributes:
        repositories: by kind (``dataset``, ``model``) and id.
        objects: large files by sha256.
        sent: bytes of large files received.
        refuse_commit: the number of the commit (from 1, over all) that is answered with 500.
    """

    address: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    sent: int = 0
    commits: int = 0
    refuse_commit: int = 0


@contextmanager
def hub() -> Iterator[Hub]:
    """A running hub; give its `address` as HF_ENDPOINT and `TOKEN` as HF_TOKEN to another process."""
    state = Hub()

    class Handler(_Handler):
        hub = state

    with serving(Handler) as address:
        state.address = address
        yield state


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._allowed(write=True):
            return
        path = unquote(urlsplit(self.path).path)
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/(datasets/)?(.+)\.git/info/lfs/objects/batch", path):
            self._batch(json.loads(body))
        elif found := re.fullmatch(r"/api/(dataset|model)s/(.+?)/(preupload|commit|paths-info)/([^/]+)", path):
            repository = self.hub.repositories.get((found[1], found[2]))
            if repository is None:
                self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            else:
                getattr(self, f"_{found[3].replace('-', '_')}")(repository, body)
        else:
            self._json({"error": path}, 404)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.objects[hashlib.sha256(body).hexdigest()] = body
        self.hub.sent += len(body)
        self._json({})

    def do_GET(self) -> None:
        if not self._allowed(write=False):
            return
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/(dataset|model)s/([^/]+/[^/]+)/tree/[^/]+/?(.*)", path):
            self._tree(self.hub.repositories.get((found[1], found[2])), found[3])
        elif found := re.fullmatch(r"/api/(dataset|model)s/([^/]+/[^/]+)(/revision/.*)?", path):
            self._info(found[2], self.hub.repositories.get((found[1], found[2])))
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(self.hub.repositories.get(("dataset" if found[1] else "model", found[2])), found[4])
        else:
            self._json({"error": path}, 404)

    do_HEAD = do_GET

    def _allowed(self, write: bool) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        if write or any(repository.private for repository in self.hub.repositories.values()):
            self._json({"error": "Invalid username or password."}, 401)
            return False
        return True

    def _create(self, asked: dict[str, Any]) -> None:
        owner, name, kind = asked.get("organization") or OWNER, asked["name"], asked.get("type", "model")
        if owner != OWNER:
            self._json({"error": f"You don't have the rights to create a {kind} under the namespace {owner}"}, 403)
            return
        there = (kind, f"{owner}/{name}") in self.hub.repositories
        if not there:
            private = asked.get("private") is True or asked.get("visibility") == "private"
            self.hub.repositories[kind, f"{owner}/{name}"] = Repository(private)
        url = f"{self.hub.address}/{'datasets/' if kind == 'dataset' else ''}{owner}/{name}"
        self._json({"url": url, "name": f"{owner}/{name}"}, 409 if there else 200)

    def _info(self, name: str, repository: Repository | None) -> None:
        if repository is None:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        self._json({"id": name, "sha": repository.head, "private": repository.private, "siblings": [], "tags": []})

    def _preupload(self, repository: Repository, body: bytes) -> None:
        files = []
        for file in json.loads(body)["files"]:
            large = file["path"].endswith((".parquet", ".safetensors"))
            files.append({"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False})
        self._json({"files": files})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for wanted in asked["objects"]:
            known = wanted["oid"] in self.hub.objects
            action = {"upload": {"href": f"{self.hub.address}/upload/{wanted['oid']}"}}
            objects.append(wanted | ({} if known else {"actions": action}))
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, repository: Repository, body: bytes) -> None:
        self.hub.commits += 1
        if self.hub.commits == self.hub.refuse_commit:
            self._json({"error": "Internal Error"}, 500)
            return
        changed, message = [], ""
        for line in body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header":
                message = value["summary"]
                continue
            changed.append(value["path"])
            if key == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                repository.files[value["path"]] = self.hub.objects[value["oid"]]
                repository.large.add(value["path"])
            else:
                del repository.files[value["path"]]
        repository.commits.append((message, changed))
        url = f"{self.hub.address}/{OWNER}/any/commit/{repository.head}"
        self._json({"commitUrl": url, "commitOid": repository.head})

    def _entry(self, repository: Repository, path: str) -> dict[str, Any]:
        content = repository.files[path]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob}
        if path in repository.large:
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry

    def _folder(self, path: str) -> dict[str, Any]:
        return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}

    def _tree(self, repository: Repository | None, below: str) -> None:
        if repository is None:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() in ("1", "true")
        prefix = f"{below.rstrip('/')}/" if below else ""
        inside = [path for path in sorted(repository.files) if path.startswith(prefix)]
        if prefix and not inside:
            self._json({"error": "not there"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        parts = {path: path.removeprefix(prefix).split("/") for path in inside}
        direct = [path for path in inside if recursive or len(parts[path]) == 1]
        deepest = {path: len(parts[path]) if recursive else min(2, len(parts[path])) for path in inside}
        folders = sorted(
            {prefix + "/".join(parts[path][:depth]) for path in inside for depth in range(1, deepest[path])}
        )
        self._json([*map(self._folder, folders), *(self._entry(repository, path) for path in direct)])

    def _paths_info(self, repository: Repository, body: bytes) -> None:
        text = body.decode()
        paths = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
        found = []
        for path in paths:
            if path in repository.files:
                found.append(self._entry(repository, path))
            elif any(name.startswith(f"{path}/") for name in repository.files):
                found.append(self._folder(path))
        self._json(found)

    def _resolve(self, repository: Repository | None, path: str) -> None:
        if repository is None or path not in repository.files:
            code = "RepoNotFound" if repository is None else "EntryNotFound"
            self._json({"error": "not there"}, 404, {"X-Error-Code": code})
            return
        content = repository.files[path]
        headers = {"X-Repo-Commit": repository.head, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        status, asked = 200, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), int(asked[2]) if asked[2] else len(content) - 1
            headers["Content-Range"] = f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}"
            content, status = content[first : last + 1], 206
        self._send(content, status, headers)

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        more = {"X-Error-Message": value["error"]} if isinstance(value, dict) and "error" in value else {}
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **more, **(headers or {})})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""
