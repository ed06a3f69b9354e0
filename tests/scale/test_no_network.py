"""Training, evaluation, report and prediction reach for nothing outside this machine."""

from __future__ import annotations

import socket

import numpy as np
import toy_run
from PIL import Image

from deeplab_jax.apps.assembly import network
from deeplab_jax.apps.modes import predict


def test_nothing_is_asked_of_the_network(monkeypatch, tmp_path):
    asked = []
    connect = socket.socket.connect

    def refuse(connection, address):
        if connection.family == socket.AF_UNIX:  # between processes of this machine
            return connect(connection, address)
        asked.append(address)
        raise OSError(f"connect {address}")

    def look_up(*address, **options):
        asked.append(address)
        raise OSError(f"look up {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    config = toy_run.make_config(data=1)
    config.train.num_steps = 2
    assert toy_run.run(tmp_path / "run", config) == 0
    monkeypatch.setattr(network, "build", lambda config, info: toy_run.Toy(3))
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(tmp_path / "a.png")
    predict.predict(config, tmp_path / "run", "", str(tmp_path / "a.png"))
    assert (tmp_path / "run" / "predictions" / "a.png").is_file()
    assert asked == []
