"""Limits on connections, origins and rates: nobody blocks the server, and no other site's page uses it."""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
import time

import pytest
from requests_to_serve import HOST, LIMITS, ask, encoded, make_service, photo, serving


def limits(**settings):
    return dataclasses.replace(LIMITS, **settings)


@pytest.fixture(scope="module")
def port():
    with serving(make_service(limits=limits(header_seconds=0.5))) as port:
        yield port


def connect(port, data=b""):
    connection = socket.create_connection((HOST, port), timeout=10)
    connection.sendall(data)
    return connection


def answer(connection):
    """(status, error) of what the server says before it closes the connection."""
    with connection:
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost: loc"])
def test_a_header_that_does_not_arrive_is_given_up(port, data):
    assert answer(connect(port, data)) == (408, "no request arrived within 0.5 seconds")


def test_a_header_letter_by_letter_is_given_up_too(port):
    def send_slowly(connection):
        for _ in range(200):
            connection.sendall(b"G")
            time.sleep(0.05)

    with connect(port) as connection, pytest.raises((ConnectionResetError, BrokenPipeError)):
        send_slowly(connection)


def test_idle_connections_make_room_for_new_ones(rng):
    body = encoded(photo(rng))
    with serving(make_service(limits=limits(max_connections=4, header_seconds=60))) as port:
        silent = [connect(port) for _ in range(20)]
        assert [ask(port, body)[0] for _ in range(3)] == [200] * 3
        for each in silent:
            each.close()


def test_one_address_has_a_number_of_connections(rng):
    with serving(make_service(limits=limits(max_per_address=2, header_seconds=60))) as port:
        held = [connect(port) for _ in range(2)]
        status, error = answer(connect(port))
        assert (status, error) == (503, "2 connections from 127.0.0.1 are open: close one")
        for each in held:
            each.close()
        deadline = time.monotonic() + 10
        while ask_status(port, encoded(photo(rng))) != 200:
            assert time.monotonic() < deadline


def ask_status(port, body):
    try:
        return ask(port, body)[0]
    except (ConnectionError, http.client.BadStatusLine):
        return None


def test_a_connection_is_used_again(port, rng):
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    for _ in range(2):
        connection.request("POST", "/api/segment", encoded(photo(rng)))
        response = connection.getresponse()
        assert (response.status, response.will_close) == (200, False)
        response.read()
    connection.close()


def test_what_is_no_http_is_told_so(port):
    assert answer(connect(port, b"\x16\x03\x01\x02\x00\x01\r\n\r\n")) == (400, "this is no valid HTTP request")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_other_sites_pages_are_refused(port, rng, headers):
    status, _, refusal = ask(port, encoded(photo(rng)), headers=headers)
    assert status == 403
    assert refusal["error"].startswith("the request comes from another site's page")


def test_the_own_page_and_links_to_it_are_not(port, rng):
    own = {"Origin": f"http://{HOST}:{port}", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert ask(port, encoded(photo(rng)), headers=own)[0] == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert ask(port, method="GET", path="/", headers=link)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:evil", ""])
def test_another_host_is_refused_as_all_is(port, host):
    status, headers, refusal = ask(port, method="GET", path="/api/model", headers={"Host": host})
    assert (status, headers["content-type"]) == (400, "application/json")
    assert refusal["error"] == "the request is for another host: this is 127.0.0.1"


def test_one_address_has_a_rate(rng):
    body = encoded(photo(rng))
    with serving(make_service(limits=limits(max_rate=5))) as port:
        answers = [ask(port, body) for _ in range(30)]
        late = [each for each in answers if each[0] == 429]
        assert [each[0] for each in answers[:5]] == [200] * 5
        assert late
        assert late[0][1]["retry-after"] == "1"
        assert late[0][2]["error"] == "more than 5 requests in a second: try again in a moment"
        time.sleep(0.5)
        assert ask(port, body)[0] == 200
