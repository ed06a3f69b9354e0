"""GluonCV: MobileNetV2 of ImageNet, batch norm included, as named arrays."""

from __future__ import annotations

from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import Naming, require

_NAMING = Naming(
    kernel="_weight",
    depthwise_kernel="_weight",
    bias="_bias",
    norm=("_gamma", "_beta", "_running_mean", "_running_var"),
    axes="oihw",
    depthwise_axes="oihw",
)


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these names.

    Raises:
      ValueError: where they are not GluonCV's.
    """
    stem_channels = require(shapes, "mobilenetv20_features_conv0_weight")[0]
    args = {"padding": "symmetric", "expand_first": True, "epsilon": 1e-5, "width": stem_channels / 32}
    return WeightLayout(
        rules=_rules(),
        ignored=(r"mobilenetv20_features_(conv|batchnorm)1_.*", r"mobilenetv20_output_.*"),
        model={
            "backbone": {"name": "mobilenet_v2.mobilenet_v2", "args": args},
            "normalization": "imagenet",
        },
    )


def _rules() -> tuple[WeightRule, ...]:
    start = "mobilenetv20_features_"
    block = start + r"linearbottleneck(\d+)_"
    return (
        *_NAMING.conv_norm(f"{start}conv0", f"{start}batchnorm0", "backbone/stem"),
        *_NAMING.conv_norm(f"{block}conv0", f"{block}batchnorm0", "backbone/block{1}/expand"),
        *_NAMING.depthwise_norm(f"{block}conv1", f"{block}batchnorm1", "backbone/block{1}/depthwise"),
        *_NAMING.conv_norm(f"{block}conv2", f"{block}batchnorm2", "backbone/block{1}/project"),
    )
