"""ResNets as PyTorch systems name them: torchvision's names, with the deep stems and shortcuts of their variants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deeplab_jax.types import ArrayShapes, WeightRule
from deeplab_jax.weights.names import TORCH, count, require
from deeplab_jax.weights.torch_parts import Backbone

CLASSIFIER = r"fc\.(weight|bias)"  # of ImageNet files
_UNITS: Mapping[tuple[str, tuple[int, ...]], str] = {  # unit and number of units in each stage -> ours
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (2, 2, 2, 2)): "resnet26",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}
_GROUPED = {  # name, groups, width of a group -> the network's own name
    ("resnet50", 32, 4): "resnext50_32x4d",
    ("resnet101", 32, 8): "resnext101_32x8d",
    ("resnet50", 1, 128): "wide_resnet50_2",
    ("resnet101", 1, 128): "wide_resnet101_2",
}
_D = ("resnet50", "resnet101")  # those whose variant D has a name here
_DEEP_STEMS = {32: "v1c", 64: "beta"}  # by the channels of the first convolution
# What another network with these names has, and ours not.
_OTHERS = {
    r"layer1\.0\.se\..*|layer1\.0\.se_module\..*": "squeeze-and-excite",
    r"layer1\.0\.conv2\.(?:conv|radix).*|layer1\.0\.conv2\.fc1\..*": "split attention (ResNeSt)",
    r"layer1\.0\.convs\..*": "Res2Net's scales",
    r"layer1\.0\.conv2\.(?:lka|attn).*": "attention",
}


def resnet(
    shapes: ArrayShapes, prefix: str, *, stem: str = "conv1", norm: str = "bn1", average: str = "average"
) -> Backbone:
    """The ResNet whose names begin with `prefix`.

    Args:
      stem, norm: how the system calls a deep stem, and the batch norm at its end; '': it is numbered too.
      average: what the system does where a unit's shortcut averages (see backbones/resnet.py).

    Raises:
      ValueError: where they are of none, or of a variant that is not here, which is named.
    """
    require(shapes, f"{prefix}layer1.0.conv1.weight")
    start = re.escape(prefix)
    for pattern, what in _OTHERS.items():
        if any(re.fullmatch(start + pattern, name) for name in shapes):
            raise ValueError(f"'{prefix}layer1.0' has {what}; only plain, wide and grouped ResNets are supported")
    if f"{prefix}layer1.0.bn1.weight" in shapes and f"{prefix}layer1.0.bn1.running_mean" not in shapes:
        raise ValueError(
            f"'{prefix}layer1.0.bn1' has no running statistics, as group norm; only batch norm is supported"
        )
    unit = "bottleneck" if f"{prefix}layer1.0.conv3.weight" in shapes else "basic"
    num_units = tuple(count(shapes, rf"{start}layer{stage}\.(\d+)\.conv1\.weight") for stage in (1, 2, 3, 4))
    if (unit, num_units) not in _UNITS:
        known = ", ".join(f"{units}: {name}" for (kind, units), name in _UNITS.items() if kind == unit)
        raise ValueError(f"'{prefix}layer1' to '4' have {num_units} {unit} units; there are {known}")
    name, arguments = _UNITS[unit, num_units], _width(shapes, prefix, unit)
    grouped = _GROUPED.get((name, arguments.get("groups", 1), arguments.get("group_width", 64)))
    if grouped:
        name, arguments = grouped, {}
    if f"{prefix}{stem}.0.weight" in shapes:
        arguments["stem"] = _deep_stem(shapes, f"{prefix}{stem}")
    else:
        require(shapes, f"{prefix}conv1.weight")
    if f"{prefix}layer2.0.downsample.2.weight" in shapes:
        arguments["shortcut"] = average
    if arguments.get("stem") == "v1c" and "shortcut" in arguments and name in _D:
        name = f"{name}_d"
    deep = f"{start}{re.escape(stem)}" if "stem" in arguments else ""
    rules = resnet_rules(prefix, deep=deep, norm=norm, average="shortcut" in arguments)
    return Backbone(f"resnet.{name}", arguments, rules)


def resnet_rules(prefix: str, *, deep: str = "", norm: str = "", average: bool = False) -> tuple[WeightRule, ...]:
    """The rules of names that begin with `prefix`.

    Args:
      deep: what precedes a deep stem's layer numbers, a regular expression; '': its stem is one convolution.
      norm: name of the batch norm at the end of a deep stem; '': it is numbered too.
      average: whether the shortcut's first layer is a pooling.
    """
    start, unit = re.escape(prefix), "backbone/block{1}_unit{2+1}"
    layer, first = rf"{start}layer(\d)\.(\d+)\.", int(average)
    projection = rf"{layer}downsample\.{first}", rf"{layer}downsample\.{first + 1}"
    rules = [*TORCH.conv_norm(*projection, f"{unit}/shortcut")]
    for conv_id in (1, 2, 3):
        rules += TORCH.conv_norm(f"{layer}conv{conv_id}", f"{layer}bn{conv_id}", f"{unit}/conv{conv_id}")
    if not deep:
        return (*TORCH.conv_norm(f"{start}conv1", f"{start}bn1", "backbone/stem"), *rules)
    for conv_id, place in {1: 0, 2: 3, 3: 6}.items():  # in a Sequential with norms and ReLUs
        after = f"{start}{norm}" if norm and conv_id == 3 else rf"{deep}\.{place + 1}"
        rules += TORCH.conv_norm(rf"{deep}\.{place}", after, f"backbone/stem{conv_id}")
    return tuple(rules)


def _width(shapes: ArrayShapes, prefix: str, unit: str) -> dict[str, Any]:
    """Groups and their width, where they are not the plain network's."""
    if unit == "basic":
        return {}
    inner, group_width = require(shapes, f"{prefix}layer1.0.conv2.weight")[:2]
    if (inner, group_width) == (64, 64):
        return {}
    return {"groups": inner // group_width, "group_width": group_width}


def _deep_stem(shapes: ArrayShapes, name: str) -> str:
    channels = [shapes.get(f"{name}.{place}.weight", (0,))[0] for place in (0, 3, 6)]
    if channels[0] not in _DEEP_STEMS or channels[1:] != [channels[0], 2 * channels[0]]:
        raise ValueError(f"'{name}' has {channels} channels; there are stems of 32, 32, 64 and 64, 64, 128")
    return _DEEP_STEMS[channels[0]]
