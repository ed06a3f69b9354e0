"""timm's networks of depthwise blocks, which share their names: MobileNetV1, V2, V3 and EfficientNet."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab_jax.types import ArrayShapes, WeightRule
from deeplab_jax.weights.names import TORCH, require
from deeplab_jax.weights.torch_efficientnets import efficientnet_name, numbered, squeeze_rules
from deeplab_jax.weights.torch_parts import Backbone

UNUSED = r"(conv_head|bn2|classifier)\..*"  # names behind the blocks, of its classifier
# What MobileNetV3 and EfficientNet have otherwise in timm's ports from TensorFlow, 'tf_...': no array shows it.
PORTED: Mapping[str, Any] = {"padding": "tf_same", "epsilon": 1e-3}
_V2_REPEATS = (1, 2, 3, 4, 3, 3, 1)
_V2_CHANNELS, _V1_CHANNELS = 320, 1024  # of the last block, at width 1
_V1_BLOCKS = 13
_V3S = {7: ("mobilenet_v3.mobilenet_v3_large", 960), 6: ("mobilenet_v3.mobilenet_v3_small", 576)}  # by stages
_Place = tuple[int, ...]  # stage, block in it


def mobile(shapes: ArrayShapes, prefix: str) -> Backbone:
    """The network whose names begin with `prefix`.

    Raises:
      ValueError: where they are of none that is here.
    """
    require(shapes, f"{prefix}conv_stem.weight")
    start = re.escape(prefix)
    places = numbered(shapes, rf"{start}blocks\.(\d+)\.(\d+)\..*\.weight")
    name, arguments = _kind(shapes, f"{prefix}blocks.", places)
    separator = "_" if name == "mobilenet_v1.mobilenet_v1" else "/"
    point = "pointwise" if separator == "_" else "project"
    rules = [*TORCH.conv_norm(f"{start}conv_stem", f"{start}bn1", "backbone/stem")]
    for block_id, (stage, index) in enumerate(places):
        block, target = rf"{start}blocks\.{stage}\.{index}\.", f"backbone/block{block_id}{separator}"
        if f"{prefix}blocks.{stage}.{index}.conv.weight" in shapes:
            rules += TORCH.conv_norm(f"{block}conv", f"{block}bn1", "backbone/last")
        elif f"{prefix}blocks.{stage}.{index}.conv_pwl.weight" in shapes:
            rules += TORCH.conv_norm(f"{block}conv_pw", f"{block}bn1", f"{target}expand")
            rules += TORCH.depthwise_norm(f"{block}conv_dw", f"{block}bn2", f"{target}depthwise")
            rules += TORCH.conv_norm(f"{block}conv_pwl", f"{block}bn3", f"{target}project")
        else:
            rules += TORCH.depthwise_norm(f"{block}conv_dw", f"{block}bn1", f"{target}depthwise")
            rules += TORCH.conv_norm(f"{block}conv_pw", f"{block}bn2", f"{target}{point}")
        rules += _squeeze(block, target)
    return Backbone(name, arguments, tuple(rules))


def ported(name: str) -> Mapping[str, Any]:
    """PORTED, where timm has a port of the backbone that is called `name` here."""
    return PORTED if name.startswith(("mobilenet_v3.", "efficientnet.")) else {}


def _squeeze(block: str, target: str) -> tuple[WeightRule, ...]:
    return squeeze_rules(rf"{block}se\.conv_reduce", rf"{block}se\.conv_expand", f"{target}squeeze_excite")


def _kind(shapes: ArrayShapes, blocks: str, places: Sequence[_Place]) -> tuple[str, dict[str, Any]]:
    """Our name and arguments of the network with blocks in these places."""
    stages = [stage for stage, _ in places]
    repeats = tuple(stages.count(stage) for stage in sorted(set(stages)))
    last = f"{blocks}{places[-1][0]}.{places[-1][1]}."

    def channels(conv: str) -> int:
        return require(shapes, f"{last}{conv}.weight")[0]

    if f"{last}conv.weight" in shapes and len(repeats) in _V3S:
        name, nominal = _V3S[len(repeats)]
        gated = any(part.startswith(blocks) and ".se." in part for part in shapes)
        return name, {"width": channels("conv") / nominal, "minimalistic": not gated}
    if f"{blocks}0.0.se.conv_reduce.weight" in shapes:
        return efficientnet_name(len(places), channels("conv_pwl")), {}
    if repeats == _V2_REPEATS and f"{last}conv_pwl.weight" in shapes:
        return "mobilenet_v2.mobilenet_v2", {"width": channels("conv_pwl") / _V2_CHANNELS}
    if len(places) == _V1_BLOCKS and f"{last}conv_pwl.weight" not in shapes:
        return "mobilenet_v1.mobilenet_v1", {"width": channels("conv_pw") / _V1_CHANNELS}
    raise ValueError(
        f"'{blocks}' has stages of {repeats} blocks: there are MobileNetV1, V2, V3 and EfficientNet-B0 to B7"
    )
