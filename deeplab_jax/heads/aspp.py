"""DeepLab v3's head: atrous spatial pyramid pooling with image-level features (1706.05587, sec. 3.3)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from deeplab_jax.nn.layers import AtrousConv, ConvNorm, SeparableConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import scaled_rate
from deeplab_jax.ops.pooling import average_pool
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import FeatureInfo, Features, Logits

RATES_OUTPUT_STRIDE = 16  # the output stride for which rates are given, as in the papers


@dataclasses.dataclass(kw_only=True)
class ASPPFields:
    """Fields shared by ASPP and the heads that contain it.

    Attributes:
      atrous_rates: of the 3x3 branches; empty: only image pooling and 1x1, as for MobileNet.
      rates_output_stride: the output stride that the rates are given at, from which they scale to keep their extent in
        the image; 0: they are in cells, whatever the stride (segmentation_models.pytorch).
      separable: depthwise separable 3x3 branches (v3+).
      inner_norm: of separable branches; see SeparableConvNorm.
      projection_kernel_size: of the convolution after the concatenation: 1, or 3 (mmsegmentation).
      pooling_size: (height, width) in image pixels of image pooling's window, as TF deeplab's image_pooling_crop_size;
        (0, 0): the whole image.
      pooling_norm: batch norm in image pooling; False: a bias instead (detectron2).
    """

    atrous_rates: tuple[int, ...] = (6, 12, 18)
    rates_output_stride: int = RATES_OUTPUT_STRIDE
    separable: bool = False
    inner_norm: bool = True
    projection_kernel_size: int = 1
    pooling_size: tuple[int, int] = (0, 0)
    pooling_norm: bool = True
    dropout: float = 0.1
    epsilon: float = 1e-5


class ASPP(ASPPFields, nn.Module):
    """Image pooling, a 1x1 and several atrous 3x3 convolutions in parallel, concatenated and projected.

    Attributes:
      output_stride: of the input features; rates given at 16 are doubled at 8, halved at 32.
    """

    output_stride: int
    channels: int = 256
    align_corners: bool = True
    options: LayerOptions = LayerOptions()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w d"]:
        shared: dict[str, Any] = {"epsilon": self.epsilon, "options": self.options}
        branches = [
            self._image_pooling(x, train=train),
            ConvNorm(self.channels, name="aspp0", **shared)(x, train=train),
        ]
        conv = conv3x3(self.separable, self.inner_norm)
        for branch_id, nominal_rate in enumerate(self.atrous_rates, start=1):
            given_at = self.rates_output_stride or self.output_stride
            rate = scaled_rate(nominal_rate, given_at=given_at, output_stride=self.output_stride)
            branches.append(conv(self.channels, rate=rate, name=f"aspp{branch_id}", **shared)(x, train=train))
        projection = ConvNorm(self.channels, self.projection_kernel_size, name="projection", **shared)
        x = projection(jnp.concatenate(branches, axis=-1), train=train)
        return nn.Dropout(self.dropout, deterministic=not train)(x)

    def _image_pooling(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w d"]:
        size = x.shape[1], x.shape[2]
        if self.pooling_size == (0, 0):
            pooled = x.astype(jnp.float32).mean((1, 2), keepdims=True)
        else:
            cells = [(pixels - 1) // self.output_stride + 1 for pixels in self.pooling_size]
            pooled = average_pool(x, (min(cells[0], size[0]), min(cells[1], size[1])))
        if self.pooling_norm:
            conv = ConvNorm(self.channels, epsilon=self.epsilon, options=self.options, name="image_pooling")
            pooled = conv(pooled, train=train)
        else:
            biased = AtrousConv(self.channels, use_bias=True, dtype=self.options.dtype, name="image_pooling")
            pooled = nn.relu(biased(pooled))
        return resize_bilinear(pooled, size, align_corners=self.align_corners)


class ASPPHead(ASPPFields, nn.Module):
    """DeepLab v3: ASPP on the deepest features, then logits at their stride.

    Attributes:
      num_refinements: 3x3 convolutions after ASPP: none in the papers, one in torchvision and
        segmentation_models.pytorch.
      logits_stddev: of the last kernel's initial values; TF deeplab's 0.01 suits pretrained backbones and long
        schedules, a network trained from scratch in few steps needs about 1 / sqrt(channels).
      others: as for `ASPP`.
    """

    num_classes: int
    feature_info: tuple[FeatureInfo, ...]
    align_corners: bool
    options: LayerOptions = LayerOptions()
    aspp_channels: int = 256
    num_refinements: int = 0
    logits_stddev: float = 0.01

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> Logits:
        return logits_layer(self.num_classes, self.logits_stddev)(self.encode(features, train=train))

    def encode(self, features: Features, *, train: bool) -> Float[Array, "b h w d"]:
        """ASPP and its refinements; call it inside a compact method."""
        deepest = self.feature_info[-1]
        pyramid = self._pyramid(deepest.stride)
        x = pyramid(features[deepest.name], train=train)
        conv = conv3x3(self.separable, self.inner_norm)
        for conv_id in range(self.num_refinements):
            refinement = conv(self.aspp_channels, epsilon=self.epsilon, options=self.options, name=f"refine{conv_id}")
            x = refinement(x, train=train)
        return x

    def _pyramid(self, output_stride: int) -> nn.Module:
        return ASPP(output_stride=output_stride, channels=self.aspp_channels, **common_fields(self, ASPP), name="aspp")


def common_fields(head: nn.Module, part: type[nn.Module]) -> dict[str, Any]:
    """Name -> value of the fields that `head` and `part` share."""
    names = {each.name for each in dataclasses.fields(part)} - {"parent", "name"}
    return {each.name: getattr(head, each.name) for each in dataclasses.fields(head) if each.name in names}


def rates_in_cells(arguments: Mapping[str, Any], output_stride: int) -> tuple[int, ...]:
    """The rates of a head with these arguments, as its convolutions have them at this output stride."""
    given_at = arguments.get("rates_output_stride", RATES_OUTPUT_STRIDE) or output_stride
    return tuple(rate * given_at // output_stride for rate in arguments.get("atrous_rates") or ())


def conv3x3(separable: bool, inner_norm: bool = True) -> Callable[..., nn.Module]:
    """Constructor of a head's 3x3 convolution with norm and ReLU."""
    if separable:
        return functools.partial(SeparableConvNorm, inner_norm=inner_norm)
    return functools.partial(ConvNorm, kernel_size=3)


def logits_layer(num_classes: int, stddev: float) -> AtrousConv:
    """The last 1x1 convolution, in float32 whatever the compute dtype."""
    return AtrousConv(num_classes, use_bias=True, kernel_init=normal(stddev), name="logits")


aspp = ASPPHead  # spelled as configs spell it
