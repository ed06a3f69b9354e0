"""Names of network parts shared by PyTorch systems: torchvision's MobileNets and ASPP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from deeplab_jax.types import ArrayShapes, WeightRule
from deeplab_jax.weights.names import TORCH, count, require

_MOBILENET_V3S = {13: "mobilenet_v3.mobilenet_v3_small", 17: "mobilenet_v3.mobilenet_v3_large"}  # by layers
_GATED_BLOCKS = {  # those with squeeze-and-excite
    "mobilenet_v3.mobilenet_v3_small": (0, *range(3, 11)),
    "mobilenet_v3.mobilenet_v3_large": (3, 4, 5, *range(10, 15)),
}
_MOBILENET_V2_CHANNELS = 320  # of the last block, at width 1


class Backbone(NamedTuple):
    """A backbone that a file has: ours, its arguments beside the system's conventions, and the rules of its names."""

    name: str
    arguments: Mapping[str, Any]
    rules: tuple[WeightRule, ...]


def mobilenet_v2_rules(prefix: str) -> tuple[WeightRule, ...]:
    """torchvision's MobileNetV2.

    Args:
      prefix: what precedes the layer numbers, a regular expression without groups.
    """
    block = rf"{prefix}([2-9]|1[0-7])\.conv\."
    first = rf"{prefix}1\.conv\."
    return (
        *TORCH.conv_norm(rf"{prefix}0\.0", rf"{prefix}0\.1", "backbone/stem"),
        *TORCH.depthwise_norm(rf"{first}0\.0", rf"{first}0\.1", "backbone/block0/depthwise"),
        *TORCH.conv_norm(rf"{first}1", rf"{first}2", "backbone/block0/project"),
        *TORCH.conv_norm(rf"{block}0\.0", rf"{block}0\.1", "backbone/block{1-1}/expand"),
        *TORCH.depthwise_norm(rf"{block}1\.0", rf"{block}1\.1", "backbone/block{1-1}/depthwise"),
        *TORCH.conv_norm(rf"{block}2", rf"{block}3", "backbone/block{1-1}/project"),
        *TORCH.conv_norm(rf"{prefix}18\.0", rf"{prefix}18\.1", "backbone/last"),
    )


def mobilenet_v2_width(shapes: ArrayShapes, name: str) -> float:
    """Width of a MobileNetV2, from the channels of `name`, the last block's projection (the stem's are too coarse).

    Raises:
      ValueError: when there is no such array.
    """
    return require(shapes, name)[0] / _MOBILENET_V2_CHANNELS


def mobilenet_v3_rules(name: str, prefix: str) -> tuple[WeightRule, ...]:
    """torchvision's MobileNetV3, called `name` here, with names that begin with `prefix`.

    A block numbers only the parts it has.
    """
    start, gated = re.escape(prefix), _GATED_BLOCKS[name]
    last = gated[-1] + 2
    rules = [
        *TORCH.conv_norm(rf"{start}0\.0", rf"{start}0\.1", "backbone/stem"),
        *TORCH.conv_norm(rf"{start}{last}\.0", rf"{start}{last}\.1", "backbone/last"),
    ]
    for block_id in range(last - 1):
        parts = ["expand"] * (block_id > 0) + ["depthwise"] + ["squeeze_excite"] * (block_id in gated) + ["project"]
        for part_id, part in enumerate(parts):
            layer, target = rf"{start}{block_id + 1}\.block\.{part_id}\.", f"backbone/block{block_id}/{part}"
            if part == "squeeze_excite":
                rules += TORCH.conv(f"{layer}fc1", f"{target}/reduce", bias=True)
                rules += TORCH.conv(f"{layer}fc2", f"{target}/expand", bias=True)
            else:
                kind = TORCH.depthwise_norm if part == "depthwise" else TORCH.conv_norm
                rules += kind(rf"{layer}0", rf"{layer}1", target)
    return tuple(rules)


def mobilenet_v3_name(shapes: ArrayShapes, prefix: str) -> str:
    """Our name of the MobileNetV3 whose names begin with `prefix`.

    Raises:
      ValueError: where they are of none.
    """
    require(shapes, f"{prefix}1.block.0.0.weight")
    num_layers = _num_mobilenet_v3_layers(shapes, prefix)
    return known(_MOBILENET_V3S, num_layers, f"'{prefix}' has {num_layers} layers")


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


def _num_mobilenet_v3_layers(shapes: ArrayShapes, prefix: str) -> int:
    return count(shapes, rf"{re.escape(prefix)}(\d+)\.(?:0|block\.0\.0)\.weight")


def known(names: dict[int, str], size: int, found: str) -> str:
    """The name for this size.

    Raises:
      ValueError: when there is none, naming what was `found` instead.
    """
    if size not in names:
        raise ValueError(f"{found}; there are {' or '.join(f'{size}: {name}' for size, name in names.items())}")
    return names[size]
