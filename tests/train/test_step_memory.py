"""What a step needs is known before it runs, from the program that runs."""

from __future__ import annotations

from toy import make_batch, make_toy

from deeplab_jax.ops.mesh import shard_batch
from deeplab_jax.train.compiled_step import CompiledStep
from deeplab_jax.train.step_memory import step_memory


def test_the_step_tells_its_needs_once_and_before_it_runs():
    state, step, mesh = make_toy(num_devices=2, ema_decay=0.9)
    told = []

    def tell(memory):
        assert not state.step.is_deleted()  # as it is when the step has begun
        told.append(memory)

    measured = CompiledStep(step, tell)
    for k in range(2):
        state, metrics = measured(state, shard_batch(make_batch(k), mesh))
    assert metrics["loss"] > 0
    (memory,) = told
    num_params = 3 * 3 * 3 * 6 + 6 + 6 + 6 * 3 + 3
    assert memory.parameters == 4 * num_params
    assert memory.statistics == 4 * 12
    assert memory.average == memory.parameters + memory.statistics
    assert memory.optimizer >= memory.parameters  # momentum
    assert memory.batch == 8 * (8 * 10 * 4 + 1)  # of 16 images, half
    assert memory.temporaries > 0
    assert memory.total > memory.temporaries + memory.batch


def test_without_a_program_the_rest_is_known():
    state, _, mesh = make_toy(num_devices=2, shard_optimizer=True)
    memory = step_memory(state, shard_batch(make_batch(0), mesh))
    assert memory.temporaries == 0
    assert memory.optimizer < memory.parameters  # momentum, half of which is on the other device
