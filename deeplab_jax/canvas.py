"""The canvas sizes at which whole images are computed, and padding to them; shared by all modes.

An image lies in the upper left corner of a canvas. Each side of the canvas is that of `smallest`, plus as many
multiples of `bucket` as a larger image needs, so that few sizes are compiled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Num

from deeplab_jax.types import Pixel


@dataclasses.dataclass(frozen=True, slots=True)
class Canvas:
    """The rule for canvas sizes.

    Attributes:
      smallest: (height, width); the only size if `bucket` is 0.
      bucket: each side grows by multiples of it for larger images; 0: no image may be larger.
    """

    smallest: tuple[int, int]
    bucket: int

    @property
    def is_fixed(self) -> bool:
        return not self.bucket

    def around(self, size: tuple[int, int], *, maximum: Callable[[Any, int], Any] = max) -> tuple[int, int]:
        """The (height, width) for an image of `size`.

        Args:
          maximum: of two numbers; `jax.core.max_dim` for symbolic sizes.
        """
        if self.is_fixed:
            return self.smallest
        height, width = (
            least + self.bucket * ((maximum(axis - least, 0) + self.bucket - 1) // self.bucket)
            for axis, least in zip(size, self.smallest, strict=True)
        )
        return height, width


def make_canvas(pad_to: tuple[int, int], bucket: int) -> Canvas:
    """The canvas for `pad_to`; (0, 0): sides of bucket * k + 1 with k >= 1."""
    return Canvas(pad_to if pad_to != (0, 0) else (bucket + 1, bucket + 1), bucket)


def pad_image(
    image: Num[np.ndarray, "h w bands"], size: tuple[int, int], pad_pixel: Pixel
) -> Num[np.ndarray, "ph pw bands"]:
    """`image` padded to `size` with `pad_pixel`, which also replaces missing values."""
    canvas = np.empty((*size, image.shape[-1]), image.dtype)
    place_image(image, canvas, pad_pixel)
    return canvas


def place_image(image: Num[np.ndarray, "h w bands"], canvas: Num[np.ndarray, "ph pw bands"], pad_pixel: Pixel) -> None:
    """Like `pad_image`, into an existing canvas."""
    height, width = image.shape[:2]
    canvas[:height, :width] = image
    fill_missing(canvas[:height, :width], pad_pixel)
    fill_outside(canvas, (height, width), pad_pixel)


def fill_outside(canvas: Num[np.ndarray, "ph pw *bands"], size: tuple[int, int], value: Any) -> None:
    """Fills everything below and to the right of `size` = (height, width), in place."""
    height, width = size
    canvas[height:] = value
    canvas[:height, width:] = value


def fill_missing(image: Num[np.ndarray, "h w bands"], pixel: Pixel) -> None:
    """Replaces NaN and infinite values by `pixel`, usually the mean; in place."""
    if image.dtype.kind == "f":
        missing = ~np.isfinite(image)
        if missing.any():
            np.copyto(image, np.asarray(pixel, image.dtype), where=missing)
