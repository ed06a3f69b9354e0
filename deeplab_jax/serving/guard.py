"""Refusals of the server: their form, and those that a request's header suffices for."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from deeplab_jax.serving.settings import RefusedError, ServeConfig

HOST = "127.0.0.1"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_HOST_NAMES = (HOST, "localhost")
_RETRY = (429, 503)
_MAX_ADDRESSES = 1024  # whose rates are remembered


def refused(refusal: RefusedError) -> Response:
    """{'error': one line} with its status; the connection ends, since the body may not have been read."""
    headers = {**HEADERS, "Connection": "close"} | ({"Retry-After": "1"} if refusal.status in _RETRY else {})
    return JSONResponse({"error": refusal.message}, refusal.status, headers)


class Guard:
    """Refuses requests that other sites' pages send, or that come too fast, before anything of them is read."""

    def __init__(self, app: ASGIApp, limits: ServeConfig) -> None:
        self._app = app
        self._rates = _Rates(limits.max_rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            _check_origin(scope["method"], Headers(scope=scope))
            self._rates.count(scope["client"][0] if scope["client"] else "")
        except RefusedError as refusal:
            await refused(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _check_origin(method: str, headers: Headers) -> None:
    """Raises RefusedError for another host's name, as DNS rebinding uses it, and for requests by other sites' pages.

    A link on another site may open the page, and programs that are no browsers send neither header.
    """
    host = headers.get("host", "")
    name, _, port = host.partition(":")
    if name not in _HOST_NAMES or (port and not port.isdecimal()):
        raise RefusedError(400, f"the request is for another host: this is {HOST}")
    origin = headers.get("origin", f"http://{host}")
    opens_page = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    by_other_site = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    if origin != f"http://{host}" or (by_other_site and not opens_page):
        raise RefusedError(403, "the request comes from another site's page: use this server's own, or no browser")


class _Rates:
    """A bucket of tokens for each address: `most` at once, and as many again each second."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when they were counted

    def count(self, address: str) -> None:
        """Takes a token; raises RefusedError if there is none."""
        now = time.monotonic()
        tokens, before = self._buckets.pop(address, (float(self._most), now))
        tokens = min(self._most, tokens + (now - before) * self._most)
        if len(self._buckets) >= _MAX_ADDRESSES:
            self._buckets.pop(next(iter(self._buckets)))  # the one that has been silent for longest
        self._buckets[address] = (max(tokens - 1, 0.0), now)
        if tokens < 1:
            raise RefusedError(429, f"more than {self._most} requests in a second: try again in a moment")
