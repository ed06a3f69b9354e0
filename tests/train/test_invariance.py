"""The same global batches on 1, 2, 4 and 8 devices are the same training, however the work is shared out."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from toy import make_batch, make_toy, to_host

from deeplab_jax.ops.mesh import shard_batch
from deeplab_jax.train.step_memory import device_bytes

NUM_STEPS = 20
# The same float32 sums in another order: rounding of 6e-8, which twenty steps at a learning rate of 0.5 let grow.
TOLERANCE = 2e-5


def train(**options):
    """(losses, state) of twenty steps."""
    state, step, mesh = make_toy(num_steps=2 * NUM_STEPS, **options)
    losses = []
    for k in range(NUM_STEPS):
        state, metrics = step(state, shard_batch(make_batch(k), mesh))
        losses.append(float(metrics["loss"]))
    return losses, state


@pytest.fixture(scope="module")
def one_device():
    """What one device makes of each way to train."""
    return {(slices, group): train(accumulation_steps=slices, group_size=group) for slices, group in WAYS}


WAYS = ((1, 0), (2, 0), (1, 2))  # (slices of a batch, images of a group of batch norm)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_losses_and_state_do_not_depend_on_the_number_of_devices(one_device, num_devices, way):
    slices, group_size = way
    want_losses, want = one_device[way]
    losses, state = train(num_devices=num_devices, accumulation_steps=slices, group_size=group_size)
    np.testing.assert_allclose(losses, want_losses, atol=TOLERANCE, rtol=0)
    assert losses[-1] < 0.7 * losses[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE, rtol=0), to_host(state), to_host(want))


@pytest.mark.parametrize(("num_data", "num_space"), [(1, 4), (2, 2)])
def test_nor_on_who_shares_the_height_of_images(one_device, num_data, num_space):
    """Images of 8 rows, and labels likewise, over 2 and 4 devices."""
    want_losses, want = one_device[1, 0]
    losses, state = train(num_devices=num_data, num_space=num_space)
    np.testing.assert_allclose(losses, want_losses, atol=TOLERANCE, rtol=0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE, rtol=0), to_host(state), to_host(want))


def test_nor_on_where_the_optimizer_keeps_its_state(one_device):
    want_losses, want = one_device[1, 0]
    losses, state = train(num_devices=2, shard_optimizer=True)
    np.testing.assert_allclose(losses, want_losses, atol=TOLERANCE, rtol=0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE, rtol=0), to_host(state), to_host(want))
    assert device_bytes(state.opt_state) < 0.6 * device_bytes(state.params)
