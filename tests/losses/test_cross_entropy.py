"""Cross-entropy with hard-pixel mining, against a slow NumPy twin that knows the gradient; the rest: test_losses.py."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.losses.cross_entropy import softmax_cross_entropy

IGNORE = 255
WEIGHTS = (1.0, 0.25, 3.0, 0.0, 2.0)
NUM_CLASSES = len(WEIGHTS)


def twin(logits, label, class_weights=None, top_k_fraction=1.0):
    """Pixel by pixel in float64: (sum, weight, gradient of the sum)."""
    weights = class_weights or (1.0,) * logits.shape[-1]
    total, weight, gradient = 0.0, 0.0, np.zeros(logits.shape)
    for b in range(len(logits)):
        pixels = []
        for y, x in np.ndindex(*label.shape[1:]):
            if (true := label[b, y, x]) != IGNORE:
                z = logits[b, y, x].astype(np.float64)
                p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
                pixels.append((-math.log(p[true]) * weights[true], y, x, true, p))
        pixels.sort(key=lambda pixel: -pixel[0])
        for loss, y, x, true, p in pixels[: math.ceil(top_k_fraction * len(pixels))]:
            total, weight = total + loss, weight + weights[true]
            gradient[b, y, x] = weights[true] * (p - np.eye(len(p))[true])
    return total, weight, gradient


@pytest.fixture
def example(rng):
    logits = rng.normal(scale=3, size=(3, 5, 7, NUM_CLASSES)).astype(np.float32)
    label = rng.integers(0, NUM_CLASSES, size=(3, 5, 7)).astype(np.uint8)
    label[rng.random(label.shape) < 0.3] = IGNORE
    label[2, :, :3] = IGNORE  # images differ in how much of them counts
    return logits, label


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
@pytest.mark.parametrize("top_k_fraction", [1.0, 0.31])
@pytest.mark.parametrize("traced", [False, True])
def test_equals_the_slow_twin(example, class_weights, top_k_fraction, traced):
    if class_weights and top_k_fraction < 1:
        class_weights = tuple(w + 0.1 for w in class_weights)  # no ties at zero: the twin breaks them by order
    logits, label = example
    fraction = jnp.float32(top_k_fraction) if traced else top_k_fraction

    def loss(z):
        return softmax_cross_entropy(
            z, jnp.asarray(label), ignore_label=IGNORE, class_weights=class_weights, top_k_fraction=fraction
        )

    (total, weight), gradient = jax.jit(lambda z: (loss(z), jax.grad(lambda q: loss(q)[0])(z)))(logits)
    want_total, want_weight, want_gradient = twin(logits, label, class_weights, top_k_fraction)
    # float32 against float64 over about 70 pixels.
    np.testing.assert_allclose(total, want_total, rtol=2e-6)
    np.testing.assert_allclose(weight, want_weight, rtol=1e-6)
    np.testing.assert_allclose(gradient, want_gradient, atol=2e-6)


def test_hard_pixels_do_not_depend_on_how_the_batch_is_split(example):
    logits, label = example
    whole = softmax_cross_entropy(logits, jnp.asarray(label), ignore_label=IGNORE, top_k_fraction=0.4)
    rows = [
        softmax_cross_entropy(logits[i : i + 1], jnp.asarray(label[i : i + 1]), ignore_label=IGNORE, top_k_fraction=0.4)
        for i in range(len(logits))
    ]
    np.testing.assert_allclose(whole, np.sum(rows, axis=0), rtol=1e-6)  # order of a float32 sum


@pytest.mark.parametrize("top_k_fraction", [1.0, 0.5])
def test_all_ignored_is_zero_with_a_zero_gradient(top_k_fraction):
    label = jnp.full((2, 3, 3), IGNORE, jnp.uint8)

    def total(z):
        return softmax_cross_entropy(z, label, ignore_label=IGNORE, top_k_fraction=top_k_fraction)

    logits = jnp.ones((2, 3, 3, 4))
    assert total(logits) == (0.0, 0.0)
    np.testing.assert_array_equal(jax.grad(lambda z: total(z)[0])(logits), 0)


@pytest.mark.parametrize("top_k_fraction", [1.0, 0.1])
@pytest.mark.parametrize("wrong", [NUM_CLASSES, 254, -1])
def test_a_label_that_is_no_class_poisons_the_loss(example, wrong, top_k_fraction):
    logits, label = example
    label = label.astype(np.int32)
    label[1, 2, 2] = wrong
    total, _ = softmax_cross_entropy(
        logits, jnp.asarray(label), ignore_label=IGNORE, class_weights=WEIGHTS, top_k_fraction=top_k_fraction
    )
    assert jnp.isnan(total)


def test_bfloat16_logits_are_summed_in_float32(example):
    logits, label = example
    narrow = jnp.asarray(logits, jnp.bfloat16)
    total, weight = softmax_cross_entropy(narrow, jnp.asarray(label), ignore_label=IGNORE)
    assert (total.dtype, weight.dtype) == (jnp.float32, jnp.float32)
    want_total, _, _ = twin(np.asarray(narrow.astype(jnp.float32)), label)
    np.testing.assert_allclose(total, want_total, rtol=2e-6)  # only the input was rounded


def test_extreme_logits_stay_finite():
    logits = jnp.asarray([[[[1e4, -1e4], [-1e4, 1e4]]]])
    total, _ = softmax_cross_entropy(logits, jnp.zeros((1, 1, 2), jnp.uint8), ignore_label=IGNORE)
    assert total == 2e4


def test_class_weights_must_match_the_classes(example):
    logits, label = example
    with pytest.raises(ValueError, match="2 class weights for 5 classes"):
        softmax_cross_entropy(logits, jnp.asarray(label), ignore_label=IGNORE, class_weights=(1.0, 2.0))
