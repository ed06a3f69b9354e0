"""Whole networks: one checkpoint at several output strides, compute types, what configs ask for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.config import BatchNormConfig, ModelConfig, PartConfig
from deeplab_jax.models.build import build_model
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import SIDE_LOGITS, DatasetInfo, UserError

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
        assert part.options.batch_norm == BatchNormConfig(decay=0.5, group_size=2, frozen=True)


def test_a_part_that_cannot_be_built_is_one_line():
    config = _config()
    config.backbone = PartConfig("resnet.resnet50", {"multi_grid": [1, 2]})
    with pytest.raises(UserError, match=r"multi_grid=\(1, 2\) must have 3 factors"):
        build_model(config, INFO)


def test_an_auxiliary_head_is_of_training_alone(rng):
    images = rng.integers(0, 255, size=(2, 33, 33, 3)).astype(np.uint8)
    auxiliary = PartConfig("auxiliary.auxiliary", {"feature": "stride8", "channels": 4})
    model = build_model(_config(auxiliary=auxiliary), INFO)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    assert set(variables) == {"params", "batch_stats"}
    assert "auxiliary" in variables["params"]

    def apply(variables, train):
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(variables, images, train=train, mutable=[SIDE_LOGITS, "batch_stats"], rngs=rngs)

    _, trained = jax.eval_shape(lambda v: apply(v, True), variables)
    assert [leaf.shape for leaf in jax.tree.leaves(trained[SIDE_LOGITS])] == [(2, 33, 33, 5)]
    _, evaluated = jax.eval_shape(lambda v: apply(v, False), variables)
    assert not jax.tree.leaves(evaluated.get(SIDE_LOGITS, {}))


def test_training_may_compare_at_the_logits_own_size():
    images = jnp.zeros((1, 33, 33, 3), jnp.uint8)
    model = build_model(_config(upsample_in_training=False), INFO)
    variables = _shapes(model)
    rngs = {"dropout": jax.random.key(0)}
    sizes = [
        jax.eval_shape(lambda v, t=t: model.apply(v, images, train=t, mutable=["batch_stats"], rngs=rngs), variables)[0]
        for t in (True, False)
    ]
    assert [size.shape for size in sizes] == [(1, 9, 9, 5), (1, 33, 33, 5)]


@pytest.mark.parametrize("align_corners", [True, False])
def test_scales_are_fused_by_their_maximum(align_corners, rng):
    """Against the network at each size, resized and compared outside."""
    images = rng.integers(0, 255, size=(1, 65, 65, 3)).astype(np.uint8)
    plain = build_model(_config(align_corners=align_corners), INFO)
    fused = build_model(_config(align_corners=align_corners, scales=(1.0, 0.5)), INFO)
    variables = jax.jit(lambda x: plain.init(jax.random.key(0, impl="rbg"), x))(images)
    assert jax.tree.structure(jax.eval_shape(lambda: fused.init(jax.random.key(0), images))) == jax.tree.structure(
        variables
    )

    @jax.jit
    def want(variables):
        small = (33, 33) if align_corners else (32, 32)
        x = plain.normalize(jnp.asarray(images))
        resized = resize_bilinear(x, small, align_corners=align_corners)
        bound = plain.bind(variables)
        scores = [bound.scores(x, train=False), bound.scores(resized, train=False)]
        best = jnp.maximum(scores[0], resize_bilinear(scores[1], (17, 17), align_corners=align_corners))
        return resize_bilinear(best, (65, 65), align_corners=align_corners)

    got = jax.jit(fused.apply)(variables, images)
    expected = want(variables)
    np.testing.assert_allclose(got, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_each_scale_is_a_side_output_in_training():
    images = jnp.zeros((1, 65, 65, 3), jnp.uint8)
    model = build_model(_config(scales=(1.0, 0.75, 0.5), upsample_in_training=False), INFO)
    _, updates = jax.eval_shape(
        lambda v: model.apply(
            v, images, train=True, mutable=[SIDE_LOGITS, "batch_stats"], rngs={"dropout": jax.random.key(0)}
        ),
        _shapes(model),
    )
    assert [leaf.shape[1] for leaf in jax.tree.leaves(updates[SIDE_LOGITS])] == [17, 13, 9]
