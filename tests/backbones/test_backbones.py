"""One suite for all backbones: what they declare is true, and atrous rates are strides left out."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.backbones import efficientnet, resnet
from deeplab_jax.backbones.mobilenet_v1 import mobilenet_v1
from deeplab_jax.backbones.mobilenet_v2 import mobilenet_v2
from deeplab_jax.backbones.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from deeplab_jax.backbones.mobilevit import mobilevit_s, mobilevit_xs, mobilevit_xxs
from deeplab_jax.backbones.resnet import ResNet, resnet50
from deeplab_jax.backbones.vgg16 import vgg16, vgg16_bn
from deeplab_jax.backbones.xception import xception41, xception65, xception71

# Small members of each family, of every convention, for what has to run.
_TINY_RESNET = functools.partial(ResNet, num_units=(2, 2, 2, 3))
SMALL = {
    "resnet": _TINY_RESNET,
    "resnet_beta_multi_grid": functools.partial(_TINY_RESNET, stem="beta", multi_grid=(1, 2, 4)),
    "resnet_first_quarter": functools.partial(_TINY_RESNET, strided_unit="first", width=0.25),
    "resnet_caffe": functools.partial(
        _TINY_RESNET, strided_unit="first", strided_conv="conv1", carrier_rate="new", pool_padding="ceil", width=0.25
    ),
    "resnet_basic": functools.partial(_TINY_RESNET, unit="basic", multi_grid=(1, 2, 4), width=0.25),
    "resnet_basic_first": functools.partial(_TINY_RESNET, unit="basic", strided_unit="first", width=0.25),
    "resnet_basic_smp": functools.partial(
        _TINY_RESNET, unit="basic", strided_unit="first", carrier_rate="new", width=0.25
    ),
    "resnet_d": functools.partial(_TINY_RESNET, strided_unit="first", stem="v1c", shortcut="average", width=0.25),
    "resnet_d_timm": functools.partial(
        _TINY_RESNET, strided_unit="first", stem="v1c", shortcut="average_dense", width=0.25
    ),
    "resnet_d_mmseg": functools.partial(
        _TINY_RESNET, unit="basic", atrous_conv2=False, strided_unit="first", shortcut="average_strided", width=0.25
    ),
    "resnext": functools.partial(_TINY_RESNET, groups=4, group_width=8, width=0.25),
    "resnet_cascade_tap": functools.partial(
        ResNet,
        num_units=(2, 1, 1, 2),
        num_cascaded=1,
        multi_grid=(1, 2),
        stem="v1c",
        low_level_tap="pre_add",
        width=0.25,
    ),
    "mobilenet_v2": functools.partial(mobilenet_v2, width=0.25),
    "mobilenet_v2_gluon": functools.partial(
        mobilenet_v2, width=0.25, expand_first=True, padding="symmetric", epsilon=1e-5
    ),
    "mobilenet_v2_smp": functools.partial(
        mobilenet_v2, width=0.25, carrier_rate="new", last_conv=True, padding="symmetric", epsilon=1e-5
    ),
    "mobilenet_v2_tf_deeplab": functools.partial(mobilenet_v2, width=0.3, divisor=1, low_level_tap="depthwise"),
    "mobilenet_v2_vainf": functools.partial(mobilenet_v2, width=0.25, padding="symmetric", padded_expansion=True),
    "mobilenet_v3_large": functools.partial(mobilenet_v3_large, width=0.25),
    "mobilenet_v3_small_torchvision": functools.partial(
        mobilenet_v3_small,
        width=0.25,
        tail="reduced",
        low_level_tap="first",
        carrier_rate="new",
        padding="symmetric",
    ),
    "mobilenet_v3_seg_minimalistic": functools.partial(
        mobilenet_v3_small, width=0.25, tail="seg", minimalistic=True, low_level_tap="depthwise"
    ),
    "mobilenet_v1": functools.partial(mobilenet_v1, width=0.25),
    "mobilevit": functools.partial(mobilevit_xxs, channels=(4, 4, 6, 8, 10, 12), hidden=(8, 12, 16)),
    "efficientnet": functools.partial(efficientnet.efficientnet_b0, width=0.25, depth=0.5),
    "efficientnet_smp": functools.partial(
        efficientnet.efficientnet_b0,
        width=0.25,
        depth=0.5,
        padding="tf_same",
        padded_for=260,
        last_conv=True,
        carrier_rate="new",
    ),
    "xception": functools.partial(xception41, num_middle_units=1, width=0.03),
    "xception71_multi_grid": functools.partial(xception71, num_middle_units=1, multi_grid=(1, 2, 4), width=0.03),
    "vgg16": functools.partial(vgg16, width=1 / 16, dilated_pooling=True),
    "vgg16_bn": functools.partial(vgg16_bn, width=1 / 16, dilated_pooling=True),
    "vgg16_caffe": functools.partial(vgg16, width=1 / 16, dilated_pooling=True, pool_padding="ceil"),
    "vgg16_2x2": functools.partial(vgg16, width=1 / 16, dilated_pooling=True, pool_size=2),
}

# Squeeze-and-excite and attention average over a grid that the output stride makes finer; the new rate in a unit that
# carried its stride in a 3x3 convolution makes another function of it, and so do other means in a shortcut: not atrous
# consistent.
INCONSISTENT = (
    "efficientnet",
    "efficientnet_smp",
    "mobilenet_v2_smp",
    "mobilenet_v3_large",
    "mobilenet_v3_small_torchvision",
    "mobilevit",
    "resnet_basic_smp",
    "resnet_d_timm",
    "resnet_d_mmseg",
)

# Trainable parameters without classifier; torchvision's, timm's and TF-slim's counts less their last layers.
FULL = {
    "resnet50": (resnet50, 23_508_032),
    "resnet101": (resnet.resnet101, 42_500_160),
    "resnet50_beta": (resnet.resnet50_beta, 23_631_808),
    "resnet101_beta": (resnet.resnet101_beta, 42_623_936),
    "resnet18": (resnet.resnet18, 11_176_512),
    "resnet34": (resnet.resnet34, 21_284_672),
    "resnet26": (resnet.resnet26, 13_946_176),
    "resnet152": (resnet.resnet152, 58_143_808),
    "resnet50_d": (resnet.resnet50_d, 23_527_264),
    "wide_resnet50_2": (resnet.wide_resnet50_2, 66_834_240),
    "wide_resnet101_2": (resnet.wide_resnet101_2, 124_837_696),
    "resnext50_32x4d": (resnet.resnext50_32x4d, 22_979_904),
    "resnext101_32x8d": (resnet.resnext101_32x8d, 86_742_336),
    "mobilenet_v2": (mobilenet_v2, 1_811_712),
    "mobilenet_v2_half": (functools.partial(mobilenet_v2, width=0.5), 480_320),
    "mobilenet_v2_last_conv": (functools.partial(mobilenet_v2, last_conv=True), 2_223_872),
    "mobilenet_v3_large": (mobilenet_v3_large, 2_971_952),
    "mobilenet_v3_large_three_quarters": (functools.partial(mobilenet_v3_large, width=0.75), 1_789_648),
    "mobilenet_v3_large_minimalistic": (functools.partial(mobilenet_v3_large, minimalistic=True), 1_413_208),
    "mobilenet_v3_small": (mobilenet_v3_small, 927_008),
    "mobilenet_v3_small_reduced": (functools.partial(mobilenet_v3_small, tail="reduced"), 438_704),
    "mobilenet_v1": (mobilenet_v1, 3_206_976),
    "mobilevit_s": (mobilevit_s, 4_833_952),
    "mobilevit_xs": (mobilevit_xs, 1_895_216),
    "mobilevit_xxs": (mobilevit_xxs, 924_784),
    "efficientnet_b0": (efficientnet.efficientnet_b0, 3_595_388),
    **{
        f"efficientnet_{kind}_last_conv": (
            functools.partial(getattr(efficientnet, f"efficientnet_{kind}"), last_conv=True),
            count,
        )
        for kind, count in (
            ("b0", 4_007_548),
            ("b1", 6_513_184),
            ("b2", 7_700_994),
            ("b3", 10_696_232),
            ("b4", 17_548_616),
        )
    },
    "xception41": (xception41, 24_920_560),
    "xception65": (xception65, 37_867_312),
    "xception71": (xception71, 40_289_736),
    "vgg16": (vgg16, 14_714_688),
    "vgg16_bn": (vgg16_bn, 14_723_136),
}


def _init(model, images):
    """Variables of a small network, drawn without compiling its initialisation."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if "kernel" in name:
            fan_in = np.prod(leaf.shape[:-1])
            return rng.normal(size=leaf.shape, scale=(2 / fan_in) ** 0.5).astype(np.float32)
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return rng.normal(size=leaf.shape, scale=0.1).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize("size", [(65, 97), (64, 96)], ids=["odd", "even"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("name", SMALL)
def test_declared_features_are_true(name, output_stride, size):
    model = SMALL[name](output_stride=output_stride)
    features = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0], jnp.zeros((2, *size, 3))
    )
    by_stride = [info for info in model.feature_info if info.name == f"stride{info.stride}"]
    assert [info.stride for info in by_stride] == [s for s in (4, 8, 16, 32) if s <= output_stride]
    assert model.feature_info[-1].stride == output_stride
    assert set(features) == {info.name for info in model.feature_info}
    for info in model.feature_info:
        if "caffe" in name and info.stride > 1:  # ceil pooling treats an even size as the next odd one
            size = tuple(axis | 1 for axis in size)
        cells = tuple(-(-axis // info.stride) for axis in size)
        assert features[info.name].shape == (2, *cells, info.channels)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in INCONSISTENT])
def test_atrous_consistency(name, rng):
    """Features at output stride 8, subsampled, are those at 32; odd sizes, on which all grids share corners."""
    images = rng.normal(size=(1, 65, 97, 3)).astype(np.float32)
    coarse = SMALL[name](output_stride=32)
    variables = _init(coarse, images)
    nominal = jax.jit(lambda v, x: coarse.apply(v, x, train=False)["stride32"])(variables, images)
    dense = SMALL[name](output_stride=8)
    atrous = jax.jit(lambda v, x: dense.apply(v, x, train=False)["stride8"])(variables, images)
    # The same products, summed by other formulations: float32 rounding through some 20 layers.
    np.testing.assert_allclose(atrous[:, ::4, ::4], nominal, atol=1e-4 * float(jnp.abs(nominal).max()))


@pytest.mark.parametrize(
    "name",
    [
        "resnet_beta_multi_grid",
        "resnet_d",
        "resnext",
        "efficientnet",
        "mobilenet_v2_gluon",
        "mobilenet_v3_small_torchvision",
        "xception",
        "vgg16",
    ],
)
def test_every_parameter_gets_a_gradient_and_statistics_move_in_training_only(name, rng):
    images = rng.normal(size=(2, 33, 33, 3)).astype(np.float32)
    model = SMALL[name](output_stride=16)
    variables = _init(model, images)

    @jax.jit
    def gradient(params):
        def loss(params):
            tree = {**variables, "params": params}
            features, updates = model.apply(tree, images, train=True, mutable=["batch_stats"])
            return sum((f * jnp.cos(jnp.arange(f.size).reshape(f.shape))).sum() for f in features.values()), updates

        return jax.grad(loss, has_aux=True)(params)

    gradients, updates = gradient(variables["params"])
    silent = [jax.tree_util.keystr(p) for p, g in jax.tree_util.tree_leaves_with_path(gradients) if not np.any(g)]
    assert not silent
    statistics = (tree.get("batch_stats", {}) for tree in (updates, variables))  # VGG has none
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), *statistics)
    assert all(jax.tree.leaves(moved))
    evaluated = jax.eval_shape(lambda: model.apply(variables, images, train=False, mutable=["batch_stats"]))[1]
    assert not jax.tree.leaves(evaluated) or jax.tree.structure(evaluated) == jax.tree.structure(updates)


@pytest.mark.parametrize("name", FULL)
def test_parameter_count_at_full_size(name):
    factory, expected = FULL[name]
    model = factory(output_stride=16)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 65, 65, 3)), train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"multi_grid": (1, 2)}, "3 factors"),
        ({"stem": "gamma"}, "'plain' or 'beta' or 'v1c'"),
        ({"strided_conv": "conv3"}, "'conv1' or 'conv2'"),
        ({"carrier_rate": "newest"}, "'old' or 'new'"),
        ({"strided_unit": "middle"}, "'first' or 'last'"),
        ({"unit": "basics"}, "'bottleneck' or 'basic'"),
        ({"shortcut": "mean"}, "'conv' or 'average'"),
    ],
)
def test_options_that_do_not_exist_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        resnet50(output_stride=16, **arguments).feature_info  # noqa: B018
