"""KerasHub: DeepLab v3+ on ResNet, from a `.weights.h5` of its segmenter (a preset's `task.weights.h5`).

Keras 3 calls a layer by its class and its number among those of its class, in the order of the graph: in a bottleneck
that projects its input, the shortcut's convolution comes third; in a basic unit, second. The network ends at output
stride 32, the rates are in cells there, the decoder's convolution is 1x1, and images must be multiples of 32 for it.

Source: keras_hub/src/models/{deeplab_v3/{deeplab_v3_backbone,deeplab_v3_layers,deeplab_v3_segmenter},
resnet/resnet_backbone}.py of keras-team/keras-hub.
"""

from __future__ import annotations

from collections.abc import Iterator

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import Naming, count, require

_PRESET = PRESETS["keras_hub"]
_NAMING = Naming(
    kernel="/vars/0",
    depthwise_kernel="/vars/0",
    bias="/vars/1",
    norm=("/vars/0", "/vars/1", "/vars/2", "/vars/3"),
    axes="copy",
    depthwise_axes="hwc1",
)
_NETWORK = "layers/deep_lab_v3_backbone/layers/"
_ENCODER, _PYRAMID = f"{_NETWORK}functional/layers/", f"{_NETWORK}spatial_pyramid_pooling/"
_UNITS = {  # number of convolutions -> ours, and its units
    20: ("resnet18", (2, 2, 2, 2)),
    36: ("resnet34", (3, 4, 6, 3)),
    53: ("resnet50", (3, 4, 6, 3)),
    104: ("resnet101", (3, 4, 23, 3)),
    155: ("resnet152", (3, 8, 36, 3)),
}


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not KerasHub's, or its encoder is none of the plain ResNets.
    """
    num_classes = require(shapes, "layers/conv2d/vars/0")[3]
    low_level = require(shapes, f"{_NETWORK}conv2d/vars/0")[3]
    channels = require(shapes, f"{_PYRAMID}projection/layers/conv2d/vars/0")[3]
    num_convs = count(shapes, rf"{_ENCODER}(conv2d\w*)/vars/0")
    if num_convs not in _UNITS or require(shapes, f"{_ENCODER}conv2d/vars/0")[0] != 7:
        known = ", ".join(f"{number}: {name}" for number, (name, _) in _UNITS.items())
        raise ValueError(f"'{_ENCODER}conv2d' and on are {num_convs} convolutions; there are {known}, of 7x7 first")
    name, num_units = _UNITS[num_convs]
    rules = [*_numbered(_ENCODER, 0, "backbone/stem")]
    for number, target in enumerate(_convolutions(num_units, num_convs < 53), start=1):
        rules += _numbered(_ENCODER, number, target)
    for branch in range(count(shapes, rf"{_PYRAMID}aspp_parallel_channels/(\w+)/.*") - 1):
        rules += _numbered(f"{_branch(branch)}/layers/", 0, f"head/aspp/aspp{branch}")
    rules += _numbered(f"{_branch(branch + 1)}/layers/", 0, "head/aspp/image_pooling")
    rules += _numbered(f"{_PYRAMID}projection/layers/", 0, "head/aspp/projection", channels="pool_last")
    rules += _numbered(_NETWORK, 0, "head/low_level")
    rules += _numbered(_NETWORK, 1, "head/decoder0")
    rules += _NAMING.conv("layers/conv2d", "head/logits")
    model = _PRESET.model(
        num_classes=num_classes,
        output_stride=32,
        backbone=_PRESET.part(f"resnet.{name}"),
        head=_PRESET.part("v3plus.v3plus", aspp_channels=channels, low_level_channels=low_level),
    )
    return WeightLayout(tuple(rules), (), model)


def _convolutions(num_units: tuple[int, ...], is_basic: bool) -> Iterator[str]:
    """Our paths of the convolutions after the stem, in the order of the graph."""
    for stage_id, number in enumerate(num_units, start=1):
        for unit_id in range(1, number + 1):
            names = ["conv1", "conv2"] if is_basic else ["conv1", "conv2", "conv3"]
            if unit_id == 1 and not (is_basic and stage_id == 1):
                names.insert(len(names) - 1, "shortcut")
            yield from (f"backbone/block{stage_id}_unit{unit_id}/{name}" for name in names)


def _branch(number: int) -> str:
    return f"{_PYRAMID}aspp_parallel_channels/{_numeral('sequential', number)}"


def _numbered(prefix: str, number: int, target: str, *, channels: str = "") -> tuple[WeightRule, ...]:
    """The convolution and the batch norm of this number under `prefix`."""
    conv, norm = (prefix + _numeral(kind, number) for kind in ("conv2d", "batch_normalization"))
    return _NAMING.conv_norm(conv, norm, target, channels=channels)


def _numeral(kind: str, number: int) -> str:
    return f"{kind}_{number}" if number else kind
