"""mmsegmentation: DeepLab v3 and v3+ and FCN on ResNet (also V1c), with their auxiliary heads, and ImageNet ResNet-V1c.

A file's config is stored as text, which is not read, and its arrays do not determine output strides: those here are of
the 'd8' configs. Pass the settings of other configs to the modes that use the import: 'd16-mg124' is
--config.model.output_stride=16 and multi_grid=(1, 1, 2) (their rates in the last stage are 1, 2, 4), configs with crops
of 769 pixels are --config.model.align_corners=True.

Source: mmseg/models/{backbones/resnet,utils/res_layer,decode_heads/{aspp_head,sep_aspp_head,fcn_head}}.py of
open-mmlab/mmsegmentation.
"""

from __future__ import annotations

import re
from typing import Any

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import TORCH, TORCH_COUNTERS, count, require
from deeplab_jax.weights.torch_parts import Backbone
from deeplab_jax.weights.torch_resnets import CLASSIFIER, resnet

_PRESET = PRESETS["mmseg"]
_HEAD = "decode_head."


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not mmsegmentation's, or the network is not supported.
    """
    if "stem.0.weight" in shapes:
        found = _backbone(shapes, "")
        model = _PRESET.model(backbone=_PRESET.classifier(found.name, **found.arguments))
        return WeightLayout(found.rules, (CLASSIFIER, TORCH_COUNTERS), model)
    num_classes, head = _head(shapes)
    found = _backbone(shapes, "backbone.")
    fields: dict[str, Any] = {
        "num_classes": num_classes,
        "output_stride": 8,
        "backbone": _PRESET.part(found.name, **found.arguments),
        "head": head,
    }
    rules = (*found.rules, *_head_rules())
    if "auxiliary_head.conv_seg.weight" in shapes:
        fields["auxiliary"] = _PRESET.part("auxiliary.auxiliary", feature="penultimate")
        rules += _fcn_rules("auxiliary_head", "auxiliary")
    return WeightLayout(rules, (TORCH_COUNTERS,), _PRESET.model(**fields))


def _head(shapes: ArrayShapes) -> tuple[int, dict[str, Any]]:
    """Number of classes, and config of the head."""
    num_classes, channels = require(shapes, f"{_HEAD}conv_seg.weight")[:2]
    if num_convs := count(shapes, rf"{re.escape(_HEAD)}convs\.(\d+)\.conv\.weight"):
        args = {"channels": channels, "num_convs": num_convs, "concat_input": f"{_HEAD}conv_cat.conv.weight" in shapes}
        return num_classes, _PRESET.part("auxiliary.auxiliary", **args)
    require(shapes, f"{_HEAD}image_pool.1.conv.weight")
    channels = require(shapes, f"{_HEAD}bottleneck.conv.weight")[0]
    low_level = f"{_HEAD}c1_bottleneck.conv.weight"
    if low_level not in shapes:
        return num_classes, _PRESET.part("aspp.aspp", aspp_channels=channels)
    args = {"aspp_channels": channels, "decoder_channels": channels, "low_level_channels": shapes[low_level][0]}
    return num_classes, _PRESET.part("v3plus.v3plus", **args)


def _backbone(shapes: ArrayShapes, prefix: str) -> Backbone:
    found = resnet(shapes, prefix, stem="stem", norm="", average="average_strided")
    return found._replace(arguments={"stem": "plain", **found.arguments})


def _head_rules() -> tuple[WeightRule, ...]:
    start = re.escape(_HEAD)
    return (
        # Image pooling is concatenated first, as here.
        *_layer(rf"{start}image_pool\.1", "head/aspp/image_pooling"),
        *_layer(rf"{start}aspp_modules\.(\d)", "head/aspp/aspp{1}"),
        *_separable(rf"{start}aspp_modules\.(\d)", "head/aspp/aspp{1}"),
        *_layer(rf"{start}bottleneck", "head/aspp/projection"),
        *_layer(rf"{start}c1_bottleneck", "head/low_level"),
        *_separable(rf"{start}sep_bottleneck\.(\d)", "head/decoder{1}"),
        *_fcn_rules("decode_head", "head"),
    )


def _fcn_rules(source: str, target: str) -> tuple[WeightRule, ...]:
    return (
        *_layer(rf"{source}\.convs\.(\d)", f"{target}/conv{{1}}"),
        *_layer(rf"{source}\.conv_cat", f"{target}/concat"),
        *TORCH.conv(rf"{source}\.conv_seg", f"{target}/logits", bias=True),
    )


def _separable(source: str, target: str) -> tuple[WeightRule, ...]:
    depthwise = rf"{source}\.depthwise_conv\."
    return (
        *TORCH.depthwise_norm(f"{depthwise}conv", f"{depthwise}bn", f"{target}/depthwise"),
        *_layer(rf"{source}\.pointwise_conv", f"{target}/pointwise"),
    )


def _layer(source: str, target: str) -> tuple[WeightRule, ...]:
    return TORCH.conv_norm(rf"{source}\.conv", rf"{source}\.bn", target)
