"""Sums over pixels, by eights, against NumPy's."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from deeplab_jax.ops.convolution.pixel_sums import pixel_sums


# Fewer rows than eight; a rest of rows; eights of the sums once, and twice, each with a rest.
@pytest.mark.parametrize("size", [(3, 5), (19, 4), (21, 37), (83, 70)])
def test_sums_of_several_arrays_are_numpys(rng, size):
    x, y = rng.normal(size=(2, 2, *size, 3)).astype(np.float32)
    got = jax.jit(lambda x, y: pixel_sums(lambda low, high: [x[:, low:high], (x * y)[:, low:high]], size[0]))(x, y)
    want = np.stack([x, x * y]).astype(np.float64).sum(axis=(2, 3))
    np.testing.assert_allclose(got, want, atol=1e-6 * size[0] * size[1])
