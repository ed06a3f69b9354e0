"""Visualisation of label maps: palettes, overlays, error maps and grids, in plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, Num, UInt8

from deeplab_jax.palettes import voc_palette

Color = tuple[int, int, int]
RGBImage = UInt8[np.ndarray, "h w 3"]
AnyRGBImage = UInt8[np.ndarray, "_h _w 3"]  # of a size of its own
LabelMap = Integer[np.ndarray, "h w"]

IGNORE_COLOR: Color = (224, 224, 192)  # PASCAL VOC's border
_DARKEST, _BRIGHTEST = 2, 98  # percentiles of a channel shown as black and white
_RIGHT, _WRONG, _UNKNOWN = np.array([(235, 238, 240), (208, 52, 44), (150, 154, 160)], np.uint8)


def full_palette(palette: Sequence[Color], ignore_label: int) -> UInt8[np.ndarray, "256 3"]:
    """A colour for every uint8 value: the data set's, the border colour for `ignore_label`, VOC's for the rest.

    Args:
      palette: RGB per class id, at most 256.
      ignore_label: ignored if it is outside [0, 255].
    """
    colors = np.array(voc_palette(256), np.uint8)
    if 0 <= ignore_label < 256:
        colors[ignore_label] = IGNORE_COLOR
    colors[: len(palette)] = np.asarray(palette, np.uint8).reshape(-1, 3)
    return colors


def colorize(label: LabelMap, palette: Sequence[Color], *, ignore_label: int = 255) -> RGBImage:
    """Each pixel in the colour of its class; values in [0, 255]."""
    return full_palette(palette, ignore_label)[label]


def as_rgb(image: Num[np.ndarray, "h w bands"]) -> RGBImage:
    """Any image as uint8 RGB for display; uint8 RGB is returned unchanged.

    Otherwise the first three channels become red, green and blue; with fewer channels, the first is shown in grey.
    Each is stretched from its 2nd to its 98th percentile; missing values are black.
    """
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return image
    chosen = (0, 1, 2) if image.shape[2] >= 3 else (0, 0, 0)
    return np.stack([_stretch(image[..., channel]) for channel in chosen], axis=-1)


def _stretch(channel: Num[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    values = channel.astype(np.float64)
    known = np.isfinite(values)
    low, high = np.percentile(values[known], (_DARKEST, _BRIGHTEST)) if known.any() else (0.0, 1.0)
    shares = np.where(known, values - low, 0.0) / (high - low if high > low else 1.0)
    return np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)


def overlay(
    image: RGBImage, label: LabelMap, palette: Sequence[Color], *, ignore_label: int = 255, opacity: float = 0.55
) -> RGBImage:
    """The image tinted by class, with a light outline around each region.

    Class 0, usually the background, and ignored pixels keep the image's own colours.

    Args:
      palette: RGB per class id.
      opacity: of the tint, in [0, 1].

    Raises:
      ValueError: if image and label differ in size.
    """
    if image.shape[:2] != label.shape:
        raise ValueError(f"image is {image.shape[:2]}, label is {label.shape}")
    colors = colorize(label, palette, ignore_label=ignore_label)
    tinted = (label != 0) & (label != ignore_label)
    alpha = np.where(tinted, opacity, 0.0)[..., None]
    result = image * (1 - alpha) + colors * alpha
    outline = _boundaries(label) & tinted
    result[outline] = 255 - (255 - colors[outline].astype(np.float64)) * 0.35
    return np.rint(result).astype(np.uint8)


def error_map(label: LabelMap, prediction: LabelMap, *, ignore_label: int = 255) -> RGBImage:
    """Light where the prediction is right, red where it is wrong, grey where the label is ignored."""
    colors = np.where((label == prediction)[..., None], _RIGHT, _WRONG)
    return np.where((label == ignore_label)[..., None], _UNKNOWN, colors)


def grid(rows: Sequence[Sequence[AnyRGBImage]], *, gap: int = 4, background: Color = (255, 255, 255)) -> AnyRGBImage:
    """Images in rows and columns; each column is as wide, each row as high, as its largest image.

    Args:
      rows: at least one row with at least one image; rows may be of different lengths.
      gap: pixels between neighbours.
    """
    heights = [max(image.shape[0] for image in row) for row in rows]
    num_columns = max(len(row) for row in rows)
    widths = [max(row[k].shape[1] for row in rows if k < len(row)) for k in range(num_columns)]
    canvas = np.empty((sum(heights) + gap * (len(heights) - 1), sum(widths) + gap * (len(widths) - 1), 3), np.uint8)
    canvas[:] = background
    for i, row in enumerate(rows):
        top = sum(heights[:i]) + gap * i
        for k, image in enumerate(row):
            left = sum(widths[:k]) + gap * k
            canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def _boundaries(label: LabelMap) -> np.ndarray:
    """True for pixels with a neighbour above, below, left or right of another class."""
    edges = np.zeros(label.shape, bool)
    beside, below = label[:, :-1] != label[:, 1:], label[:-1] != label[1:]
    edges[:, :-1] |= beside
    edges[:, 1:] |= beside
    edges[:-1] |= below
    edges[1:] |= below
    return edges
