"""The loop: killed and continued is uninterrupted, and it stops when it should."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import time
import types

import jax
import numpy as np
import pytest
from toy import Toy, make_batch, make_init, make_toy, to_host

from deeplab_jax.config import OptimizerConfig
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.train.checkpoint import FOLDER, Checkpointer
from deeplab_jax.train.loop import train_loop
from deeplab_jax.train.optimizer import make_optimizer
from deeplab_jax.train.settings import TrainConfig
from deeplab_jax.train.signals import StopSignal
from deeplab_jax.train.state import abstract_train_state, abstract_variables
from deeplab_jax.train.writer import MetricWriter
from deeplab_jax.types import UserError

NUM_STEPS = 12
SETTINGS = TrainConfig(num_steps=NUM_STEPS, log_every=2, eval_every=5, checkpoint_every=4, max_nonfinite_steps=2)


class Killed(BaseException):
    """Nobody catches it, as nobody catches SIGKILL."""


class ToyLoader:
    """Batches of the toy; `on_batch(position)` may do mischief, `spoiled` positions carry a wrong label."""

    def __init__(self, on_batch=lambda position: None, spoiled=()):
        self.position, self._on_batch, self._spoiled = 0, on_batch, spoiled

    def __iter__(self):
        return self

    def __next__(self):
        self._on_batch(self.position)
        batch = make_batch(self.position)
        if self.position in self._spoiled:
            batch.label[2, 3, 3] = 99
        self.position += 1
        return batch

    def names_at(self, position):
        return (f"image_{position}a", f"image_{position}b")

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


def run(workdir, loader, *, scores=lambda step: 0.1 * step, accuracy=0.5, settings=SETTINGS, **options):
    """One start of the command: from the newest checkpoint where there is one. Returns (state, steps evaluated)."""
    evaluated = []
    state, step, mesh = make_toy(num_steps=NUM_STEPS, dropout=0.3, ema_decay=0.9)

    def evaluate(number, state):
        evaluated.append(number)
        return {"mean_iou": scores(number), "iou_per_class": {}, "pixel_accuracy": accuracy}

    with StopSignal() as stop, Checkpointer(workdir / FOLDER, keep=2, config={}) as checkpointer:
        if checkpointer.latest_step is not None:
            tx, _ = make_optimizer(OptimizerConfig(), NUM_STEPS, state.params)
            variables = abstract_variables(make_init(Toy(dropout=0.3)), make_mesh(1))
            target = abstract_train_state(variables, tx, ema=True, mesh=make_mesh(1))
            state, position = checkpointer.restore(target)
            loader.set_state(position)
        with contextlib.closing(MetricWriter(workdir, start_step=int(state.step))) as writer:
            state = train_loop(
                state,
                step,
                loader,
                evaluate,
                mesh=mesh,
                settings=settings,
                batch_size=16,
                checkpointer=checkpointer,
                writer=writer,
                stop=stop,
                **options,
            )
    return to_host(state), evaluated


def curve_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    clocked = ("images_per_second", "step_seconds", "fetch_seconds", "data_wait", "host_wait")
    return [{key: value for key, value in line.items() if key not in clocked} for line in lines]


def steps_in(workdir):
    return sorted(int(path.name) for path in (workdir / FOLDER).iterdir() if path.name.isdecimal())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    return workdir, run(workdir, ToyLoader())


@pytest.mark.parametrize(("accuracy", "warned"), [(0.5, False), (0.0, True)])
def test_a_gap_between_training_and_evaluation_is_told(tmp_path, capsys, accuracy, warned):
    run(tmp_path, ToyLoader(), accuracy=accuracy)
    assert ("start_correction=True" in capsys.readouterr().out) == warned


def test_a_run_without_progress_ends_early_and_stays_ended(tmp_path, capsys):
    settings = dataclasses.replace(SETTINGS, eval_every=2, patience=2)
    options = {"scores": lambda step: 0.5 - abs(step - 4) / 10, "settings": settings}
    state, evaluated = run(tmp_path, ToyLoader(), **options)
    assert evaluated == [2, 4, 6, 8]
    assert int(state.step) == 8
    assert "step 8: no better mean IoU in 2 evaluations: the run ends" in capsys.readouterr().out
    state, evaluated = run(tmp_path, ToyLoader(), **options)
    assert (int(state.step), evaluated) == (8, [])


def test_ends_exactly_at_the_last_step_evaluated_and_saved(uninterrupted):
    workdir, (state, evaluated) = uninterrupted
    assert state.step == NUM_STEPS
    assert evaluated == [5, 10, 12]
    assert steps_in(workdir) == [10, 12]
    assert [line["step"] for line in curve_of(workdir) if "loss" in line] == [2, 4, 6, 8, 10, 12]
    assert (workdir / FOLDER / "12" / "scores").is_dir()


@pytest.mark.parametrize("kills", [(1,), (4,), (6,), (11,), (3, 7, 10)])
def test_killed_and_continued_equals_uninterrupted_bit_for_bit(tmp_path, uninterrupted, kills):
    want_workdir, (want, _) = uninterrupted

    def kill_at(position):
        def on_batch(current):
            if current == position:
                raise Killed

        return on_batch

    for position in kills:
        with pytest.raises(Killed):
            run(tmp_path, ToyLoader(kill_at(position)))
    got, _ = run(tmp_path, ToyLoader())
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert curve_of(tmp_path) == curve_of(want_workdir)
    assert steps_in(tmp_path) == steps_in(want_workdir)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_at_the_current_step_and_the_run_can_go_on(tmp_path, uninterrupted, number):
    def on_batch(position):
        if position == 6:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    stopped, _ = run(tmp_path, ToyLoader(on_batch))
    assert signal.getsignal(number) == before
    assert stopped.step == 7
    assert steps_in(tmp_path)[-1] == 7
    got, _ = run(tmp_path, ToyLoader())
    jax.tree.map(np.testing.assert_array_equal, got, uninterrupted[1][0])


def test_a_finished_run_does_nothing(tmp_path):
    want, _ = run(tmp_path, ToyLoader())
    loader = ToyLoader()
    got, evaluated = run(tmp_path, loader)
    assert (loader.position, evaluated) == (NUM_STEPS, [])
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_the_best_is_kept_whenever_it_was(tmp_path):
    run(tmp_path, ToyLoader(), scores=lambda step: 1.0 / step)
    assert steps_in(tmp_path) == [5, 8, 12]


def test_a_bad_batch_is_named_and_skipped(tmp_path, capsys):
    state, _ = run(tmp_path, ToyLoader(spoiled=(6,)))
    assert state.step == NUM_STEPS
    assert "warning: step 7 skipped: loss or gradient not finite; files image_6a, image_6b" in capsys.readouterr().out
    skipped = {line["step"]: line["skipped"] for line in curve_of(tmp_path) if "skipped" in line}
    assert skipped[8] == 1
    assert sum(skipped.values()) == 1
    assert all(line["loss"] is not None for line in curve_of(tmp_path) if "loss" in line)


def test_a_skipped_step_is_explained_with_its_own_batch_and_state(tmp_path, capsys):
    def explain(state, batch, names):
        return f"state {int(state.step)}, label {int(batch.label[2, 3, 3])}, {names[0]}"

    run(tmp_path, ToyLoader(spoiled=(6,)), explain_skip=explain)
    assert "step 7: state 7, label 99, image_6a" in capsys.readouterr().out.splitlines()


def test_bad_batches_in_a_row_end_the_run_and_spare_the_checkpoint(tmp_path):
    message = r"step 9: .* 2 times in a row; .*\(image_8a, image_8b\).*learning_rate; last checkpoint: 5"
    options = dataclasses.replace(SETTINGS, checkpoint_every=100)
    with pytest.raises(UserError, match=message):
        run(tmp_path, ToyLoader(spoiled=(5, 7, 8, 9)), settings=options)
    assert steps_in(tmp_path) == [5]


def test_a_full_disk_does_not_end_a_run_that_finds_room_later(tmp_path, uninterrupted, capsys, monkeypatch):
    room = [1000]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=room[0]))
    got, _ = run(tmp_path, ToyLoader(lambda position: room.__setitem__(0, 10**9 if position > 6 else 1000)))
    jax.tree.map(np.testing.assert_array_equal, got, uninterrupted[1][0])
    assert "warning: step 4: cannot save in" in capsys.readouterr().out
    assert steps_in(tmp_path) == steps_in(uninterrupted[0])
    room[0] = 1000
    with pytest.raises(UserError, match="no space left on device"):
        run(tmp_path.with_name("never"), ToyLoader())


def test_lines_show_the_pace_and_the_time_left(uninterrupted, tmp_path, capsys):
    run(tmp_path, ToyLoader())
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("step 4/12  loss ") and "images/s" in line and line.endswith(" left") for line in lines)
    assert "step 5: mean IoU 0.5000, pixel accuracy 0.5000" in lines


@pytest.mark.parametrize(("seconds", "least", "most"), [(0.1, 0.6, 1.0), (0.0, 0.0, 0.5)])
def test_the_curve_tells_how_long_the_step_waited_for_data(tmp_path, seconds, least, most):
    options = dataclasses.replace(SETTINGS, log_every=4, eval_every=100, checkpoint_every=100)
    run(tmp_path, ToyLoader(lambda position: time.sleep(seconds)), settings=options)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    waits = [line["data_wait"] for line in lines if "data_wait" in line]
    assert len(waits) == 3
    assert least <= min(waits) <= max(waits) <= 1.0
    assert sorted(waits)[1] <= most
    points = [line for line in lines if "data_wait" in line]
    assert all(line["step_seconds"] * line["images_per_second"] < 16.001 for line in points)  # waits are not in it
    assert all(0 <= line["host_wait"] < 1 and line["fetch_seconds"] > 0 for line in points)
