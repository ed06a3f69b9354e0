"""Conventions of each system, by name: where implementations of the same paper silently differ.

A preset sets the options that a system's weights depend on. Weight layouts build their networks from it, and so can a
config: `PRESETS["torchvision"].part("resnet.resnet50")`.

Source: docs/conventions.md, which lists the options and each system's choices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Preset:
    """The conventions of one system.

    Attributes:
      align_corners: for resizing features and logits.
      normalization: a key of types.NORMALIZATIONS.
      arguments: module of backbones/ or heads/ -> keyword arguments of its factories.
      running_variance: which one batch norm keeps in training, as in nn/settings.py.
    """

    align_corners: bool
    normalization: str
    arguments: Mapping[str, Mapping[str, Any]]
    running_variance: str = "unbiased"

    def part(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The config of part 'module.factory' with these conventions and `arguments`, as a plain dict."""
        module_name = name.partition(".")[0]
        return {"name": name, "args": {**self.arguments.get(module_name, {}), **arguments}}

    def classifier(self, name: str, **arguments: Any) -> dict[str, Any]:
        """`part` for a backbone trained for classification, without the choices of a segmentation network."""
        config = self.part(name, **arguments)
        config["args"] = {key: value for key, value in config["args"].items() if key not in _RATES_AND_TAPS}
        if config["args"].get("shortcut", "conv") != "conv":
            config["args"]["shortcut"] = "average"  # which all are where no stride became a rate
        return config

    def model(self, **fields: Any) -> dict[str, Any]:
        """The model's config with these conventions and `fields`, as a plain dict."""
        batch_norm = {"running_variance": self.running_variance}
        conventions = {
            "align_corners": self.align_corners,
            "normalization": self.normalization,
            "batch_norm": batch_norm,
        }
        return conventions | fields


_RATES_AND_TAPS = ("carrier_rate", "multi_grid", "low_level_tap", "atrous_conv2")
_FIRST_UNIT = {"strided_unit": "first", "padding": "symmetric", "epsilon": 1e-5}
_CAFFE_RESNET = {**_FIRST_UNIT, "strided_conv": "conv1", "carrier_rate": "new", "pool_padding": "ceil"}

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
            "xception": {"padding": "symmetric", "low_level_tap": "linear", "epsilon": 1e-3},
            "mobilenet_v2": {"padding": "tf_same", "expand_first": False, "epsilon": 1e-3},
            "mobilenet_v3": {"padding": "tf_same", "epsilon": 1e-3},
            "aspp": {"epsilon": 1e-5},
            "v3plus": {"epsilon": 1e-5},
            "dpc": {"epsilon": 1e-5},
            "lr_aspp": {
                "gate": "hard_sigmoid",
                "gate_bias": True,
                "low_level_stride": 8,
                "pooling_size": (769, 769),
                "pooling_strides": (4, 5),
                "epsilon": 1e-5,
            },
        },
    ),
    "torchvision": Preset(
        align_corners=False,
        normalization="imagenet",
        arguments={
            "resnet": _FIRST_UNIT,
            "mobilenet_v2": {"padding": "symmetric", "expand_first": False, "epsilon": 1e-5},
            "mobilenet_v3": {
                "padding": "symmetric",
                "carrier_rate": "new",
                "low_level_tap": "first",
                "epsilon": 1e-3,
            },
            "efficientnet": {"padding": "symmetric", "epsilon": 1e-5},  # B5 to B7: 1e-3
            "vgg16": {"pool_size": 2, "pool_padding": "symmetric"},
            "aspp": {"num_refinements": 1, "dropout": 0.5, "epsilon": 1e-5},
            "lr_aspp": {"gate": "sigmoid", "gate_bias": False, "low_level_stride": 8, "epsilon": 1e-5},
            "auxiliary": {"dropout": 0.1, "epsilon": 1e-5},
        },
    ),
    # Backbones alone; segmentation_models.pytorch has them as 'tu-...'
    "timm": Preset(
        align_corners=False,
        normalization="imagenet",  # Xceptions: 'minus_one_to_one'
        arguments={
            "resnet": _FIRST_UNIT,
            "xception": {"padding": "symmetric", "low_level_tap": "relu", "epsilon": 1e-3},
            "mobilenet_v1": {"padding": "symmetric", "epsilon": 1e-5},
            "mobilenet_v2": {"padding": "symmetric", "expand_first": False, "epsilon": 1e-5},
            "mobilenet_v3": {"padding": "symmetric", "epsilon": 1e-5},
            "efficientnet": {"padding": "symmetric", "epsilon": 1e-5},
        },
    ),
    # segmentation_models.pytorch
    "smp": Preset(
        align_corners=True,
        normalization="imagenet",
        arguments={
            "resnet": {**_FIRST_UNIT, "carrier_rate": "new"},
            "mobilenet_v2": {
                "padding": "symmetric",
                "expand_first": False,
                "last_conv": True,
                "carrier_rate": "new",
                "epsilon": 1e-5,
            },
            "efficientnet": {"padding": "tf_same", "carrier_rate": "new", "epsilon": 1e-3},
            "aspp": {"rates_output_stride": 0, "num_refinements": 1, "dropout": 0.5, "epsilon": 1e-5},
            "v3plus": {
                "rates_output_stride": 0,
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
            "resnet": {**_FIRST_UNIT, "stem": "v1c", "atrous_conv2": False},
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
            "resnet": _CAFFE_RESNET,
            "vgg16": {"pool_size": 3, "pool_padding": "ceil"},
        },
    ),
    # VainF/DeepLabV3Plus-Pytorch
    "vainf": Preset(
        align_corners=False,
        normalization="imagenet",
        arguments={
            "resnet": _FIRST_UNIT,
            "mobilenet_v2": {
                "padding": "symmetric",
                "stem_padding": "valid",
                "padded_expansion": True,
                "expand_first": False,
                "epsilon": 1e-5,
            },
            "aspp": {"num_refinements": 1, "dropout": 0.1, "epsilon": 1e-5},
            "v3plus": {"num_decoder_convs": 1, "dropout": 0.1, "epsilon": 1e-5},
        },
    ),
    # jfzhang95/pytorch-deeplab-xception
    "jfzhang": Preset(
        align_corners=True,
        normalization="imagenet",
        arguments={
            "resnet": {**_FIRST_UNIT, "carrier_rate": "new", "multi_grid": (1, 2, 4)},
            "v3plus": {"dropout": 0.5, "epsilon": 1e-5},
        },
    ),
    # detectron2, projects/DeepLab
    "detectron2": Preset(
        align_corners=False,
        normalization="imagenet",
        arguments={
            "resnet": {**_FIRST_UNIT, "stem": "beta", "carrier_rate": "new", "multi_grid": (1, 2, 4)},
            "aspp": {"pooling_size": (512, 1024), "pooling_norm": False, "dropout": 0.1, "epsilon": 1e-5},
            "v3plus": {"pooling_size": (512, 1024), "pooling_norm": False, "dropout": 0.1, "epsilon": 1e-5},
        },
    ),
    # transformers: MobileViT's DeepLab v3; its other networks follow those that they were ported from
    "transformers": Preset(
        align_corners=False,
        normalization="zero_to_one",
        arguments={
            "mobilevit": {"padding": "symmetric", "epsilon": 1e-5},
            "aspp": {"rates_output_stride": 0, "dropout": 0.1, "epsilon": 1e-5},
        },
    ),
    # KerasHub: v3+ without a dilated backbone
    "keras_hub": Preset(
        align_corners=False,
        normalization="imagenet",
        arguments={
            "resnet": _FIRST_UNIT,
            "v3plus": {
                "atrous_rates": (6, 12, 18),
                "rates_output_stride": 0,
                "num_decoder_convs": 1,
                "decoder_kernel_size": 1,
                "dropout": 0.0,
                "epsilon": 1e-3,
            },
        },
        running_variance="biased",
    ),
    # kazuto1011/deeplab-pytorch: v2, from the authors' Caffe
    "kazuto": Preset(
        align_corners=False,
        normalization="caffe_mean",
        arguments={"resnet": _CAFFE_RESNET},
    ),
    # bonlime/keras-deeplab-v3-plus: TF deeplab in Keras
    "bonlime": Preset(
        align_corners=True,
        normalization="minus_one_to_one",
        arguments={
            "xception": {
                "padding": "symmetric",
                "stem_padding": "tf_same",
                "low_level_tap": "linear",
                "epsilon": 1e-3,
            },
            "mobilenet_v2": {"padding": "tf_same", "expand_first": False, "epsilon": 1e-3},
            "aspp": {"epsilon": 1e-5},
            "v3plus": {"epsilon": 1e-5},
        },
    ),
    # GluonCV
    "gluon": Preset(
        align_corners=True,
        normalization="imagenet",
        arguments={"mobilenet_v2": {"padding": "symmetric", "expand_first": True, "epsilon": 1e-5}},
    ),
}
