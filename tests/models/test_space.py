"""Images whose height is shared out between devices: strides, atrous rates, pooling and resizing across the edges."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.heads.aspp import ASPP
from deeplab_jax.losses.cross_entropy import softmax_cross_entropy
from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.ops.mesh import batch_sharding, make_mesh, replicated, shard_batch, split_height
from deeplab_jax.ops.pooling import max_pool
from deeplab_jax.ops.resize import resize_bilinear

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
NUM_CLASSES = 3


class SmallNet(nn.Module):
    """Each kind of operation once: 33 rows become 17, 9, and 33 again; no number of devices divides any of them."""

    @nn.compact
    def __call__(self, images, *, train):
        x = ConvNorm(4, 3, stride=2, name="conv")(images.astype(jnp.float32) / 255, train=train)
        x = max_pool(x, 3, stride=2)
        x = ConvNorm(0, 3, rate=2, name="depthwise")(x, train=train)
        # Rates of 2 and 6 cells, where a strip has 3 rows of 9: what a tap reads may lie two strips away.
        x = ASPP(16, atrous_rates=(2, 6), channels=4, dropout=0.0, name="aspp")(x, train=train)
        return resize_bilinear(nn.Conv(NUM_CLASSES, (1, 1), name="logits")(x), images.shape[1:3], align_corners=True)


def results(model, num_space, size, batch_size=2):
    """(logits, gradient, statistics) of a batch on `num_space` devices."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (batch_size, *size, 3), dtype=np.uint8)
    label = rng.integers(0, NUM_CLASSES, (batch_size, *size), dtype=np.uint8)
    mesh = make_mesh(1, num_space)
    init = jax.jit(lambda key: model.init(key, image[:1], train=False))
    variables = jax.device_get(init(jax.random.key(0, impl="rbg")))

    def loss(params, stats, image, label):
        image, label = split_height((image, label), mesh)
        logits, updates = model.apply(
            {"params": params, "batch_stats": stats},
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        total, weight = softmax_cross_entropy(logits, label, ignore_label=255)
        return total / weight, (logits, updates)

    whole, rows = replicated(mesh), batch_sharding(mesh)
    step = jax.jit(jax.grad(loss, has_aux=True), in_shardings=(whole, whole, rows, rows), out_shardings=whole)
    image, label = shard_batch((image, label), mesh)
    arguments = (variables["params"], variables["batch_stats"], image, label)
    program = step.lower(*arguments).compile()
    assert ("collective-permute" in program.as_text()) == (num_space > 1)  # rows beyond the edges are exchanged
    gradient, (logits, updates) = jax.device_get(program(*arguments))
    return logits, gradient, updates


def assert_same(got, want, tolerance):
    """Float32 sums in another order: logits, gradients and statistics differ by `tolerance` of their largest at most.

    Not of each array's largest: the gradient before image pooling's batch norm is a difference that nearly cancels.
    """
    for one, other in zip(got, want, strict=True):
        largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(other))
        jax.tree.map(lambda a, b, m=largest: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * m), one, other)


@pytest.fixture(scope="module")
def on_one_device():
    return results(SmallNet(), 1, (33, 21))


@pytest.mark.parametrize("num_space", [2, 4])
def test_strips_of_an_image_equal_the_whole(on_one_device, num_space):
    assert_same(results(SmallNet(), num_space, (33, 21)), on_one_device, 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet50", "mobilenet_v2", "mobilenet_v3", "whole_frame"])
def test_networks_of_the_family_in_float64(network):
    """In float32 ResNet-50's gradients differ by 3e-2: 53 batch norms over few values amplify the rounding of sums."""
    command = [sys.executable, str(pathlib.Path(__file__).with_name("strips_in_float64.py")), network]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"2", "4"}
    assert max(found.values()) < 1e-11, found
