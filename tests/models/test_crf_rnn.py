"""CRF-as-RNN: it starts as DenseCRF with the papers' weights, and all its weights learn."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.config import ModelConfig, PartConfig
from deeplab_jax.models.build import build_model
from deeplab_jax.models.crf_rnn import CRFRNN
from deeplab_jax.ops.crf.mean_field import mean_field_batch
from deeplab_jax.ops.crf.parameters import crf_preset
from deeplab_jax.types import UserError

NUM_CLASSES = 3


@pytest.fixture
def inputs(rng):
    images = rng.integers(0, 256, size=(1, 7, 9, 3)).astype(np.uint8)
    return rng.normal(size=(1, 7, 9, NUM_CLASSES)).astype(np.float32), images


def _variables(layer, inputs):
    return layer.init(jax.random.key(0), *inputs, train=False)


def test_it_starts_as_the_papers_crf_and_all_of_it_learns(inputs):
    """In training, here with the iterations of test, so that one compilation shows both."""
    layer = CRFRNN(NUM_CLASSES, num_train_iterations=10)
    logits, images = inputs

    def loss(params, logits, images):
        refined = layer.apply({"params": params}, logits, images, train=True)
        return -jax.nn.log_softmax(refined)[..., 0].mean(), refined

    params = _variables(layer, inputs)["params"]
    gradients, got = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, logits, images)
    preset = crf_preset("crf_as_rnn")
    want = mean_field_batch(
        jnp.asarray(logits), jnp.asarray(images), preset.params, num_iterations=preset.num_iterations
    )
    # The same lattice, built in the program and on the host: float32 sums in another order.
    np.testing.assert_allclose(jax.nn.softmax(got), want, atol=1e-4)
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_iterations_differ_between_training_and_test(inputs, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "deeplab_jax.models.crf_rnn.mean_field_batch",
        lambda logits, images, params, **options: seen.append(options["num_iterations"]) or logits,
    )
    layer = CRFRNN(NUM_CLASSES)
    for train in (True, False):
        jax.eval_shape(lambda train=train: layer.apply(_variables(layer, inputs), *inputs, train=train))
    assert seen == [5, 10]


def _config():
    return ModelConfig(
        backbone=PartConfig("mobilenet_v2.mobilenet_v2", {"width": 0.25}),
        head=PartConfig("aspp.aspp", {"aspp_channels": 8, "atrous_rates": ()}),
        crf=PartConfig("crf_rnn.crf_rnn"),
        num_classes=NUM_CLASSES,
    )


def test_any_network_can_end_in_one():
    model = build_model(_config())
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 33, 33, 3), jnp.uint8)))
    crf = jax.tree.map(jnp.shape, shapes["params"]["crf"])
    assert crf == {"spatial_weights": (3,), "bilateral_weights": (3,), "compatibility": (3, 3)}


def test_a_binary_network_ends_in_one_of_two_classes(inputs, monkeypatch):
    """Whatever the CRF does to two classes, here it returns their softmax, the result is the log odds of the second."""
    seen = []
    monkeypatch.setattr(
        "deeplab_jax.models.crf_rnn.mean_field_batch",
        lambda logits, *_, **__: jax.nn.softmax(seen.append(logits) or logits),
    )
    logits, images = inputs[0][..., :1], inputs[1]
    layer = CRFRNN(1)
    variables = _variables(layer, (logits, images))
    assert variables["params"]["compatibility"].shape == (2, 2)
    refined = layer.apply(variables, logits, images, train=False)
    np.testing.assert_array_equal(seen[0], np.concatenate([np.zeros_like(logits), logits], -1))
    np.testing.assert_allclose(refined, logits, atol=1e-5)  # float32 logarithms of probabilities near 1


def test_overlapping_classes_have_none():
    build_model(dataclasses.replace(_config(), task="binary", num_classes=2))
    with pytest.raises(UserError, match="needs classes that exclude each other, and those of this network overlap"):
        build_model(dataclasses.replace(_config(), task="multilabel"))


def test_it_wants_logits_at_the_size_of_the_images():
    with pytest.raises(UserError, match="upsample_in_training=False: a CRF refines logits at the size of the images"):
        build_model(dataclasses.replace(_config(), upsample_in_training=False))


def test_its_capacity_is_so_many_vertices_per_pixel(inputs, monkeypatch):
    """Where an image needs more, all is NaN (see test_mean_field_in_program.py)."""
    seen = []
    monkeypatch.setattr(
        "deeplab_jax.models.crf_rnn.mean_field_batch",
        lambda logits, images, params, **options: seen.append(options["max_vertices"]) or logits,
    )
    for capacity in (6.0, 1.5):
        layer = CRFRNN(NUM_CLASSES, capacity=capacity)
        jax.eval_shape(lambda layer=layer: layer.apply(_variables(layer, inputs), *inputs, train=True))
    assert seen == [6 * 64, 96]
