"""Batch normalisation over all devices, over groups of examples, or with running statistics."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.ops.moments import channel_moments
from deeplab_jax.types import BN_DECAY, MOMENTS


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(var + epsilon) * scale + bias, per channel.

    In training, mean and (biased) variance are those of the batch, in float32; what enters the running variance is
    unbiased, unless `options.batch_norm.running_variance` says otherwise. Under `jax.jit` with the batch sharded
    over a mesh they are those of the global batch: the partitioner inserts the all-reduce. With
    `options.batch_norm.group_size` = n, every n consecutive examples are normalised by their own statistics, without
    communication if each group is on one device.

    The running statistics decay by `options.batch_norm.decay`, or by 'decay' in the collection BN_DECAY.

    Statistics over a single value (image pooling at batch size 1) would make the layer constant and drive its running
    variance to 0; in that case the running statistics are used and left unchanged.

    Source: 1502.03167; DeepLab v3 (1706.05587), sec. 4.1.
    """

    epsilon: float = 1e-5
    options: LayerOptions = LayerOptions()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        self._record_moments(x)

        group = self._group_size(x.shape[0])
        single_value = group * x.shape[1] * x.shape[2] == 1
        if not train or self.options.batch_norm.frozen or single_value:
            mean, var = running_mean.value[None], running_var.value[None]
            return _normalize(x, mean, var, scale, bias, self.epsilon, self.options.dtype)

        mean, var = channel_moments(x, running_mean.value, num_groups=x.shape[0] // group)
        if not self.is_initializing():
            num_values = group * x.shape[1] * x.shape[2]
            unbiased = self.options.batch_norm.running_variance == "unbiased"
            correction = num_values / (num_values - 1) if unbiased else 1.0
            decay = self.get_variable(BN_DECAY, "decay", self.options.batch_norm.decay)
            running_mean.value = decay * running_mean.value + (1 - decay) * mean.mean(0)
            running_var.value = decay * running_var.value + (1 - decay) * correction * var.mean(0)
        return _normalize(x, mean, var, scale, bias, self.epsilon, self.options.dtype)

    def _group_size(self, batch_size: int) -> int:
        group = self.options.batch_norm.group_size or batch_size
        if batch_size % group and batch_size > group:
            raise ValueError(f"a batch of {batch_size} does not divide into batch norm groups of {group}")
        return min(group, batch_size)

    def _record_moments(self, x: Float[Array, "b h w c"]) -> None:
        """Records moments of the input, to calibrate weights whose batch norm was folded into the kernels."""
        if self.is_mutable_collection(MOMENTS) and not self.is_initializing():
            pixels = x.astype(jnp.float32)
            self.sow(MOMENTS, "mean", pixels.mean((0, 1, 2)))
            self.sow(MOMENTS, "mean_square", jnp.square(pixels).mean((0, 1, 2)))
            self.sow(MOMENTS, "epsilon", jnp.float32(self.epsilon))


def _group(x: Float[Array, "b h w c"], num_groups: int) -> Float[Array, "g n h w c"]:
    return x.reshape(num_groups, -1, *x.shape[1:])


# Jitted so that equal layers are traced once; inlined because the TPU partitioner loses spatial sharding at calls.
@functools.partial(jax.jit, static_argnames=("epsilon", "dtype"), inline=True)
def _normalize(
    x: Float[Array, "b h w c"],
    mean: Float[Array, "g c"],
    var: Float[Array, "g c"],
    scale: Float[Array, "c"],
    bias: Float[Array, "c"],
    epsilon: float,
    dtype: Any,
) -> Float[Array, "b h w c"]:
    factor = lax.rsqrt(var + epsilon) * scale[None]
    offset = bias[None] - mean * factor
    grouped = _group(x, mean.shape[0]).astype(jnp.float32)
    y = grouped * factor[:, None, None, None] + offset[:, None, None, None]
    return y.reshape(x.shape).astype(dtype)
