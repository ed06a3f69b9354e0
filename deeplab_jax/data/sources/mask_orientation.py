"""Masks of photographs that a camera stored turned: drawn upright, as viewers show them, or on the stored pixels.

A mask file does not say which; images are always turned upright, and masks drawn on stored pixels are turned with them.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped

from deeplab_jax.data.sources.orientation import swaps_axes, turned


def mask_as_shown(
    values: Shaped[np.ndarray, "h w *bands"], image_size: tuple[int, int], orientation: int
) -> Shaped[np.ndarray, "h2 w2 *bands"]:
    """The mask of an upright image, turned with it where it was drawn on the stored pixels.

    Args:
      image_size: (height, width) of the upright image.
      orientation: of the image file.
    """
    size = (values.shape[0], values.shape[1])
    return turned(values, orientation) if fits_stored_only(size, image_size, orientation) else values


def fits_stored_only(mask_size: tuple[int, int], image_size: tuple[int, int], orientation: int) -> bool:
    """Whether a mask has the size of its image's stored pixels and not that of the upright image."""
    return swaps_axes(orientation) and mask_size != image_size and mask_size[::-1] == image_size
