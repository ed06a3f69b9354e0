"""Xception: TF deeplab's numbers for its separable convolution, timm's features, and both systems' layout."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_peers import draw_weights, import_peer, load_state, relative_error, to_torch

from deeplab_jax.backbones.xception import SeparableConv, Xception, xception41, xception65, xception71
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.weights.names import TORCH

IMAGES = jnp.zeros((1, 33, 33, 3))
_SHORT = functools.partial(Xception, entry_blocks=((128, 2), (256, 2), (728, 2)), num_middle_units=1)

# Of a ramp image, by a ramp kernel: tensorflow/models, research/deeplab/core/xception_test.py.
EVEN = [[14, 28, 43, 26], [28, 48, 66, 37], [43, 66, 84, 46], [26, 37, 46, 22]]
ODD = [[14, 28, 43, 58, 34], [28, 48, 66, 84, 46], [43, 66, 84, 102, 55], [58, 84, 102, 120, 64], [34, 46, 55, 64, 30]]
RAMPS = [
    (4, 1, "symmetric", EVEN),
    (4, 2, "symmetric", [[14, 43], [43, 84]]),
    (4, 2, "tf_same", [[48, 37], [37, 22]]),
    (5, 1, "symmetric", ODD),
    (5, 2, "symmetric", [[14, 43, 34], [43, 84, 55], [34, 55, 30]]),
    (5, 2, "tf_same", [[14, 43, 34], [43, 84, 55], [34, 55, 30]]),
]


def _ramp(size):
    return np.add.outer(np.arange(size), np.arange(size)).astype(np.float32)[..., None]


@pytest.mark.parametrize(("size", "stride", "padding", "expected"), RAMPS)
def test_separable_convolution_has_tf_deeplabs_values(size, stride, padding, expected):
    conv = SeparableConv(1, stride, 1, pre_activation=True, padding=padding, epsilon=0.0, options=LayerOptions())
    x = _ramp(size)[None]
    shapes = jax.eval_shape(lambda: conv.init(jax.random.key(0), x, train=False))
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.full(leaf.shape, path[-1].key in ("scale", "var", "kernel"), jnp.float32), shapes
    )
    variables["params"]["depthwise"]["conv"]["depthwise_kernel"] = jnp.asarray(_ramp(3)[..., None])
    y = jax.jit(lambda v, x: conv.apply(v, x, train=False))(variables, x)
    # Sums of small whole numbers: exact but for the batch norm's reciprocal root.
    np.testing.assert_allclose(y[0, :, :, 0], np.float32(expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("output_stride", "expected"), [(32, [2, 2, 2, 2]), (16, [2, 2, 2]), (8, [2, 2])], ids=["32", "16", "8"]
)
@pytest.mark.parametrize("factory", [xception41, xception65, xception71])
def test_strides_become_rates_behind_the_output_stride(factory, output_stride, expected):
    """The unit that would have carried a stride keeps the rate before it; those behind it get the next."""
    model = factory(output_stride=output_stride)
    plans = {name: plan for name, _, plan in model._units()}
    assert [plan.stride for plan in plans.values() if plan.stride > 1] == expected
    assert plans["middle_unit1"].rate == (2 if output_stride == 8 else 1)
    assert plans["exit_block1"].rate == (2 if output_stride == 8 else 1)
    assert plans["exit_block2"].rate == 32 // output_stride


def test_multi_grid_multiplies_the_rates_of_the_last_block():
    model = xception41(output_stride=16, multi_grid=(1, 2, 4), width=0.02)
    text = (
        jax.jit(lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0]["stride16"])
        .trace(IMAGES)
        .lower(lowering_platforms=("cuda",))
        .as_text()
    )
    for rate in (2, 4, 8):
        assert text.count(f"rhs_dilate = [{rate}, {rate}]") == 1


@pytest.mark.parametrize(("stem_padding", "edges"), [("", "[1, 1], [1, 1]"), ("tf_same", "[0, 1], [0, 1]")])
def test_the_stem_may_be_padded_in_its_own_way(stem_padding, edges):
    """On an even size, where the paddings differ; the other strided convolutions keep theirs."""
    model = xception41(output_stride=16, stem_padding=stem_padding, width=0.02)
    lowered = (
        jax.jit(lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0]["stride16"])
        .trace(jnp.zeros((1, 64, 64, 3)))
        .lower(lowering_platforms=("cuda",))
    )
    strided = [
        line for line in lowered.as_text().splitlines() if "stride = [2, 2]" in line and "pad = [[0, 0]" not in line
    ]
    assert len(strided) == 4
    assert f"pad = [{edges}]" in strided[0]
    assert all("pad = [[1, 1], [1, 1]]" in line for line in strided[1:])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"multi_grid": (1, 2)}, "3 factors"), ({"low_level_tap": "unit"}, "'linear' or 'relu'")],
)
@pytest.mark.usefixtures("unchecked_types")
def test_options_that_do_not_exist_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        xception41(output_stride=16, **arguments).feature_info  # noqa: B018


@pytest.mark.parametrize(
    ("factory", "low_level_block", "low_level_tap"),
    [(xception41, 2, "linear"), (xception71, 3, "linear"), (xception41, 2, "relu")],
)
def test_features_below_the_deepest_are_taps_of_a_blocks_second_convolution(factory, low_level_block, low_level_tap):
    """Where TF deeplab's decoder reads: in the named block, linear; timm's features are behind the ReLU."""
    assert [(info.name, info.channels) for info in factory(output_stride=32).feature_info] == [
        ("stride4", 256),
        ("stride8", 728),
        ("stride16", 1024),
        ("stride32", 2048),
    ]
    model = factory(output_stride=8, width=0.02, num_middle_units=1, low_level_tap=low_level_tap)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, train=False))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    norm = variables["params"][f"entry_block{low_level_block}"]["separable_conv2"]["pointwise"]["norm"]
    norm["bias"] = norm["bias"] - 1
    features = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, IMAGES)
    # Of a network of zeros nothing but that bias is left, which the ReLU cuts off.
    np.testing.assert_array_equal(features["stride4"], -1 if low_level_tap == "linear" else 0)


def _timm_rules(num_entry_blocks, num_middle_units):
    """timm numbers its blocks through all three flows."""
    units = [f"entry_block{i + 1}" for i in range(num_entry_blocks)]
    units += [f"middle_unit{i + 1}" for i in range(num_middle_units)]
    rules = [*TORCH.conv_norm(r"stem\.(\d)\.conv", r"stem\.(\d)\.bn", "entry_conv{1+1}")]
    for block_id, unit in enumerate([*units, "exit_block1", "exit_block2"]):
        block, module = rf"blocks\.{block_id}\.", f"{unit}/separable_conv{{1}}"
        conv = rf"{block}stack\.conv(\d)\."
        rules += TORCH.conv_norm(rf"{block}shortcut\.conv", rf"{block}shortcut\.bn", f"{unit}/shortcut")
        rules += TORCH.depthwise_norm(f"{conv}conv_dw", f"{conv}bn_dw", f"{module}/depthwise")
        rules += TORCH.conv_norm(f"{conv}conv_pw", f"{conv}bn_pw", f"{module}/pointwise")
    return rules


@pytest.mark.peer
@pytest.mark.parametrize(
    ("factory", "name", "num_entry_blocks", "num_middle_units"),
    [(xception65, "xception65", 3, 16), (xception71, "xception71", 5, 16)],
)
def test_parameters_are_timms(factory, name, num_entry_blocks, num_middle_units):
    """By name and shape: all of theirs, and none besides."""
    timm = import_peer("timm")
    peer = timm.create_model(name, pretrained=False, num_classes=0)
    load_state(peer, _timm_rules(num_entry_blocks, num_middle_units), factory(output_stride=32), IMAGES)


def _short_timm_model(output_stride):
    blocks = [(64, 128, 2), (128, 256, 2), (256, 728, 2), (728, 728, 1), (728, (728, 1024, 1024), 2)]
    configs = [{"in_chs": inputs, "out_chs": outputs, "stride": stride} for inputs, outputs, stride in blocks]
    last = {"in_chs": 1024, "out_chs": (1536, 1536, 2048), "stride": 1, "no_skip": True, "start_with_relu": False}
    module = import_peer("timm.models.xception_aligned")
    norm = functools.partial(import_peer("torch").nn.BatchNorm2d, eps=1e-3)
    return module.XceptionAligned([*configs, last], num_classes=0, output_stride=output_stride, norm_layer=norm)


def _assert_same_features(model, peer, num_middle_units, images):
    variables = load_state(peer, _timm_rules(3, num_middle_units), model, IMAGES)
    features = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    # Strides 2, 4, 8 and 16 as timm counts them at output stride 32, then the last.
    *taps, deepest = peer.forward_intermediates(to_torch(images), intermediates_only=True)
    for tap, stride in zip(taps, (2, 4, 8, 16), strict=True):
        if 4 <= stride < model.output_stride:
            assert relative_error(features[f"stride{stride}"], tap) < 1e-4
    assert relative_error(features[f"stride{model.output_stride}"], deepest) < 1e-4


@pytest.mark.peer
@pytest.mark.parametrize(
    ("output_stride", "size"),
    [(32, (65, 97)), (16, (64, 96)), (8, (33, 48))],
    ids=["32-odd", "16-even", "8-odd-and-even"],
)
def test_features_are_timms(output_stride, size, rng):
    images = rng.normal(size=(1, *size, 3)).astype(np.float32)
    peer = draw_weights(_short_timm_model(output_stride), rng)
    _assert_same_features(_SHORT(output_stride=output_stride, low_level_tap="relu"), peer, 1, images)


@pytest.mark.peer
def test_features_of_xception41_are_timms(rng):
    timm = import_peer("timm")
    images = rng.normal(size=(1, 65, 64, 3)).astype(np.float32)
    peer = timm.create_model("xception41", pretrained=False, num_classes=0, output_stride=16)
    draw_weights(peer, rng)
    _assert_same_features(xception41(output_stride=16, low_level_tap="relu"), peer, 8, images)
