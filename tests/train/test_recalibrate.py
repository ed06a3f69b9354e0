"""Calibration: statistics become the data's, and the function stays what it was."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.train.recalibrate import calibrate_batch_norm

EPSILON = 1e-3


class Norm(nn.Module):
    """Batch norm that sows its input's moments, as the networks' own does."""

    @nn.compact
    def __call__(self, x, *, train):
        self.sow("bn_moments", "mean", jnp.mean(x, axis=(0, 1, 2)))
        self.sow("bn_moments", "mean_square", jnp.mean(x * x, axis=(0, 1, 2)))
        self.sow("bn_moments", "epsilon", jnp.float32(EPSILON))
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels).value
        var = self.variable("batch_stats", "var", jnp.ones, channels).value
        if train:
            mean, var = jnp.mean(x, axis=(0, 1, 2)), jnp.var(x, axis=(0, 1, 2))
        mean, var, scale, bias = (v.reshape(1, 1, 1, -1) for v in (mean, var, scale, bias))
        return (x - mean) * scale / jnp.sqrt(var + EPSILON) + bias


class Part(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        for index in range(2):
            x = nn.Conv(5, (3, 3), name=f"conv{index}")(x)
            x = nn.relu(Norm(name=f"bn{index}")(x, train=train))
        return x


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = Part(name="backbone")(x / 20, train=train)
        return Part(name="head")(x, train=train)


@pytest.fixture
def images(rng):
    return [rng.normal(20, 30, size=(4, 9, 9, 3)).astype(np.float32) for _ in range(3)]


@pytest.fixture
def folded(images, rng):
    """Variables with made-up statistics, and affine parts that are not those of a fresh network."""
    variables = Net().init(jax.random.key(0), images[0], train=False)
    del variables["bn_moments"]
    variables["params"] = jax.tree.map(
        lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape).astype(np.float32), variables["params"]
    )
    return variables


def test_the_function_is_unchanged_and_the_statistics_are_the_datas(folded, images):
    calibrated = calibrate_batch_norm(Net().apply, folded, images)
    for image in images:
        want, got = (Net().apply(v, image, train=False) for v in (folded, calibrated))
        # Two ways to write one affine map, in float32.
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())
    x = np.concatenate(images) / 20
    x = nn.Conv(5, (3, 3)).apply({"params": folded["params"]["backbone"]["conv0"]}, x)
    stats = calibrated["batch_stats"]["backbone"]["bn0"]
    np.testing.assert_allclose(stats["mean"], x.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["var"], x.var(axis=(0, 1, 2)), rtol=1e-4)


def test_training_now_starts_from_the_same_function(folded, images):
    """What calibration is for: batch statistics no longer change what the backbone computes."""

    def jump(variables):
        backbone = {collection: tree["backbone"] for collection, tree in variables.items()}
        x = np.concatenate(images) / 20
        evaluated, trained = (Part().apply(backbone, x, train=train) for train in (False, True))
        return float(np.abs(evaluated - trained).max() / np.abs(evaluated).max())

    assert jump(folded) > 0.5
    assert jump(calibrate_batch_norm(Net().apply, folded, images)) < 1e-4  # the same moments, in float32


def test_other_parts_are_left_alone(folded, images):
    calibrated = calibrate_batch_norm(Net().apply, folded, images)
    for collection in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, calibrated[collection]["head"], folded[collection]["head"])


def test_needs_a_batch(folded):
    with pytest.raises(ValueError, match="at least one batch"):
        calibrate_batch_norm(Net().apply, folded, [])


def test_a_layer_that_sows_nothing_is_named(folded, images):
    def mute(variables, image, *, train, mutable):
        out, sown = Net().apply(variables, image, train=train, mutable=mutable)
        del sown["bn_moments"]["backbone"]["bn1"]
        return out, sown

    with pytest.raises(ValueError, match="backbone/bn1 sowed no moments"):
        calibrate_batch_norm(mute, folded, images)
