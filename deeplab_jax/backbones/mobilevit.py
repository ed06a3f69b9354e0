"""MobileViT (2110.02178): inverted residuals, and transformers over the cells of patches, with atrous stages."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.nn.inverted_residual import SqueezedResidual, divisible
from deeplab_jax.nn.layers import AtrousConv, ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan, atrous_plan
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import FeatureInfo, Features

_NUM_BLOCKS = (1, 3, 1, 1, 1)  # inverted residuals of each stage
_STRIDES = (1, 2, 2, 2, 2)
_NUM_LAYERS = {3: 2, 4: 4, 5: 3}  # of the transformer that ends a stage
_PATCH = 2
_NUM_HEADS = 4
_MLP_RATIO = 2


class TransformerLayer(nn.Module):
    """Self-attention and two dense layers, each on the layer norm of its input, which is added.

    Source: 2010.11929, eq. 2 and 3.
    """

    dropout: float
    epsilon: float
    options: LayerOptions

    @nn.compact
    def __call__(self, tokens: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        channels = tokens.shape[-1]
        dense = functools.partial(AtrousConv, use_bias=True, dtype=self.options.dtype)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        x = layer_norm(self.epsilon, self.options, "norm1")(tokens)
        heads = tokens.shape[0], tokens.shape[1] * tokens.shape[2], _NUM_HEADS, channels // _NUM_HEADS
        query, key, value = (dense(channels, name=name)(x).reshape(heads) for name in ("query", "key", "value"))
        attended = jax.nn.dot_product_attention(query, key, value).reshape(tokens.shape)
        tokens = tokens + drop(dense(channels, name="attended")(attended))
        x = layer_norm(self.epsilon, self.options, "norm2")(tokens)
        x = nn.swish(dense(_MLP_RATIO * channels, name="dense1")(x))
        return tokens + drop(dense(channels, name="dense2")(x))


class MobileViTUnit(nn.Module):
    """A 3x3 and a 1x1 convolution, a transformer over the cells with the same place in a patch, and back; fused.

    A map of an odd size is resized to the next even one for the transformer, and back after it.

    Source: sec. 3.1 and fig. 1b.
    """

    hidden: int  # channels of the transformer
    num_layers: int
    dropout: float
    epsilon: float
    options: LayerOptions

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        channels, size = x.shape[-1], (x.shape[1], x.shape[2])
        conv = functools.partial(ConvNorm, channels, activation="swish", epsilon=self.epsilon, options=self.options)
        y = conv(3, name="local")(x, train=train)
        y = AtrousConv(self.hidden, dtype=self.options.dtype, name="expand")(y)
        even = size[0] + size[0] % _PATCH, size[1] + size[1] % _PATCH
        y = resize_bilinear(y, even, align_corners=False) if even != size else y
        y = _unfold(y)
        for layer_id in range(self.num_layers):
            y = TransformerLayer(self.dropout, self.epsilon, self.options, name=f"layer{layer_id}")(y, train=train)
        y = _fold(layer_norm(self.epsilon, self.options, "norm")(y))
        y = resize_bilinear(y, size, align_corners=False) if even != size else y
        y = conv(name="project")(y, train=train)
        return conv(3, name="fusion")(jnp.concatenate([x, y], axis=-1), train=train)


def layer_norm(epsilon: float, options: LayerOptions, name: str) -> nn.LayerNorm:
    """Layer norm over the channels."""
    return nn.LayerNorm(epsilon, dtype=options.dtype, use_fast_variance=False, name=name)


def _unfold(x: Float[Array, "b h w c"]) -> Float[Array, "b2 h2 w2 c"]:
    """Cells by their place in a patch, each place an example of its own."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // _PATCH, _PATCH, w // _PATCH, _PATCH, c).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(b * _PATCH**2, h // _PATCH, w // _PATCH, c)


def _fold(x: Float[Array, "b2 h2 w2 c"]) -> Float[Array, "b h w c"]:
    """Inverse of `_unfold`."""
    b, h, w, c = x.shape
    x = x.reshape(b // _PATCH**2, _PATCH, _PATCH, h, w, c).transpose(0, 3, 1, 4, 2, 5)
    return x.reshape(b // _PATCH**2, h * _PATCH, w * _PATCH, c)


class MobileViT(nn.Module):
    """Features at strides 4, 8, ... up to `output_stride`, each from the last unit of its stride.

    Attributes:
      output_stride: 8, 16 or 32; further strides become atrous rates of the inverted residuals alone, and the
        transformers see more cells.
      channels: of the stem and the five stages.
      hidden: channels of the three transformers.
      expansion: of the inverted residuals.
      padding: of strided convolutions.
      dropout: in the transformers.
      epsilon: of batch norm and layer norm.

    Source: table 4; the atrous stages as in the authors' code.
    """

    output_stride: int
    options: LayerOptions = LayerOptions()
    channels: tuple[int, ...] = (16, 32, 64, 96, 128, 160)
    hidden: tuple[int, ...] = (144, 192, 240)
    expansion: float = 4.0
    padding: str = "symmetric"
    dropout: float = 0.1
    epsilon: float = 1e-5

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        last = {plan.output_stride: self.channels[stage_id] for stage_id, _, plan in self._blocks()}
        return tuple(FeatureInfo(f"stride{s}", channels, s) for s, channels in last.items() if s >= 4)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w bands"], *, train: bool) -> Features:
        shared: dict[str, Any] = {"epsilon": self.epsilon, "options": self.options}
        plain: dict[str, Any] = {"padding": self.padding, "activation": "swish", **shared}
        x = ConvNorm(self.channels[0], 3, stride=2, name="stem", **plain)(x, train=train)
        features = {}
        for stage_id, block_id, plan in self._blocks():
            expanded, name = divisible(round(x.shape[-1] * self.expansion)), f"stage{stage_id}_block{block_id}"
            block = SqueezedResidual(3, expanded, self.channels[stage_id], squeezed=0, plan=plan, name=name, **plain)
            x, _ = block(x, train=train)
            if stage_id in _NUM_LAYERS:
                hidden, num_layers = self.hidden[stage_id - 3], _NUM_LAYERS[stage_id]
                unit = MobileViTUnit(hidden, num_layers, self.dropout, name=f"stage{stage_id}_transformer", **shared)
                x = unit(x, train=train)
            features[f"stride{plan.output_stride}"] = x
        return {info.name: features[info.name] for info in self.feature_info}

    def _blocks(self) -> list[tuple[int, int, UnitPlan]]:
        """Stage, number in it, and plan of each inverted residual."""
        ids = [(stage_id, block_id) for stage_id, count in enumerate(_NUM_BLOCKS, 1) for block_id in range(count)]
        strides = [1 if block_id else _STRIDES[stage_id - 1] for stage_id, block_id in ids]
        plans = atrous_plan(strides, output_stride=self.output_stride, stem_stride=2)
        return [(*place, plan) for place, plan in zip(ids, plans, strict=True)]


# Spelled as in the paper.
mobilevit_s = MobileViT
mobilevit_xs = functools.partial(MobileViT, channels=(16, 32, 48, 64, 80, 96), hidden=(96, 120, 144))
mobilevit_xxs = functools.partial(
    MobileViT, channels=(16, 16, 24, 48, 64, 80), hidden=(64, 80, 96), expansion=2.0, dropout=0.05
)
