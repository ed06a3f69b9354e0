"""Visualisation of label maps: palettes, mask images, overlays, error maps and grids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer, Num, UInt8
from PIL import Image

from deeplab_jax.palettes import voc_palette

Color = tuple[int, int, int]
RGBImage = UInt8[np.ndarray, "h w 3"]
AnyRGBImage = UInt8[np.ndarray, "_h _w 3"]  # of a size of its own
LabelMap = (
    Integer[np.ndarray, "h w"] | Integer[np.ndarray, "h w c"] | Bool[np.ndarray, "h w c"]
)  # ids, or a map of each class

IGNORE_COLOR: Color = (224, 224, 192)  # PASCAL VOC's border
_DARKEST, _BRIGHTEST = 2, 98  # percentiles of a channel shown as black and white
_RIGHT, _WRONG, _UNKNOWN = np.array([(235, 238, 240), (208, 52, 44), (150, 154, 160)], np.uint8)


def full_palette(palette: Sequence[Color], ignore_label: int) -> UInt8[np.ndarray, "values 3"]:
    """A colour for every label: the data set's, the border colour for `ignore_label`, VOC's for the rest of a byte.

    Args:
      palette: RGB per class id.
      ignore_label: ignored if it is negative.
    """
    colors = np.zeros((max(256, len(palette), ignore_label + 1), 3), np.uint8)
    colors[:256] = voc_palette(256)
    if ignore_label >= 0:
        colors[ignore_label] = IGNORE_COLOR
    colors[: len(palette)] = np.asarray(palette, np.uint8).reshape(-1, 3)
    return colors


def mask_picture(ids: Integer[np.ndarray, "h w"], palette: Sequence[Color], ignore_label: int) -> Image.Image:
    """Class ids as a palette image; as grey of 16 bits, without colours, where a palette cannot hold the classes."""
    if len(palette) > 256:
        return Image.fromarray(ids.astype(np.uint16))
    picture = Image.fromarray(ids.astype(np.uint8))
    picture.putpalette(full_palette(palette, ignore_label)[:256].tobytes())
    return picture


def colorize(label: LabelMap, palette: Sequence[Color], *, ignore_label: int = 255) -> RGBImage:
    """Each pixel in the colour of its class."""
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

    Class 0, usually the background, and ignored pixels keep the image's own colours. Of classes that overlap, each with
    a map, none is the background; a pixel of several takes the mean of their colours.

    Args:
      label: class ids, [h, w]; or of overlapping classes 0, 1 or the ignore label, [h, w, c].
      palette: RGB per class id.
      opacity: of the tint, in [0, 1].

    Raises:
      ValueError: if image and label differ in size.
    """
    if image.shape[:2] != label.shape[:2]:
        raise ValueError(f"image is {image.shape[:2]}, label is {label.shape}")
    if label.ndim == 3:
        return _overlay_maps(image, label == 1, np.asarray(palette, np.float64).reshape(-1, 3), opacity)
    colors = colorize(label, palette, ignore_label=ignore_label)
    tinted = (label != 0) & (label != ignore_label)
    alpha = np.where(tinted, opacity, 0.0)[..., None]
    result = image * (1 - alpha) + colors * alpha
    outline = _boundaries(label) & tinted
    result[outline] = _lightened(colors[outline].astype(np.float64))
    return np.rint(result).astype(np.uint8)


def _overlay_maps(
    image: RGBImage, maps: Bool[np.ndarray, "h w c"], colors: Float[np.ndarray, "c 3"], opacity: float
) -> RGBImage:
    count = maps.sum(axis=-1, keepdims=True)
    mixed = maps.astype(np.float64) @ colors[: maps.shape[-1]] / np.maximum(count, 1)
    result = np.where(count > 0, image * (1 - opacity) + mixed * opacity, image)
    for k in range(maps.shape[-1]):
        result[_boundaries(maps[..., k]) & maps[..., k]] = _lightened(colors[k])
    return np.rint(result).astype(np.uint8)


def _lightened(colors: np.ndarray) -> np.ndarray:
    """For outlines."""
    return 255 - (255 - colors) * 0.35


def error_map(label: LabelMap, prediction: LabelMap, *, ignore_label: int = 255) -> RGBImage:
    """Light where the prediction is right, red where it is wrong, grey where the label is ignored.

    Where classes overlap: red where any is wrong, grey where all are ignored.
    """
    if label.ndim == 3:
        known = label != ignore_label
        is_wrong, unknown = ((label == 1) != prediction) & known, ~known
        colors = np.where(is_wrong.any(axis=-1)[..., None], _WRONG, _RIGHT)
        return np.where(unknown.all(axis=-1)[..., None], _UNKNOWN, colors)
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


def _boundaries(label: np.ndarray) -> np.ndarray:
    """True for pixels with a neighbour above, below, left or right of another class."""
    edges = np.zeros(label.shape, bool)
    beside, below = label[:, :-1] != label[:, 1:], label[:-1] != label[1:]
    edges[:, :-1] |= beside
    edges[:, 1:] |= beside
    edges[:-1] |= below
    edges[1:] |= below
    return edges
