"""Checkpoints: what is kept, what comes back, and what is said when it cannot."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import Toy, make_batch, make_init, make_toy, to_host

from deeplab_jax.config import OptimizerConfig
from deeplab_jax.ops.mesh import make_mesh, shard_batch
from deeplab_jax.train.checkpoint import FOLDER, Checkpointer, restore_variables
from deeplab_jax.train.checkpoint_errors import disk_reason
from deeplab_jax.train.optimizer import make_optimizer
from deeplab_jax.train.state import abstract_train_state, abstract_variables
from deeplab_jax.types import UserError

CONFIG = {"seed": 0, "data": {"crop_size": (9, 9)}}


def scored(mean_iou):
    return {"mean_iou": mean_iou, "iou_per_class": {"a": mean_iou, "b": None}}


def open_checkpoints(workdir, keep=2):
    return Checkpointer(workdir / FOLDER, keep=keep, config=CONFIG)


def steps_in(workdir):
    return sorted(int(path.name) for path in (workdir / FOLDER).iterdir() if path.name.isdecimal())


def abstract(num_devices=1, *, model=None, ema=False):
    mesh, init = make_mesh(num_devices), make_init(model or Toy())
    variables = abstract_variables(init, mesh)
    tx, _ = make_optimizer(OptimizerConfig(), 20, variables["params"])
    return abstract_train_state(variables, tx, ema=ema, mesh=mesh)


@pytest.fixture(scope="module")
def state():
    """A state that training has touched."""
    state, step, mesh = make_toy(ema_decay=0.9)
    return step(state, shard_batch(make_batch(0), mesh))[0]


@pytest.mark.parametrize("num_devices", [1, 4])
def test_what_was_saved_comes_back(tmp_path, state, num_devices):
    with open_checkpoints(tmp_path) as checkpointer:
        checkpointer.save(1, state, data={"position": 1}, scores=scored(0.5))
    target = abstract(num_devices, ema=True)
    with open_checkpoints(tmp_path) as checkpointer:
        restored, data = checkpointer.restore(target)
    assert data == {"position": 1}
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, to_host(restored), to_host(state))
    jax.tree.map(lambda leaf, want: np.testing.assert_equal(leaf.sharding, want.sharding), restored, target)
    step_dir = tmp_path / FOLDER / "1"
    assert json.loads((step_dir / "config" / "metadata").read_text()) == json.loads(json.dumps(CONFIG))
    assert json.loads((step_dir / "scores" / "metadata").read_text()) == scored(0.5)


def test_the_newest_and_the_best_are_kept(tmp_path, state):
    with open_checkpoints(tmp_path) as checkpointer:
        for step, mean_iou in ((1, None), (2, 0.5), (3, 0.4), (4, None), (5, None), (6, 0.3), (7, None)):
            scores = None if mean_iou is None else scored(mean_iou)
            checkpointer.save(step, state, data={"position": step}, scores=scores)
        checkpointer.wait()
        assert checkpointer.latest_step == 7
        assert not checkpointer.is_best(scored(0.45))
        assert checkpointer.is_best(scored(0.55))
        assert not checkpointer.is_best(scored(None))
    assert steps_in(tmp_path) == [2, 6, 7]


def test_the_best_is_known_after_a_restart(tmp_path, state):
    with open_checkpoints(tmp_path) as checkpointer:
        assert checkpointer.is_best(scored(0.0))
        checkpointer.save(1, state, data={}, scores=scored(0.5))
    with open_checkpoints(tmp_path) as checkpointer:
        assert not checkpointer.is_best(scored(0.4))
        for step in (2, 3, 4):
            checkpointer.save(step, state, data={}, scores=None)
    assert steps_in(tmp_path) == [1, 3, 4]


def test_a_save_is_not_disturbed_by_the_steps_that_follow(tmp_path):
    """The state is donated to the next step while its copy is being written."""
    advance = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    state, _, _ = make_toy()
    state = type(state)(
        **{**vars(state), "params": {"head": {"kernel": jnp.zeros((1000, 500))}}, "batch_stats": {}, "opt_state": ()}
    )
    with open_checkpoints(tmp_path, keep=9) as checkpointer:
        for step in range(4):
            checkpointer.save(step, state, data={}, scores=None)
            for _ in range(10):
                state = advance(state)
    target = {"params": jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state.params)}
    for step in range(4):
        restored = restore_variables(tmp_path / FOLDER / str(step), target)
        np.testing.assert_array_equal(restored["params"]["head"]["kernel"], 10.0 * step)


def test_a_step_that_is_there_is_left_alone(tmp_path, state):
    with open_checkpoints(tmp_path) as checkpointer:
        checkpointer.save(3, state, data={"position": 3}, scores=None)
        checkpointer.save(3, state, data={"position": 99}, scores=None)
    with open_checkpoints(tmp_path) as checkpointer:
        assert checkpointer.restore(abstract(ema=True))[1] == {"position": 3}


def test_leftovers_of_a_killed_save_are_ignored_and_removed(tmp_path, state):
    with open_checkpoints(tmp_path) as checkpointer:
        checkpointer.save(1, state, data={"position": 1}, scores=None)
    leftover = tmp_path / FOLDER / "2.orbax-checkpoint-tmp"
    leftover.mkdir()
    (leftover / "half").write_text("written")
    with open_checkpoints(tmp_path) as checkpointer:
        assert checkpointer.latest_step == 1
        checkpointer.save(2, state, data={"position": 2}, scores=None)
    assert not leftover.exists()
    assert steps_in(tmp_path) == [1, 2]


@pytest.mark.parametrize("where", ["workdir", "folder", "step"])
def test_variables_are_loaded_from_the_best_or_from_the_one_named(tmp_path, state, where):
    with open_checkpoints(tmp_path, keep=3) as checkpointer:
        for step, mean_iou in ((1, 0.2), (2, 0.6), (3, 0.4)):
            shifted = type(state)(**{**vars(state), "ema": jax.tree.map(lambda leaf, s=step: leaf + s, state.ema)})
            checkpointer.save(step, shifted, data={}, scores=scored(mean_iou))
    path = {"workdir": tmp_path, "folder": tmp_path / FOLDER, "step": tmp_path / FOLDER / "1"}[where]
    target = abstract_variables(make_init(Toy()), make_mesh(2))
    shift = 1 if where == "step" else 2
    want = jax.tree.map(lambda leaf: leaf + shift, to_host(state.ema))
    jax.tree.map(np.testing.assert_array_equal, to_host(restore_variables(path, target)), want)
    if where != "step":
        latest = restore_variables(path, target, prefer="latest")
        want = jax.tree.map(lambda leaf: leaf + 3, to_host(state.ema))
        jax.tree.map(np.testing.assert_array_equal, to_host(latest), want)


def test_without_an_average_the_parameters_themselves_are_loaded(tmp_path):
    state, _, _ = make_toy()
    with open_checkpoints(tmp_path) as checkpointer:
        checkpointer.save(1, state, data={}, scores=None)
    got = restore_variables(tmp_path, abstract_variables(make_init(Toy()), make_mesh(1)))
    jax.tree.map(np.testing.assert_array_equal, to_host(got), to_host(dict(state.variables)))


def test_another_number_of_classes_is_told_in_one_line(tmp_path, state):
    with open_checkpoints(tmp_path) as checkpointer:
        checkpointer.save(1, state, data={}, scores=None)
    model = Toy(num_classes=5)
    message = r"checkpoints/1: made for 3 classes, this data set has 5 \(tensor 'params/head/logits/\w+'\)"
    with open_checkpoints(tmp_path) as checkpointer, pytest.raises(UserError, match=message) as caught:
        checkpointer.restore(abstract(model=model, ema=True))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=message):
        restore_variables(tmp_path, abstract_variables(make_init(model), make_mesh(1)))


def test_another_network_is_told_by_its_tensor(tmp_path):
    state, _, _ = make_toy(batch_norm=False)
    with open_checkpoints(tmp_path) as checkpointer:
        checkpointer.save(1, state, data={}, scores=None)
    with pytest.raises(UserError, match="has no tensor 'batch_stats/backbone/bn/mean'"):
        restore_variables(tmp_path, abstract_variables(make_init(Toy()), make_mesh(1)))


@pytest.mark.parametrize("make", [lambda path: path / "missing", lambda path: path])
def test_no_checkpoint_is_told_in_one_line(tmp_path, make):
    target = abstract_variables(make_init(Toy()), make_mesh(1))
    with pytest.raises(UserError, match=re.escape(f"no checkpoint in {make(tmp_path)}")):
        restore_variables(make(tmp_path), target)


# A limit on the size of files refuses like a full disk or a quota, and needs neither root nor a patched library.
REFUSING_DISK = """
import pathlib, resource, sys
import jax
from absl import logging
from deeplab_jax.train.checkpoint import Checkpointer
from deeplab_jax.train.state import TrainState
from deeplab_jax.types import UserError

logging.set_verbosity(logging.FATAL)
state = TrainState(jax.numpy.int32(1), {"head": {"kernel": jax.numpy.ones(9)}}, {}, (), None)
large = state.replace(params={"head": {"kernel": jax.random.normal(jax.random.key(0), (100_000,))}})
with Checkpointer(pathlib.Path(sys.argv[1]), keep=2, config={}) as checkpointer:
    checkpointer.save(1, state, data={}, scores=None)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    with Checkpointer(pathlib.Path(sys.argv[1]), keep=2, config={}) as checkpointer:
        checkpointer.save(2, large, data={}, scores=None)
except UserError as error:
    print(error)
with Checkpointer(pathlib.Path(sys.argv[1]), keep=2, config={}) as checkpointer:
    for step in (3, 4, 5):
        print(checkpointer.save(step, large, data={}, scores=None, required=False))
        if step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def test_a_disk_that_refuses_in_the_background_is_told_in_one_line_and_spares_the_rest(tmp_path):
    """It ends the run only where the save is required: else the next one, when there is room again, is tried."""
    directory = tmp_path / FOLDER
    done = subprocess.run(
        [sys.executable, "-c", REFUSING_DISK, str(directory)], capture_output=True, text=True, check=True, timeout=120
    )
    required, started, refused, saved = done.stdout.splitlines()
    refusal = "File too large; make room or choose another --workdir (earlier checkpoints are intact)"
    assert required == f"cannot save in {directory}: {refusal}"
    assert (started, refused, saved) == ("None", f"cannot save step 4 in {directory}: {refusal}", "None")
    target = {"params": {"head": {"kernel": jax.ShapeDtypeStruct((9,), jnp.float32)}}}
    first = restore_variables(directory / "1", target)
    np.testing.assert_array_equal(first["params"]["head"]["kernel"], 1.0)
    assert steps_in(tmp_path) == [1, 5]


def test_a_full_disk_is_met_before_anything_is_written(tmp_path, state, monkeypatch):
    with open_checkpoints(tmp_path) as checkpointer:
        checkpointer.save(1, state, data={}, scores=None)
        checkpointer.wait()
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
            message = r"no space left on device, 0\.0 MB needed, 0\.0 MB free; make room"
            with pytest.raises(UserError, match=message):
                checkpointer.save(2, state, data={}, scores=None)
            assert "no space left" in checkpointer.save(3, state, data={}, scores=None, required=False)
        assert checkpointer.save(4, state, data={}, scores=None) is None
    assert steps_in(tmp_path) == [1, 4]


def test_a_full_disk_takes_the_oldest_but_neither_the_best_nor_the_newest(tmp_path, state, monkeypatch):
    def disk_usage(path):
        return types.SimpleNamespace(free=10**9 if len(steps_in(tmp_path)) < limit else 1000)

    with open_checkpoints(tmp_path, keep=3) as checkpointer:
        for step, mean_iou in ((1, 0.5), (2, 0.4), (3, None), (4, None)):
            checkpointer.save(step, state, data={}, scores=mean_iou and scored(mean_iou))
        checkpointer.wait()
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", disk_usage)
            limit = 4
            assert checkpointer.save(5, state, data={}, scores=None) is None
            checkpointer.wait()
            assert steps_in(tmp_path) == [1, 3, 4, 5]
            limit = 2
            assert "no space left" in checkpointer.save(6, state, data={}, scores=None, required=False)
    assert steps_in(tmp_path) == [1, 5]


def test_an_unwritable_place_is_told_in_one_line(tmp_path):
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot open .*checkpoints: .*; make room or choose another --workdir"):
        open_checkpoints(tmp_path)


@pytest.mark.parametrize(
    "text",
    ['NOT_FOUND: Error opening "zarr" driver', "No ArrayMetadata found for process_index=0", "missing .zarray in a"],
)
def test_files_taken_away_during_a_save_are_the_disks_fault(text):
    assert disk_reason(ValueError(text)) == "files have been taken away meanwhile"
    assert disk_reason(ValueError("a mistake of ours")) is None
