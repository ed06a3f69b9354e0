"""The worker threads: order, errors, and an end that nothing can hold up."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from deeplab_jax.data.workers import WorkerPool, available_cores, each


@pytest.fixture
def pool():
    pool = WorkerPool(3)
    yield pool
    pool.close()


def test_zero_is_a_thread_for_each_core():
    pool = WorkerPool(0)
    assert pool.num_workers == available_cores()
    pool.close()


def test_order_is_kept_when_later_items_are_ready_first(pool):
    def slow_start(item):
        time.sleep(0.02 if item % 3 == 0 else 0)
        return item * item

    assert list(pool.ordered_map(slow_start, range(20), window=5)) == [item * item for item in range(20)]


def test_window_bounds_the_work_ahead(pool):
    started = []
    results = pool.ordered_map(started.append, range(100), window=4)
    next(results)
    time.sleep(0.05)
    assert len(started) <= 4
    results.close()


def test_error_reaches_who_asks_for_the_result(pool):
    def fail_at_seven(item):
        if item == 7:
            raise ValueError("seven")
        return item

    results = pool.ordered_map(fail_at_seven, range(100), window=4)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="seven"):
        next(results)


def test_close_ends_the_threads():
    before = threading.active_count()
    pool = WorkerPool(4)
    assert threading.active_count() == before + 4
    pool.close()
    assert threading.active_count() == before


def test_each_ends_its_threads_however_the_iteration_ends():
    assert list(each(lambda item: 2 * item, range(50), title="doubling", num_workers=3)) == list(range(0, 100, 2))
    assert not _workers()
    made = each(lambda item: 1 // item, range(3, -50, -1), num_workers=2)
    assert [next(made) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(made)
    assert not _workers()
    left = each(lambda item: item, range(50), num_workers=2)
    next(left)
    left.close()
    assert not _workers()


def _workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("data-worker")]


def test_stuck_task_delays_neither_close_nor_exit():
    script = (
        "import threading, time\n"
        "from deeplab_jax.data.workers import WorkerPool\n"
        "pool = WorkerPool(1)\n"
        "pool.submit(threading.Event().wait)\n"
        "start = time.monotonic()\n"
        "pool.close(timeout=0.2)\n"
        "assert time.monotonic() - start < 2\n"
        "print('done')\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert finished.stdout == "done\n", finished.stderr
    assert finished.returncode == 0
