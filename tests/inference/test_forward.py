"""Averaging over scales and mirror images, against the sum written out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.inference.forward import make_forward, scaled_size
from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.ops.resize import resize_bilinear


def apply_toy(variables, images, *, train):
    """Logits that depend on the place and on the size, as a network's do."""
    assert train is False
    x = images.astype(jnp.float32) / 255
    ramp = jnp.linspace(0, 1, x.shape[2])[None, None, :, None]
    return (x * ramp) @ variables["kernel"]


@pytest.fixture
def toy(rng):
    images = rng.integers(0, 256, (2, 9, 13, 3), dtype=np.uint8)
    return {"kernel": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)}, jnp.asarray(images)


def test_scaled_size_follows_tensorflow():
    assert scaled_size((513, 513), 0.5) == (257, 257)
    assert scaled_size((513, 513), 1.75) == (897, 897)
    assert scaled_size((361, 481), 0.75) == (271, 361)


def test_single_pass_is_the_softmax(toy):
    variables, images = toy
    forward = make_forward(apply_toy, InferenceConfig(), align_corners=True)
    expected = jax.nn.softmax(apply_toy(variables, images, train=False))
    np.testing.assert_array_equal(forward(variables, images), expected)


def test_bytes_reach_the_network_unresized(toy):
    variables, images = toy
    seen = []

    def apply_fn(variables, images, *, train):
        seen.append(images.dtype)
        return apply_toy(variables, images, train=train)

    make_forward(apply_fn, InferenceConfig(flip=True), align_corners=True)(variables, images)
    assert seen == [jnp.uint8, jnp.uint8]


@pytest.mark.parametrize("align_corners", [True, False])
def test_scales_and_mirrors_are_averaged(toy, align_corners):
    variables, images = toy
    forward = make_forward(apply_toy, InferenceConfig(scales=(0.5, 1.0), flip=True), align_corners=align_corners)

    small = resize_bilinear(images.astype(jnp.float32), (5, 7), align_corners=align_corners)
    passes = []
    for x in (small, images):
        for mirror in (lambda a: a, lambda a: a[:, :, ::-1]):
            logits = apply_toy(variables, mirror(x), train=False)
            passes.append(jax.nn.softmax(mirror(resize_bilinear(logits, (9, 13), align_corners=align_corners))))
    # The same terms added in another order: a few float32 roundings.
    np.testing.assert_allclose(forward(variables, images), sum(passes) / 4, atol=1e-6)


def test_flip_makes_the_result_mirror_symmetric(toy):
    variables, images = toy
    forward = make_forward(apply_toy, InferenceConfig(flip=True), align_corners=True)
    mirrored = forward(variables, images[:, :, ::-1])
    np.testing.assert_allclose(mirrored[:, :, ::-1], forward(variables, images), atol=1e-6)  # order of one addition


def test_probabilities_are_float32_and_sum_to_one(toy):
    variables, images = toy

    def apply_bfloat16(variables, images, *, train):
        return apply_toy(variables, images, train=train).astype(jnp.bfloat16)

    result = make_forward(apply_bfloat16, InferenceConfig(scales=(0.5, 1.0, 1.5), flip=True), align_corners=True)(
        variables, images
    )
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result.sum(-1), 1.0, atol=1e-6)  # four float32 additions
