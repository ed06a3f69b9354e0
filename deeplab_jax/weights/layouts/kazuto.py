"""kazuto1011/deeplab-pytorch: DeepLab v2 on ResNet-101, and the MS COCO ResNet-101 it starts from.

The networks are converted from the authors' Caffe models and keep their conventions except for half-pixel resizing:
strides in the first 1x1 convolution, ceil pooling, BGR images minus the mean, logits fused over three scales.

Source: libs/models/{resnet,deeplabv1,deeplabv2,msc}.py and configs/ there.
"""

from __future__ import annotations

from typing import Any

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import TORCH, TORCH_COUNTERS, count, require

_PRESET = PRESETS["kazuto"]
_SCALES = (1.0, 0.75, 0.5)
_PARTS = {"reduce": "conv1", "conv3x3": "conv2", "increase": "conv3", "shortcut": "shortcut"}
_NUM_UNITS = 23  # of the third stage


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not kazuto's, or those of another ResNet.
    """
    multi_scale = "base.layer1.conv1.conv.weight" in shapes
    prefix, names = ("base.", r"base\.") if multi_scale else ("", "")
    require(shapes, f"{prefix}layer2.block1.reduce.conv.weight")
    num_units = count(shapes, rf"{names}layer4\.block(\d+)\.reduce\.conv\.weight")
    if num_units != _NUM_UNITS:
        raise ValueError(f"'{prefix}layer4' has {num_units} blocks; only ResNet-101 is supported, with {_NUM_UNITS}")
    rules = _backbone_rules(names)
    if f"{prefix}aspp.c0.weight" not in shapes:
        model = _PRESET.model(backbone=_PRESET.classifier("resnet.resnet101"))
        return WeightLayout(rules, (r"fc\.(weight|bias)", TORCH_COUNTERS), model)
    fields: dict[str, Any] = {
        "num_classes": shapes[f"{prefix}aspp.c0.weight"][0],
        "output_stride": 8,
        "scales": _SCALES if multi_scale else (),
        "backbone": _PRESET.part("resnet.resnet101"),
        "head": _PRESET.part("aspp_sum.aspp_sum"),
        "upsample_in_training": False,
    }
    rules += TORCH.conv(rf"{names}aspp\.c(\d)", "head/branch{1+1}", bias=True)
    return WeightLayout(rules, (TORCH_COUNTERS,), _PRESET.model(**fields))


def _backbone_rules(prefix: str) -> tuple[WeightRule, ...]:
    stem, unit = rf"{prefix}layer1\.conv1\.", rf"{prefix}layer(\d)\.block(\d+)\."
    return (
        *TORCH.conv_norm(f"{stem}conv", f"{stem}bn", "backbone/stem", channels="bgr"),
        *(
            rule
            for part, ours in _PARTS.items()
            for rule in TORCH.conv_norm(
                rf"{unit}{part}\.conv", rf"{unit}{part}\.bn", f"backbone/block{{1-1}}_unit{{2}}/{ours}"
            )
        ),
    )
