"""Costs against the papers' tables, and against arithmetic by hand."""

from __future__ import annotations

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import pytest

from deeplab_jax.config import ModelConfig, PartConfig
from deeplab_jax.models.build import build_model
from deeplab_jax.models.cost import count_multiply_adds, count_parameters
from deeplab_jax.types import Normalization


def _model(name, output_stride=None):
    config = importlib.import_module(f"configs.{name}").get_config().model
    config.num_classes, config.output_stride = 21, output_stride or config.output_stride
    return build_model(config)


@pytest.mark.parametrize(
    ("name", "output_stride", "paper"),
    [
        ("v3_voc_resnet101", 16, 81.02e9),
        ("v3plus_voc", 8, 297.92e9),
        ("v3plus_voc_xception65", 16, 89.76e9),
        ("v3plus_voc_xception65_separable", 16, 54.17e9),
        ("v3_voc_mobilenet_v2", 16, 2.75e9),
    ],
)
def test_multiply_adds_are_the_papers(name, output_stride, paper):
    """The papers count batch norm and resizing in some way too: up to 0.3 %."""
    counted = count_multiply_adds(_model(name, output_stride), (513, 513), space_to_batch=True)
    assert counted == pytest.approx(paper, rel=4e-3)
    assert counted <= paper


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("v1_voc_large_fov", 20_505_429),
        ("v1_voc_4x4", 65_140_565),
        ("v1_voc_7x7", 134_346_581),
        ("v2_voc_vgg16_aspp_l", 37_877_652),
        ("fcn8s_voc", 134_362_751),
    ],
)
def test_parameters_by_config(name, parameters):
    assert count_parameters(_model(name)) == parameters


def test_a_small_network_by_hand():
    """The light head on MobileNetV2 at one cell: each 1x1 costs its weights, each 3x3 nine times its channels."""
    backbone = PartConfig("mobilenet_v2.mobilenet_v2", {"width": 0.25})
    config = ModelConfig(backbone=backbone, head=PartConfig("auxiliary.auxiliary", {"num_convs": 0}), num_classes=3)
    config.output_stride = 32
    model = build_model(config)
    channels = 80  # of the last block at width 0.25
    assert count_parameters(model, part="head") == channels * 3 + 3
    one_cell = count_multiply_adds(model, (1, 1))
    kernels = count_parameters(model) - _norm_parameters(model) - 3
    assert one_cell == kernels


def _norm_parameters(model):

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 33, 33, 3), jnp.uint8)))
    leaves = jax.tree_util.tree_leaves_with_path(shapes["params"])
    return sum(leaf.size for path, leaf in leaves if path[-2].key == "norm")


def test_an_image_has_the_channels_that_the_network_normalises():
    backbone = PartConfig("resnet.ResNet", {"num_units": (1, 1, 1, 1), "multi_grid": (1,), "width": 0.125})
    config = ModelConfig(backbone, PartConfig("aspp.aspp", {"aspp_channels": 8}), num_classes=2)
    rgb = build_model(config)
    five = dataclasses.replace(rgb, normalization=Normalization((0.0,) * 5, (1.0,) * 5))
    assert count_multiply_adds(five, (65, 65)) - count_multiply_adds(rgb, (65, 65)) == 2 * 7 * 7 * 8 * 33 * 33
