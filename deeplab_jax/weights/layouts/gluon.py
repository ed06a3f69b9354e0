"""GluonCV: ImageNet MobileNetV2 with batch norm, as named arrays."""

from __future__ import annotations

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import Naming, require
from deeplab_jax.weights.slim_parts import mobilenet_v2_args

_PRESET = PRESETS["gluon"]
_START = "mobilenetv20_features_"
_NAMING = Naming(
    kernel="_weight",
    depthwise_kernel="_weight",
    bias="_bias",
    norm=("_gamma", "_beta", "_running_mean", "_running_var"),
    axes="oihw",
    depthwise_axes="oihw",
)


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not GluonCV's.
    """
    require(shapes, f"{_START}conv0_weight")
    args = mobilenet_v2_args(shapes, rf"{_START}linearbottleneck([1-9]\d?)_conv2_weight", axis=0)
    return WeightLayout(
        rules=_rules(),
        ignored=(rf"{_START}(conv|batchnorm)1_.*", r"mobilenetv20_output_.*"),
        model=_PRESET.model(backbone=_PRESET.classifier("mobilenet_v2.mobilenet_v2", **args)),
    )


def _rules() -> tuple[WeightRule, ...]:
    block = rf"{_START}linearbottleneck(\d+)_"
    return (
        *_NAMING.conv_norm(f"{_START}conv0", f"{_START}batchnorm0", "backbone/stem"),
        *_NAMING.conv_norm(f"{block}conv0", f"{block}batchnorm0", "backbone/block{1}/expand"),
        *_NAMING.depthwise_norm(f"{block}conv1", f"{block}batchnorm1", "backbone/block{1}/depthwise"),
        *_NAMING.conv_norm(f"{block}conv2", f"{block}batchnorm2", "backbone/block{1}/project"),
    )
