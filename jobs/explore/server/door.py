"""Who may ask: this machine's own pages, with the token; everybody else gets one sentence.

The server listens on the loopback address, but any page that a browser shows may send requests there. So the name by
which it was asked must be a local one (a foreign name that leads here is an attack), the page that asks must be its
own, and the token must be in the address, in the cookie that the first page sets, or in a header.
"""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gazetteer.jobs.explore.server.refused import Refused

LOCAL = ("127.0.0.1", "localhost")
MOST_BYTES = 1_000_000
"""Of a request's body."""
DRAINED = 32 * MOST_BYTES
"""Bytes of a refused body that are read and forgotten; a longer one is cut off."""

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer."""


class Door:
    """Lets in what is allowed, and puts its headers on every answer."""

    def __init__(self, app: ASGIApp, token: str, port: int, sentence: Any) -> None:
        """`sentence` makes the answer of a `Refused`: (scope, refused) -> an ASGI response."""
        self._app, self._token, self._cookie, self._sentence = app, token, f"gazetteer-{port}", sentence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = {**HEADERS, **self._new_cookie(scope)}
                message["headers"] = [*message.get("headers", ()),
                                      *((n.encode(), v.encode()) for n, v in extra.items())]  # fmt: skip
            await send(message)

        try:
            self._check(scope, headers)
        except Refused as refused:
            await _drained(receive)
            await self._sentence(scope, refused)(scope, receive, answered)
            return
        await self._app(scope, receive, answered)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if host.rpartition(":")[0] not in LOCAL and host not in LOCAL:
            raise Refused(403, f"This server answers to {LOCAL[0]} and {LOCAL[1]} only.")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            raise Refused(403, "Another site's page may not ask here.")
        given = _in_address(scope) or headers.get("x-gazetteer-token") or self._cookie_token(headers)
        if not given or not self._fits(given):
            what = "wrong" if given else "missing"
            raise Refused(403, f"The token is {what}; open the address that gazetteer explore printed.")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MOST_BYTES:
            raise Refused(413, f"A request holds at most {MOST_BYTES:,} bytes.")

    def _fits(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self._token.encode())

    def _cookie_token(self, headers: Headers) -> str:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return cookie.value if cookie else ""

    def _new_cookie(self, scope: Scope) -> dict[str, str]:
        """The token as a cookie for who has named it in the address."""
        if not self._fits(_in_address(scope)):
            return {}
        return {"set-cookie": f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"}


async def _drained(receive: Receive) -> None:
    """Read what still comes of a refused request, for a while: who is sending hears no answer."""
    read = 0
    while read <= DRAINED:
        message = await receive()
        read += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


def _in_address(scope: Scope) -> str:
    try:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=50)
    except ValueError:
        return ""
    return query.get("token", [""])[0]
