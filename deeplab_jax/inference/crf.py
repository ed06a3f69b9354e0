"""Refines a network's probabilities with the fully connected CRF, one image at a time (DeepLab v1, sec. 3.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from deeplab_jax.inference.finite import require_finite
from deeplab_jax.ops.crf.mean_field import mean_field
from deeplab_jax.ops.crf.parameters import CRFPreset, unary_from_probabilities
from deeplab_jax.types import UserError


def refine(
    probabilities: Float[Array | np.ndarray, "ph pw c"], image: UInt8[np.ndarray, "h w 3"], crf: CRFPreset
) -> Float[np.ndarray, "h w c"]:
    """The marginals of a fully connected CRF whose unary term is -log of the probabilities.

    Args:
      probabilities: of the image's pixels, and possibly of padding at the bottom and right.
      image: RGB.

    Raises:
      UserError: if probabilities are not finite, or the kernels are too narrow for the lattice.
    """
    probabilities = jnp.asarray(probabilities)
    require_finite(jnp.isfinite(probabilities).all())
    height, width = image.shape[:2]
    padding = (probabilities.shape[0] - height, probabilities.shape[1] - width)
    mask = None
    if jax.default_backend() == "cpu":  # the lattice is built per image anyway: use only the image's own pixels
        probabilities = probabilities[:height, :width]
    elif any(padding):  # keep it, masked out, so that few sizes are compiled
        mask = np.pad(np.ones((height, width), bool), [(0, more) for more in padding])
        image = np.pad(image, [*((0, more) for more in padding), (0, 0)])
    unary = unary_from_probabilities(probabilities)
    try:
        marginals = mean_field(
            unary, jnp.asarray(image), crf.params, num_iterations=crf.num_iterations, mask=_on_device(mask)
        )
    except ValueError as error:
        raise UserError(f"config.inference.crf: {error}") from None
    return np.asarray(marginals)[:height, :width]


def _on_device(mask: np.ndarray | None) -> Array | None:
    return None if mask is None else jnp.asarray(mask)
