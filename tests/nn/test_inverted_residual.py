"""Squeeze-and-excite and rounded channels: what MobileNets and EfficientNets share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.nn.inverted_residual import SqueezeExcite, divisible
from deeplab_jax.nn.options import LayerOptions


def test_a_gate_without_weights_is_one_half(rng):
    layer = SqueezeExcite(8, LayerOptions())
    x = rng.normal(size=(2, 3, 5, 16)).astype(np.float32)
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    np.testing.assert_allclose(layer.apply(variables, x), x / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("exact", "divisor", "expected"),
    [(24.0, 8, 24), (18.0, 8, 24), (12.0, 8, 16), (33.0, 8, 32), (3.0, 8, 8), (44.8, 8, 48), (9.6, 1, 10)],
)
def test_channels_are_multiples_that_lose_no_tenth(exact, divisor, expected):
    assert divisible(exact, divisor) == expected
