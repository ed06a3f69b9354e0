"""Means and pace over a window, the bar on a terminal, and signals as wishes."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import time

import pytest

from deeplab_jax.train.progress import Progress, Window
from deeplab_jax.train.signals import StopSignal


def metrics(loss, learning_rate=0.1, skipped=0.0):
    return {"loss": loss, "learning_rate": learning_rate, "skipped": skipped}


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
    assert math.isnan(window.images_per_second)
    for _ in range(2):
        clock[0] += 0.5
        window.add(metrics(1.0))
    assert window.images_per_second == pytest.approx(8.0)
    window.flush()
    clock[0] += 0.25
    window.add(metrics(1.0))
    assert window.images_per_second == pytest.approx(16.0)
    window.pause()
    clock[0] += 60  # evaluating
    window.add(metrics(1.0))
    clock[0] += 1.0
    window.add(metrics(1.0))
    assert window.images_per_second == pytest.approx(4.0)


def test_the_wait_for_data_is_a_share_of_the_timed_steps(clock):
    window = Window(images_per_step=4)
    window.add_wait(50.0)  # for the first batch, before any step
    window.add(metrics(1.0))
    assert math.isnan(window.data_wait)
    for wait in (0.0, 0.5):
        clock[0] += 1.0
        window.add_wait(wait)
        window.add(metrics(1.0))
    assert window.flush()["data_wait"] == pytest.approx(0.25)
    clock[0] += 1.0
    window.add(metrics(1.0))
    assert window.data_wait == 0.0


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
    progress.point(5, {**metrics(0.25), "images_per_second": 12.5, "data_wait": 0.0})
    progress.say("a line")
    progress.close()
    out = capsys.readouterr().out
    assert re.search(r"loss 0\.2500  lr 0\.1  \d+\.\d images/s  data 0\.0 %", out)
    assert "5/10" in out
    assert "<00:0" in out  # the time left
    assert "a line\n" in out
    assert "step 5/10" not in out  # the bar says it


def test_elsewhere_a_line_says_the_time_left(capsys):
    progress = Progress(1000, 0, images_per_step=8)
    progress.point(100, {**metrics(0.5), "images_per_second": 2.0, "data_wait": 0.003})
    assert capsys.readouterr().out == "step 100/1000  loss 0.5000  lr 0.1  2.0 images/s  data 0.3 %  1:00:00 left\n"


def test_other_processes_say_nothing(capsys):
    progress = Progress(10, 0, images_per_step=4, enabled=False)
    progress.advance(metrics(1.0), Window(images_per_step=4))
    progress.point(1, {**metrics(1.0), "images_per_second": 1.0, "data_wait": 0.0})
    progress.say("a line")
    progress.close()
    assert capsys.readouterr().out == ""


def test_the_first_signal_is_a_wish_and_the_second_acts_as_always():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with StopSignal() as stop:
            assert stop.received is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert (stop.received, heard) == (signal.SIGTERM, [])
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
