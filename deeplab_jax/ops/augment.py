"""Augmentation on the device: windows of the originals -> crops, with one gather per image and label.

The host draws all random numbers: the window, its size in the crop, mirroring, colours. The device does the same
arithmetic on pixels as the host: target cell i reads the window at (i + 0.5) * window / target - 0.5, bilinear for the
image and nearest for the label. Two differences remain. OpenCV rounds interpolation weights to 1/2048, which changes a
pixel by at most one level. And if a cell's centre lies exactly between two label pixels, OpenCV's rounding errors
decide which one it takes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, Num

_HUES = 180  # OpenCV's 8-bit hue: steps of two degrees


def augment(
    image: Num[Array, "b h w bands"],
    label: Integer[Array, "b h w *maps"],
    geometry: Int[Array, "b 5"],
    colors: Float[Array, "b 5"] | None,
    *,
    crop_size: tuple[int, int],
    pad_pixel: tuple[float, ...],
    ignore_label: int,
) -> tuple[Num[Array, "b ch cw bands"], Integer[Array, "b ch cw *maps"]]:
    """Resizes, mirrors, colour-jitters and pads each window.

    Args:
      image: of any type, which the result keeps; only the window in the top left is read.
      label: class ids or maps, likewise.
      geometry: (window height, window width, target height, target width, 1 if mirrored), int32; window size times
        target size must be below 2^30 on each axis.
      colors: (brightness, contrast, saturation, hue, 1 if contrast comes first), float32, for RGB bytes; None:
        unchanged.
      crop_size: (height, width) of the result.
      pad_pixel: fills the image below and to the right of the target.
      ignore_label: fills the label there.
    """

    def augment_one(
        image: Num[Array, "h w bands"],
        label: Integer[Array, "h w *maps"],
        geometry: Int[Array, "5"],
        colors: Array | None,
    ) -> tuple[Num[Array, "ch cw bands"], Integer[Array, "ch cw *maps"]]:
        height, width, target_height, target_width, flip = geometry
        rows = jnp.arange(crop_size[0], dtype=jnp.int32)
        columns = jnp.arange(crop_size[1], dtype=jnp.int32)
        inside = (rows < target_height)[:, None] & (columns < target_width)[None, :]

        def mirror(column: Int[Array, "cw"]) -> Int[Array, "cw"]:
            return jnp.where(flip > 0, width - 1 - column, column)

        top, bottom, down = _neighbours(rows, height, target_height)
        left, right, across = _neighbours(columns, width, target_width)
        down, across = down[:, None, None], across[None, :, None]

        def read(row: Int[Array, "ch"], column: Int[Array, "cw"]) -> Float[Array, "ch cw bands"]:
            return image[row[:, None], mirror(column)[None, :]].astype(jnp.float32)

        upper = read(top, left) * (1 - across) + read(top, right) * across
        lower = read(bottom, left) * (1 - across) + read(bottom, right) * across
        pixels = upper * (1 - down) + lower * down
        if jnp.issubdtype(image.dtype, jnp.integer):
            pixels = jnp.floor(pixels + 0.5)
        if colors is not None:
            pixels = change_colors(pixels, colors)
        rows_of_label = jnp.minimum(_nearest(rows, height, target_height), height - 1)
        columns_of_label = mirror(jnp.minimum(_nearest(columns, width, target_width), width - 1))
        padding = jnp.asarray(pad_pixel, jnp.float32)[None, None]
        return (
            jnp.where(inside[..., None], pixels, padding).astype(image.dtype),
            jnp.where(
                inside.reshape(inside.shape + (1,) * (label.ndim - 2)),
                label[rows_of_label[:, None], columns_of_label[None, :]],
                jnp.asarray(ignore_label, label.dtype),
            ),
        )

    return jax.vmap(augment_one, in_axes=(0, 0, 0, None if colors is None else 0))(image, label, geometry, colors)


def _neighbours(
    cell: Int[Array, "n"], window: Int[Array, ""], target: Int[Array, ""]
) -> tuple[Int[Array, "n"], Int[Array, "n"], Float[Array, "n"]]:
    """The two pixels around a cell's centre, and its distance from the first; at borders both are the edge pixel."""
    # In integers: float32 would lose the fraction for large images.
    numerator = (2 * cell + 1) * window - target
    numerator = jnp.clip(numerator, 0, 2 * target * (window - 1))
    low = numerator // (2 * target)
    fraction = (numerator - 2 * target * low).astype(jnp.float32) / (2 * target).astype(jnp.float32)
    return low, jnp.minimum(low + 1, window - 1), fraction


def _nearest(cell: Int[Array, "n"], window: Int[Array, ""], target: Int[Array, ""]) -> Int[Array, "n"]:
    """The pixel that contains a cell's centre; on an edge between two pixels, the second."""
    return (2 * cell + 1) * window // (2 * target)


def change_colors(pixels: Float[Array, "h w 3"], colors: Float[Array, "5"]) -> Float[Array, "h w 3"]:
    """Brightness, contrast, saturation and hue of one image, rounded to integer levels wherever the host rounds.

    Args:
      pixels: RGB, integer values in [0, 255].
      colors: see `augment`.
    """
    brightness, contrast, saturation, hue, contrast_first = colors
    early = jnp.clip(pixels + brightness, 0, 255) * jnp.where(contrast_first > 0, contrast, 1.0)
    pixels = _to_levels(early)
    turned = _turn_hsv(pixels, saturation, hue)
    pixels = jnp.where((saturation != 1) | (hue != 0), turned, pixels)
    return jnp.where(contrast_first > 0, pixels, _to_levels(pixels * contrast))


def _to_levels(pixels: Float[Array, "*pixels"]) -> Float[Array, "*pixels"]:
    return jnp.clip(jnp.round(pixels), 0, 255)


def _turn_hsv(rgb: Float[Array, "h w 3"], saturation: Float[Array, ""], hue: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Converts to 8-bit HSV and back, scaling saturation and rotating hue in between."""
    red, green, blue = (rgb[..., channel] for channel in range(3))
    value = jnp.maximum(jnp.maximum(red, green), blue)
    spread = value - jnp.minimum(jnp.minimum(red, green), blue)
    sixth = jnp.where(
        value == red,
        green - blue,
        jnp.where(value == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    h = jnp.floor(sixth * (_HUES / 6) / jnp.maximum(spread, 1) + 0.5)
    h = jnp.mod(jnp.where(h < 0, h + _HUES, h) + hue, _HUES)
    s = jnp.floor(spread * 255 / jnp.maximum(value, 1) + 0.5)
    s = _to_levels(s * saturation) / 255
    position = h * (6 / _HUES)
    channels = []
    for offset in (5.0, 3.0, 1.0):  # red, green, blue: the same curve, shifted around the hue circle
        place = jnp.mod(position + offset, 6.0)
        channels.append(value * (1 - s * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)))
    return _to_levels(jnp.stack(channels, axis=-1))
