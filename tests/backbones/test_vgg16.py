"""VGG-16 beyond the common suite: the authors' grids and rates, even windows, and torchvision's features."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.backbones.vgg16 import vgg16
from deeplab_jax.ops.pooling import max_pool

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
def test_rates_of_the_convolutions(output_stride, num_dilated):
    """The program has conv5_1 to conv5_3 at rate 2 where output stride is 8, and no other dilated convolution."""
    model = TINY(output_stride=output_stride)
    program = jax.jit(lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0])
    text = program.trace(jnp.ones((1, 17, 17, 3))).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("rhs_dilate = [2, 2]") == text.count("rhs_dilate = [") - (13 - num_dilated) == num_dilated


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
    torch = pytest.importorskip("torch")
    vgg = _torchvision_vgg(torch)
    torch.manual_seed(0)
    peer = vgg.make_layers([c if c == "M" else c // 8 for c in vgg.cfgs["D"]])
    names = [f"conv{stage}_{conv}" for stage, count in enumerate((2, 2, 3, 3, 3), 1) for conv in range(1, count + 1)]
    convs = [layer for layer in peer if isinstance(layer, torch.nn.Conv2d)]
    params = {
        name: {
            "kernel": conv.weight.detach().numpy().transpose(2, 3, 1, 0),
            "bias": conv.bias.detach().numpy(),
        }
        for name, conv in zip(names, convs, strict=True)
    }
    images = rng.normal(size=(1, 64, 96, 3)).astype(np.float32)
    model = vgg16(output_stride=32, pool_size=2, width=1 / 8)
    features = jax.jit(lambda v, x: model.apply(v, x, train=False))({"params": params}, images)

    x, wanted = torch.from_numpy(images).permute(0, 3, 1, 2), []
    with torch.no_grad():
        for layer in peer:
            x = layer(x)
            if isinstance(layer, torch.nn.MaxPool2d):
                wanted.append(x.permute(0, 2, 3, 1).numpy())
    for info, peer_map in zip(model.feature_info[1:], wanted, strict=True):
        # Float32 sums in another order, through up to 13 layers.
        np.testing.assert_allclose(features[info.name], peer_map, atol=1e-5 * np.abs(peer_map).max())


def _torchvision_vgg(torch):
    """torchvision's module of VGG networks, also where its compiled operators are missing."""
    try:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except RuntimeError:  # the operators are there
        pass
    return pytest.importorskip("torchvision.models.vgg")
