"""One row of a training batch: a crop made on the host, or a window of the original for the device to crop.

Both draw the same random numbers in the same order, so they differ only in where the pixels are computed (see
ops/augment.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int32, Num, UInt8, UInt16

from deeplab_jax.canvas import fill_missing
from deeplab_jax.data.augment import transforms
from deeplab_jax.data.augment.by_name import NamedAugmentation, apply_in_turn
from deeplab_jax.data.augment.copy_paste import Donors, paste_object
from deeplab_jax.data.dataset import image_sizes
from deeplab_jax.data.settings import DataConfig
from deeplab_jax.types import Batch, DatasetInfo, Example, ExampleSource, Pixel, WindowBatch

PASTE_STREAM = 2  # of a sample's random numbers; 1 is the epoch order, 3 and above are data.augment

Labels = UInt8[np.ndarray, "b h w *maps"] | UInt16[np.ndarray, "b h w *maps"]  # see `DatasetInfo.label_dtype`
Buffers = TypeVar("Buffers")


@runtime_checkable
class RowMaker(Protocol[Buffers]):
    """Fills a loader's batches."""

    def empty(self, num_rows: int) -> Buffers:
        """Arrays to fill, with no row valid."""
        ...

    def fill(self, buffers: Buffers, row: int, example: Example, *, seed: int, sample: int) -> None:
        """Writes one row, a function of the example, the seed and the sample's number."""
        ...

    def finish(self, buffers: Buffers) -> Batch | WindowBatch:
        """The batch, once all rows are written."""
        ...


class CropBuffers(NamedTuple):
    """A `Batch` under construction."""

    image: Num[np.ndarray, "b h w bands"]
    label: Labels
    valid: Bool[np.ndarray, " b"]

    @classmethod
    def empty(cls, num_rows: int, size: tuple[int, int], info: DatasetInfo) -> CropBuffers:
        image = np.empty((num_rows, *size, info.channels), info.dtype)
        label = np.empty((num_rows, *size, *info.label_maps), info.label_dtype)
        return cls(image, label, np.zeros(num_rows, bool))


class WindowBuffers(NamedTuple):
    """A `WindowBatch` under construction."""

    image: Num[np.ndarray, "b h w bands"]
    label: Labels
    valid: Bool[np.ndarray, " b"]
    geometry: Int32[np.ndarray, "b 5"]
    colors: Float32[np.ndarray, "b 5"]


class CropMaker(RowMaker[CropBuffers]):
    """Makes crops on the host."""

    def __init__(
        self,
        config: DataConfig,
        info: DatasetInfo,
        *,
        pad_pixel: Pixel,
        donors: Donors | None = None,
        further: Sequence[NamedAugmentation] = (),
    ):
        """`donors`: images to paste from, if any; `further`: augmentations of the finished crop."""
        self._config, self._info, self._pad_pixel, self._donors = config, info, pad_pixel, donors
        self._further = further

    def empty(self, num_rows: int) -> CropBuffers:
        return CropBuffers.empty(num_rows, self._config.crop_size, self._info)

    def finish(self, buffers: CropBuffers) -> Batch:
        return Batch(*buffers)

    def fill(self, buffers: CropBuffers, row: int, example: Example, *, seed: int, sample: int) -> None:
        config = self._config
        rng = transforms.sample_rng(seed, sample)
        plan = _plan(rng, config, example.label, self._info.ignore_label)
        transforms.crop_into(
            plan,
            example.image,
            example.label,
            out_image=buffers.image[row],
            out_label=buffers.label[row],
            pad_pixel=self._pad_pixel,
            ignore_label=self._info.ignore_label,
        )
        height, width = plan.target
        image, label = buffers.image[row, :height, :width], buffers.label[row, :height, :width]
        if self._donors is not None:
            paste_rng = transforms.sample_rng(seed, sample, PASTE_STREAM)
            if paste_rng.random() < config.copy_paste:
                paste_object(paste_rng, self._donors, image, label, scale=_draw_scale(paste_rng, config))
        fill_missing(image, self._pad_pixel)
        if config.photometric:
            transforms.change_colors(transforms.draw_colors(rng), image)
        apply_in_turn(self._further, buffers.image[row], buffers.label[row], seed=seed, sample=sample)
        buffers.valid[row] = True


class WindowMaker(RowMaker[WindowBuffers]):
    """Copies windows: the host decodes and draws; the device resizes, mirrors, jitters colours and pads."""

    def __init__(self, config: DataConfig, info: DatasetInfo, *, canvas: tuple[int, int], pad_pixel: Pixel):
        """`canvas`: (height, width) that every window fits into; see `largest_window`."""
        self._config, self._info, self._canvas, self._pad_pixel = config, info, canvas, pad_pixel

    def finish(self, buffers: WindowBuffers) -> WindowBatch:
        return WindowBatch(*buffers)

    def empty(self, num_rows: int) -> WindowBuffers:
        # Zeros, not uninitialised memory: the same position gives the same bytes, beyond the windows too.
        return WindowBuffers(
            image=np.zeros((num_rows, *self._canvas, self._info.channels), self._info.dtype),
            label=np.zeros((num_rows, *self._canvas, *self._info.label_maps), self._info.label_dtype),
            valid=np.zeros(num_rows, bool),
            geometry=np.zeros((num_rows, 5), np.int32),
            colors=np.zeros((num_rows, 5), np.float32),
        )

    def fill(self, buffers: WindowBuffers, row: int, example: Example, *, seed: int, sample: int) -> None:
        rng = transforms.sample_rng(seed, sample)
        plan = _plan(rng, self._config, example.label, self._info.ignore_label)
        (top, left), (height, width) = plan.origin, plan.window
        source = (slice(top, top + height), slice(left, left + width))
        buffers.image[row, :height, :width] = example.image[source]
        buffers.label[row, :height, :width] = example.label[source]
        fill_missing(buffers.image[row, :height, :width], self._pad_pixel)
        colors = transforms.draw_colors(rng) if self._config.photometric else transforms.ColorPlan()
        buffers.geometry[row] = (*plan.window, *plan.target, plan.flip)
        buffers.colors[row] = (
            colors.brightness,
            colors.contrast,
            colors.saturation,
            colors.hue,
            colors.contrast_first,
        )
        buffers.valid[row] = True


def largest_window(config: DataConfig, source: ExampleSource) -> tuple[int, int]:
    """(height, width) of the largest window that can be drawn from the images of a split."""
    sizes = np.asarray(image_sizes(source))
    largest = np.asarray([round(crop / config.min_scale) for crop in config.crop_size])
    height, width = np.minimum(sizes.max(axis=0), largest).tolist()
    return height, width


def _plan(rng: np.random.Generator, config: DataConfig, label: np.ndarray, ignore_label: int) -> transforms.CropPlan:
    scale = _draw_scale(rng, config)
    size = (label.shape[0], label.shape[1])
    return transforms.plan_balanced_crop(
        lambda: transforms.plan_crop(rng, size, crop_size=config.crop_size, scale=scale, flip=config.flip),
        label,
        max_share=config.max_class_share,
        num_tries=config.crop_tries,
        ignore_label=ignore_label,
    )


def _draw_scale(rng: np.random.Generator, config: DataConfig) -> float:
    return transforms.random_scale(
        rng, min_scale=config.min_scale, max_scale=config.max_scale, scale_step=config.scale_step
    )
