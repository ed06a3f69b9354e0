"""VGG-16 beyond the common suite: the authors' grids and rates, even windows, and torchvision's features."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_peers

from deeplab_jax.backbones.vgg16 import vgg16
from deeplab_jax.nn import layers
from deeplab_jax.ops.convolution.atrous import atrous_conv
from deeplab_jax.ops.pooling import max_pool
from deeplab_jax.types import WeightRule

TINY = functools.partial(vgg16, width=1 / 16)


@pytest.mark.parametrize("pool_padding", ["symmetric", "ceil", "tf_same"])
def test_grids_at_the_authors_crop(pool_padding):
    """321 -> 161, 81, 41 and no further: pool4 and pool5 have stride 1 (1412.7062, sec. 3.1)."""
    model = vgg16(output_stride=8, pool_padding=pool_padding)
    features = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0], jnp.zeros((1, 321, 321, 3))
    )
    assert {name: feature.shape[1:] for name, feature in features.items()} == {
        "image": (321, 321, 3),
        "pool1": (161, 161, 64),
        "stride4": (81, 81, 128),
        "pool3": (41, 41, 256),
        "pool4": (41, 41, 512),
        "stride8": (41, 41, 512),
    }


@pytest.mark.parametrize(
    ("output_stride", "names"),
    [
        (8, ("image", "pool1", "stride4", "pool3", "pool4", "stride8")),
        (16, ("image", "pool1", "stride4", "stride8", "pool4", "stride16")),
        (32, ("image", "pool1", "stride4", "stride8", "stride16", "stride32")),
    ],
)
def test_the_last_map_of_a_stride_takes_its_name(output_stride, names):
    assert tuple(info.name for info in vgg16(output_stride=output_stride).feature_info) == names


@pytest.mark.parametrize(("output_stride", "num_dilated"), [(8, 3), (16, 0)])
def test_rates_of_the_convolutions(output_stride, num_dilated, monkeypatch):
    """conv5_1 to conv5_3 are at rate 2 where output stride is 8, and no other convolution is dilated."""
    rates = []

    def noting(x, kernel, *, rate, **options):
        rates.append(rate)
        return atrous_conv(x, kernel, rate=rate, **options)

    monkeypatch.setattr(layers, "atrous_conv", noting)
    model = TINY(output_stride=output_stride)
    jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False), jnp.ones((1, 17, 17, 3)))
    assert rates == [(1, 1)] * (13 - num_dilated) + [(2, 2)] * num_dilated


@pytest.mark.parametrize(("dilated_pooling", "rate"), [(False, 1), (True, 2)])
def test_the_fifth_pooling_at_output_stride_8(rng, dilated_pooling, rate):
    """The authors' windows have no holes; `dilated_pooling` gives them the convolutions' rate."""
    model = TINY(output_stride=8, dilated_pooling=dilated_pooling)
    images = rng.normal(size=(1, 33, 33, 3)).astype(np.float32)
    variables = jax.jit(lambda x: model.init(jax.random.key(0, impl="rbg"), x, train=False))(images)
    features, state = jax.jit(lambda v, x: model.apply(v, x, train=False, capture_intermediates=True))(
        variables, images
    )
    conv5_3 = jax.nn.relu(state["intermediates"]["conv5_3"]["__call__"][0])
    np.testing.assert_array_equal(features["stride8"], max_pool(conv5_3, 3, rate=rate))
    assert np.any(features["stride8"] != max_pool(conv5_3, 3, rate=3 - rate))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pool_size": 4}, "pool_size=4 must be 2 or 3"),
        ({"pool_padding": "valid"}, "pool_padding='valid' must be 'symmetric' or 'ceil' or 'tf_same'"),
        ({"output_stride": 12}, "skip 12"),
    ],
)
def test_options_that_do_not_exist_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        vgg16(**{"output_stride": 8, **arguments}).feature_info  # noqa: B018


@pytest.mark.peer
def test_features_are_torchvisions(rng):
    """The original, 2x2 poolings and stride 32, an eighth as wide: every pooled map for the same weights."""
    vgg = torch_peers.import_peer("torchvision.models.vgg")
    peer = vgg.make_layers([c if c == "M" else c // 8 for c in vgg.cfgs["D"]])
    peer = torch_peers.draw_weights(peer, rng).requires_grad_(False)
    model = vgg16(output_stride=32, pool_size=2, width=1 / 8)
    images = rng.normal(size=(1, 64, 96, 3)).astype(np.float32)

    names = [f"conv{stage}_{conv}" for stage, count in enumerate((2, 2, 3, 3, 3), 1) for conv in range(1, count + 1)]
    conv_ids = [layer_id for layer_id, layer in enumerate(peer) if hasattr(layer, "bias")]
    rules = [
        WeightRule(rf"{layer_id}\.{leaf}", f"params/{name}/{ours}", transform)
        for name, layer_id in zip(names, conv_ids, strict=True)
        for leaf, ours, transform in (("weight", "kernel", "oihw"), ("bias", "bias", "copy"))
    ]
    variables = torch_peers.load_state(peer, rules, model, images)
    features = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)

    x, pooled = torch_peers.to_torch(images), iter(model.feature_info[1:])
    for layer in peer:
        x = layer(x)
        if type(layer).__name__ == "MaxPool2d":
            # Float32 sums in another order, through up to 13 layers.
            assert torch_peers.relative_error(features[next(pooled).name], x) < 1e-4
    assert next(pooled, None) is None
