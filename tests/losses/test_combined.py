"""Losses that are added: each image's means, with factors, counted as the first term counts the image."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.losses.combined import add_losses
from deeplab_jax.losses.cross_entropy import softmax_cross_entropy
from deeplab_jax.losses.dice import soft_dice

IGNORE = 255


@pytest.fixture
def example(rng):
    logits = rng.normal(scale=2, size=(4, 6, 5, 3)).astype(np.float32)
    label = rng.integers(0, 3, size=(4, 6, 5)).astype(np.uint8)
    label[0, 2:] = IGNORE
    label[3] = IGNORE
    return logits, jnp.asarray(label)


def terms(**arguments):
    mined = functools.partial(softmax_cross_entropy, ignore_label=IGNORE, **arguments)
    return [(0.5, mined), (2.0, functools.partial(soft_dice, ignore_label=IGNORE))]


def test_terms_of_one_weight_are_simply_added(example):
    (half, cross_entropy), (twice, dice) = terms()
    total, weight = jax.jit(add_losses(terms()))(*example)
    np.testing.assert_allclose(total, half * cross_entropy(*example)[0] + twice * dice(*example)[0], rtol=1e-6)
    assert weight == cross_entropy(*example)[1] == dice(*example)[1]


@pytest.mark.parametrize("arguments", [{"class_weights": (0.1, 3.0, 1.0)}, {"top_k_fraction": 0.3}])
def test_terms_of_different_weights_are_means_of_each_image(example, arguments):
    logits, label = example
    (half, cross_entropy), (twice, dice) = terms(**arguments)
    want_total, want_weight = 0.0, 0.0
    for i in range(3):  # the last image is ignored
        first, weight = cross_entropy(logits[i : i + 1], label[i : i + 1])
        second, pixels = dice(logits[i : i + 1], label[i : i + 1])
        want_total += half * first + twice * weight * second / pixels
        want_weight += weight
    combined = jax.jit(add_losses(terms(**arguments)))
    np.testing.assert_allclose(combined(logits, label), (want_total, want_weight), rtol=1e-6)
    halves = combined(logits[:2], label[:2]), combined(logits[2:], label[2:])
    np.testing.assert_allclose(np.sum(halves, axis=0), (want_total, want_weight), rtol=1e-6)


def test_one_term_is_its_own_sum_times_its_factor(example):
    ((factor, loss), _) = terms(top_k_fraction=0.3)
    total, weight = add_losses([(factor, loss)])(*example)
    assert (total, weight) == (factor * loss(*example)[0], loss(*example)[1])


def test_all_ignored_is_zero_with_a_zero_gradient(example):
    label = jnp.full((2, 3, 3), IGNORE, jnp.uint8)
    logits = jnp.ones((2, 3, 3, 4))
    combined = jax.jit(add_losses(terms()))
    assert combined(logits, label) == (0.0, 0.0)
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda z: combined(z, label)[0]))(logits), 0)


def test_a_wrong_label_poisons_the_sum(example):
    logits, label = example
    assert jnp.isnan(jax.jit(add_losses(terms()))(logits, label.at[1, 1, 1].set(7))[0])
