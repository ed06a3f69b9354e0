"""The aligned Xception of DeepLab v3+ (1802.02611, sec. 3.2 and fig. 4): separable convolutions throughout."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan, atrous_plan
from deeplab_jax.types import FeatureInfo, Features

_ENTRY_CONVS = (32, 64)
_MIDDLE_CHANNELS = 728
_EXIT_BLOCKS = (((728, 1024, 1024), 2), ((1536, 1536, 2048), 1))  # channels of the three convolutions, stride
_LAST_BLOCK = "exit_block2"


class SeparableConv(nn.Module):
    """3x3 depthwise convolution and batch norm, 1x1 convolution and batch norm.

    Attributes:
      pre_activation: True: one ReLU before everything, so the output is linear; False: a ReLU after each batch norm.
    """

    features: int
    stride: int
    rate: int
    pre_activation: bool
    padding: str
    epsilon: float
    options: LayerOptions

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        shared: dict[str, Any] = {
            "activation": "none" if self.pre_activation else "relu",
            "padding": self.padding,
            "epsilon": self.epsilon,
            "options": self.options,
        }
        if self.pre_activation:
            x = nn.relu(x)
        x = ConvNorm(0, 3, stride=self.stride, rate=self.rate, name="depthwise", **shared)(x, train=train)
        return ConvNorm(self.features, name="pointwise", **shared)(x, train=train)


class XceptionUnit(nn.Module):
    """Three separable convolutions, the last one strided, and a skip connection.

    Attributes:
      plan: stride of the last convolution, rate of all three.
      skip: 'conv': adds the projected input; 'sum': adds the input; 'none': no skip connection.
      pre_activation: see `SeparableConv`.
      multi_grid: factors on the rates of the three.

    Returns:
      The unit's output, and that of its second convolution: the last map at the stride of the input.
    """

    features: tuple[int, int, int]
    plan: UnitPlan
    skip: str
    pre_activation: bool
    multi_grid: tuple[int, int, int]
    padding: str
    epsilon: float
    options: LayerOptions

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool
    ) -> tuple[Float[Array, "b h2 w2 d"], Float[Array, "b h w e"]]:
        shared: dict[str, Any] = {"padding": self.padding, "epsilon": self.epsilon, "options": self.options}
        stride, rate = self.plan.stride, self.plan.rate
        y, outputs = x, []
        for conv_id, (features, factor) in enumerate(zip(self.features, self.multi_grid, strict=True), start=1):
            conv = SeparableConv(
                features,
                stride=stride if conv_id == 3 else 1,
                rate=rate * factor,
                pre_activation=self.pre_activation,
                name=f"separable_conv{conv_id}",
                **shared,
            )
            y = conv(y, train=train)
            outputs.append(y)
        if self.skip == "conv":
            shortcut = ConvNorm(self.features[-1], stride=stride, activation="none", name="shortcut", **shared)
            y = y + shortcut(x, train=train)
        elif self.skip == "sum":
            y = y + x
        return y, outputs[1]


class Xception(nn.Module):
    """Features at strides 4, 8, ... up to `output_stride`.

    The deepest features come from the last unit, after its ReLU. The others come from the second separable convolution
    of the unit that takes the next stride: after its batch norm and, as in TF deeplab's decoder, before any ReLU.

    Attributes:
      entry_blocks: channels and stride of each block of the entry flow.
      output_stride: 8, 16 or 32; further strides become atrous rates.
      multi_grid: factors on the rates of the last block's three convolutions.
      padding: of strided convolutions, 'tf_same' or 'symmetric' (TF deeplab's fixed padding).
      stem_padding: of the first of them; '': as `padding`.
      low_level_tap: all features but the deepest are 'linear', or taken after the following 'relu' (timm).
      width: multiplier on all channels.

    Raises:
      ValueError: from `feature_info` and the call, for an unknown option or a multi-grid without exactly three factors.

    Source: 1610.02357 for the three flows; TF deeplab for strides, skips and the places of the ReLUs.
    """

    entry_blocks: tuple[tuple[int, int], ...]
    num_middle_units: int
    output_stride: int
    options: LayerOptions = LayerOptions()
    multi_grid: tuple[int, int, int] = (1, 1, 1)
    padding: str = "symmetric"
    stem_padding: str = ""
    low_level_tap: str = "linear"
    epsilon: float = 1e-3
    width: float = 1.0

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        units = self._units()
        infos = [
            FeatureInfo(f"stride{stride}", features[1], stride)
            for _, features, plan in units
            if (stride := _stride_left(plan))
        ]
        return *infos, FeatureInfo(f"stride{self.output_stride}", units[-1][1][-1], self.output_stride)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w bands"], *, train: bool) -> Features:
        units = self._units()
        shared: dict[str, Any] = {"padding": self.padding, "epsilon": self.epsilon, "options": self.options}
        stem = shared | {"padding": self.stem_padding or self.padding}
        for conv_id, channels in enumerate(_ENTRY_CONVS, start=1):
            stride = 2 if conv_id == 1 else 1
            conv = ConvNorm(self._channels(channels), 3, stride=stride, name=f"entry_conv{conv_id}", **stem)
            x = conv(x, train=train)
        features = {}
        for name, widths, plan in units:
            is_last = name == _LAST_BLOCK
            unit = XceptionUnit(
                widths,
                plan,
                skip="none" if is_last else "sum" if name.startswith("middle") else "conv",
                pre_activation=not is_last,
                multi_grid=self.multi_grid if is_last else (1, 1, 1),
                name=name,
                **shared,
            )
            x, tap = unit(x, train=train)
            if stride := _stride_left(plan):
                features[f"stride{stride}"] = nn.relu(tap) if self.low_level_tap == "relu" else tap
        return {**features, f"stride{self.output_stride}": x}

    def _units(self) -> list[tuple[str, tuple[int, int, int], UnitPlan]]:
        """Name, channels of the three convolutions, and plan of each unit."""
        if len(self.multi_grid) != 3:
            wanted = "3 factors, one for each convolution of the last block"
            raise ValueError(f"multi_grid={tuple(self.multi_grid)} must have {wanted}")
        if self.low_level_tap not in ("linear", "relu"):
            raise ValueError(f"low_level_tap='{self.low_level_tap}' must be 'linear' or 'relu'")
        blocks = [
            (f"entry_block{block_id}", (channels,) * 3, stride)
            for block_id, (channels, stride) in enumerate(self.entry_blocks, start=1)
        ]
        blocks += [(f"middle_unit{i}", (_MIDDLE_CHANNELS,) * 3, 1) for i in range(1, self.num_middle_units + 1)]
        blocks += [(f"exit_block{i}", channels, stride) for i, (channels, stride) in enumerate(_EXIT_BLOCKS, start=1)]
        plans = atrous_plan([block[2] for block in blocks], output_stride=self.output_stride, stem_stride=2)
        return [
            (name, (self._channels(first), self._channels(second), self._channels(third)), plan)
            for (name, (first, second, third), _), plan in zip(blocks, plans, strict=True)
        ]

    def _channels(self, nominal: int) -> int:
        return max(1, round(nominal * self.width))


def _stride_left(plan: UnitPlan) -> int:
    """The stride of a unit's input if the unit is strided and its features are returned, else 0."""
    stride = plan.output_stride // plan.stride
    return stride if plan.stride > 1 and stride >= 4 else 0


_ENTRY_BLOCKS = ((128, 2), (256, 2), (728, 2))
xception41 = functools.partial(Xception, entry_blocks=_ENTRY_BLOCKS, num_middle_units=8)
xception65 = functools.partial(Xception, entry_blocks=_ENTRY_BLOCKS, num_middle_units=16)
xception71 = functools.partial(
    Xception, entry_blocks=((128, 2), (256, 1), (256, 2), (728, 1), (728, 2)), num_middle_units=16
)
