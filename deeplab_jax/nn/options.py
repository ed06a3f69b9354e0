"""What all layers of a network share; made once from the config and handed down as one value."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax.typing import DTypeLike


@dataclasses.dataclass(frozen=True, slots=True)
class LayerOptions:
    """Numerics of a network's layers.

    Attributes:
      dtype: of activations and products; parameters and statistics stay float32.
      bn_decay: weight of the OLD running statistic, in [0, 1).
      bn_group_size: examples that share batch statistics, in batch order; 0: the whole batch.
      bn_frozen: normalise by the running statistics in training too, and leave them as they are.
    """

    dtype: DTypeLike = jnp.float32
    bn_decay: float = 0.9997
    bn_group_size: int = 0
    bn_frozen: bool = False
