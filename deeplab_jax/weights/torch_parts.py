"""Names of network parts that PyTorch systems took over from torchvision: its ResNet, its ASPP."""

from __future__ import annotations

import re

from deeplab_jax.types import ArrayShapes, WeightRule
from deeplab_jax.weights.names import TORCH, count, require

_RESNETS = {6: "resnet.resnet50", 23: "resnet.resnet101"}  # by the units of the third stage
RESNET_CLASSIFIER = r"fc\.(weight|bias)"  # of ImageNet files


def resnet_rules(prefix: str) -> tuple[WeightRule, ...]:
    """torchvision's ResNet with bottlenecks, its names behind `prefix`."""
    start, unit = re.escape(prefix), "backbone/block{1}_unit{2+1}"
    layer = rf"{start}layer(\d)\.(\d+)\."
    return (
        *TORCH.conv_norm(f"{start}conv1", f"{start}bn1", "backbone/stem"),
        *TORCH.conv_norm(rf"{layer}downsample\.0", rf"{layer}downsample\.1", f"{unit}/shortcut"),
        *(
            rule
            for conv_id in (1, 2, 3)
            for rule in TORCH.conv_norm(f"{layer}conv{conv_id}", f"{layer}bn{conv_id}", f"{unit}/conv{conv_id}")
        ),
    )


def resnet_name(shapes: ArrayShapes, prefix: str) -> str:
    """Which ResNet of ours the names behind `prefix` are of.

    Raises:
      ValueError: where they are of none.
    """
    require(shapes, f"{prefix}layer1.0.conv3.weight")
    num_units = count(shapes, rf"{re.escape(prefix)}layer3\.(\d+)\.conv1\.weight")
    if num_units not in _RESNETS:
        known = " or ".join(f"{units}: {name}" for units, name in _RESNETS.items())
        raise ValueError(f"'{prefix}layer3' has {num_units} units; there are {known}")
    return _RESNETS[num_units]


def aspp_rules(prefix: str, target: str = "head/aspp", *, separable: bool = False) -> tuple[WeightRule, ...]:
    """torchvision's ASPP: 1x1, three atrous 3x3, image pooling, concatenated in this order, and the projection.

    Args:
      prefix: of its names, a regular expression.
      target: path of our module.
      separable: depthwise and pointwise without norm between them (segmentation_models.pytorch).
    """
    branch = rf"{prefix}convs\.([123])\."
    if separable:
        atrous = TORCH.depthwise(rf"{branch}0\.0", target + "/aspp{1}/depthwise")
        atrous += TORCH.conv_norm(rf"{branch}0\.1", rf"{branch}1", target + "/aspp{1}/pointwise")
    else:
        atrous = TORCH.conv_norm(rf"{branch}0", rf"{branch}1", target + "/aspp{1}")
    return (
        *TORCH.conv_norm(rf"{prefix}convs\.0\.0", rf"{prefix}convs\.0\.1", f"{target}/aspp0"),
        *atrous,
        *TORCH.conv_norm(rf"{prefix}convs\.4\.1", rf"{prefix}convs\.4\.2", f"{target}/image_pooling"),
        *TORCH.conv_norm(rf"{prefix}project\.0", rf"{prefix}project\.1", f"{target}/projection", channels="pool_last"),
    )
