"""Whole networks: one checkpoint at several output strides, compute types, what configs ask for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.config import BatchNormConfig, ModelConfig, PartConfig, PretrainedConfig
from deeplab_jax.models.build import build_model, find_layout
from deeplab_jax.types import DatasetInfo, UserError

INFO = DatasetInfo("toy", 5, 255, tuple("abcde"), ((0, 0, 0),) * 5, {"train": 1})


def _config(**changes):
    head = PartConfig("v3plus.v3plus", {"aspp_channels": 8, "decoder_channels": 8, "low_level_channels": 4})
    backbone = PartConfig("mobilenet_v2.mobilenet_v2", {"width": 0.25})
    return ModelConfig(backbone=backbone, head=head, **changes)


def _shapes(model, size=(65, 97)):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *size, 3), jnp.uint8)))


def test_logits_come_at_the_size_of_the_images():
    model = build_model(_config(), INFO)
    for size in ((65, 97), (64, 90)):
        logits = jax.eval_shape(
            lambda size=size: model.init_with_output(jax.random.key(0), jnp.zeros((2, *size, 3), jnp.uint8))[0]
        )
        assert logits.shape == (2, *size, 5)
        assert logits.dtype == jnp.float32


def test_one_checkpoint_serves_every_output_stride():
    trees = [_shapes(build_model(_config(output_stride=stride), INFO)) for stride in (8, 16, 32)]
    assert trees[0] == trees[1] == trees[2]


def test_bfloat16_computes_and_float32_stores(rng):
    images = rng.integers(0, 255, size=(1, 33, 33, 3)).astype(np.uint8)
    model = build_model(_config(compute_dtype="bfloat16"), INFO)
    variables = jax.jit(lambda x: model.init(jax.random.key(0, impl="rbg"), x))(images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    exact = jax.jit(build_model(_config(), INFO).apply)(variables, images)
    rounded = jax.jit(model.apply)(variables, images)
    assert rounded.dtype == jnp.float32
    # bfloat16 keeps 8 bits: a relative 2^-8 per layer, through some 20 layers
    np.testing.assert_allclose(rounded, exact, atol=0.1 * float(jnp.abs(exact).max()))
    assert not np.array_equal(rounded, exact)


def test_uint8_and_float_images_are_the_same_images(rng):
    images = rng.integers(0, 255, size=(1, 33, 33, 3)).astype(np.uint8)
    model = build_model(_config(), INFO)
    variables = jax.jit(lambda x: model.init(jax.random.key(0, impl="rbg"), x))(images)
    np.testing.assert_array_equal(model.apply(variables, images), model.apply(variables, images.astype(np.float32)))


def test_number_of_classes_comes_from_the_config_or_the_data_set():
    assert build_model(_config(num_classes=7), INFO).head.num_classes == 7
    assert build_model(_config(), INFO).head.num_classes == 5
    with pytest.raises(UserError, match="number of classes"):
        build_model(_config())


def test_batch_norm_settings_reach_every_layer():
    model = build_model(_config(batch_norm=BatchNormConfig(decay=0.5, group_size=2, frozen=True)), INFO)
    for part in (model.backbone, model.head):
        assert (part.options.bn_decay, part.options.bn_group_size, part.options.bn_frozen) == (0.5, 2, True)


def test_a_part_that_cannot_be_built_is_one_line():
    config = _config()
    config.backbone = PartConfig("resnet.resnet50", {"multi_grid": [1, 2]})
    with pytest.raises(UserError, match=r"multi_grid=\(1, 2\) must have 3 factors"):
        build_model(config, INFO)


@pytest.mark.parametrize(
    ("layout", "changes", "words"),
    [
        ("tensorflow", {}, "has the layouts tfslim_folded, gluon"),
        ("tfslim_folded", {"normalization": "imagenet"}, "need 'minus_one_to_one'"),
        ("gluon", {"normalization": "imagenet"}, r"padding='tf_same'.*need 'symmetric'"),
    ],
)
def test_settings_that_pretrained_weights_cannot_work_with_are_refused(layout, changes, words):
    pretrained = PretrainedConfig(source="weights.npz", layout=layout)
    with pytest.raises(UserError, match=words):
        find_layout(_config(pretrained=pretrained, **changes))
