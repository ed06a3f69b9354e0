"""Requests to a server that runs in a thread: whole images, and every kind of broken one."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import http.client
import io
import json
import struct
import threading
import time
import zlib

import numpy as np
import uvicorn
from PIL import Image

from deeplab_jax.serving.connections import uvicorn_config
from deeplab_jax.serving.guard import HOST
from deeplab_jax.serving.service import Service
from deeplab_jax.serving.settings import ServeConfig
from deeplab_jax.serving.web import make_app
from deeplab_jax.types import DatasetInfo

INFO = DatasetInfo("toy", 3, 255, ("dark", "grey", "light"), ((0, 0, 0), (250, 10, 20), (10, 250, 20)), {"val": 1})
LIMITS = ServeConfig(
    max_bytes=200_000,
    max_pixels=40_000,
    max_side=400,
    max_requests=4,
    max_shapes=3,
    upload_seconds=0.5,
    max_rate=100_000,
)


def by_brightness(image):
    """A third of the range of brightness for each class."""
    ids = (image.max(axis=-1) // 86).astype(np.uint8)
    return lambda: ids


def make_service(make_segment=lambda: by_brightness, limits=LIMITS):
    return Service(make_segment, lambda size: (-(-size[0] // 64) * 64, -(-size[1] // 64) * 64), INFO, limits)


@contextlib.contextmanager
def serving(service):
    """The port of a server in a thread of this process."""
    app = make_app(service, {"network": "a toy"})
    server = uvicorn.Server(uvicorn_config(app, service.limits, host=HOST, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def ask(port, body=b"", method="POST", path="/api/segment", headers=None):
    """(status, headers, decoded JSON or text) of one request."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
        is_json = response.headers["content-type"] == "application/json"
        return response.status, response.headers, json.loads(content) if is_json else content.decode()
    finally:
        connection.close()


def encoded(pixels, file_format="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


def photo(rng, size=(40, 60)):
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


def bomb(width=30_000, height=30_000):
    """A PNG of a few hundred bytes whose header promises a gigabyte of pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def malformed(rng):
    """Name -> (body, status) of what must be refused."""
    png, jpeg = encoded(photo(rng)), encoded(photo(rng), "JPEG")
    return {
        "empty": (b"", 400),
        "text": (b"<html>this is no image</html>", 415),
        "noise": (rng.bytes(5_000), 415),
        "pdf": (b"%PDF-1.7\n" + rng.bytes(500), 415),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
        "truncated png": (png[: len(png) // 2], 422),
        "truncated jpeg": (jpeg[: len(jpeg) // 2], 422),
        "header alone": (png[:30], 422),
        "bomb": (bomb(), 413),
        "pixels": (encoded(np.zeros((201, 201, 3), np.uint8)), 413),
        "side": (encoded(np.zeros((2, 401, 3), np.uint8)), 413),
        "bytes": (encoded(photo(rng, (199, 200))) + bytes(200_000), 413),
        "floats": (encoded(rng.normal(size=(9, 9)).astype(np.float32), "TIFF"), 422),
    }


def load(port, num_requests, rng, num_clients=6):
    """Statuses of as many requests, every third of them malformed; those told to come back do."""
    broken = list(malformed(rng).values())
    whole = [encoded(photo(rng, size), kind) for size in ((40, 60), (90, 130)) for kind in ("PNG", "JPEG")]

    def one(index):
        body, expected = broken[index // 3 % len(broken)] if index % 3 == 0 else (whole[index % len(whole)], 200)
        while True:
            status, _, answer = ask(port, body)
            if status != 503:
                assert status == expected, (status, expected, answer)
                return status
            time.sleep(0.02)

    with concurrent.futures.ThreadPoolExecutor(num_clients) as clients:
        return collections.Counter(clients.map(one, range(num_requests)))
