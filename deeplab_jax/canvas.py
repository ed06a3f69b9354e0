"""The sizes at which whole images are computed, and the padding that fills them, for every way that images go.

An image lies in the upper left corner of a canvas. Each side of the canvas is that of `smallest`, plus as many
multiples of `bucket` as a larger image needs, so that few sizes are compiled for.
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
    """How large a canvas is.

    Attributes:
      smallest: (height, width), and the only size where `bucket` is 0.
      bucket: each side grows by multiples of it where the image is larger; 0: no image may be.
    """

    smallest: tuple[int, int]
    bucket: int

    @property
    def is_fixed(self) -> bool:
        return not self.bucket

    def around(self, size: tuple[int, int], *, maximum: Callable[[Any, int], Any] = max) -> tuple[int, int]:
        """The (height, width) for an image of `size`.

        Args:
          maximum: of two numbers; `jax.core.max_dim` where a side is symbolic.
        """
        if self.is_fixed:
            return self.smallest
        height, width = (
            least + self.bucket * ((maximum(axis - least, 0) + self.bucket - 1) // self.bucket)
            for axis, least in zip(size, self.smallest, strict=True)
        )
        return height, width


def make_canvas(pad_to: tuple[int, int], bucket: int) -> Canvas:
    """The canvas of `pad_to`; (0, 0): of sides bucket * k + 1, k at least 1."""
    return Canvas(pad_to if pad_to != (0, 0) else (bucket + 1, bucket + 1), bucket)


def pad_image(
    image: Num[np.ndarray, "h w bands"], size: tuple[int, int], pad_pixel: Pixel
) -> Num[np.ndarray, "ph pw bands"]:
    """`image` on a canvas of `size` made of `pad_pixel`, which is in missing values' place."""
    canvas = np.empty((*size, image.shape[-1]), image.dtype)
    place_image(image, canvas, pad_pixel)
    return canvas


def place_image(image: Num[np.ndarray, "h w bands"], canvas: Num[np.ndarray, "ph pw bands"], pad_pixel: Pixel) -> None:
    """As `pad_image`, onto a canvas that is there."""
    height, width = image.shape[:2]
    canvas[:height, :width] = image
    fill_missing(canvas[:height, :width], pad_pixel)
    fill_outside(canvas, (height, width), pad_pixel)


def fill_outside(canvas: Num[np.ndarray, "ph pw *bands"], size: tuple[int, int], value: Any) -> None:
    """Fills what lies below and to the right of `size` = (height, width), in place."""
    height, width = size
    canvas[height:] = value
    canvas[:height, width:] = value


def fill_missing(image: Num[np.ndarray, "h w bands"], pixel: Pixel) -> None:
    """Puts `pixel`, as a rule the mean, wherever a value is NaN or infinite; in place."""
    if image.dtype.kind == "f":
        missing = ~np.isfinite(image)
        if missing.any():
            np.copyto(image, np.asarray(pixel, image.dtype), where=missing)
