"""The curve: readable lines, no double points after a resume."""

from __future__ import annotations

import contextlib
import json
import math

import pytest

from deeplab_jax.train.writer import MetricWriter
from deeplab_jax.types import UserError

SCORES = {
    "mean_iou": 0.5,
    "iou_per_class": {"a": 0.5, "b": None},
    "pixel_accuracy": 0.75,
    "confusion": [[1, 2], [3, 4]],
    "protocol": {"flip": False},
}


def write(workdir, start_step, steps):
    with contextlib.closing(MetricWriter(workdir, start_step=start_step)) as writer:
        for step in steps:
            writer.write(step, {"loss": 1.0 / step, "learning_rate": 0.1})


def lines_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_line_per_point(tmp_path):
    with contextlib.closing(MetricWriter(tmp_path, start_step=0)) as writer:
        writer.write(1, {"loss": math.nan, "images_per_second": 3.0})
        writer.write_evaluation(1, SCORES)
    assert lines_of(tmp_path) == [
        {"step": 1, "loss": None, "images_per_second": 3.0},
        {"step": 1, "evaluation": {k: v for k, v in SCORES.items() if k not in ("confusion", "protocol")}},
    ]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_line_is_there_at_once(tmp_path):
    writer = MetricWriter(tmp_path, start_step=0)
    writer.write(1, {"loss": 1.0})
    assert len(lines_of(tmp_path)) == 1
    writer.close()


def test_resuming_drops_what_comes_after_the_restored_step(tmp_path):
    write(tmp_path, 0, [10, 20, 30])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')  # cut off by a kill
    write(tmp_path, 20, [25, 30])
    assert [line["step"] for line in lines_of(tmp_path)] == [10, 20, 25, 30]


def test_a_new_run_begins_a_new_curve(tmp_path):
    write(tmp_path, 0, [10, 20])
    write(tmp_path, 0, [5])
    assert [line["step"] for line in lines_of(tmp_path)] == [5]


def test_other_processes_of_a_run_write_nothing(tmp_path):
    with contextlib.closing(MetricWriter(tmp_path, start_step=0, enabled=False)) as writer:
        writer.write(1, {"loss": 1.0})
        writer.write_evaluation(1, SCORES)
    assert not list(tmp_path.iterdir())


def test_an_unwritable_curve_is_told_in_one_line(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: Is a directory; make room or choose another"):
        MetricWriter(tmp_path, start_step=0)


def test_lines_wait_while_the_disk_is_full(tmp_path, monkeypatch):
    writer = MetricWriter(tmp_path, start_step=0)
    writer.write(1, {"loss": 1.0})
    with open("/dev/full", "ab", buffering=0) as full, monkeypatch.context() as patch:
        patch.setattr(writer, "_file", full)
        writer.write(2, {"loss": 0.5})
        writer.write(3, {"loss": 0.25})
    assert len(lines_of(tmp_path)) == 1
    writer.write(4, {"loss": 0.125})
    writer.close()
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4]


def test_lines_that_never_found_room_are_told_at_the_end(tmp_path, monkeypatch):
    writer = MetricWriter(tmp_path, start_step=0)
    with open("/dev/full", "ab", buffering=0) as full:
        monkeypatch.setattr(writer, "_file", full)
        writer.write(2, {"loss": 0.5})
        with pytest.raises(UserError, match="No space left on device; make room"):
            writer.close()
