"""One suite for all heads: shapes, the papers' rates, batch size 1, gradients."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.heads.aspp import ASPP, aspp
from deeplab_jax.heads.aspp_sum import aspp_s, aspp_sum
from deeplab_jax.heads.auxiliary import auxiliary
from deeplab_jax.heads.dpc import dpc
from deeplab_jax.heads.fcn import fcn32s
from deeplab_jax.heads.large_fov import deeplab_4x4, large_fov, msc_large_fov
from deeplab_jax.heads.lr_aspp import lr_aspp
from deeplab_jax.heads.v3plus import v3plus
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.types import FeatureInfo

INFO = (FeatureInfo("stride4", 12, 4), FeatureInfo("stride16", 20, 16))
_V3PLUS = functools.partial(v3plus, aspp_channels=8, decoder_channels=8, low_level_channels=4)
HEADS = {
    "aspp": (functools.partial(aspp, aspp_channels=8), 16),
    "aspp_separable": (functools.partial(aspp, aspp_channels=8, separable=True), 16),
    "aspp_pool_and_1x1": (functools.partial(aspp, aspp_channels=8, atrous_rates=()), 16),
    "aspp_of_mmsegmentation": (functools.partial(aspp, aspp_channels=8, projection_kernel_size=3), 16),
    "aspp_fixed_pooling": (functools.partial(aspp, aspp_channels=8, pooling_size=(33, 65)), 16),
    "aspp_pooling_with_bias": (functools.partial(aspp, aspp_channels=8, pooling_norm=False), 16),
    "aspp_refined": (functools.partial(aspp, aspp_channels=8, num_refinements=1), 16),
    "aspp_sum": (aspp_sum, 16),
    "aspp_sum_vgg": (functools.partial(aspp_s, hidden_channels=8), 16),
    "auxiliary": (functools.partial(auxiliary, channels=8, feature="stride4"), 4),
    "dpc": (functools.partial(dpc, aspp_channels=8, decoder_channels=8, low_level_channels=4), 4),
    "fcn_no_skip": (functools.partial(fcn32s, channels=8), 16),
    "fcn_skip": (functools.partial(fcn32s, channels=8, skip_strides=(4,)), 4),
    "large_fov": (functools.partial(large_fov, channels=8), 16),
    "large_fov_4x4": (functools.partial(deeplab_4x4, channels=8), 16),
    "large_fov_msc": (functools.partial(msc_large_fov, channels=8, branch_channels=4), 4),
    "lr_aspp": (functools.partial(lr_aspp, channels=8, low_level_stride=4), 4),
    "logits_alone": (functools.partial(auxiliary, num_convs=0), 16),
    "v3plus": (_V3PLUS, 4),
    "v3plus_of_smp": (functools.partial(_V3PLUS, separable=True, inner_norm=False, num_refinements=1), 4),
    "v3plus_5x5": (functools.partial(_V3PLUS, separable=True, num_decoder_convs=1, decoder_kernel_size=5), 4),
    "v3plus_separable": (functools.partial(_V3PLUS, separable=True), 4),
}


def _features(rng, batch_size=2):
    return {
        "stride4": rng.normal(size=(batch_size, 17, 25, 12)).astype(np.float32),
        "stride16": rng.normal(size=(batch_size, 5, 7, 20)).astype(np.float32),
    }


def _build(name, **options):
    return HEADS[name][0](num_classes=3, feature_info=INFO, align_corners=True, options=LayerOptions(**options))


@pytest.mark.parametrize("name", HEADS)
def test_logits_have_the_declared_shape_and_type(name, rng):
    head = _build(name, dtype=jnp.bfloat16)
    shape = jax.eval_shape(lambda f: head.init_with_output(jax.random.key(0), f, train=False)[0], _features(rng))
    assert shape.shape == ((2, 17, 25, 3) if HEADS[name][1] == 4 else (2, 5, 7, 3))
    assert shape.dtype == jnp.float32


@pytest.mark.parametrize("name", ["aspp", "v3plus_separable"])
def test_trains_at_batch_size_1_and_every_parameter_gets_a_gradient(name, rng):
    features = _features(rng, batch_size=1)
    head = _build(name)
    variables = jax.jit(lambda f: head.init(jax.random.key(0, impl="rbg"), f, train=False))(features)

    @jax.jit
    def gradient(params):
        def loss(params):
            tree = {"params": params, "batch_stats": variables["batch_stats"]}
            rngs = {"dropout": jax.random.key(1)}
            logits, updates = head.apply(tree, features, train=True, mutable=["batch_stats"], rngs=rngs)
            return (logits * jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)).sum(), updates

        return jax.grad(loss, has_aux=True)(params)

    gradients, updates = gradient(variables["params"])
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    assert all(np.isfinite(g).all() for _, g in leaves)
    assert not [jax.tree_util.keystr(path) for path, g in leaves if not np.any(g)]
    # One pooled value has no variance: its statistics must stay as they are.
    pooled = updates["batch_stats"]["aspp"]["image_pooling"]["norm"]
    np.testing.assert_array_equal(pooled["var"], 1.0)


@pytest.mark.parametrize(("output_stride", "rates"), [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))])
def test_rates_follow_the_output_stride(output_stride, rates):
    """The program contains the papers' rates: 6, 12, 18 at 16, doubled at 8, halved at 32."""
    module = ASPP(output_stride, channels=4)
    text = (
        jax.jit(lambda x: module.init_with_output(jax.random.key(0), x, train=False)[0])
        .trace(jnp.ones((1, 9, 9, 2)))
        .lower(lowering_platforms=("cuda",))
        .as_text()
    )
    for rate in rates:
        assert f"rhs_dilate = [{rate}, {rate}]" in text


def test_image_pooling_reaches_every_pixel(rng):
    """By gradient: one pixel of the output depends on all pixels of the input."""
    module = ASPP(16, atrous_rates=(), channels=4)
    x = rng.normal(size=(1, 6, 7, 3)).astype(np.float32)
    variables = jax.jit(lambda x: module.init(jax.random.key(0, impl="rbg"), x, train=False))(x)
    gradient = jax.grad(lambda x: module.apply(variables, x, train=False)[0, 0, 0].sum())(x)
    assert (np.abs(gradient).max(-1) > 0).all()


def test_image_pooling_may_have_a_bias_in_place_of_the_norm(rng):
    """Where all is weighed with zeros, the bias is left, behind its ReLU; the projection passes it on."""
    module = ASPP(16, atrous_rates=(), channels=2, pooling_norm=False)
    x = rng.normal(size=(1, 6, 7, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    assert set(variables["params"]["image_pooling"]) == {"kernel", "bias"}
    variables["params"]["image_pooling"]["bias"] += np.array([0.5, -0.5], np.float32)
    variables["params"]["projection"]["conv"]["kernel"][0, 0, :2] = np.eye(2)
    variables["params"]["projection"]["norm"]["scale"] += 1
    variables["batch_stats"]["projection"]["norm"]["var"] += 1 - 1e-5
    projected = module.apply(variables, x, train=False)
    np.testing.assert_allclose(projected, np.broadcast_to(np.float32([0.5, 0.0]), (1, 6, 7, 2)), rtol=1e-6)


def test_a_decoder_without_features_at_its_stride_names_those_there_are():
    with pytest.raises(ValueError, match="no feature map 'stride8': the backbone has stride4, stride16"):
        _V3PLUS(num_classes=3, feature_info=INFO, align_corners=True, low_level_stride=8)
