"""The server: a page to drop images on, and the JSON endpoint behind it (Starlette)."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from deeplab_jax.serving.guard import HEADERS, Guard, refused
from deeplab_jax.serving.service import FORMATS, Service
from deeplab_jax.serving.settings import RefusedError, ServeConfig

_READ_AND_DROPPED = 8  # a body up to this many times the limit is read to its end and dropped
_PAGE = pathlib.Path(__file__).with_name("page.html")


def make_app(service: Service, about: dict[str, Any]) -> Starlette:
    """The application: `GET /`, `GET /api/model` and `POST /api/segment`.

    Args:
      about: what `GET /api/model` returns about the network, in addition to classes and limits.
    """
    info, limits = service.info, service.limits
    gate = Gate(limits.max_requests)
    page = _PAGE.read_text(encoding="utf-8")
    model = {
        **about,
        "class_names": list(info.class_names),
        "palette": [list(color) for color in info.palette],
        "formats": list(FORMATS),
        "limits": {"max_bytes": limits.max_bytes, "max_pixels": limits.max_pixels, "max_side": limits.max_side},
    }

    async def show_page(request: Request) -> Response:
        return HTMLResponse(page, headers=HEADERS)

    async def tell_model(request: Request) -> Response:
        return JSONResponse(model, headers=HEADERS)

    async def segment(request: Request) -> Response:
        try:
            with gate.entered():
                data = await read_body(request, limits)
                answer = await run_in_threadpool(service.answer, data)
        except RefusedError as refusal:
            return refused(refusal)
        except ClientDisconnect:
            return Response(status_code=400)
        return JSONResponse(answer, headers=HEADERS)

    return Starlette(
        routes=[
            Route("/", show_page),
            Route("/api/model", tell_model),
            Route("/api/segment", segment, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, limits=limits)],
        exception_handlers={404: _not_found, 405: _not_found, 500: _failed},
    )


class Gate:
    """Admits a bounded number of requests; used from one event loop."""

    def __init__(self, most: int):
        self._most = most
        self._inside = 0

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Raises RefusedError if the limit is reached."""
        if self._inside >= self._most:
            raise RefusedError(503, f"{self._most} requests are waiting already: try again in a moment")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1


async def read_body(request: Request, limits: ServeConfig) -> bytes:
    """The body of a request.

    A client that is cut off while sending never sees the answer, so a body that is moderately too long is read to its
    end and dropped.

    Raises:
      RefusedError: if the body is too long or does not arrive.
    """
    too_long = RefusedError(413, f"the file has more than {limits.max_bytes:,} bytes: make it smaller")
    most = _READ_AND_DROPPED * limits.max_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise too_long
    body, num_bytes = bytearray(), 0
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for chunk in request.stream():
                num_bytes += len(chunk)
                if num_bytes > most:
                    raise too_long
                if num_bytes <= limits.max_bytes:
                    body += chunk
    except TimeoutError:
        raise RefusedError(408, f"the file did not arrive within {limits.upload_seconds:g} seconds") from None
    if num_bytes > limits.max_bytes:
        raise too_long
    return bytes(body)


async def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return refused(RefusedError(status, "there are GET /, GET /api/model and POST /api/segment"))


async def _failed(request: Request, error: Exception) -> Response:
    return refused(RefusedError(500, f"the server failed on this image ({type(error).__name__}): see its log"))
