"""The devices' idle time: what the host waits while they work does not count."""

from __future__ import annotations

import gc
import threading
import time

import jax
import pytest

from deeplab_jax.train.idle import IdleTime


@pytest.fixture
def work(monkeypatch):
    """Work that ends when the test says so."""
    end = threading.Event()
    monkeypatch.setattr(jax, "block_until_ready", lambda results: end.wait(5))
    yield end
    end.set()


def test_nothing_dispatched_is_no_idle_time():
    assert IdleTime().since(time.perf_counter() - 1.0) == 0.0


def test_waiting_beside_the_work_is_no_idle_time(work):
    idle = IdleTime()
    asked = time.perf_counter()
    idle.watch(None)
    time.sleep(0.05)
    assert idle.since(asked) == 0.0


def test_idle_time_begins_with_the_end_of_the_work_or_the_question(work):
    idle = IdleTime()
    asked = time.perf_counter()
    idle.watch(None)
    time.sleep(0.05)
    work.set()
    time.sleep(0.05)
    assert 0.02 < idle.since(asked) < time.perf_counter() - asked - 0.04
    assert idle.since(time.perf_counter()) < 0.02


def test_idle_time_before_a_question_is_apart_from_that_after_it(work):
    idle = IdleTime()
    assert idle.before(time.perf_counter()) == 0.0
    idle.watch(None)
    assert idle.before(time.perf_counter()) == 0.0
    work.set()
    time.sleep(0.05)
    asked = time.perf_counter()
    assert 0.02 < idle.before(asked) < 5
    assert idle.since(asked) < 0.02


def test_new_work_forgets_the_old_end(work):
    idle = IdleTime()
    work.set()
    idle.watch(None)
    time.sleep(0.05)
    asked = time.perf_counter()
    work.clear()
    idle.watch(None)
    time.sleep(0.02)
    assert idle.since(asked) == 0.0


def test_one_thread_watches_all_steps_and_ends_with_its_owner(work):
    def watchers():
        return [thread for thread in threading.enumerate() if thread.name == "step-end"]

    gc.collect()
    time.sleep(0.05)
    before = len(watchers())
    idle = IdleTime()
    work.set()
    for _ in range(10):
        idle.watch(None)
    assert len(watchers()) == before + 1
    del idle
    gc.collect()
    time.sleep(0.05)
    assert len(watchers()) == before


def test_work_that_fails_is_left_to_whoever_reads_it(monkeypatch):
    def fail(results):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(jax, "block_until_ready", fail)
    idle = IdleTime()
    idle.watch(None)
    time.sleep(0.05)
    assert idle.since(time.perf_counter() - 1.0) == 0.0
