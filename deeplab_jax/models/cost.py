"""The cost of a network: parameters, and multiply-adds as counted in the papers."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.nn.layers import AtrousConv, AtrousDepthwiseConv


def count_parameters(model: nn.Module, *, part: str = "") -> int:
    """Trainable parameters of the network, or of one part of it ('backbone', 'head', 'auxiliary')."""
    params = _variables(model)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params[part] if part else params))


def count_multiply_adds(
    model: nn.Module, size: tuple[int, int], *, part: str = "", space_to_batch: bool = False
) -> int:
    """Multiply-adds of all convolutions on one image, in evaluation, including products with padding.

    Args:
      part: count only this part ('backbone', 'head').
      space_to_batch: count as TensorFlow computed atrous convolution at the time: the map is moved to the batch in rate
        x rate pieces, so its sides are rounded up to multiples of the rate. The papers' 'Multiply-Adds' include that.
    """
    total = 0

    def add(method: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        nonlocal total
        y = method(*args, **kwargs)
        module = context.module
        if (
            context.method_name == "__call__"
            and isinstance(module, (AtrousConv, AtrousDepthwiseConv))
            and part in ("", module.path[0])
        ):
            inputs = args[0].shape[-1] if isinstance(module, AtrousConv) else 1
            rates = _rates(module) if space_to_batch else (1, 1)
            cells = [-(-cells // rate) * rate for cells, rate in zip(y.shape[1:3], rates, strict=True)]
            total += cells[0] * cells[1] * y.shape[-1] * inputs * module.kernel_size**2
        return y

    variables, images = _variables(model), _images(model, size)
    with nn.intercept_methods(add):
        jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, images)
    return total


def _rates(module: AtrousConv | AtrousDepthwiseConv) -> tuple[int, int]:
    if module.kernel_size == 1:
        return 1, 1
    return (module.rate, module.rate) if isinstance(module.rate, int) else module.rate


def _variables(model: nn.Module) -> Any:
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), _images(model, (65, 65)))


def _images(model: nn.Module, size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    """One image, with the network's number of input channels."""
    channels = len(model.normalization.mean) if isinstance(model, DeepLab) else 3
    return jax.ShapeDtypeStruct((1, *size, channels), jnp.uint8)
