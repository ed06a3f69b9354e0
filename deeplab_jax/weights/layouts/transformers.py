"""transformers: its port of TensorFlow's MobileNetV2, as DeepLab v3 without atrous branches and for ImageNet."""

from __future__ import annotations

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import TORCH_COUNTERS, Naming, require
from deeplab_jax.weights.torch_parts import mobilenet_v2_width

_PRESET = PRESETS["tf_slim"]
_NAMING = Naming(
    kernel=r"\.convolution\.weight",
    depthwise_kernel=r"\.convolution\.weight",
    bias=r"\.convolution\.bias",
    norm=(
        r"\.normalization\.weight",
        r"\.normalization\.bias",
        r"\.normalization\.running_mean",
        r"\.normalization\.running_var",
    ),
    axes="oihw",
    depthwise_axes="oihw",
)
_IGNORED = (r"mobilenet_v2\.conv_1x1\..*", r"classifier\.(weight|bias)", TORCH_COUNTERS)


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Its networks end at the head's stride, and the system's upsampling has half-pixel centres; ours follows TensorFlow,
    which the weights were trained with.

    Raises:
      ValueError: when the names are not those of transformers.
    """
    width = mobilenet_v2_width(shapes, "mobilenet_v2.layer.15.reduce_1x1.convolution.weight")
    model = _PRESET.model(backbone=_PRESET.part("mobilenet_v2.mobilenet_v2", width=width))
    rules = _backbone_rules()
    if "segmentation_head.classifier.convolution.weight" in shapes:
        rules += _head_rules()
        model["num_classes"] = shapes["segmentation_head.classifier.convolution.weight"][0]
        model["output_stride"] = 16  # of the published network; the file does not say
        channels = require(shapes, "segmentation_head.conv_aspp.convolution.weight")[0]
        model["head"] = _PRESET.part("aspp.aspp", atrous_rates=(), aspp_channels=channels)
    return WeightLayout(rules, _IGNORED, model)


def _backbone_rules() -> tuple[WeightRule, ...]:
    stem, block = r"mobilenet_v2\.conv_stem\.", r"mobilenet_v2\.layer\.(\d+)\."
    return (
        *_conv_norm(f"{stem}first_conv", "backbone/stem"),
        *_depthwise_norm(f"{stem}conv_3x3", "backbone/block0/depthwise"),
        *_conv_norm(f"{stem}reduce_1x1", "backbone/block0/project"),
        *_conv_norm(f"{block}expand_1x1", "backbone/block{1+1}/expand"),
        *_depthwise_norm(f"{block}conv_3x3", "backbone/block{1+1}/depthwise"),
        *_conv_norm(f"{block}reduce_1x1", "backbone/block{1+1}/project"),
    )


def _head_rules() -> tuple[WeightRule, ...]:
    head = r"segmentation_head\."
    return (
        *_conv_norm(f"{head}conv_pool", "head/aspp/image_pooling"),
        *_conv_norm(f"{head}conv_aspp", "head/aspp/aspp0"),
        *_conv_norm(f"{head}conv_projection", "head/aspp/projection"),
        *_NAMING.conv(f"{head}classifier", "head/logits", bias=True),
    )


def _conv_norm(source: str, target: str) -> tuple[WeightRule, ...]:
    return _NAMING.conv_norm(source, source, target)


def _depthwise_norm(source: str, target: str) -> tuple[WeightRule, ...]:
    return _NAMING.depthwise_norm(source, source, target)
