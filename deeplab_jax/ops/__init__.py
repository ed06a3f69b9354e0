"""Array functions: atrous convolution, pooling, resizing, and the fully connected CRF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplab_jax import registry

if TYPE_CHECKING:
    from deeplab_jax.ops.convolution.atrous import atrous_conv as atrous_conv
    from deeplab_jax.ops.convolution.atrous import atrous_depthwise_conv as atrous_depthwise_conv
    from deeplab_jax.ops.crf.mean_field import mean_field as mean_field
    from deeplab_jax.ops.crf.parameters import CRFParams as CRFParams
    from deeplab_jax.ops.crf.parameters import unary_from_probabilities as unary_from_probabilities
    from deeplab_jax.ops.pooling import average_pool as average_pool
    from deeplab_jax.ops.pooling import max_pool as max_pool
    from deeplab_jax.ops.resize import resize_bilinear as resize_bilinear
else:
    _NAMES = {
        "convolution.atrous": ("atrous_conv", "atrous_depthwise_conv"),
        "crf.mean_field": ("mean_field",),
        "crf.parameters": ("CRFParams", "unary_from_probabilities"),
        "pooling": ("average_pool", "max_pool"),
        "resize": ("resize_bilinear",),
    }
    __getattr__, __dir__ = registry.lazy_names(__name__, _NAMES)
