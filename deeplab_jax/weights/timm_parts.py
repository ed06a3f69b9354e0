"""Backbones as timm names them, in a file of its own or inside another system's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from deeplab_jax.types import ArrayShapes, WeightRule
from deeplab_jax.weights.names import TORCH, count
from deeplab_jax.weights.timm_mobiles import mobile
from deeplab_jax.weights.torch_parts import Backbone, known
from deeplab_jax.weights.torch_resnets import resnet, resnet_rules

_XCEPTIONS = {13: "xception.xception41", 21: "xception.xception65", 23: "xception.xception71"}  # by blocks
_XCEPTION71_BLOCKS = 23
_RESNETS = (
    "resnet18",
    "resnet26",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x8d",
)
# Ours -> timm's.
NAMES: Mapping[str, str] = {
    **{f"resnet.{name}": name for name in _RESNETS},
    "resnet.resnet50_d": "resnet50d",
    "resnet.resnet101_d": "resnet101d",
    **{name: name.partition(".")[2] for name in _XCEPTIONS.values()},
}


def backbone(shapes: ArrayShapes, prefix: str, dot: str = ".") -> Backbone:
    """The backbone whose names begin with `prefix`.

    Args:
      dot: what separates a list's name from a number: '_' where timm extracts features.

    Raises:
      ValueError: where they are of none that is here.
    """
    start = re.escape(prefix)
    if f"{prefix}stem{dot}0.conv.weight" in shapes:
        name = xception_name(shapes, start)
        return Backbone(name, {}, xception_rules(name, start, re.escape(dot)))
    if f"{prefix}conv_stem.weight" in shapes:
        return mobile(shapes, prefix)
    return resnet(shapes, prefix, average="average_dense")


def named_backbone(name: str, prefix: str, dot: str = ".") -> Backbone:
    """The one that is called `name` here, one of NAMES; `prefix` and `dot` as above."""
    start = re.escape(prefix)
    if name.startswith("xception."):
        return Backbone(name, {}, xception_rules(name, start, re.escape(dot)))
    if name.endswith("_d"):
        rules = resnet_rules(prefix, deep=rf"{start}conv1", norm="bn1", average=True)
        return Backbone(name, {"stem": "v1c", "shortcut": "average_dense"}, rules)
    return Backbone(name, {}, resnet_rules(prefix))


def xception_rules(name: str, prefix: str, dot: str = r"\.") -> tuple[WeightRule, ...]:
    """timm's aligned Xception, called `name` here, with blocks numbered through all three flows.

    Args:
      prefix: of its names, a regular expression without groups.
      dot: separates a flow's name from a number, likewise.
    """
    num_blocks = next(count for count, known in _XCEPTIONS.items() if known == name)
    num_entry_blocks = 5 if num_blocks == _XCEPTION71_BLOCKS else 3
    middle = range(num_entry_blocks, num_blocks - 2)
    flows = (
        (range(num_entry_blocks), "entry_block{1+1}"),
        (middle, f"middle_unit{{1-{num_entry_blocks - 1}}}"),
        (range(middle.stop, num_blocks), f"exit_block{{1-{middle.stop - 1}}}"),
    )
    stem = rf"{prefix}stem{dot}(\d)\."
    rules = [*TORCH.conv_norm(f"{stem}conv", f"{stem}bn", "backbone/entry_conv{1+1}")]
    for block_ids, unit in flows:
        block = rf"{prefix}blocks{dot}({'|'.join(map(str, block_ids))})\."
        conv, module = rf"{block}stack\.conv(\d)\.", f"backbone/{unit}/separable_conv{{2}}"
        rules += TORCH.conv_norm(rf"{block}shortcut\.conv", rf"{block}shortcut\.bn", f"backbone/{unit}/shortcut")
        rules += TORCH.depthwise_norm(f"{conv}conv_dw", f"{conv}bn_dw", f"{module}/depthwise")
        rules += TORCH.conv_norm(f"{conv}conv_pw", f"{conv}bn_pw", f"{module}/pointwise")
    return tuple(rules)


def xception_name(shapes: ArrayShapes, prefix: str) -> str:
    """Our name of the Xception; `prefix` as above.

    Raises:
      ValueError: where they are of none.
    """
    num_blocks = count(shapes, rf"{prefix}blocks[._](\d+)\.stack\.conv1\.bn_dw\.weight")
    return known(_XCEPTIONS, num_blocks, f"'{prefix}' has {num_blocks} blocks of an Xception with plain activations")
