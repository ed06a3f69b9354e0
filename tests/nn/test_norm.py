"""Batch norm: statistics against NumPy, groups, freezing, and the cases that break others."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_peers import import_peer, to_torch

from deeplab_jax.nn.norm import BatchNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.settings import BatchNormConfig
from deeplab_jax.ops.mesh import make_mesh, replicated, shard_batch
from deeplab_jax.types import MOMENTS


def _variables(channels=3, mean=0.0, var=1.0):
    stats = {"mean": jnp.full(channels, mean), "var": jnp.full(channels, var)}
    return {"params": {"scale": jnp.full(channels, 1.5), "bias": jnp.full(channels, 0.25)}, "batch_stats": stats}


def _train(x, variables=None, **options):
    layer = BatchNorm(epsilon=1e-3, options=LayerOptions(batch_norm=BatchNormConfig(decay=0.9, **options)))
    y, updates = layer.apply(variables or _variables(), x, train=True, mutable=["batch_stats"])
    return np.asarray(y), jax.tree.map(np.asarray, updates["batch_stats"])


def _numpy(x, epsilon=1e-3):
    x = np.asarray(x, np.float64)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(var + epsilon) * 1.5 + 0.25, mean, x.var((0, 1, 2), ddof=1)


def test_normalises_by_the_batch_and_moves_the_statistics(rng):
    x = rng.normal(2, 3, size=(4, 5, 6, 3)).astype(np.float32)
    y, stats = _train(x)
    want, mean, var = _numpy(x)
    np.testing.assert_allclose(y, want, atol=1e-5)
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-5)


def test_the_running_variance_is_the_kind_that_is_asked_for(rng):
    """Image pooling at batch 2: half of the true variance, if it is the biased one."""
    x = rng.normal(0, 2, size=(2, 1, 1, 20_000)).astype(np.float32)
    variables = _variables(channels=20_000)
    means = {kind: _train(x, variables, running_variance=kind)[1]["var"].mean() for kind in ("unbiased", "biased")}
    # The mean of 20,000 squares with a standard deviation of 1.4 times the variance each: 0.01 of it, times the 0.1.
    assert means["unbiased"] == pytest.approx(0.9 + 0.1 * 4, abs=0.02)
    assert means["biased"] == pytest.approx(0.9 + 0.1 * 2, abs=0.02)


@pytest.mark.peer
def test_twenty_steps_leave_the_statistics_of_torch(rng):
    torch = import_peer("torch")
    theirs = torch.nn.BatchNorm2d(3, momentum=0.1).train()
    variables = _variables(mean=0.0, var=1.0)
    for _ in range(20):
        x = rng.normal(1, 2, size=(2, 1, 1, 3)).astype(np.float32)
        variables = variables | {"batch_stats": _train(x, variables)[1]}
        theirs(to_torch(x))
    stats = variables["batch_stats"]
    # Float32 sums in another order, over 20 steps.
    np.testing.assert_allclose(stats["mean"], theirs.running_mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(stats["var"], theirs.running_var.numpy(), rtol=1e-5)


def test_groups_have_their_own_statistics(rng):
    x = rng.normal(size=(6, 4, 4, 3)).astype(np.float32)
    x[2:4] += 5
    y, stats = _train(x, group_size=2)
    for first in (0, 2, 4):
        # One pass around a shift of 0 where |mean| / std = 5: 25 times float32's rounding.
        np.testing.assert_allclose(y[first : first + 2], _numpy(x[first : first + 2])[0], atol=5e-5)
    variances = [_numpy(x[first : first + 2])[2] for first in (0, 2, 4)]
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * np.mean(variances, axis=0), rtol=1e-5)


@pytest.mark.parametrize("group_size", [0, 1, 2, 8])
def test_eight_devices_equal_one(rng, group_size):
    x = rng.normal(size=(8, 3, 3, 3)).astype(np.float32)
    layer = BatchNorm(options=LayerOptions(batch_norm=BatchNormConfig(group_size=group_size)))

    @jax.jit
    def loss(x, variables):
        y, updates = layer.apply(variables, x, train=True, mutable=["batch_stats"])
        return (y**3).sum(), updates

    gradient = jax.value_and_grad(loss, has_aux=True)
    results = []
    for num_devices in (1, 8):
        mesh = make_mesh(num_devices)
        results.append(gradient(shard_batch(x, mesh), jax.device_put(_variables(), replicated(mesh))))
    # The all-reduce adds eight partial sums in another order: float32 rounding.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), *results)


@pytest.mark.parametrize("group_size", [0, 2, 4], ids=["global", "per replica", "groups of 4"])
def test_eight_devices_equal_numpy(rng, group_size):
    """16 images, two on each device: over all of them, those of one device, and those of two."""
    x = rng.normal(1, 2, size=(16, 3, 3, 3)).astype(np.float32)
    layer = BatchNorm(epsilon=1e-3, options=LayerOptions(batch_norm=BatchNormConfig(decay=0.9, group_size=group_size)))
    apply = jax.jit(lambda x, variables: layer.apply(variables, x, train=True, mutable=["batch_stats"]))
    mesh = make_mesh(8)
    y, updates = jax.device_get(apply(shard_batch(x, mesh), jax.device_put(_variables(), replicated(mesh))))
    groups = [_numpy(rows) for rows in np.split(x, 16 // (group_size or 16))]
    np.testing.assert_allclose(y, np.concatenate([wanted for wanted, _, _ in groups]), atol=1e-5)
    for name, moment in (("mean", 1), ("var", 2)):
        moments = np.mean([group[moment] for group in groups], axis=0)
        start = 0.0 if name == "mean" else 0.9
        np.testing.assert_allclose(updates["batch_stats"][name], start + 0.1 * moments, rtol=1e-5)


def test_a_group_within_a_device_needs_no_communication():
    mesh = make_mesh(8)
    layer = BatchNorm(options=LayerOptions(batch_norm=BatchNormConfig(group_size=2)))
    x = shard_batch(np.ones((16, 3, 3, 3), np.float32), mesh)
    apply = jax.jit(lambda x: layer.apply(_variables(), x, train=True, mutable=["batch_stats"])[0])
    assert "all-reduce" not in apply.lower(x).compile().as_text()


def test_a_large_mean_costs_no_digits_once_the_running_mean_is_near(rng):
    x = (1000 + rng.normal(size=(8, 16, 16, 3))).astype(np.float32)
    y, _ = _train(x, _variables(mean=999.0))
    np.testing.assert_allclose(y, _numpy(x)[0], atol=1e-3)  # |x| / std = 1000: inputs are rounded at 6e-5


def test_one_value_per_channel_is_normalised_by_the_running_statistics():
    """Image pooling at batch size 1: no constant output, and no variance that decays to zero."""
    x = np.asarray([[[[4.0, 5.0, 6.0]]]], np.float32)
    y, stats = _train(x, _variables(mean=1.0, var=4.0))
    np.testing.assert_allclose(y, (x - 1) / np.sqrt(4 + 1e-3) * 1.5 + 0.25, rtol=1e-6)
    np.testing.assert_array_equal(stats["var"], 4.0)


def test_frozen_is_evaluation(rng):
    x = rng.normal(size=(2, 3, 3, 3)).astype(np.float32)
    y, stats = _train(x, _variables(mean=0.5, var=2.0), frozen=True)
    evaluated = BatchNorm(epsilon=1e-3).apply(_variables(mean=0.5, var=2.0), x, train=False)
    np.testing.assert_array_equal(y, evaluated)
    np.testing.assert_array_equal(stats["mean"], 0.5)


def test_statistics_stay_float32_under_bfloat16(rng):
    x = jnp.asarray(rng.normal(size=(4, 8, 8, 3)), jnp.bfloat16)
    layer = BatchNorm(options=LayerOptions(dtype=jnp.bfloat16))
    y, updates = layer.apply(_variables(), x, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert updates["batch_stats"]["var"].dtype == jnp.float32


def test_moments_are_recorded_only_on_demand(rng):
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    _, recorded = BatchNorm().apply(_variables(), x, train=False, mutable=[MOMENTS])
    np.testing.assert_allclose(recorded[MOMENTS]["mean"][0], x.mean((0, 1, 2)), atol=1e-6)


def test_a_batch_that_does_not_divide_into_groups_is_refused(rng):
    with pytest.raises(ValueError, match="a batch of 6 does not divide into batch norm groups of 4"):
        _train(rng.normal(size=(6, 2, 2, 3)), group_size=4)
