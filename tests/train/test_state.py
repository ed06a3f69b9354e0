"""The state: its abstract twin fits it, and seeds give what they promise."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from toy import Toy, make_init, to_host

from deeplab_jax.config import OptimizerConfig
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.train.optimizer import make_optimizer
from deeplab_jax.train.state import abstract_train_state, abstract_variables, create_train_state, create_variables

INIT = make_init(Toy())


def make_tx(variables):
    return make_optimizer(OptimizerConfig(name="adamw"), 10, variables["params"])[0]


@pytest.mark.parametrize("ema", [False, True])
def test_the_abstract_state_describes_the_real_one(ema):
    mesh = make_mesh(4)
    tx = make_tx(abstract_variables(INIT, mesh))
    want = abstract_train_state(abstract_variables(INIT, mesh), tx, ema=ema, mesh=mesh)
    got = create_train_state(create_variables(INIT, seed=0, mesh=mesh), tx, ema=ema, mesh=mesh)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(
        lambda g, w: np.testing.assert_equal((g.shape, g.dtype, g.sharding), (w.shape, w.dtype, w.sharding)), got, want
    )


def test_the_start_does_not_depend_on_the_number_of_devices():
    one, eight = (to_host(create_variables(INIT, seed=1, mesh=make_mesh(n))) for n in (1, 8))
    jax.tree.map(np.testing.assert_array_equal, one, eight)


def test_another_seed_is_another_start():
    kernels = [
        np.asarray(create_variables(INIT, seed=s, mesh=make_mesh(1))["params"]["head"]["logits"]["kernel"])
        for s in (1, 2)
    ]
    assert not np.array_equal(*kernels)


def test_the_average_owns_its_buffers():
    mesh = make_mesh(1)
    variables = create_variables(INIT, seed=0, mesh=mesh)
    state = create_train_state(variables, make_tx(variables), ema=True, mesh=mesh)
    leaves = jax.tree.leaves((state.params, state.batch_stats, state.ema))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
