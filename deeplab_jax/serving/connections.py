"""The server's connections, on uvicorn's HTTP/1.1: how many are held, and how long each may be silent."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from deeplab_jax.serving.settings import ServeConfig


def uvicorn_config(app: ASGIApp, limits: ServeConfig, **options: Any) -> uvicorn.Config:
    """Settings with which uvicorn keeps the limits on connections; `options` are further ones of `uvicorn.Config`."""
    protocol: Any = functools.partial(BoundedConnection, limits=limits)
    keep_alive = max(1, round(limits.idle_seconds))
    return uvicorn.Config(app, http=protocol, ws="none", timeout_keep_alive=keep_alive, access_log=False, **options)


class BoundedConnection(H11Protocol):
    """A connection that is closed if a request's header does not arrive in time, or to make room for another one.

    At most `max_connections` are open: one more closes the one that has been idle for longest, and is refused only if
    none is idle. Nobody can block the server by holding connections open.
    """

    def __init__(self, *args: Any, limits: ServeConfig, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None  # for a header that has begun, or is to begin
        self._idle_since = self.loop.time()

    @property
    def address(self) -> str:
        """The client's, without the port."""
        return self.client[0] if self.client else ""

    @property
    def is_idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_header()
        limits = self._limits
        if sum(other.address == self.address for other in self._all()) > limits.max_per_address:
            self._refuse(503, f"{limits.max_per_address} connections from {self.address} are open: close one")
        elif len(self.connections) > limits.max_connections and not self._make_room():
            self._refuse(503, f"{limits.max_connections} requests are in progress: try again in a moment")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if not self.is_idle:
            self._stop_waiting()
        elif self._deadline is None:
            self._expect_header()

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is no valid HTTP request")

    def _all(self) -> list[BoundedConnection]:
        """The server's connections, this one among them."""
        return [each for each in self.connections if isinstance(each, BoundedConnection)]

    def _make_room(self) -> bool:
        """Closes the connection that has been idle for longest; False if all are busy."""
        idle = [each for each in self._all() if each is not self and each.is_idle]
        if idle:
            longest = min(idle, key=lambda each: each._idle_since)
            self.connections.discard(longest)  # its end is reported later, and must not be counted until then
            longest.transport.abort()
        return bool(idle)

    def _expect_header(self) -> None:
        self._deadline = self.loop.call_later(self._limits.header_seconds, self._expire)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if self.is_idle:
            self._refuse(408, f"no request arrived within {self._limits.header_seconds:g} seconds")

    def _refuse(self, status: int, message: str) -> None:
        """{'error': one line}, and the end of the connection."""
        if self.transport.is_closing():
            return
        body = json.dumps({"error": message}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            head = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
