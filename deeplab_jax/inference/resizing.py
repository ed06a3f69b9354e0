"""Resizing of images before the network, as in some systems' evaluation scripts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Integer, Num
from PIL import Image

from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.types import Example, ExampleSource


@dataclasses.dataclass(frozen=True, slots=True)
class ResizeRule:
    """The size to which an image is resized; the aspect ratio is kept, up to rounding."""

    shorter: int  # shorter side, pixels
    longer: int = 0  # upper bound of the longer side, pixels; 0: none
    antialias: bool = True  # when shrinking: smooth (Pillow, torchvision) or not (OpenCV)

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) to which an image of `size` is resized."""
        short, long = min(size), max(size)
        if self.longer and self.shorter * long > self.longer * short:
            new_short, new_long = int(self.longer * short / long + 0.5), self.longer
        else:  # rounded down, as torchvision does
            new_short, new_long = self.shorter, int(self.shorter * long / short)
        return (new_short, new_long) if size[0] <= size[1] else (new_long, new_short)


def resize_rule(settings: InferenceConfig) -> ResizeRule | None:
    """How the settings resize images before the network; None if they do not."""
    if not settings.resize_shorter:
        return None
    return ResizeRule(settings.resize_shorter, settings.resize_longer, settings.resize_antialias)


def resize_image(image: Num[np.ndarray, "h w bands"], rule: ResizeRule) -> Num[np.ndarray, "h2 w2 bands"]:
    """Bilinear with half-pixel centres; only uint8 RGB is antialiased when shrinking."""
    height, width = rule.size((image.shape[0], image.shape[1]))
    if (height, width) == image.shape[:2]:
        return image
    if rule.antialias and image.dtype == np.uint8 and image.shape[-1] == 3:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return _bilinear(image, (height, width))


def resize_label(label: Integer[np.ndarray, "h w *maps"], rule: ResizeRule) -> Integer[np.ndarray, "h2 w2 *maps"]:
    """Nearest neighbour: each pixel takes the value of the one under its centre."""
    if label.ndim == 3:
        return np.stack([resize_label(label[..., k], rule) for k in range(label.shape[-1])], axis=-1)
    height, width = rule.size((label.shape[0], label.shape[1]))
    return np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))


def resize_back(probabilities: Float[np.ndarray, "h2 w2 c"], size: tuple[int, int]) -> Float[np.ndarray, "h w c"]:
    """Probabilities of a resized image at the image's original size, bilinear."""
    if probabilities.shape[:2] == size:
        return probabilities
    return _bilinear(probabilities, size)


def _bilinear(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """cv2.resize for any number of channels: it takes at most four at a time, and drops the axis of a single one."""
    parts = [
        cv2.resize(np.ascontiguousarray(array[..., k : k + 4]), size[::-1]).reshape(*size, -1)
        for k in range(0, array.shape[-1], 4)
    ]
    return np.concatenate(parts, axis=-1)


@dataclasses.dataclass(frozen=True, slots=True)
class ResizedSource:
    """The examples of a source with image and label resized and center-cropped, to be scored at that size.

    Attributes:
      rule: None: no resizing.
      center_crop: (height, width); (0, 0): none. Smaller examples are kept whole.
    """

    source: ExampleSource
    rule: ResizeRule | None
    center_crop: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        name, image, label = self.source[index]
        if self.rule:
            image, label = resize_image(image, self.rule), resize_label(label, self.rule)
        rows, columns = self._middle((label.shape[0], label.shape[1]))
        return Example(name, image[rows, columns], label[rows, columns])

    @property
    def names(self) -> Sequence[str]:
        found: Any = self.source
        return found.names if hasattr(found, "names") else [self.source[k].name for k in range(len(self))]

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(height, width) of the resized examples."""
        found: Any = self.source
        originals = (
            found.sizes if hasattr(found, "sizes") else [self.source[k].label.shape[:2] for k in range(len(self))]
        )
        sizes = []
        for original in originals:
            rows, columns = self._middle(self.rule.size(tuple(original)) if self.rule else tuple(original))
            sizes.append((rows.stop - rows.start, columns.stop - columns.start))
        return sizes

    def _middle(self, size: tuple[int, int]) -> tuple[slice, slice]:
        if self.center_crop == (0, 0):
            return slice(0, size[0]), slice(0, size[1])
        spans = []
        for axis, crop in zip(size, self.center_crop, strict=True):
            kept = min(axis, crop)
            start = round((axis - kept) / 2)
            spans.append(slice(start, start + kept))
        return spans[0], spans[1]
