"""The heads without batch norm (v1, v2, FCN): sizes as published, fields of view, sums, skips, gradients."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.backbones.vgg16 import vgg16
from deeplab_jax.heads.aspp_sum import aspp_l, aspp_s, aspp_sum, large_fov_linear
from deeplab_jax.heads.fcn import fcn8s, fcn8s_at_once, fcn16s, fcn32s
from deeplab_jax.heads.large_fov import (
    deeplab_4x4,
    deeplab_4x4_large_fov,
    deeplab_7x7,
    large_fov,
    msc_deeplab_4x4,
    msc_large_fov,
)
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import FeatureInfo

DEEPEST = (FeatureInfo("stride8", 6, 8),)
PYRAMID = (FeatureInfo("image", 3, 1), FeatureInfo("stride4", 4, 4), *DEEPEST)
SKIPS = (FeatureInfo("stride8", 4, 8), FeatureInfo("stride16", 5, 16), FeatureInfo("stride32", 6, 32))


def _build(factory, info, **arguments):
    return factory(num_classes=3, feature_info=info, align_corners=True, **arguments)


def _features(rng, info, size):
    """Maps of an image of `size`."""
    cells = {one.name: [-(-axis // one.stride) for axis in size] for one in info}
    return {one.name: rng.normal(size=(1, *cells[one.name], one.channels)).astype(np.float32) for one in info}


def _draw(head, features, rng):
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, train=False))
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.3).astype(np.float32), shapes)


def _apply(head, variables, features, **options):
    return jax.jit(lambda v, f: head.apply(v, f, train=False, **options))(variables, features)


@pytest.mark.parametrize(
    ("factory", "output_stride", "count", "published"),
    [
        (large_fov, 8, 20_505_429, "20.5"),  # 1412.7062, table 2
        (deeplab_7x7, 8, 134_346_581, "134.3"),
        (deeplab_4x4, 8, 65_140_565, "65.1"),
        (deeplab_4x4_large_fov, 8, 65_140_565, "65.1"),
        (msc_large_fov, 8, 21_711_550, "21.7"),  # not published: these follow from the layers
        (aspp_s, 8, 37_877_652, "37.9"),
        (aspp_l, 8, 37_877_652, "37.9"),
        (fcn32s, 32, 134_346_581, "134.3"),
        (fcn16s, 32, 134_357_354, "134.4"),
        (fcn8s, 32, 134_362_751, "134.4"),
    ],
)
def test_parameters_of_vgg16_and_head(factory, output_stride, count, published):
    backbone = vgg16(output_stride=output_stride)
    head = factory(num_classes=21, feature_info=backbone.feature_info, align_corners=True)

    def init(images):
        key = jax.random.key(0)
        features, variables = backbone.init_with_output(key, images, train=False)
        return variables, head.init(key, features, train=False)

    shapes = jax.eval_shape(init, jnp.zeros((1, 65, 65, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    assert f"{count / 1e6:.1f}" == published


def test_parameters_of_the_residual_aspp():
    """Four 3x3 convolutions from 2048 channels to 21 classes, with biases."""
    head = aspp_sum(num_classes=21, feature_info=(FeatureInfo("stride8", 2048, 8),), align_corners=True)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), {"stride8": jnp.zeros((1, 2, 2, 2048))}, train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 4 * (9 * 2048 * 21 + 21)


@pytest.mark.parametrize(
    ("factory", "output_stride", "offsets"),
    [
        (large_fov, 8, [-13, -12, -11, -1, 0, 1, 11, 12, 13]),  # rate 12 behind the mean of three
        (large_fov, 32, [-4, -3, -2, -1, 0, 1, 2, 3, 4]),
        (deeplab_7x7, 8, [-12, -8, -4, 0, 4, 8, 12]),
        (deeplab_7x7, 32, [-3, -2, -1, 0, 1, 2, 3]),  # the classifier's own kernel
        (deeplab_4x4, 8, [-6, -2, 2, 6]),  # an even kernel lies symmetrically all the same
        (deeplab_4x4_large_fov, 16, [-6, -2, 2, 6]),
        (fcn32s, 32, [-3, -2, -1, 0, 1, 2, 3]),
        (aspp_s, 8, [-12, -8, -4, -2, 0, 2, 4, 8, 12]),
        (aspp_l, 16, [-12, -9, -6, -3, 0, 3, 6, 9, 12]),
        (aspp_sum, 8, [-24, -18, -12, -6, 0, 6, 12, 18, 24]),
        (large_fov_linear, 8, [-12, 0, 12]),
    ],
)
def test_fields_of_view(factory, output_stride, offsets):
    """By gradient: which cells of its row one cell of the logits reads; positive weights, so no ReLU hides one."""
    widths = {"hidden_channels": 2} if factory in (aspp_s, aspp_l) else {}
    widths = widths or ({} if factory in (aspp_sum, large_fov_linear) else {"channels": 2})
    info = (FeatureInfo("deepest", 2, output_stride),)
    head = factory(num_classes=1, feature_info=info, align_corners=True, **widths)
    features = {"deepest": jnp.ones((1, 61, 61, 2))}
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, train=False))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    gradient = jax.jit(jax.grad(lambda f: head.apply(variables, f, train=False)[0, 30, 30, 0]))(features)
    reached = np.flatnonzero(np.asarray(gradient["deepest"])[0].any((0, 2))) - 30
    assert reached.tolist() == offsets


@pytest.mark.parametrize("size", [(33, 49), (32, 50)], ids=["odd", "even"])
def test_multi_scale_grids(size):
    """The deepest's in training, the image's outside it, whatever the sizes; with the real backbone."""
    backbone = vgg16(output_stride=8, width=1 / 16)
    images = jnp.zeros((2, *size, 3))
    for arguments, train, cells in (
        ({}, True, [-(-axis // 8) for axis in size]),
        ({}, False, size),
        ({"dense_evaluation": False}, False, [-(-axis // 8) for axis in size]),
    ):
        head = _build(msc_large_fov, backbone.feature_info, channels=8, branch_channels=4, **arguments)

        def run(images, head=head, train=train):
            key = jax.random.key(0)
            features, _ = backbone.init_with_output(key, images, train=False)
            return head.init_with_output({"params": key, "dropout": key}, features, train=train)[0]

        assert jax.eval_shape(run, images).shape == (2, *cells, 3)


def test_multi_scale_is_one_classifier_of_all_channels(rng):
    """The paper's form: features side by side, one linear layer; here its parts are added."""
    head = _build(msc_large_fov, PYRAMID, channels=5, branch_channels=4, dense_evaluation=False)
    features = _features(rng, PYRAMID, (33, 49))
    variables = _draw(head, features, rng)
    logits, state = _apply(head, variables, features, capture_intermediates=True)
    prefixes = ("fc7", "branch0_fc", "branch1_fc")
    side_by_side = np.concatenate(
        [np.maximum(state["intermediates"][name]["__call__"][0], 0) for name in prefixes], axis=-1
    )
    assert side_by_side.shape[-1] == 5 + 2 * 4
    layers = [variables["params"][name] for name in ("logits", "branch0_logits", "branch1_logits")]
    kernel = np.concatenate([layer["kernel"][0, 0] for layer in layers])
    wanted = side_by_side @ kernel + sum(layer["bias"] for layer in layers)[None, None, None]
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-4)  # 13 products, in float32


def test_dense_evaluation_passes_through_the_strided_logits(rng):
    """On odd sizes the grids share corners: every eighth pixel is what training computes."""
    features = _features(rng, PYRAMID, (33, 49))
    dense = _build(msc_deeplab_4x4, PYRAMID, channels=5, branch_channels=4)
    strided = _build(msc_deeplab_4x4, PYRAMID, channels=5, branch_channels=4, dense_evaluation=False)
    variables = _draw(dense, features, rng)
    coarse = _apply(strided, variables, features)
    np.testing.assert_allclose(_apply(dense, variables, features)[:, ::8, ::8], coarse, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("hidden_channels", [0, 5])
def test_branches_are_added(rng, hidden_channels):
    """The head with two rates is two heads with one rate each."""
    features = _features(rng, DEEPEST, (65, 65))
    head = _build(aspp_sum, DEEPEST, rates=(1, 2), hidden_channels=hidden_channels)
    variables = _draw(head, features, rng)
    wanted = 0
    for branch_id, rate in ((1, 1), (2, 2)):
        single = _build(aspp_sum, DEEPEST, rates=(rate,), hidden_channels=hidden_channels)
        params = {
            f"{name[:-1]}1": layer for name, layer in variables["params"].items() if name.endswith(str(branch_id))
        }
        wanted += _apply(single, {"params": params}, features)
    np.testing.assert_allclose(_apply(head, variables, features), wanted, rtol=1e-5, atol=1e-5)


def _transposed_bilinear(x):
    """The authors' upsampling: 4x4 transposed convolution of stride 2 with bilinear weights, cropped by 1."""
    batch, height, width, channels = x.shape
    out = np.zeros((batch, 2 * height + 2, 2 * width + 2, channels))
    weights = np.array([0.25, 0.75, 0.75, 0.25])
    for i, first in enumerate(weights):
        for j, second in enumerate(weights):
            out[:, i : i + 2 * height : 2, j : j + 2 * width : 2] += first * second * x
    return out[:, 1:-1, 1:-1]


def test_skips_are_the_authors_fusion(rng):
    """FCN-8s without aligned corners, against transposed convolutions; they differ at the border only."""
    features = _features(rng, SKIPS, (256, 320))
    head = fcn8s(num_classes=3, feature_info=SKIPS, align_corners=False, channels=5)
    variables = _draw(head, features, rng)
    logits, state = _apply(head, variables, features, capture_intermediates=True)
    score32, score16, score8 = (
        np.asarray(state["intermediates"][name]["__call__"][0])
        for name in ("logits", "score_stride16", "score_stride8")
    )
    wanted = _transposed_bilinear(_transposed_bilinear(score32) + score16) + score8
    inside = (slice(None), slice(3, -3), slice(3, -3))
    np.testing.assert_allclose(logits[inside], wanted[inside], rtol=1e-5, atol=1e-5)


def test_skips_meet_maps_that_are_no_multiples(rng):
    """41 cells at stride 8, 21 at 16, 11 at 32, with aligned corners: as `resize_bilinear` brings them together."""
    features = _features(rng, SKIPS, (321, 321))
    head = _build(fcn16s, SKIPS, channels=5)
    variables = _draw(head, features, rng)
    logits, state = _apply(head, variables, features, capture_intermediates=True)
    score32, score16 = (state["intermediates"][name]["__call__"][0] for name in ("logits", "score_stride16"))
    assert logits.shape == (1, 21, 21, 3)
    np.testing.assert_allclose(logits, resize_bilinear(score32, (21, 21), align_corners=True) + score16, atol=1e-5)


def test_training_at_once_scales_the_skips(rng):
    features = _features(rng, SKIPS, (64, 64))
    at_once, plain = _build(fcn8s_at_once, SKIPS, channels=5), _build(fcn8s, SKIPS, channels=5)
    variables = _draw(plain, features, rng)
    scaled = {**features, "stride16": 0.01 * features["stride16"], "stride8": 0.0001 * features["stride8"]}
    np.testing.assert_allclose(_apply(at_once, variables, features), _apply(plain, variables, scaled), rtol=1e-5)


def test_fcn_starts_without_an_opinion(rng):
    """Its classifiers start at zero, as in the paper."""
    features = _features(rng, SKIPS, (64, 64))
    head = _build(fcn8s, SKIPS, channels=5)
    logits = jax.jit(lambda f: head.init_with_output(jax.random.key(0, impl="rbg"), f, train=False)[0])(features)
    assert not logits.any()


@pytest.mark.parametrize(
    ("head", "info"),
    [
        (functools.partial(msc_large_fov, channels=16, branch_channels=16), PYRAMID),
        (functools.partial(deeplab_4x4, channels=16), DEEPEST),
        (functools.partial(aspp_l, hidden_channels=16), DEEPEST),
        (aspp_sum, DEEPEST),
        (functools.partial(fcn8s, channels=16, logits_stddev=0.1), SKIPS),
    ],
    ids=["msc_large_fov", "deeplab_4x4", "aspp_l", "aspp_sum", "fcn8s"],
)
def test_every_parameter_gets_a_gradient_in_training(rng, head, info):
    head = _build(head, info)
    features = _features(rng, info, (33, 65))
    variables = jax.jit(lambda f: head.init(jax.random.key(0, impl="rbg"), f, train=False))(features)

    @jax.jit
    def gradient(variables):
        def loss(variables):
            logits = head.apply(variables, features, train=True, rngs={"dropout": jax.random.key(1)})
            return (logits * jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)).sum()

        return jax.grad(loss)(variables)

    leaves = jax.tree_util.tree_leaves_with_path(gradient(variables))
    assert all(np.isfinite(g).all() for _, g in leaves)
    assert not [jax.tree_util.keystr(path) for path, g in leaves if not np.any(g)]


@pytest.mark.parametrize(
    ("factory", "info", "arguments", "words"),
    [
        (large_fov, SKIPS, {"rate": 6}, "rate 6 .* no whole number at output stride 32: give a multiple of 4"),
        (aspp_s, SKIPS, {}, "rate 2 .* no whole number"),
        (fcn8s, DEEPEST, {}, "no feature map 'stride16'"),
        (fcn32s, SKIPS, {"skip_strides": (32,)}, "no feature map 'stride32': the backbone has stride8, stride16"),
        (fcn8s, SKIPS, {"skip_scales": (1.0,)}, r"skip_scales=\(1.0,\): give one for each of skip_strides"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_built(factory, info, arguments, words):
    with pytest.raises(ValueError, match=words):
        _build(factory, info, **arguments)
