"""MobileNetV3's light head, LR-ASPP: an image-level gate in place of ASPP (1905.02244, sec. 6.4)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from deeplab_jax.nn.inverted_residual import GATES
from deeplab_jax.nn.layers import AtrousConv, ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import FeatureInfo, Features, Logits, find_feature


class LRASPPHead(nn.Module):
    """Sum of two classifiers, on the gated deepest and on the low-level features, at the stride of the latter.

        logits = low_logits(low) + resize(high_logits(relu(norm(high(x))) * gate(mean(x))))

    Attributes:
      feature_info: of the backbone; `x` is its deepest map, `low` the one at `low_level_stride`.
      channels: of the gated features.
      low_level_stride: of the second classifier's features, and of the logits.
      gate: its activation, 'sigmoid' (torchvision) or 'hard_sigmoid' (TF deeplab).
      gate_bias: whether its convolution has a bias, as in TF deeplab.
      pooling_size: (height, width) in image pixels of the gate's pooling window, as TF deeplab's
        image_pooling_crop_size; (0, 0): the whole image.
      pooling_strides: strides of these windows, in cells of the deepest features; (4, 5) in TF deeplab.
      logits_stddev: of the classifiers' initial kernels.

    Raises:
      ValueError: when the backbone has no features at `low_level_stride`, or for an unknown gate.

    Source: 1905.02244, sec. 6.4 and fig. 10.
    """

    num_classes: int
    feature_info: tuple[FeatureInfo, ...]
    align_corners: bool
    options: LayerOptions = LayerOptions()
    channels: int = 128
    low_level_stride: int = 8
    gate: str = "sigmoid"
    gate_bias: bool = False
    pooling_size: tuple[int, int] = (0, 0)
    pooling_strides: tuple[int, int] = (1, 1)
    epsilon: float = 1e-5
    logits_stddev: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._low_level()  # rejects a missing feature map when the head is built
        if self.gate not in GATES:
            raise ValueError(f"gate='{self.gate}' must be {' or '.join(map(repr, GATES))}")

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> Logits:
        x, low = features[self.feature_info[-1].name], features[self._low_level().name]
        conv = ConvNorm(self.channels, epsilon=self.epsilon, options=self.options, name="high")
        high = conv(x, train=train) * self._gate(x)
        shared: dict[str, Any] = {"use_bias": True, "kernel_init": normal(self.logits_stddev)}
        # A 1x1 convolution commutes with resizing; classifying first leaves less to resize.
        high_logits = AtrousConv(self.num_classes, name="high_logits", **shared)(high)
        low_logits = AtrousConv(self.num_classes, name="low_logits", **shared)(low)
        size = low.shape[1], low.shape[2]
        return low_logits + resize_bilinear(high_logits, size, align_corners=self.align_corners)

    def _gate(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"] | Float[Array, "b 1 1 d"]:
        conv = AtrousConv(self.channels, use_bias=self.gate_bias, dtype=self.options.dtype, name="gate")
        x = x.astype(jnp.float32)
        if self.pooling_size == (0, 0):
            return GATES[self.gate](conv(x.mean((1, 2), keepdims=True)))
        size = x.shape[1], x.shape[2]
        height, width = (
            min((pixels - 1) // self.feature_info[-1].stride + 1, cells)
            for pixels, cells in zip(self.pooling_size, size, strict=True)
        )
        pooled = nn.avg_pool(x, (height, width), self.pooling_strides)
        return resize_bilinear(GATES[self.gate](conv(pooled)), size, align_corners=self.align_corners)

    def _low_level(self) -> FeatureInfo:
        return find_feature(self.feature_info, f"stride{self.low_level_stride}")


lr_aspp = LRASPPHead  # spelled as configs spell it
