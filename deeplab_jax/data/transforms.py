"""Random scale, crop, flip and colour of one training image and its mask, in NumPy and OpenCV.

Scaling and cropping are one step: the window of the original image that ends up
in the crop is chosen first, and only its pixels are resized. Image and mask use
the same sampling positions: target pixel i reads the source at
(i + 0.5) * window / target - 0.5, bilinear for the image and nearest for the mask.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from jaxtyping import UInt8


@dataclasses.dataclass(frozen=True, slots=True)
class CropPlan:
    """A window of the source and the size that it is resized to; rows and columns beyond it are padding."""

    origin: tuple[int, int]  # (top, left) in the source
    window: tuple[int, int]  # (height, width) in the source
    target: tuple[int, int]  # (height, width) in the crop
    flip: bool


def sample_rng(seed: int, position: int) -> np.random.Generator:
    """The random numbers of the sample at `position` of the endless sequence of samples."""
    return np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, position], np.uint64)))


def random_scale(rng: np.random.Generator, *, min_scale: float, max_scale: float, scale_step: float) -> float:
    """One draw from [min_scale, max_scale]: continuous where scale_step is 0, else on the grid of its multiples.

    Source: tensorflow/models, deeplab/core/preprocess_utils.get_random_scale
    """
    draw = rng.random()
    if scale_step == 0:
        return min_scale + draw * (max_scale - min_scale)
    num_scales = int((max_scale - min_scale) / scale_step + 1 + 1e-6)
    return float(np.linspace(min_scale, max_scale, num_scales)[int(draw * num_scales)])


def plan_crop(
    rng: np.random.Generator,
    image_size: tuple[int, int],
    *,
    crop_size: tuple[int, int],
    scale: float,
    flip: bool,
) -> CropPlan:
    """Draws a crop of the image scaled by `scale`, and, where `flip`, whether it is mirrored.

    An axis that is shorter than the crop even when scaled is taken whole.
    """
    draws = rng.random(3)
    origin, window, target = [], [], []
    for size, crop, draw in zip(image_size, crop_size, draws[:2], strict=True):
        if size * scale <= crop:
            window.append(size)
            target.append(max(1, round(size * scale)))
        else:
            window.append(min(size, max(1, round(crop / scale))))
            target.append(crop)
        origin.append(int(draw * (size - window[-1] + 1)))
    return CropPlan(
        origin=(origin[0], origin[1]),
        window=(window[0], window[1]),
        target=(target[0], target[1]),
        flip=bool(flip and draws[2] < 0.5),
    )


def crop_into(
    plan: CropPlan,
    image: UInt8[np.ndarray, "h w 3"],
    label: UInt8[np.ndarray, "h w"],
    *,
    out_image: UInt8[np.ndarray, "ch cw 3"],
    out_label: UInt8[np.ndarray, "ch cw"],
    pad_pixel: tuple[int, int, int],
    ignore_label: int,
) -> None:
    """Writes the planned crop into the top left of `out_image` and `out_label`, padding below and to the right."""
    height, width = plan.target
    _resize_window(plan, image, out_image[:height, :width], cv2.INTER_LINEAR)
    # INTER_NEAREST would sample up to half a pixel off the positions of INTER_LINEAR.
    _resize_window(plan, label, out_label[:height, :width], cv2.INTER_NEAREST_EXACT)
    pad_outside((height, width), out_image, out_label, pad_pixel=pad_pixel, ignore_label=ignore_label)


def pad_outside(
    size: tuple[int, int],
    image: UInt8[np.ndarray, "h w 3"],
    label: UInt8[np.ndarray, "h w"],
    *,
    pad_pixel: tuple[int, int, int],
    ignore_label: int,
) -> None:
    """Fills what lies below and to the right of `size` = (height, width), in place."""
    height, width = size
    image[height:] = pad_pixel
    image[:height, width:] = pad_pixel
    label[height:] = ignore_label
    label[:height, width:] = ignore_label


def _resize_window(plan: CropPlan, source: np.ndarray, target: np.ndarray, interpolation: int) -> None:
    (top, left), (height, width) = plan.origin, plan.window
    window = source[top : top + height, left : left + width]
    if plan.window == plan.target:
        target[:] = window[:, ::-1] if plan.flip else window
        return
    if plan.flip:
        window = cv2.flip(window, 1)
    cv2.resize(window, plan.target[::-1], dst=target, interpolation=interpolation)


def distort_colors(rng: np.random.Generator, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Changes brightness, contrast, saturation and hue, each with probability 1/2, in place.

    Brightness is shifted by up to 32 of 255, contrast and saturation are multiplied by
    0.5 to 1.5, the hue is turned by up to 36 degrees; contrast comes before or after
    saturation and hue.

    Source: SSD (1512.02325), sec. 3.6, with the ranges of its code.
    """
    chosen = rng.random(5) < 0.5
    brightness = rng.uniform(-32, 32) if chosen[0] else 0.0
    contrast, saturation = (rng.uniform(0.5, 1.5, size=2) ** chosen[1:3]).tolist()
    hue = int(rng.integers(-18, 19)) if chosen[3] else 0  # OpenCV counts hue in steps of two degrees
    contrast_first = bool(chosen[4])

    levels = np.arange(256, dtype=np.float64)
    early = np.clip(levels + brightness, 0, 255) * (contrast if contrast_first else 1.0)
    _apply_table(image, early)
    if saturation != 1.0 or hue != 0:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        tables = np.stack([(levels + hue) % 180, levels * saturation, levels], axis=-1)
        _apply_table(hsv, tables[None])
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=image)
    if not contrast_first:
        _apply_table(image, levels * contrast)


def _apply_table(image: UInt8[np.ndarray, "h w 3"], table: np.ndarray) -> None:
    cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8), dst=image)
