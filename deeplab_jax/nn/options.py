"""Options shared by all layers of a network, built once from the config."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax.typing import DTypeLike

from deeplab_jax.nn.settings import BatchNormConfig


@dataclasses.dataclass(frozen=True, slots=True)
class LayerOptions:
    """Numerics of a network's layers."""

    dtype: DTypeLike = jnp.float32  # of activations and products; parameters and statistics stay float32
    batch_norm: BatchNormConfig = dataclasses.field(default_factory=BatchNormConfig)
