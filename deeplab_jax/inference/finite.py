"""Makes non-finite probabilities an error; argmax would silently turn them into class 0."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from deeplab_jax.types import UserError


def all_finite(probabilities: Float[Array, "b h w c"]) -> Bool[Array, " b"]:
    """Whether each image's probabilities are finite: a failed softmax is NaN in all classes, a sigmoid in its own."""
    return jnp.isfinite(probabilities).all(axis=(1, 2, 3))


def require_finite(finite: Any) -> None:
    """Raises UserError unless all are True."""
    if not np.asarray(finite).all():
        raise UserError(
            "the network's probabilities are not finite: take a checkpoint from before its weights became so; where "
            "it ends in a CRF, raise config.model.crf.args capacity or widen its kernels"
        )
