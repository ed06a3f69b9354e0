"""A small network as transformers names it, written out from the structure of its source: MobileNetV2 with a head."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from deeplab_jax.config import Config, PartConfig
from deeplab_jax.models.build import build_model

NUM_CLASSES = 4
_BLOCK_LAYERS = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
_ENDINGS = {
    "kernel": "convolution.weight",
    "depthwise_kernel": "convolution.weight",
    "scale": "normalization.weight",
    "bias": "normalization.bias",
    "mean": "normalization.running_mean",
    "var": "normalization.running_var",
}


def small_network():
    """The network that the file below holds: transformers' smallest MobileNetV2, with a head of 8 channels."""
    backbone = PartConfig("mobilenet_v2.mobilenet_v2", {"width": 0.25})
    head = PartConfig("aspp.aspp", {"atrous_rates": (), "aspp_channels": 8})
    return dataclasses.replace(
        Config().model, backbone=backbone, head=head, num_classes=NUM_CLASSES, normalization="minus_one_to_one"
    )


def shapes_of(config):
    model = build_model(config)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 33, 33, 3), jnp.uint8)))


def foreign_name(path):
    """A path of ours -> the name that transformers has for it."""
    _, part, *modules, leaf = path.split("/")
    if part == "head" and modules == ["logits"]:
        return f"segmentation_head.classifier.convolution.{'weight' if leaf == 'kernel' else 'bias'}"
    module = "/".join(modules[:-1])
    if part == "head":
        kind = {"image_pooling": "conv_pool", "aspp0": "conv_aspp", "projection": "conv_projection"}[module[5:]]
        return f"segmentation_head.{kind}.{_ENDINGS[leaf]}"
    if module == "stem":
        return f"mobilenet_v2.conv_stem.first_conv.{_ENDINGS[leaf]}"
    block, layer = module.split("/")
    block_id = int(block.removeprefix("block"))
    place = "conv_stem" if block_id == 0 else f"layer.{block_id - 1}"
    return f"mobilenet_v2.{place}.{_BLOCK_LAYERS[layer]}.{_ENDINGS[leaf]}"


def draw(rng, shapes):
    """(arrays by our paths, the same by transformers' names)."""
    ours, theirs = {}, {}
    for path, leaf in traverse_util.flatten_dict(shapes, sep="/").items():
        value = rng.uniform(0.5, 1.5, leaf.shape) if path.endswith(("scale", "var")) else rng.normal(size=leaf.shape)
        ours[path] = value.astype(np.float32)
        kernel = leaf.ndim == 4
        theirs[foreign_name(path)] = np.ascontiguousarray(ours[path].transpose(3, 2, 0, 1) if kernel else ours[path])
    return ours, theirs
