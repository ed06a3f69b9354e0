"""The EXIF orientation: how stored pixels must be turned to be upright."""

from __future__ import annotations

from typing import cast

import numpy as np
from jaxtyping import Shaped
from PIL import Image

_TAG = 0x0112
UPRIGHT = 1


def exif_orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8, of a picture whose header alone needs to be read."""
    # `getexif` would decode a whole PNG to find a chunk after the pixels.
    raw = picture.info.get("exif")
    if not raw:
        return UPRIGHT
    exif = Image.Exif()
    try:
        exif.load(raw)
        orientation = exif.get(_TAG, UPRIGHT)
    except Exception:  # damaged metadata does not make the pixels unusable
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT


def swaps_axes(orientation: int) -> bool:
    """Whether turning makes rows of columns."""
    return orientation >= 5


def shown_size(picture: Image.Image) -> tuple[int, int]:
    """(height, width) of the picture when it is upright."""
    width, height = picture.size
    return (width, height) if swaps_axes(exif_orientation(picture)) else (height, width)


def turned(pixels: Shaped[np.ndarray, "h w *bands"], orientation: int) -> Shaped[np.ndarray, "h2 w2 *bands"]:
    """Stored pixels upright: orientations 5 to 8 swap the axes, the others only mirror them."""
    if orientation == UPRIGHT:
        return pixels
    if swaps_axes(orientation):
        pixels = pixels.swapaxes(0, 1)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return cast(np.ndarray, np.ascontiguousarray(pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]))
