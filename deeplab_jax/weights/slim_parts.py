"""Names of network parts from TF-slim: MobileNetV2, the aligned Xception, ASPP and decoder.

TensorFlow checkpoints, TFLite models and Keras ports use the same layer names but different array names, so each
function here takes a function that names a layer's arrays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from deeplab_jax.presets import Preset
from deeplab_jax.types import ArrayShapes, WeightRule
from deeplab_jax.weights.names import Naming

# (source, target, depthwise) -> rules for our ConvNorm `target`; `source` matches the convolution's name.
LayerRules = Callable[[str, str, bool], tuple[WeightRule, ...]]

_ATROUS_RATES = (6, 12, 18)  # at output stride 16, as the published networks were trained
_CELL = "meta_architecture/"  # the scope of the dense prediction cell
_LAST_CHANNELS = 320  # of MobileNetV2's last block at width 1


def normed_layers(naming: Naming, norm: str) -> LayerRules:
    """Layers whose batch norm is named like the convolution, followed by `norm`."""

    def rules(source: str, target: str, depthwise: bool) -> tuple[WeightRule, ...]:
        make = naming.depthwise_norm if depthwise else naming.conv_norm
        return make(source, source + norm, target)

    return rules


def folded_layers(dense: tuple[str, str], depthwise: tuple[str, str]) -> LayerRules:
    """Layers with folded batch norm, in TFLite's axis order.

    Args:
      dense: name suffixes of a kernel and its bias.
      depthwise: the same for depthwise kernels.
    """

    def rules(source: str, target: str, is_depthwise: bool) -> tuple[WeightRule, ...]:
        kernel, bias = depthwise if is_depthwise else dense
        leaf, axes = ("depthwise_kernel", "1hwc") if is_depthwise else ("kernel", "ohwi")
        return (
            WeightRule(source + kernel, f"params/{target}/conv/{leaf}", axes),
            WeightRule(source + bias, f"params/{target}/norm/bias", "copy"),
        )

    return rules


def mobilenet_v2_rules(layer: LayerRules, start: str, separator: str) -> tuple[WeightRule, ...]:
    """MobileNetV2, with names that begin with `start`."""
    first, block = f"{start}expanded_conv{separator}", rf"{start}expanded_conv_(\d+){separator}"
    return (
        *layer(f"{start}Conv", "backbone/stem", False),
        *layer(f"{first}project", "backbone/block0/project", False),
        *layer(f"{first}depthwise", "backbone/block0/depthwise", True),
        *layer(f"{block}(expand|project)", "backbone/block{1}/{2}", False),
        *layer(f"{block}depthwise", "backbone/block{1}/depthwise", True),
    )


def mobilenet_v2_args(shapes: ArrayShapes, project: str, axis: int) -> dict[str, Any]:
    """Width and channel divisor of a MobileNetV2.

    Args:
      project: pattern of the projection kernels' names, with the block's number as its first group.
      axis: the axis of a kernel's output channels.

    Raises:
      ValueError: when the file has no such network.
    """
    matches = {name: re.fullmatch(project, name) for name in shapes}
    channels = {int(match[1]): shapes[name][axis] for name, match in matches.items() if match}
    if sorted(channels) != list(range(1, 17)):
        raise ValueError(f"there are {len(channels)} of the 16 names '{project}'")
    # TF deeplab rounds to integers at any width other than 1, TF-slim's classifiers to multiples of 8.
    divisor = 8 if all(count % 8 == 0 for count in channels.values()) else 1
    return {"width": channels[16] / _LAST_CHANNELS, "divisor": divisor}


def xception_rules(layer: LayerRules, flows: Sequence[tuple[str, str]]) -> tuple[WeightRule, ...]:
    """The aligned Xception except its first two convolutions.

    Args:
      flows: (name prefix of a flow's units, with the unit's number as a group; our name of the unit).
    """
    rules: tuple[WeightRule, ...] = ()
    for start, unit in flows:
        conv, module = rf"{start}separable_conv(\d)_", f"backbone/{unit}/separable_conv{{2}}"
        rules += layer(f"{conv}depthwise", f"{module}/depthwise", True)
        rules += layer(f"{conv}pointwise", f"{module}/pointwise", False)
        rules += layer(f"{start}shortcut", f"backbone/{unit}/shortcut", False)
    return rules


def head_rules(layer: LayerRules, decoder: str = "") -> tuple[WeightRule, ...]:
    """ASPP or the dense prediction cell, and the decoder, whose names begin with `decoder`; without the logits."""
    return (
        *layer(r"(image_pooling|aspp\d)", "head/aspp/{1}", False),
        *layer(r"(aspp\d)_depthwise", "head/aspp/{1}/depthwise", True),
        *layer(r"(aspp\d)_pointwise", "head/aspp/{1}/pointwise", False),
        *layer("concat_projection", "head/aspp/projection", False),
        *layer(rf"{_CELL}branch(\d)_depthwise", "head/dpc/branch{1}/depthwise", True),
        *layer(rf"{_CELL}branch(\d)_pointwise", "head/dpc/branch{1}/pointwise", False),
        *layer(f"{_CELL}concat_projection", "head/dpc/projection", False),
        *layer(f"{decoder}feature_projection0", "head/low_level", False),
        *layer(rf"{decoder}decoder_conv(\d)_depthwise", "head/decoder{1}/depthwise", True),
        *layer(rf"{decoder}decoder_conv(\d)_pointwise", "head/decoder{1}/pointwise", False),
        # Dense convolutions, made by slim.repeat.
        *layer(rf"{decoder}decoder_conv0/decoder_conv0_(\d)", "head/decoder{1-1}", False),
    )


def head_config(shapes: ArrayShapes, preset: Preset, decoder: str = "") -> dict[str, Any]:
    """Config of the head with these names; the rates, not in the file, are those of the published networks."""

    def has(start: str) -> bool:
        return any(name.startswith(start) for name in shapes)

    if has(_CELL):
        return preset.part("dpc.dpc")  # the file does not contain the cell: assume that of the published networks
    separable = has("aspp1_depthwise") or has(f"{decoder}decoder_conv0_depthwise")
    args = {"atrous_rates": _ATROUS_RATES if has("aspp1") else (), "separable": separable}
    return preset.part("v3plus.v3plus" if has(f"{decoder}feature_projection0") else "aspp.aspp", **args)
