"""The server: what it answers, what it refuses, and that neither load nor broken requests hurt it."""

from __future__ import annotations

import base64
import gc
import http.client
import io
import socket
import threading
import time
import weakref

import numpy as np
import psutil
import pytest
from PIL import Image
from requests_to_serve import (
    HOST,
    INFO,
    LIMITS,
    ask,
    by_brightness,
    encoded,
    load,
    make_service,
    malformed,
    photo,
    serving,
)

from deeplab_jax.apps.modes import serve as app
from deeplab_jax.types import UserError


@pytest.fixture(scope="module")
def port():
    with serving(make_service()) as port:
        yield port


def test_an_image_is_answered_with_mask_overlay_legend_and_timings(port, rng):
    image = photo(rng)
    image[:, :20] = 10  # dark
    status, _, answer = ask(port, encoded(image))
    assert status == 200
    assert (answer["width"], answer["height"]) == (60, 40)
    with Image.open(io.BytesIO(base64.b64decode(answer["mask"]))) as mask:
        np.testing.assert_array_equal(mask, by_brightness(image)())
        assert mask.getpalette()[3:6] == [250, 10, 20]
    with Image.open(io.BytesIO(base64.b64decode(answer["overlay"]))) as overlay:
        assert (overlay.format, overlay.size) == ("JPEG", (60, 40))
    shares = {each["name"]: each["share"] for each in answer["classes"]}
    assert shares["dark"] >= 1 / 3
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert set(answer["timings_ms"]) == {"decode", "wait", "network", "draw"}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_common_formats_are_taken(port, rng, file_format):
    assert ask(port, encoded(photo(rng), file_format))[0] == 200


@pytest.mark.parametrize("name", malformed(np.random.default_rng(0)))
def test_a_broken_request_is_refused_in_one_line(port, rng, name):
    body, expected = malformed(rng)[name]
    status, headers, answer = ask(port, body)
    assert status == expected, answer
    assert headers["content-type"] == "application/json"
    assert set(answer) == {"error"}
    assert answer["error"]
    assert "\n" not in answer["error"]


def test_a_file_that_is_announced_too_large_is_refused_unread(port):
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    connection.putrequest("POST", "/api/segment")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_stream_without_a_length_is_too_long_in_its_turn(port):
    status, _, answer = ask(port, (bytes(50_000) for _ in range(5)))
    assert status == 413
    assert "200,000 bytes" in answer["error"]


def test_a_stream_without_an_end_is_cut_off(port):
    def endless():
        while True:
            yield bytes(100_000)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        ask(port, endless())


def test_a_file_that_does_not_arrive_is_given_up(port):
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    connection.putrequest("POST", "/api/segment")
    connection.putheader("Content-Length", "1000")
    connection.endheaders()
    connection.send(b"\x89PNG")
    assert connection.getresponse().status == 408
    connection.close()


def test_a_client_that_goes_away_leaves_room_for_others(port, rng):
    for _ in range(2 * LIMITS.max_requests):
        connection = http.client.HTTPConnection(HOST, port, timeout=10)
        connection.putrequest("POST", "/api/segment")
        connection.putheader("Content-Length", "1000")
        connection.endheaders()
        connection.close()
    statuses = []
    while 200 not in statuses:
        statuses.append(ask(port, encoded(photo(rng)))[0])
        assert len(statuses) < 500


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/segment", 405), ("POST", "/", 405), ("GET", "/../../etc/passwd", 404), ("GET", "/nothing", 404)],
)
def test_what_is_not_there(port, method, path, status):
    got, _, answer = ask(port, method=method, path=path)
    assert got == status
    assert "POST /api/segment" in answer["error"]


def test_a_foreign_host_name_is_refused(port):
    assert ask(port, method="GET", path="/api/model", headers={"Host": "evil.example"})[0] == 400


def test_the_page_and_the_model(port):
    status, headers, page = ask(port, method="GET", path="/")
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "http://" not in page, "the page must need nothing from elsewhere"
    assert "https://" not in page
    _, _, model = ask(port, method="GET", path="/api/model")
    assert model["class_names"] == list(INFO.class_names)
    assert model["limits"]["max_bytes"] == LIMITS.max_bytes


def test_a_full_queue_is_told_to_come_back(rng):
    entered, leave = threading.Semaphore(0), threading.Event()

    def slow(image):
        entered.release()
        leave.wait(20)
        return by_brightness(image)

    body = encoded(photo(rng))
    with serving(make_service(lambda: slow)) as port:
        statuses = []

        def insist():  # one of the questions below may be inside when a client comes
            while (status := ask(port, body)[0]) == 503:
                pass
            statuses.append(status)

        clients = [threading.Thread(target=insist) for _ in range(LIMITS.max_requests)]
        for client in clients:
            client.start()
        entered.acquire(timeout=20)
        status, deadline = 0, time.monotonic() + 15
        while status != 503 and time.monotonic() < deadline:  # until the last of them is inside
            status, headers, answer = ask(port, b"")
        leave.set()
        for client in clients:
            client.join()
        assert headers["retry-after"] == "1"
        assert "try again" in answer["error"]
    assert statuses == [200] * LIMITS.max_requests


def test_programs_are_kept_for_a_bounded_number_of_sizes(rng):
    made = []

    def make_segment():
        def segment(image):
            return by_brightness(image)

        made.append(weakref.ref(segment))
        return segment

    service = make_service(make_segment)
    sizes = [(10, 10), (70, 10), (10, 10), (130, 10), (10, 70)]  # the last is the fourth
    compiled = [service.answer(encoded(photo(rng, size)))["compiled"] for size in sizes]
    assert compiled == [True, True, False, True, True]
    assert len(made) == 2
    gc.collect()
    assert made[0]() is None
    assert service.answer(encoded(photo(rng, (10, 10))))["compiled"]


def test_load_of_which_a_third_is_malformed(port, rng):
    statuses = load(port, 60, rng)
    assert statuses[200] == 40
    assert sum(statuses.values()) == 60


@pytest.mark.slow
def test_memory_is_bounded_over_3000_requests(port, rng):
    load(port, 300, rng)
    before = psutil.Process().memory_info().rss
    statuses = load(port, 3_000, rng)
    assert statuses[200] == 2_000
    assert psutil.Process().memory_info().rss - before < 50e6


def test_a_taken_port_is_one_line():
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^--port={port}: .*choose another, or 0"):
            app.open_socket(HOST, port)
    with pytest.raises(UserError, match="--port=99999"):
        app.open_socket(HOST, 99999)


def test_missing_packages_are_named_with_the_command(monkeypatch):
    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install starlette uvicorn"):
        app.require_packages()
