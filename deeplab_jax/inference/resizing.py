"""Images brought to another size before a network sees them, as some systems' evaluation scripts do."""

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
    """How large an image becomes; its proportions are kept but for rounding."""

    shorter: int  # pixels of the shorter side
    longer: int = 0  # what the longer side is at most; 0: anything
    antialias: bool = True  # smooth what shrinks (Pillow, torchvision), or not (OpenCV)

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) that an image of `size` gets."""
        short, long = min(size), max(size)
        if self.longer and self.shorter * long > self.longer * short:
            new_short, new_long = int(self.longer * short / long + 0.5), self.longer
        else:  # rounded down, as torchvision does
            new_short, new_long = self.shorter, int(self.shorter * long / short)
        return (new_short, new_long) if size[0] <= size[1] else (new_long, new_short)


def resize_rule(settings: InferenceConfig) -> ResizeRule | None:
    """How the settings resize images before all else; None where not at all."""
    if not settings.resize_shorter:
        return None
    return ResizeRule(settings.resize_shorter, settings.resize_longer, settings.resize_antialias)


def resize_image(image: Num[np.ndarray, "h w bands"], rule: ResizeRule) -> Num[np.ndarray, "h2 w2 bands"]:
    """Bilinear, by cells' areas (half-pixel centres); only RGB bytes can be smoothed where they shrink."""
    height, width = rule.size((image.shape[0], image.shape[1]))
    if (height, width) == image.shape[:2]:
        return image
    if rule.antialias and image.dtype == np.uint8 and image.shape[-1] == 3:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return _bilinear(image, (height, width))


def resize_label(label: Integer[np.ndarray, "h w"], rule: ResizeRule) -> Integer[np.ndarray, "h2 w2"]:
    """Each pixel takes the value of the one under its centre."""
    height, width = rule.size(label.shape)
    return np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))


def resize_back(probabilities: Float[np.ndarray, "h2 w2 c"], size: tuple[int, int]) -> Float[np.ndarray, "h w c"]:
    """Probabilities of a resized image at the image's own size, bilinear."""
    if probabilities.shape[:2] == size:
        return probabilities
    return _bilinear(probabilities, size)


def _bilinear(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """As OpenCV, which takes at most four channels at a time, and loses the last axis of one."""
    parts = [
        cv2.resize(np.ascontiguousarray(array[..., k : k + 4]), size[::-1]).reshape(*size, -1)
        for k in range(0, array.shape[-1], 4)
    ]
    return np.concatenate(parts, axis=-1)


@dataclasses.dataclass(frozen=True, slots=True)
class ResizedSource:
    """The examples of a source, image and label resized, and the middle cut out: what is then scored at that size.

    Attributes:
      source: of the originals.
      rule: how they are resized; None: not at all.
      center_crop: (height, width) of the middle that is kept; (0, 0): all. Smaller examples are kept whole.
    """

    source: ExampleSource
    rule: ResizeRule | None
    center_crop: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        """As many as there are originals."""
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        """The example at its new size."""
        name, image, label = self.source[index]
        if self.rule:
            image, label = resize_image(image, self.rule), resize_label(label, self.rule)
        rows, columns = self._middle(label.shape)
        return Example(name, image[rows, columns], label[rows, columns])

    @property
    def names(self) -> Sequence[str]:
        """Of the originals."""
        found: Any = self.source
        return found.names if hasattr(found, "names") else [self.source[k].name for k in range(len(self))]

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(height, width) of the resized examples."""
        found: Any = self.source
        originals = found.sizes if hasattr(found, "sizes") else [self.source[k].label.shape for k in range(len(self))]
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
