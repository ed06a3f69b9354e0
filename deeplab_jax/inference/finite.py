"""Probabilities that are no numbers are an error, never the class 0 that an argmax would make of them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from deeplab_jax.types import UserError


def all_finite(probabilities: Float[Array, "b h w c"]) -> Bool[Array, " b"]:
    """Whether each image's are numbers; one class tells, since a softmax that fails is NaN in all of them."""
    return jnp.isfinite(probabilities[..., 0]).all(axis=(1, 2))


def require_finite(finite: Any) -> None:
    """Raises UserError unless all are True."""
    if not np.asarray(finite).all():
        raise UserError(
            "the network's probabilities are not finite: take a checkpoint from before its weights became so; where "
            "it ends in a CRF, raise config.model.crf.args capacity or widen its kernels"
        )
