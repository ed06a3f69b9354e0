"""Rematerialised parts: the same results, less memory, and a pattern that matches nothing is told."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.nn.remat import rematerialized
from deeplab_jax.types import UserError


class Unit(nn.Module):
    def __post_init__(self):
        super().__post_init__()
        self.check()  # as heads do that are refused where they have nothing to read

    def check(self):
        pass

    @nn.compact
    def __call__(self, x, *, train):
        y = ConvNorm(8, 3, name="conv1")(x, train=train)
        y = ConvNorm(8, 3, name="conv2")(y, train=train)
        return x + nn.Dropout(0.1, deterministic=not train)(y)


class Backbone(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        for unit_id in range(4):
            x = Unit(name=f"unit{unit_id}")(x, train=train)
        return {"last": x}


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Conv(2, (1, 1), name="head")(Backbone(name="backbone")(x, train=train)["last"])


@pytest.fixture(scope="module")
def variables():
    init = jax.jit(lambda key: Net().init(key, jnp.zeros((1, 4, 4, 8)), train=False))
    return init(jax.random.key(0, impl="rbg"))


def loss_of(variables, patterns):
    """parameters -> (loss, statistics) of a pass in training."""
    apply = rematerialized(Net().apply, patterns)
    x = np.random.default_rng(0).normal(size=(2, 12, 12, 8)).astype(np.float32)

    def loss(params):
        rngs = {"dropout": jax.random.key(1)}
        collections = {"params": params, "batch_stats": variables["batch_stats"]}
        y, updates = apply(collections, x, train=True, mutable=["batch_stats"], rngs=rngs)
        return jnp.sum(y**2), updates["batch_stats"]

    return loss


def kept_bytes(variables, patterns):
    """What the forward pass hands to the backward pass; XLA on CPU may keep more all the same."""
    backward = jax.eval_shape(lambda p: jax.vjp(loss_of(variables, patterns), p, has_aux=True)[1], variables["params"])
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))


def test_the_same_results(variables):
    want, got = (
        jax.jit(jax.grad(loss_of(variables, patterns), has_aux=True))(variables["params"])
        for patterns in ((), ("backbone/unit.*", "head"))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, want)


def test_less_is_kept(variables):
    all_kept = kept_bytes(variables, ())
    half = kept_bytes(variables, ("backbone/unit[01]",))
    inputs_alone = kept_bytes(variables, ("backbone/unit.*",))
    assert inputs_alone < 0.3 * all_kept
    assert inputs_alone < half < 0.7 * all_kept


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("backbone/block.*", r"'backbone/block.\*' matches no part of the network; paths look like backbone"),
        ("backbone/(", "no regular expression"),
    ],
)
def test_a_wrong_pattern_is_told(variables, pattern, message):
    x = jnp.zeros((1, 4, 4, 8))
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda x: rematerialized(Net().apply, (pattern,))(variables, x, train=False), x)
