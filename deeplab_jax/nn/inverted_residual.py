"""Inverted residuals with squeeze-and-excite: the unit of MobileNetV3 (1905.02244) and EfficientNet (1905.11946)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.nn.layers import ACTIVATIONS, AtrousConv, ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan

GATES: Mapping[str, Callable[[Array], Array]] = {"sigmoid": nn.sigmoid, "hard_sigmoid": nn.hard_sigmoid}


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate that two 1x1 convolutions compute from the channel means over the image.

    Attributes:
      squeezed: channels between the two.
      activation: between the two.
      gate: its activation, a key of GATES; MobileNetV3's is hard (sec. 5.2 and 5.3).

    Source: 1709.01507, sec. 3.
    """

    squeezed: int
    options: LayerOptions
    activation: str = "relu"
    gate: str = "hard_sigmoid"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        shared: dict[str, Any] = {"use_bias": True, "dtype": self.options.dtype}
        mean = x.astype(jnp.float32).mean((1, 2), keepdims=True)
        squeezed = ACTIVATIONS[self.activation](AtrousConv(self.squeezed, name="reduce", **shared)(mean))
        gate = GATES[self.gate](AtrousConv(x.shape[-1], name="expand", **shared)(squeezed))
        return x * gate


class SqueezedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze-and-excite, linear 1x1 projection; plus the input if it fits.

    Attributes:
      expanded: channels after the expansion; those of the input: there is none.
      squeezed: channels inside squeeze-and-excite; 0: there is none.
      gate, squeeze_activation: see SqueezeExcite.

    Returns:
      The block's output, and that of its depthwise convolution after the activation.
    """

    kernel_size: int
    expanded: int
    features: int
    squeezed: int
    activation: str
    plan: UnitPlan
    padding: str
    epsilon: float
    options: LayerOptions
    squeeze_activation: str = "relu"
    gate: str = "hard_sigmoid"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool
    ) -> tuple[Float[Array, "b h2 w2 d"], Float[Array, "b h2 w2 e"]]:
        shared: dict[str, Any] = {"activation": self.activation, "epsilon": self.epsilon, "options": self.options}
        y = x
        if self.expanded != x.shape[-1]:
            y = ConvNorm(self.expanded, name="expand", **shared)(y, train=train)
        convolution: dict[str, Any] = {"stride": self.plan.stride, "rate": self.plan.rate, "padding": self.padding}
        depthwise = ConvNorm(0, self.kernel_size, name="depthwise", **convolution, **shared)(y, train=train)
        y = depthwise
        if self.squeezed:
            squeeze: dict[str, Any] = {
                "activation": self.squeeze_activation,
                "gate": self.gate,
                "name": "squeeze_excite",
            }
            y = SqueezeExcite(self.squeezed, self.options, **squeeze)(y)
        y = ConvNorm(self.features, name="project", **shared | {"activation": "none"})(y, train=train)
        # Depends on the nominal stride, as in torchvision, so converting a stride to a rate changes nothing. TF deeplab
        # adds the input here if channels match, which only concerns one block: in MobileNetV3-small's halved tail.
        if self.plan.nominal_stride == 1 and x.shape[-1] == self.features:
            y = x + y
        return y, depthwise


def divisible(exact: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, at least one and never less than 90 % of the exact number of channels."""
    rounded = max(divisor, int(exact + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * exact else rounded + divisor
