"""A small image with a unary term, kernels and costs for the tests of the CRF, and how they check a gradient."""

from __future__ import annotations

import numpy as np

from deeplab_jax.ops.crf.parameters import CRFParams

HEIGHT, WIDTH, NUM_CLASSES = 10, 14, 3
PARAMS = CRFParams(1.5, 2.0, 2.5, 6.0, 30.0)
COST = np.array([[0.0, 1.0, 2.0], [1.5, 0.0, 0.5], [1.0, 1.0, 0.2]], np.float32)  # of class beside class
MIXING = np.array([[1.0, 0.1, 0.0], [0.2, 2.0, 0.3], [0.0, 0.4, 1.5]], np.float32)  # kernel weights, class to class


def draw_image(rng):
    """Two soft regions, a little noisy, and dark in the first corner."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ground = 120 / (1 + np.exp(3 * (7 - x - 0.3 * y)))[..., None] * np.array([1.0, 0.7, 0.4])
    return np.clip(ground + rng.normal(size=(HEIGHT, WIDTH, 3)) * 8 + 5, 0, 255).astype(np.uint8)


def draw_unary(rng):
    return rng.normal(size=(HEIGHT, WIDTH, NUM_CLASSES)).astype(np.float32)


def softmax(x):
    exponential = np.exp(x - x.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def check_gradient(value, at, gradient, step=1e-2):
    """Against the difference of `value` along the gradient's own signs, relative to a width's size."""
    at, gradient = np.asarray(at, np.float32), np.asarray(gradient)
    step = step * max(1.0, float(np.abs(at).max()))
    direction = np.sign(gradient)
    difference = (value(at + step * direction) - value(at - step * direction)) / (2 * step)
    assert np.abs(gradient).sum() > 1e-4
    # float32 sums of some hundred marginals, over a difference of some hundredths
    np.testing.assert_allclose(np.abs(gradient).sum(), difference, rtol=3e-2, atol=1e-5)
