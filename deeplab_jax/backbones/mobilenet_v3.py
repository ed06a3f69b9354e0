"""MobileNetV3 (1905.02244, sec. 5 and tables 1 and 2): inverted residuals with squeeze-and-excite and hard swish."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from deeplab_jax.nn.inverted_residual import SqueezedResidual, divisible
from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan, atrous_plan
from deeplab_jax.types import FeatureInfo, Features


class Block(NamedTuple):
    """A row of the paper's tables 1 and 2."""

    kernel_size: int
    expanded: int  # channels after the expansion
    channels: int
    squeeze_excite: bool
    activation: str
    stride: int


_LARGE = (
    Block(3, 16, 16, False, "relu", 1),
    Block(3, 64, 24, False, "relu", 2),
    Block(3, 72, 24, False, "relu", 1),
    Block(5, 72, 40, True, "relu", 2),
    Block(5, 120, 40, True, "relu", 1),
    Block(5, 120, 40, True, "relu", 1),
    Block(3, 240, 80, False, "hard_swish", 2),
    Block(3, 200, 80, False, "hard_swish", 1),
    Block(3, 184, 80, False, "hard_swish", 1),
    Block(3, 184, 80, False, "hard_swish", 1),
    Block(3, 480, 112, True, "hard_swish", 1),
    Block(3, 672, 112, True, "hard_swish", 1),
    Block(5, 672, 160, True, "hard_swish", 2),
    Block(5, 960, 160, True, "hard_swish", 1),
    Block(5, 960, 160, True, "hard_swish", 1),
)
_SMALL = (
    Block(3, 16, 16, True, "relu", 2),
    Block(3, 72, 24, False, "relu", 2),
    Block(3, 88, 24, False, "relu", 1),
    Block(5, 96, 40, True, "hard_swish", 2),
    Block(5, 240, 40, True, "hard_swish", 1),
    Block(5, 240, 40, True, "hard_swish", 1),
    Block(5, 120, 48, True, "hard_swish", 1),
    Block(5, 144, 48, True, "hard_swish", 1),
    Block(5, 288, 96, True, "hard_swish", 2),
    Block(5, 576, 96, True, "hard_swish", 1),
    Block(5, 576, 96, True, "hard_swish", 1),
)
_STEM_CHANNELS = 16
_LAST_EXPANSION = 6
_SQUEEZE_FACTOR = 4
_OPTIONS = {"tail": ("full", "reduced", "seg"), "low_level_tap": ("last", "first", "depthwise")}


class MobileNetV3(nn.Module):
    """Features at strides 4, 8, ... up to `output_stride`; the deepest come from the last convolution.

    Attributes:
      blocks: at width 1.
      output_stride: 8, 16 or 32; further strides become atrous rates.
      width: multiplier on all channels; they are rounded to multiples of 8.
      tail: channels from the last strided block on: 'full'; 'reduced': halved, except that block's expansion
        (torchvision's reduced_tail, TF's detection models); 'seg': halved, including it (TF deeplab's *_seg).
      minimalistic: only ReLU and 3x3 kernels, no squeeze-and-excite, for simple hardware.
      low_level_tap: the feature map of each stride before the deepest: the output of its 'last' block, of its 'first'
        (torchvision's deeplabv3 and lraspp), or of the last block's 'depthwise' convolution (TF deeplab).
      carrier_rate: 'old', or 'new' (torchvision); see `atrous_plan`.
      padding: of strided convolutions, 'tf_same' or 'symmetric' (torchvision).

    Raises:
      ValueError: from `feature_info` and the call, for an unknown option.
    """

    blocks: tuple[Block, ...]
    output_stride: int
    options: LayerOptions = LayerOptions()
    width: float = 1.0
    tail: str = "full"
    minimalistic: bool = False
    low_level_tap: str = "last"
    carrier_rate: str = "old"
    padding: str = "tf_same"
    epsilon: float = 1e-3

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        units = self._units()
        infos = []
        for stride, block_id in self._taps().items():
            block = units[block_id][0]
            channels = block.expanded if self.low_level_tap == "depthwise" else block.channels
            infos.append(FeatureInfo(f"stride{stride}", channels, stride))
        return *infos, FeatureInfo(f"stride{self.output_stride}", self._last_channels(), self.output_stride)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w bands"], *, train: bool) -> Features:
        shared: dict[str, Any] = {"padding": self.padding, "epsilon": self.epsilon, "options": self.options}
        activation = "relu" if self.minimalistic else "hard_swish"
        stem = ConvNorm(self._channels(_STEM_CHANNELS), 3, stride=2, activation=activation, name="stem", **shared)
        x = stem(x, train=train)
        maps = []
        for block_id, (block, plan) in enumerate(self._units()):
            squeezed = divisible(block.expanded / _SQUEEZE_FACTOR) if block.squeeze_excite else 0
            shape = block.kernel_size, block.expanded, block.channels, squeezed, block.activation, plan
            x, depthwise = SqueezedResidual(*shape, name=f"block{block_id}", **shared)(x, train=train)
            maps.append(depthwise if self.low_level_tap == "depthwise" else x)
        features = {f"stride{stride}": maps[block_id] for stride, block_id in self._taps().items()}
        last = ConvNorm(self._last_channels(), activation=activation, name="last", **shared)
        return {**features, f"stride{self.output_stride}": last(x, train=train)}

    def _taps(self) -> dict[int, int]:
        """Stride -> the block that its feature map comes from, for the strides before the deepest."""
        strides = [(plan.output_stride, block_id) for block_id, (_, plan) in enumerate(self._units())]
        # For equal keys a dictionary keeps the last.
        chosen = dict(reversed(strides) if self.low_level_tap == "first" else strides)
        return {stride: chosen[stride] for stride in sorted(chosen) if 4 <= stride < self.output_stride}

    def _units(self) -> list[tuple[Block, UnitPlan]]:
        """Each block with its channels at this width, and its plan."""
        self._check()
        plans = atrous_plan(
            [block.stride for block in self.blocks],
            output_stride=self.output_stride,
            stem_stride=2,
            carrier_rate=self.carrier_rate,
        )
        units, nominal_in, channels_in = [], _STEM_CHANNELS, self._channels(_STEM_CHANNELS)
        for block, plan in zip(self._nominal_blocks(), plans, strict=True):
            # The expansion factor applies to the rounded input channels (TF). torchvision scales and rounds both
            # independently, which is the same at width 1, the only one it has weights for.
            expanded = divisible(block.expanded / nominal_in * channels_in)
            nominal_in, channels_in = block.channels, self._channels(block.channels)
            units.append((block._replace(expanded=expanded, channels=channels_in), plan))
        return units

    def _nominal_blocks(self) -> list[Block]:
        """The blocks for this `tail` and `minimalistic`, at width 1."""
        blocks = list(self.blocks)
        if self.minimalistic:
            blocks = [block._replace(kernel_size=3, squeeze_excite=False, activation="relu") for block in blocks]
        if self.tail != "full":
            first = max(block_id for block_id, block in enumerate(blocks) if block.stride > 1)
            for block_id in range(first, len(blocks)):
                _, expanded, channels, *_ = blocks[block_id]
                if block_id > first or self.tail == "seg":
                    expanded //= 2
                blocks[block_id] = blocks[block_id]._replace(expanded=expanded, channels=channels // 2)
        return blocks

    def _last_channels(self) -> int:
        return self._channels(_LAST_EXPANSION * self._nominal_blocks()[-1].channels)

    def _channels(self, nominal: int) -> int:
        return divisible(nominal * self.width)

    def _check(self) -> None:
        for option, known in _OPTIONS.items():
            if getattr(self, option) not in known:
                raise ValueError(f"{option}='{getattr(self, option)}' must be {' or '.join(map(repr, known))}")


mobilenet_v3_large = functools.partial(MobileNetV3, blocks=_LARGE)
mobilenet_v3_small = functools.partial(MobileNetV3, blocks=_SMALL)
