"""detectron2's projects/DeepLab: DeepLab v3 and v3+ on its R-103 (ResNet-101 with a 3x3 stem), and ImageNet R-103.

Image pooling has a bias instead of batch norm, and averages over windows of the training crop size, 512 x 1024 for the
published networks. Output stride 16, multi-grid (1, 2, 4).

Source: projects/DeepLab/{deeplab/{resnet,semantic_seg}.py,configs/} and detectron2/layers/aspp.py there.
"""

from __future__ import annotations

import re
from typing import Any

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import TORCH, TORCH_COUNTERS, count, require

_PRESET = PRESETS["detectron2"]
_BACKBONE, _HEAD = "backbone.", "sem_seg_head."
_RESNETS = {6: "resnet.resnet50", 23: "resnet.resnet101"}  # by number of units in the third stage
_CLASSIFIER = r"(stem\.)?(fc|linear)\.(weight|bias)"
_PIXELS = "pixel_(mean|std)"


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not those of detectron2's DeepLab.
    """
    if "stem.conv1.norm.weight" in shapes:
        model = _PRESET.model(backbone=_PRESET.classifier(_resnet_name(shapes, "")))
        return WeightLayout(_backbone_rules(""), (_CLASSIFIER, TORCH_COUNTERS), model)
    name = _resnet_name(shapes, _BACKBONE)
    head, head_rules = _head(shapes)
    num_classes = require(shapes, f"{_HEAD}predictor.weight")[0]
    model = _PRESET.model(num_classes=num_classes, output_stride=16, backbone=_PRESET.part(name), head=head)
    return WeightLayout((*_backbone_rules(_BACKBONE), *head_rules), (_PIXELS, TORCH_COUNTERS), model)


def _resnet_name(shapes: ArrayShapes, prefix: str) -> str:
    require(shapes, f"{prefix}stem.conv3.norm.weight")  # otherwise a plain stem: another network
    num_units = count(shapes, rf"{re.escape(prefix)}res4\.(\d+)\.conv1\.weight")
    if num_units not in _RESNETS:
        raise ValueError(f"'{prefix}res4' has {num_units} units; there are 6 (R-52) and 23 (R-103)")
    return _RESNETS[num_units]


def _backbone_rules(prefix: str) -> tuple[WeightRule, ...]:
    start = re.escape(prefix)
    return (
        *_layer(rf"{start}stem\.conv(\d)", "backbone/stem{1}"),
        *_layer(rf"{start}res(\d)\.(\d+)\.(conv\d|shortcut)", "backbone/block{1-1}_unit{2+1}/{3}"),
    )


def _head(shapes: ArrayShapes) -> tuple[dict[str, Any], tuple[WeightRule, ...]]:
    """Config and rules of the head."""
    predictor = TORCH.conv(r"sem_seg_head\.predictor", "head/logits", bias=True)
    if f"{_HEAD}aspp.project.weight" in shapes:
        return _PRESET.part("aspp.aspp"), (*_aspp_rules(r"sem_seg_head\.aspp\."), *predictor)
    require(shapes, f"{_HEAD}decoder.res5.project_conv.project.weight")
    decoder = r"sem_seg_head\.decoder\."
    rules = (
        *_aspp_rules(rf"{decoder}res5\.project_conv\."),
        *_layer(rf"{decoder}res2\.project_conv", "head/low_level"),
        *_layer(rf"{decoder}res2\.fuse_conv\.0", "head/decoder0", channels="low_level_first"),
        *_layer(rf"{decoder}res2\.fuse_conv\.1", "head/decoder1"),
        *predictor,
    )
    return _PRESET.part("v3plus.v3plus"), rules


def _aspp_rules(prefix: str) -> tuple[WeightRule, ...]:
    return (
        *_layer(rf"{prefix}convs\.([0-3])", "head/aspp/aspp{1}"),
        *TORCH.conv(rf"{prefix}convs\.4\.1", "head/aspp/image_pooling", bias=True),
        *_layer(f"{prefix}project", "head/aspp/projection", channels="pool_last"),
    )


def _layer(source: str, target: str, *, channels: str = "") -> tuple[WeightRule, ...]:
    return TORCH.conv_norm(source, rf"{source}\.norm", target, channels=channels)
