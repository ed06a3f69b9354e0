"""RGB's weights for other channels: which kernels, what becomes of them, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from deeplab_jax import registry
from deeplab_jax.apps.assembly.stem import load_for_channels, repeat_channels, stem_kernels
from deeplab_jax.apps.import_weights import check_agreement
from deeplab_jax.config import ModelConfig, PretrainedConfig
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.types import Normalization, UserError

KERNEL = ("params", "backbone", "first", "kernel")


class Backbone(nn.Module):
    """Its second convolution has as many channels as the images might have."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Conv(4, (1, 1), name="second")(nn.Conv(5, (3, 3), name="first")(x))


class Head(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Conv(2, (1, 1), name="last")(x)


def make_model(channels, backbone=None):
    return DeepLab(backbone or Backbone(), Head(), Normalization((0.0,) * channels, (1.0,) * channels), True)


def empty(channels):
    leaves = {KERNEL: (3, 3, channels, 5), ("params", "backbone", "second", "kernel"): (1, 1, 5, 4)}
    return traverse_util.unflatten_dict({path: np.zeros(shape, np.float32) for path, shape in leaves.items()})


def load_ones(variables):
    return traverse_util.unflatten_dict(
        {path: np.ones_like(leaf) for path, leaf in traverse_util.flatten_dict(variables).items()}
    ), "report"


@pytest.mark.parametrize("name", ["resnet.resnet50", "mobilenet_v3.mobilenet_v3_small", "vgg16.vgg16"])
def test_every_backbone_takes_any_channels_and_has_one_kernel_that_reads_them(name):
    class Scores(nn.Module):
        @nn.compact
        def __call__(self, features, *, train):
            return nn.Conv(2, (1, 1), name="last")(list(features.values())[-1])

    backbone = registry.resolve("backbones", name)(output_stride=8 if "vgg" in name else 16, options=LayerOptions())
    model = DeepLab(backbone, Scores(), Normalization((0.0,) * 5, (1.0,) * 5), True)
    (path,) = stem_kernels(model)
    assert path[1] == "backbone"
    assert path[-1] == "kernel"


def test_kernels_are_found_by_the_images_channels_alone():
    assert stem_kernels(make_model(5)) == {KERNEL: 5}
    assert stem_kernels(make_model(3)) == {}


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 13])
def test_kernels_go_round_the_channels_and_keep_their_sum_or_scale(channels):
    kernel = np.random.default_rng(0).standard_normal((3, 3, 3, 7)).astype(np.float32)
    spread = repeat_channels(kernel, channels)
    assert (spread.shape, spread.dtype) == ((3, 3, channels, 7), np.float32)
    if channels in (1, 3):
        np.testing.assert_allclose(spread.sum(axis=2), kernel.sum(axis=2), rtol=1e-5)
    else:
        np.testing.assert_array_equal(spread[:, :, 0], kernel[:, :, 0] * np.float32(3 / channels))
        np.testing.assert_array_equal(spread[:, :, -1], kernel[:, :, (channels - 1) % 3] * np.float32(3 / channels))


def test_a_file_of_rgb_fits_other_channels_where_asked_to():
    settings = PretrainedConfig(source="x", layout="torchvision", stem="repeat")
    loaded, report = load_for_channels(load_ones, empty(5), make_model(5), settings)
    assert report == "report"
    leaves = traverse_util.flatten_dict(loaded)
    np.testing.assert_allclose(leaves[KERNEL], np.full((3, 3, 5, 5), 0.6))
    np.testing.assert_array_equal(leaves["params", "backbone", "second", "kernel"], 1)


def test_it_is_refused_with_the_remedy_where_not_asked_for():
    settings = PretrainedConfig(source="x", layout="torchvision")
    with pytest.raises(
        UserError, match=r"^config\.model\.pretrained\.scope='backbone': the images have 5 channels.*stem="
    ):
        load_for_channels(load_ones, empty(5), make_model(5), settings)
    settings.scope = "fitting"
    assert load_for_channels(load_ones, empty(5), make_model(5), settings)[1] == "report"


def test_the_data_sets_own_normalisation_goes_with_any_weights():
    weights = {"normalization": "imagenet", "backbone": {"name": "resnet.resnet50", "args": {}}}
    check_agreement(ModelConfig(normalization="dataset"), weights, "backbone")
    with pytest.raises(UserError, match=r"config\.model\.normalization='slim_mean'"):
        check_agreement(ModelConfig(normalization="slim_mean"), weights, "backbone")
