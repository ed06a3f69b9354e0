"""Means and pace over a window, the bar on a terminal, and stop signals."""

from __future__ import annotations

import hashlib
import math
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from deeplab_jax.train.progress import Progress, Window
from deeplab_jax.train.signals import StopSignal


def metrics(loss, learning_rate=0.1, skipped=0.0):
    return {"loss": loss, "learning_rate": learning_rate, "skipped": skipped}


def times(images_per_second=1.0, step_seconds=0.5, data_wait=0.0, fetch_seconds=0.001):
    return {
        "images_per_second": images_per_second,
        "step_seconds": step_seconds,
        "data_wait": data_wait,
        "fetch_seconds": fetch_seconds,
    }


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves by hand."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_a_point_is_the_mean_of_the_updates_that_were_made():
    window = Window(images_per_step=4)
    for row in (metrics(1.0), metrics(math.nan, skipped=1.0), metrics(4.0, learning_rate=0.05)):
        window.add(row)
    point = window.flush()
    assert (point["loss"], point["learning_rate"], point["skipped"]) == (2.5, 0.05, 1.0)


def test_where_none_was_made_there_is_no_loss():
    window = Window(images_per_step=4)
    window.add(metrics(math.nan, skipped=1.0))
    point = window.flush()
    assert math.isnan(point["loss"])
    assert point["learning_rate"] == 0.1


def test_the_pace_counts_neither_compilation_nor_pauses(clock):
    window = Window(images_per_step=4)
    clock[0] = 100.0  # compiling
    window.add(metrics(1.0))
    assert all(math.isnan(value) for value in window.times().values())
    for _ in range(2):
        clock[0] += 0.5
        window.add(metrics(1.0))
    assert window.times()["images_per_second"] == pytest.approx(8.0)
    window.flush()
    clock[0] += 0.25
    window.add(metrics(1.0))
    assert window.times()["images_per_second"] == pytest.approx(16.0)
    window.pause()
    clock[0] += 60  # evaluating
    window.add(metrics(1.0))
    clock[0] += 1.0
    window.add(metrics(1.0))
    assert window.times()["images_per_second"] == pytest.approx(4.0)


def test_waiting_for_data_and_for_the_host_is_apart_from_the_step(clock):
    window = Window(images_per_step=4)
    window.add_times(data=50.0, host=50.0)  # before the first step
    window.add(metrics(1.0))
    assert math.isnan(window.times()["data_wait"])
    for data, host in ((0.0, 0.0), (0.5, 0.1)):
        clock[0] += 1.0
        window.add_times(data=data, host=host)
        window.add_times(fetch=0.01)
        window.add(metrics(1.0))
    point = window.flush()
    assert (point["data_wait"], point["host_wait"]) == pytest.approx((0.25, 0.05))
    assert (point["step_seconds"], point["fetch_seconds"]) == pytest.approx((0.7, 0.01))
    assert point["images_per_second"] == pytest.approx(4.0)
    clock[0] += 1.0
    window.add(metrics(1.0))
    assert window.times() == pytest.approx(
        {"images_per_second": 4.0, "step_seconds": 1.0, "fetch_seconds": 0.0, "data_wait": 0.0, "host_wait": 0.0}
    )


def test_a_restart_forgets_the_steps_before_it():
    window = Window(images_per_step=4)
    window.add(metrics(100.0))
    window.restart()
    window.add(metrics(1.0))
    assert window.flush()["loss"] == 1.0


def test_a_terminal_gets_a_bar_with_loss_rate_pace_and_time_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    progress = Progress(10, 0, images_per_step=4)
    window = Window(images_per_step=4)
    for _ in range(5):
        window.add(metrics(0.25))
        progress.advance(metrics(0.25), window)
        time.sleep(0.12)  # longer than the bar's own interval, so that it is drawn
    progress.point(5, {**metrics(0.25), **times()})
    progress.say("a line")
    progress.close()
    out = capsys.readouterr().out
    assert re.search(r"loss 0\.2500  lr 0\.1  \d+\.\d images/s  step \d+\.\d ms  data 0\.0 %  fetch 0\.0 ms", out)
    assert "5/10" in out
    assert "<00:0" in out  # the time left
    assert "a line\n" in out
    assert "step 5/10" not in out  # the bar says it


def test_elsewhere_a_line_says_the_time_left(capsys):
    progress = Progress(1000, 0, images_per_step=8)
    progress.point(100, {**metrics(0.5), **times(2.0, 3.99, 0.003, 0.0012)})
    assert capsys.readouterr().out == (
        "step 100/1000  loss 0.5000  lr 0.1  2.0 images/s  step 3990.0 ms  data 0.3 %  fetch 1.2 ms  1:00:00 left\n"
    )


def test_other_processes_say_nothing(capsys):
    progress = Progress(10, 0, images_per_step=4, enabled=False)
    progress.advance(metrics(1.0), Window(images_per_step=4))
    progress.point(1, {**metrics(1.0), **times()})
    progress.say("a line")
    progress.close()
    assert capsys.readouterr().out == ""


@pytest.fixture
def heard():
    """The signals that no `StopSignal` takes."""
    numbers = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


def test_the_second_signal_waits_as_the_first_and_the_third_acts_as_always(heard):
    with StopSignal() as stop:
        assert stop.received is None
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            assert (stop.received, heard) == (signal.SIGTERM, [])
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]


@pytest.mark.parametrize(("before", "received"), [(signal.SIG_DFL, signal.SIGHUP), (signal.SIG_IGN, None)])
def test_the_end_of_the_terminal_stops_a_run_unless_it_is_to_survive_it(before, received):
    previous = signal.signal(signal.SIGHUP, before)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received is received
    finally:
        signal.signal(signal.SIGHUP, previous)


_WAIT_FOR_THE_END = """
import pathlib, sys, time
from deeplab_jax.train.signals import StopSignal
with StopSignal() as stop:
    print("ready", flush=True)
    while stop.received is None:
        time.sleep(0.01)
    print("saving", flush=True)
    pathlib.Path(sys.argv[1]).write_text(stop.received.name)
"""


def test_a_run_whose_terminal_is_gone_can_still_save(tmp_path):
    outside, terminal = pty.openpty()
    command = [sys.executable, "-c", _WAIT_FOR_THE_END, str(tmp_path / "saved")]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal) as run:
        os.close(terminal)
        while b"ready" not in os.read(outside, 1024):
            pass
        os.close(outside)
        run.send_signal(signal.SIGHUP)
        assert run.wait(60) == 0
    assert (tmp_path / "saved").read_text() == "SIGHUP"


def test_before_the_first_step_a_signal_is_answered_while_the_main_thread_is_busy(heard):
    answered = []
    with StopSignal(lambda number: answered.append((number, time.perf_counter()))) as stop:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 3_000_000)  # seconds in which no handler runs, as in a compiler
        returned = time.perf_counter()
        ((number, moment),) = answered
        assert number is signal.SIGTERM
        assert moment < returned
        stop.begin()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        assert len(answered) == 1
    assert heard == []
