"""Damaged checkpoints: each kind of damage is found, named, set aside, and costs no more than the checkpoint."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.train.checkpoint import Checkpointer, restore_variables
from deeplab_jax.train.intact import FOLDER, SET_ASIDE
from deeplab_jax.train.manifest import FILE, find_damage, write_manifest
from deeplab_jax.train.state import TrainState
from deeplab_jax.types import UserError


def make_state(value):
    kernel = jnp.full((300, 5), value, jnp.float32)
    return TrainState(jnp.int32(value), {"head": {"kernel": kernel}}, {}, (), None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with checkpoints 8 (the best) and 10."""
    workdir = tmp_path_factory.mktemp("run")
    with Checkpointer(workdir / FOLDER, keep=2, config={}) as checkpointer:
        for step, mean_iou in ((8, 0.5), (10, 0.4)):
            checkpointer.save(step, make_state(step), data={"position": step}, scores={"mean_iou": mean_iou})
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def arrays_of(folder):
    return max((folder / "state" / "ocdbt.process_0" / "d").iterdir(), key=lambda path: path.stat().st_size)


def flip_bits(folder):
    for path in (folder / "state").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def truncate(folder):
    path = arrays_of(folder)
    path.write_bytes(path.read_bytes()[:-1])


def zero_all(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE = {
    "flipped bits": (flip_bits, "has changed"),
    "a truncated file": (truncate, "bytes instead of"),
    "no metadata": (lambda folder: (folder / "state" / "_METADATA").unlink(), "state/_METADATA is missing"),
    "no OCDBT manifest": (lambda folder: (folder / "state" / "manifest.ocdbt").unlink(), "manifest.ocdbt is missing"),
    "no data": (lambda folder: shutil.rmtree(folder / "data"), "data is missing"),
    "no state": (lambda folder: shutil.rmtree(folder / "state"), "state is missing"),
    "an empty folder": (empty, "state is missing"),
    "zero bytes everywhere": (zero_all, "manifest.json is damaged"),
    "broken JSON": (lambda folder: (folder / "data" / "metadata").write_text("{"), "data/metadata has 1 bytes instead"),
    "an edited position": (
        lambda folder: (folder / "data" / "metadata").write_text('{"position": -5}'),
        "data/metadata has ",
    ),
    "no scores": (lambda folder: (folder / "metrics" / "metrics").unlink(), "metrics/metrics is missing"),
    "a manifest of another form": (lambda folder: (folder / FILE).write_text("[]"), "manifest.json is damaged"),
    "a foreign file": (lambda folder: (folder / "state" / "d" / "0").write_text(""), "state/d/0 does not belong to it"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_training_goes_on_from_the_newest_intact_checkpoint(workdir, kind, capsys):
    damage, reason = DAMAGE[kind]
    damage(workdir / FOLDER / "10")
    content = sorted(path.name for path in (workdir / FOLDER / "10").rglob("*"))
    with Checkpointer(workdir / FOLDER, keep=2, config={}) as checkpointer:
        assert checkpointer.latest_step == 8
        state, data = checkpointer.restore(make_state(0))
        assert data == {"position": 8}
        np.testing.assert_array_equal(state.params["head"]["kernel"], 8.0)
        checkpointer.save(10, make_state(10), data={"position": 10}, scores=None)
    (line,) = capsys.readouterr().err.splitlines()
    aside = workdir / SET_ASIDE / "10"
    assert line.startswith(f"warning: {workdir / FOLDER / '10'}: is damaged (")
    assert reason in line
    assert line.endswith(f"), moved to {aside}; the newest intact is 8")
    assert sorted(path.name for path in aside.rglob("*")) == content
    assert find_damage(workdir / FOLDER / "10") is None


def test_reading_passes_over_damage_and_moves_nothing(workdir, capsys):
    truncate(workdir / FOLDER / "8")  # the best
    lines = []
    found = restore_variables(workdir, say=lines.append)
    np.testing.assert_array_equal(found["params"]["head"]["kernel"], 10.0)
    assert len(lines) == 1
    assert lines[0].startswith(f"warning: {workdir / FOLDER}: damaged is 8: state/ocdbt.process_0/d/")
    assert lines[0].endswith("; 10 is used instead")
    assert restore_variables(workdir, prefer="latest", say=pytest.fail)
    assert sorted(path.name for path in (workdir / FOLDER).iterdir()) == ["10", "8"]
    with pytest.raises(UserError, match=r"checkpoints/8: is damaged \(.*\); beside it are 10$"):
        restore_variables(workdir / FOLDER / "8")


def test_a_second_damaged_checkpoint_of_a_step_is_kept_too(workdir):
    for _ in range(2):
        truncate(workdir / FOLDER / "10")
        with Checkpointer(workdir / FOLDER, keep=2, config={}) as checkpointer:
            checkpointer.save(10, make_state(10), data={"position": 10}, scores=None)
    assert sorted(path.name for path in (workdir / SET_ASIDE).iterdir()) == ["10", "10.2"]


def test_if_all_are_damaged_nothing_is_moved(workdir):
    for step in ("8", "10"):
        truncate(workdir / FOLDER / step)
    with pytest.raises(UserError, match=r"checkpoints: every checkpoint is damaged \(10: .*; 8: .*\); restore"):
        Checkpointer(workdir / FOLDER, keep=2, config={})
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        restore_variables(workdir)
    assert sorted(path.name for path in (workdir / FOLDER).iterdir()) == ["10", "8"]


def test_a_checkpoint_without_a_manifest_is_read_to_see(workdir):
    """As older versions left them; a process of its own reads it, since the library may crash on damage."""
    newest = workdir / FOLDER / "10"
    (newest / FILE).unlink()
    assert find_damage(newest) is None
    flip_bits(newest)
    assert find_damage(newest) == "it cannot be read"


def test_a_manifest_lists_what_the_checkpoint_needs(workdir):
    newest = workdir / FOLDER / "10"
    listed = json.loads((newest / FILE).read_text())["files"]
    path = arrays_of(newest)
    assert listed[path.relative_to(newest).as_posix()]["size"] == path.stat().st_size
    assert "data/metadata" in listed
    (newest / FILE).unlink()
    write_manifest(newest)
    assert json.loads((newest / FILE).read_text())["files"] == listed


def test_a_state_that_is_not_finite_is_not_saved(workdir):
    state = make_state(12)
    state.params["head"]["kernel"] = state.params["head"]["kernel"].at[3, 3].set(jnp.inf)
    message = (
        r"^cannot save step 12: 'params/head/kernel' holds values that are not finite; .* \(last checkpoint: 10\)$"
    )
    with (
        Checkpointer(workdir / FOLDER, keep=2, config={}) as checkpointer,
        pytest.raises(UserError, match=message),
    ):
        checkpointer.save(12, state, data={}, scores=None, required=False)
    jax.tree.map(
        np.testing.assert_array_equal, restore_variables(workdir, prefer="latest")["params"], make_state(10).params
    )
