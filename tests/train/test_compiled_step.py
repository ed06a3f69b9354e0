"""The step's programs: compiled once for each shape, ahead of the first batch where that is asked for."""

from __future__ import annotations

import jax
import pytest
from toy import make_batch, make_toy

from deeplab_jax.ops.mesh import shard_batch
from deeplab_jax.train.compiled_step import CompiledStep


def shapes_of(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)


def test_a_batch_of_another_shape_is_warned_of_once_and_trained_on(capsys):
    state, step, mesh = make_toy()
    told = []
    measured = CompiledStep(step, told.append)
    for size in (16, 8, 16, 8):
        state, metrics = measured(state, shard_batch(make_batch(0, size), mesh))
    assert int(state.step) == 4
    assert metrics["skipped"] == 0
    assert len(told) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the train step is compiled again, for 8 x 8x10 pixels (3 x uint8) after 16 x 8x10")


def test_a_step_begun_ahead_is_the_one_that_runs():
    state, step, mesh = make_toy()
    batch, told, lowered = shard_batch(make_batch(0), mesh), [], []

    class Counted:
        def lower(self, *args):
            lowered.append(args)
            return step.lower(*args)

        __call__ = step

    compiled = CompiledStep(Counted(), told.append)
    compiled.begin(shapes_of(state), shapes_of(batch))
    for _ in range(2):
        state, metrics = compiled(state, batch)
    assert (int(state.step), float(metrics["skipped"])) == (2, 0.0)
    assert len(lowered) == len(told) == 1
    assert told[0].temporaries > 0


@pytest.mark.usefixtures("unchecked_types")
def test_what_goes_wrong_ahead_is_raised_where_the_step_is_called():
    class Refused:
        def lower(self, *args):
            raise ValueError("no such step")

        __call__ = lower

    compiled = CompiledStep(Refused(), lambda memory: None)
    batch = make_batch(0)
    compiled.begin(None, batch)
    with pytest.raises(ValueError, match="no such step"):
        compiled(None, batch)
