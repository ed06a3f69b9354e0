"""Random scale, crop, flip and colour of one training image and its mask, in NumPy and OpenCV.

Scaling and cropping are one step: the window of the original image that ends up in the crop is chosen first, and only
its pixels are resized. Image and mask use the same sampling positions: target pixel i reads the source at (i + 0.5) *
window / target - 0.5, bilinear for the image and nearest for the mask.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Num, UInt8, UInt16

from deeplab_jax.canvas import fill_outside
from deeplab_jax.types import ImageLabel, Pixel

_MAX_CHANNELS = 128  # that OpenCV resizes at once


@dataclasses.dataclass(frozen=True, slots=True)
class CropPlan:
    """A window of the source and the size it is resized to; the rest of the crop is padding."""

    origin: tuple[int, int]  # (top, left) in the source
    window: tuple[int, int]  # (height, width) in the source
    target: tuple[int, int]  # (height, width) in the crop
    flip: bool


def sample_rng(seed: int, position: int, stream: int = 0) -> np.random.Generator:
    """The random number generator of the sample at `position` in the endless sequence of samples.

    Args:
      stream: streams are independent: drawing from one does not change the others.
    """
    bits = np.random.Philox(key=np.array([seed % 2**64, position], np.uint64), counter=[0, 0, 0, stream])
    return np.random.Generator(bits)


def random_scale(rng: np.random.Generator, *, min_scale: float, max_scale: float, scale_step: float) -> float:
    """One draw from [min_scale, max_scale]: continuous if scale_step is 0, else on a grid with that step.

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
    """Draws a crop of the image scaled by `scale`, and, if `flip`, whether to mirror it.

    An axis that is shorter than the crop after scaling is taken whole.
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


def plan_balanced_crop(
    draw: Callable[[], CropPlan],
    label: ImageLabel,
    *,
    max_share: float,
    num_tries: int,
    ignore_label: int,
) -> CropPlan:
    """The first of up to `num_tries` drawn crops in which no class has more than `max_share` of the labelled pixels.

    Takes the last one if there is none; a crop without labelled pixels is drawn again. Shares are measured in the
    source window, since nearest-neighbour resizing preserves them.

    Args:
      max_share: in (0, 1]; 1: takes the first crop without reading the label.
      num_tries: at least 1.

    Source: mmsegmentation, RandomCrop(cat_max_ratio), from the PSPNet and UPerNet recipes
    """
    plan = draw()
    for _ in range(num_tries - 1 if max_share < 1 else 0):
        if _largest_share(plan, label, ignore_label) <= max_share:
            break
        plan = draw()
    return plan


def _largest_share(plan: CropPlan, label: ImageLabel, ignore_label: int) -> float:
    """Share of the most frequent class among the labelled pixels of the planned window; infinite if it has none."""
    (top, left), (height, width) = plan.origin, plan.window
    window = np.ascontiguousarray(label[top : top + height, left : left + width])
    if window.dtype == np.uint8:
        counts = cv2.calcHist([window], [0], None, [256], [0, 256]).ravel()  # several times faster than np.bincount
    else:
        counts = np.bincount(window.ravel(), minlength=ignore_label + 1)
    counts[ignore_label] = 0
    total = float(counts.sum(dtype=np.float64))
    return float(counts.max()) / total if total else float("inf")


def crop_into(
    plan: CropPlan,
    image: Num[np.ndarray, "h w bands"],
    label: ImageLabel,
    *,
    out_image: Num[np.ndarray, "ch cw bands"],
    out_label: UInt8[np.ndarray, "ch cw *maps"] | UInt16[np.ndarray, "ch cw *maps"],
    pad_pixel: Pixel,
    ignore_label: int,
) -> None:
    """Writes the planned crop into the top left of `out_image` and `out_label`, padding below and to the right."""
    height, width = plan.target
    _resize_window(plan, image, out_image[:height, :width], cv2.INTER_LINEAR)
    # INTER_NEAREST would sample up to half a pixel away from the positions of INTER_LINEAR.
    _resize_window(plan, label, out_label[:height, :width], cv2.INTER_NEAREST_EXACT)
    fill_outside(out_image, (height, width), pad_pixel)
    fill_outside(out_label, (height, width), ignore_label)


def _resize_window(plan: CropPlan, source: np.ndarray, target: np.ndarray, interpolation: int) -> None:
    (top, left), (height, width) = plan.origin, plan.window
    window = source[top : top + height, left : left + width]
    if plan.window == plan.target:
        target[:] = window[:, ::-1] if plan.flip else window
        return
    if window.shape[2:] > (_MAX_CHANNELS,):
        for start in range(0, window.shape[2], _MAX_CHANNELS):
            some = (..., slice(start, start + _MAX_CHANNELS))
            part = np.ascontiguousarray(window[:, :: -1 if plan.flip else 1][some])
            resized = cv2.resize(part, plan.target[::-1], interpolation=interpolation)
            target[some] = resized.reshape(target[some].shape)
        return
    if plan.flip:
        window = cv2.flip(window, 1).reshape(window.shape)  # OpenCV drops the axis of a single channel
    cv2.resize(window, plan.target[::-1], dst=target, interpolation=interpolation)


@dataclasses.dataclass(frozen=True, slots=True)
class ColorPlan:
    """Colour changes of one image; the defaults change nothing."""

    brightness: float = 0.0  # added, in levels of 255
    contrast: float = 1.0  # multiplies the pixels
    saturation: float = 1.0
    hue: int = 0  # rotation in OpenCV's steps of two degrees
    contrast_first: bool = True  # before saturation and hue, or after

    @property
    def turns_hsv(self) -> bool:
        return self.saturation != 1.0 or self.hue != 0


def draw_colors(rng: np.random.Generator) -> ColorPlan:
    """Changes of brightness, contrast, saturation and hue, each with probability 1/2.

    Brightness is shifted by up to 32 of 255, contrast and saturation are multiplied by 0.5 to 1.5, hue is rotated by up
    to 36 degrees; contrast comes before or after saturation and hue.

    Source: SSD (1512.02325), sec. 3.6, with the ranges of its code.
    """
    chosen = rng.random(5) < 0.5
    brightness = rng.uniform(-32, 32) if chosen[0] else 0.0
    contrast, saturation = (rng.uniform(0.5, 1.5, size=2) ** chosen[1:3]).tolist()
    hue = int(rng.integers(-18, 19)) if chosen[3] else 0
    return ColorPlan(brightness, contrast, saturation, hue, contrast_first=bool(chosen[4]))


def change_colors(plan: ColorPlan, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Changes the colours in place."""
    levels = np.arange(256, dtype=np.float64)
    early = np.clip(levels + plan.brightness, 0, 255) * (plan.contrast if plan.contrast_first else 1.0)
    _apply_table(image, early)
    if plan.turns_hsv:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        tables = np.stack([(levels + plan.hue) % 180, levels * plan.saturation, levels], axis=-1)
        _apply_table(hsv, tables[None])
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=image)
    if not plan.contrast_first:
        _apply_table(image, levels * plan.contrast)


def _apply_table(image: UInt8[np.ndarray, "h w 3"], table: np.ndarray) -> None:
    cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8), dst=image)
