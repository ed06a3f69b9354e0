"""Moments of channels: values and gradients against NumPy's and autodiff's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.ops.moments import channel_moments


@pytest.mark.parametrize("num_groups", [1, 2])
def test_values_and_gradient(rng, num_groups):
    x = rng.normal(3.0, 2.0, size=(4, 5, 3, 6)).astype(np.float32)
    shift = rng.normal(3.0, size=6).astype(np.float32)
    weights = rng.normal(size=(2, num_groups, 6)).astype(np.float32)

    def plain(x):
        grouped = x.reshape(num_groups, -1, 6)
        return grouped.mean(1), grouped.var(1)

    def weighted(moments):
        return lambda x: jnp.sum(jnp.stack(moments(x)) * weights)

    def ours(x):
        return channel_moments(x, shift, num_groups)

    for got, want in zip(ours(x), plain(x), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    got, want = (jax.jit(jax.grad(weighted(moments)))(x) for moments in (ours, plain))
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_the_shift_has_no_gradient(rng):
    x = rng.normal(size=(2, 3, 3, 4)).astype(np.float32)
    gradient = jax.grad(lambda shift: jnp.sum(channel_moments(x, shift)[1]))(jnp.ones(4))
    np.testing.assert_array_equal(gradient, 0.0)
