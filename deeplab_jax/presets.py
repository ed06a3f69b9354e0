"""Each system's conventions, by name: where implementations of one paper differ without saying so.

A preset binds the options of the parts that its weights depend on. Weight layouts build their networks from it,
and a config may: `PRESETS["torchvision"].part("resnet.resnet50")`.

Source: docs/conventions.md, which lists the options and who chose what.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Preset:
    """The conventions of one system.

    Attributes:
      align_corners: how features and logits are resized.
      normalization: of the images, as in types.NORMALIZATIONS.
      arguments: module of backbones/ or heads/ -> keyword arguments of its factories.
    """

    align_corners: bool
    normalization: str
    arguments: Mapping[str, Mapping[str, Any]]

    def part(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The config of part 'module.factory' with these conventions and `arguments`, as a plain dict."""
        module_name = name.partition(".")[0]
        return {"name": name, "args": {**self.arguments.get(module_name, {}), **arguments}}

    def model(self, **fields: Any) -> dict[str, Any]:
        """The model's config with these conventions and `fields`, as a plain dict."""
        return {"align_corners": self.align_corners, "normalization": self.normalization, **fields}


_FIRST_UNIT = {"strided_unit": "first", "padding": "symmetric", "epsilon": 1e-5}

PRESETS: Mapping[str, Preset] = {
    # tensorflow/models, research/deeplab
    "tf_slim": Preset(
        align_corners=True,
        normalization="minus_one_to_one",  # plain ResNets: 'slim_mean'
        arguments={
            "resnet": {
                "strided_unit": "last",
                "padding": "symmetric",
                "pool_padding": "tf_same",
                "low_level_tap": "pre_add",
                "epsilon": 1e-5,
            },
            "xception": {"padding": "symmetric", "epsilon": 1e-3},
            "mobilenet_v2": {"padding": "tf_same", "expand_first": False, "epsilon": 1e-3},
            "mobilenet_v3": {"padding": "tf_same", "epsilon": 1e-3},
            "aspp": {"epsilon": 1e-5},
            "v3plus": {"epsilon": 1e-5},
        },
    ),
    "torchvision": Preset(
        align_corners=False,
        normalization="imagenet",
        arguments={
            "resnet": _FIRST_UNIT,
            "mobilenet_v2": {"padding": "symmetric", "expand_first": False, "epsilon": 1e-5},
            "mobilenet_v3": {"padding": "symmetric", "carrier_rate": "new", "epsilon": 1e-3},
            "vgg16": {"pool_size": 2, "pool_padding": "symmetric"},
            "aspp": {"num_refinements": 1, "dropout": 0.5, "epsilon": 1e-5},
            "auxiliary": {"dropout": 0.1, "epsilon": 1e-5},
        },
    ),
    # segmentation_models.pytorch
    "smp": Preset(
        align_corners=True,
        normalization="imagenet",
        arguments={
            "resnet": {**_FIRST_UNIT, "carrier_rate": "new"},
            "aspp": {"num_refinements": 1, "dropout": 0.5, "epsilon": 1e-5},
            "v3plus": {
                "num_refinements": 1,
                "num_decoder_convs": 1,
                "separable": True,
                "inner_norm": False,
                "dropout": 0.5,
                "epsilon": 1e-5,
            },
        },
    ),
    # mmsegmentation
    "mmseg": Preset(
        align_corners=False,
        normalization="imagenet",
        arguments={
            "resnet": {**_FIRST_UNIT, "stem": "v1c"},
            "aspp": {"aspp_channels": 512, "projection_kernel_size": 3, "dropout": 0.1, "epsilon": 1e-5},
            "v3plus": {
                "aspp_channels": 512,
                "decoder_channels": 512,
                "projection_kernel_size": 3,
                "separable": True,
                "dropout": 0.1,
                "epsilon": 1e-5,
            },
            "auxiliary": {"dropout": 0.1, "epsilon": 1e-5},
        },
    ),
    # The DeepLab authors' Caffe: v1 and v2
    "caffe": Preset(
        align_corners=True,
        normalization="caffe_mean",
        arguments={
            "resnet": {
                **_FIRST_UNIT,
                "strided_conv": "conv1",
                "carrier_rate": "new",
                "pool_padding": "ceil",
            },
            "vgg16": {"pool_size": 3, "pool_padding": "ceil"},
        },
    ),
}
