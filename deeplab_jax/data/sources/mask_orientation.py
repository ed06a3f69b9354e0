"""Masks of photographs that a camera stored turned: drawn upright, as viewers show them, or on the stored pixels.

A mask file does not say which. Images are always turned upright, and masks drawn on stored pixels are turned with them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped

from deeplab_jax.data.sources.orientation import UPRIGHT, swaps_axes, turned
from deeplab_jax.data.sources.orientation_survey import STORED


def mask_as_shown(
    values: Shaped[np.ndarray, "h w *bands"],
    image_size: tuple[int, int],
    orientation: int,
    drawn: Callable[[], str],
) -> Shaped[np.ndarray, "h2 w2 *bands"]:
    """The mask of an upright image, turned with it where it was drawn on the stored pixels.

    A mask that fits neither way is returned as it is.

    Args:
      image_size: (height, width) of the upright image.
      orientation: of the image file.
      drawn: tells how it was drawn, SHOWN or STORED; asked only where its size does not tell.
    """
    size = (values.shape[0], values.shape[1])
    if orientation == UPRIGHT or size not in (image_size, image_size[::-1]):
        return values
    if swaps_axes(orientation) and size[0] != size[1]:
        return values if size == image_size else turned(values, orientation)
    other = turned(values, orientation)
    if size != image_size or np.array_equal(values, other):
        return values
    return other if drawn() == STORED else values
