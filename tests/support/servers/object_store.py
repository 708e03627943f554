"""A real S3-compatible server, and between it and its clients a network that misbehaves or a lesser store's answers."""

from __future__ import annotations

import http.client
import http.server
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def s3_server() -> Iterator[str]:
    """moto's server on a free port of this machine; yields its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        # What moto stores is the process's: the buckets of an earlier server would still be there.
        connection = http.client.HTTPConnection(host, port)
        connection.request("POST", "/moto-api/reset")
        assert connection.getresponse().status == 200
        connection.close()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def environment(address: str) -> dict[str, str]:
    """What a process needs to use the server as S3."""
    return {
        "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "2",
    }  # fmt: skip


class Network(http.server.ThreadingHTTPServer):
    """Passes requests on to `target` and spoils some of them.

    Attributes:
        store: how the store takes ``If-None-Match``, which moto honours: ``ignores`` it (the header is stripped),
            ``refuses`` it (501, as stores do that do not know it), answers 412 in few words (``terse``, without
            naming the condition), or "" as moto does.
        answer: an S3 error code that every request gets, as ``ExpiredToken``; "" for none.
        fault: ``refuse`` (503 without passing it on), ``lose`` (passed on, but the answer never arrives: the
            connection closes), ``hang`` (no answer for `patience` seconds) or "" for none.
        fraction: of requests that are spoiled.
        spoiled: how many were, by fault and method.
    """

    daemon_threads = True

    def __init__(self, target: str, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.host = target.removeprefix("http://")
        self.store, self.answer = "", ""
        self.fault, self.fraction, self.patience = "", 0.0, 5.0
        self.spoiled: Counter[str] = Counter()
        self.chance = random.Random(seed)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Passing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Network

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        spoil = self.server.fault if self.server.chance.random() < self.server.fraction else ""
        if spoil:
            self.server.spoiled[f"{spoil} {self.command}"] += 1
        headers = dict(self.headers)
        condition = headers.pop("If-None-Match", None)
        if condition and self.server.store != "ignores":
            headers["If-None-Match"] = condition
        if self.server.answer or (condition and self.server.store == "refuses"):
            self._say(403 if self.server.answer else 501, self.server.answer or "NotImplemented")
            return
        if spoil == "refuse":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if spoil == "hang":
            time.sleep(self.server.patience)
            self.close_connection = True
            return
        connection = http.client.HTTPConnection(self.server.host, timeout=60)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status == 412 and self.server.store == "terse":
            self._say(412, "PreconditionFailed")
            return
        if spoil == "lose":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)

    def _say(self, status: int, code: str) -> None:
        """An S3 error with a code and nothing else."""
        content = f"<Error><Code>{code}</Code><Message>said by the network</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def network(target: str) -> Iterator[Network]:
    """A network in front of the server at `target`."""
    between = Network(target)
    threading.Thread(target=between.serve_forever, daemon=True).start()
    try:
        yield between
    finally:
        between.shutdown()
        between.server_close()


def use(address: str) -> None:
    """Let this process's s3 filesystems talk to the server from now on."""
    import fsspec

    os.environ.update(environment(address))
    fsspec.filesystem("s3").clear_instance_cache()
