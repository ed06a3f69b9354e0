"""MobileNetV2's options: how channels are rounded, which maps are tapped, and where the padding comes in."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.backbones.mobilenet_v2 import InvertedResidual, mobilenet_v2
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan


@pytest.mark.parametrize(
    ("width", "divisor", "channels"),
    [
        (0.5, 8, [16, 16, 32, 160]),
        (0.5, 1, [12, 16, 32, 160]),
        (0.35, 8, [8, 16, 24, 112]),
        (1.4, 1, [34, 45, 90, 448]),
    ],
)
def test_channels_are_rounded_to_multiples_of_the_divisor(width, divisor, channels):
    """TF-slim's: at half width 24 becomes 16, in TF deeplab 12; never less than 90 %."""
    model = mobilenet_v2(output_stride=32, width=width, divisor=divisor)
    features = [info.channels for info in model.feature_info]
    assert [features[0], features[1], model._channels(64), features[-1]] == channels


def test_the_depthwise_tap_reads_the_last_block_of_each_stride_but_the_deepest():
    model = mobilenet_v2(output_stride=16, low_level_tap="depthwise")
    assert [info.channels for info in model.feature_info] == [6 * 24, 6 * 32, 320]
    features = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0], jnp.zeros((1, 65, 65, 3))
    )
    shapes = {"stride4": (1, 17, 17, 144), "stride8": (1, 9, 9, 192), "stride16": (1, 5, 5, 320)}
    assert {name: x.shape for name, x in features.items()} == shapes


def test_an_unknown_tap_is_refused():
    with pytest.raises(ValueError, match="low_level_tap='first' must be 'last' or 'depthwise'"):
        mobilenet_v2(output_stride=16, low_level_tap="first").feature_info  # noqa: B018


@pytest.mark.parametrize("rate", [1, 2])
def test_padding_that_is_expanded_is_no_longer_zero(rate, rng):
    """Around an image of zeros it looks like the image, so that the block's output has no border."""
    build = functools.partial(
        InvertedResidual, 4, 6, True, UnitPlan(1, rate, 8), padding="symmetric", epsilon=1e-3, options=LayerOptions()
    )
    x = np.zeros((1, 9, 9, 4), np.float32)
    shapes = jax.eval_shape(lambda: build(padded_expansion=True).init(jax.random.key(0), x, train=False))
    variables = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes)
    outputs = {padded: build(padded_expansion=padded).apply(variables, x, train=False)[0] for padded in (True, False)}
    middle = outputs[True][0, 4, 4]
    np.testing.assert_allclose(outputs[True], np.broadcast_to(middle, x.shape), rtol=1e-5)
    np.testing.assert_allclose(outputs[False][0, rate:-rate, rate:-rate], outputs[True][0, rate:-rate, rate:-rate])
    assert np.abs(outputs[False][0, 0, 0] - middle).max() > 0.1


def test_a_stem_without_padding_makes_all_maps_smaller():
    model = mobilenet_v2(output_stride=16, padding="symmetric", stem_padding="valid", padded_expansion=True)
    features = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0], jnp.zeros((1, 513, 513, 3))
    )
    sizes = {name: x.shape[1] for name, x in features.items()}
    assert sizes == {"stride4": 128, "stride8": 64, "stride16": 32}  # 129, 65 and 33 with padding
