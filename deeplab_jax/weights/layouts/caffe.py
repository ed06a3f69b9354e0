"""The DeepLab authors' Caffe networks: v1 and v2 on VGG-16 and v2 on ResNet-101, and the classifiers they start from.

A file does not contain the image pyramid of v2's ResNet-101, whose three branches share their arrays; it is assumed for
a network with ASPP, as in the authors' test networks. Branches of the pyramid that are stored again (NAME_res075) are
passed over.

Source: the authors' train.prototxt files (DeepLab-LargeFOV, DeepLabv2_VGG16, DeepLabv2_ResNet101), after which
kazuto1011/deeplab-pytorch and DrSleep/tensorflow-deeplab-resnet name their layers.
"""

from __future__ import annotations

import re
from typing import Any

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import Naming, require

_PRESET = PRESETS["caffe"]
_NAMING = Naming(
    kernel="/weight",
    depthwise_kernel="/weight",
    bias="/bias",
    norm=("/weight", "/bias", "/mean", "/variance"),
    axes="oihw",
    depthwise_axes="oihw",
)
_PYRAMID = r".*_res0?\d+/.*"  # the stored branches at other scales
_SCALES = (1.0, 0.75, 0.5)
_LOGITS = r"fc8[a-z0-9_]*?"  # fc8_voc12, fc8_pascal, fc8_coco: by the data set
_UNITS = {  # of each stage, as they are called
    2: ("a", "b", "c"),
    3: ("a", "b1", "b2", "b3"),
    4: ("a", *(f"b{unit}" for unit in range(1, 23))),
    5: ("a", "b", "c"),
}
_PARTS = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
# By fc6's kernel. Of the two networks with 4x4, v1's first has rate 4; the one with the larger field of view has 8.
_FOV_HEADS = {3: "large_fov.large_fov", 4: "large_fov.deeplab_4x4", 7: "large_fov.deeplab_7x7"}


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not those of the authors' networks.
    """
    if "conv1_1/weight" in shapes:
        return _vgg16(shapes)
    require(shapes, "bn_conv1/mean")
    require(shapes, "res4b22_branch2a/weight")
    rules = (*_stem_rules(), *_unit_rules())
    branches = [name for name in shapes if re.fullmatch(r"fc1_[a-z0-9]+_c\d/weight", name)]
    backbone = "resnet.resnet101"
    if not branches:
        return WeightLayout(
            rules, (_PYRAMID, r"fc1(000|_[a-z0-9]+)/.*"), _PRESET.model(backbone=_PRESET.classifier(backbone))
        )
    fields: dict[str, Any] = {
        "num_classes": shapes[branches[0]][0],
        "output_stride": 8,
        "scales": _SCALES,
        "backbone": _PRESET.part(backbone),
        "head": _PRESET.part("aspp_sum.aspp_sum" if len(branches) > 1 else "aspp_sum.large_fov_linear"),
        "upsample_in_training": False,
    }
    rules += _NAMING.conv(r"fc1_[a-z0-9]+_c(\d)", "head/branch{1+1}", bias=True)
    return WeightLayout(rules, (_PYRAMID,), _PRESET.model(**fields))


def _vgg16(shapes: ArrayShapes) -> WeightLayout:
    """VGG-16: LargeFOV (v1 and v2), ASPP with four branches (v2), or the classifier."""
    rules = _NAMING.conv("conv1_1", "backbone/conv1_1", bias=True, channels="bgr")
    rules += _NAMING.conv(r"conv(\d_\d)", "backbone/conv{1}", bias=True)
    fields: dict[str, Any] = {"output_stride": 8, "upsample_in_training": False}
    if "fc6_1/weight" in shapes:
        logits = next((name for name in shapes if re.fullmatch(rf"{_LOGITS}_1/weight", name)), "fc8_1/weight")
        head = _PRESET.part("aspp_sum.aspp_l", hidden_channels=require(shapes, "fc6_1/weight")[0])
        rules += _NAMING.conv(r"fc([67])_(\d)", "head/fc{1}_{2}", bias=True)
        rules += _NAMING.conv(rf"{_LOGITS}_(\d)", "head/fc8_{1}", bias=True)
    elif len(require(shapes, "fc6/weight")) == 2:  # the classifier, whose layers fit the heads' with scope 'fitting'
        model = _PRESET.model(backbone=_PRESET.part("vgg16.vgg16"))
        return WeightLayout((*rules, *_connected_rules()), (r"fc8/.*",), model)
    else:
        channels, _, _, size = shapes["fc6/weight"]
        if size not in _FOV_HEADS:
            raise ValueError(
                f"'fc6' is {size}x{size}; there are {', '.join(f'{known}x{known}' for known in _FOV_HEADS)}"
            )
        logits = next((name for name in shapes if re.fullmatch(rf"{_LOGITS}/weight", name)), "fc8/weight")
        head = _PRESET.part(_FOV_HEADS[size], channels=channels)
        rules += _NAMING.conv(r"fc([67])", "head/fc{1}", bias=True)
        rules += _NAMING.conv(_LOGITS, "head/logits", bias=True)
    fields |= {"num_classes": require(shapes, logits)[0], "head": head}
    return WeightLayout(rules, (), _PRESET.model(backbone=_PRESET.part("vgg16.vgg16"), **fields))


def _connected_rules() -> tuple[WeightRule, ...]:
    return (
        WeightRule("fc6/weight", "params/head/fc6/kernel", "oi+7x7"),
        WeightRule("fc7/weight", "params/head/fc7/kernel", "oi"),
        WeightRule(r"fc([67])/bias", "params/head/fc{1}/bias", "copy"),
    )


def _stem_rules() -> tuple[WeightRule, ...]:
    return *_NAMING.conv("conv1", "backbone/stem/conv", channels="bgr"), *_norm_rules(
        "conv1", "_conv1", "backbone/stem"
    )


def _unit_rules() -> tuple[WeightRule, ...]:
    rules: list[WeightRule] = []
    for stage, units in _UNITS.items():
        for unit_id, unit in enumerate(units, start=1):
            for part, ours in _PARTS.items():
                source, target = f"{stage}{unit}_branch{part}", f"backbone/block{stage - 1}_unit{unit_id}/{ours}"
                rules += _NAMING.conv(f"res{source}", f"{target}/conv")
                rules += _norm_rules(source, source, target)
    return tuple(rules)


def _norm_rules(scale: str, norm: str, target: str) -> tuple[WeightRule, ...]:
    """A BatchNorm layer's averages, and the Scale layer's factor and offset."""
    scale_name, bias_name, mean_name, var_name = _NAMING.norm
    return (
        WeightRule(f"scale_?{scale}{scale_name}", f"params/{target}/norm/scale", "copy"),
        WeightRule(f"scale_?{scale}{bias_name}", f"params/{target}/norm/bias", "copy"),
        WeightRule(f"bn{norm}{mean_name}", f"batch_stats/{target}/norm/mean", "copy"),
        WeightRule(f"bn{norm}{var_name}", f"batch_stats/{target}/norm/var", "copy"),
    )
