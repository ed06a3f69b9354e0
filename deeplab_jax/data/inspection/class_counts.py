"""How often each class occurs in a split, and the class weights that follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from deeplab_jax.data.sources.stored_labels import LabelPixels, count_label
from deeplab_jax.data.workers import each
from deeplab_jax.types import DatasetInfo, ExampleSource


@dataclasses.dataclass
class ClassCounts:
    """Sums over the images of a split; arrays have one number per class, in int64."""

    pixels: Int[np.ndarray, "c"]
    images: Int[np.ndarray, "c"]  # images that contain the class
    pixels_beside: Int[np.ndarray, "c"]  # labelled pixels, of any class, in those images
    num_ignored: int = 0  # pixels
    num_labelled: int = 0  # the others; classes may overlap there in a multilabel task
    num_images: int = 0

    @classmethod
    def zeros(cls, num_classes: int) -> ClassCounts:
        return cls(np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64))

    def add(self, label: LabelPixels) -> None:
        """Adds one image."""
        pixels = label.of_class
        seen = pixels > 0
        self.pixels += pixels
        self.images += seen
        self.pixels_beside += np.where(seen, label.num_labelled, 0)
        self.num_ignored += label.num_ignored
        self.num_labelled += label.num_labelled
        self.num_images += 1

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return {key: np.asarray(value).tolist() for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ClassCounts:
        """The inverse of `to_dict`."""
        values: dict[str, Any] = {name: content[name] for name in ("num_ignored", "num_images")}
        values["num_labelled"] = content.get("num_labelled", sum(content["pixels"]))  # classes that exclude each other
        values |= {name: np.asarray(content[name], np.int64) for name in ("pixels", "images", "pixels_beside")}
        return cls(**values)


def count_classes(source: ExampleSource, info: DatasetInfo, *, num_workers: int, title: str) -> ClassCounts:
    """Counts the classes in all labels of a split, in threads (0: one for each core), with a progress bar."""
    counts = ClassCounts.zeros(info.num_classes)

    def count(index: int) -> LabelPixels:
        return count_label(source[index].label, info)

    for found in each(count, range(len(source)), title=title, num_workers=num_workers):
        counts.add(found)
    return counts


def median_frequency_weights(counts: ClassCounts) -> tuple[float, ...]:
    """median(f) / f_c, with f_c the share of class c among the labelled pixels of the images that contain it.

    A class that never occurs has weight 1; the median is over the others.

    Source: Eigen, Fergus (1411.4734), sec. 6.3.2, as in SegNet (1511.00561)
    """
    seen = counts.pixels > 0
    frequency = counts.pixels[seen] / counts.pixels_beside[seen]
    return _scatter(np.median(frequency) / frequency if seen.any() else frequency, seen)


def effective_number_weights(counts: ClassCounts) -> tuple[float, ...]:
    """1 / E(n_c), of mean 1;  E(n) = (1 - β^n) / (1 - β), n_c the pixels of class c, β = (N - 1) / N.

    N, the number of pixels beyond which more pixels of a class add no information, is the mean number of pixels per
    class (the paper searches for it): rarer classes are weighted by inverse frequency, more frequent ones equally. A
    class that never occurs has weight 1.

    Source: Class-balanced loss (1901.05555), sec. 3.2 and 4
    """
    seen = counts.pixels > 0
    if not seen.any():
        return _scatter(np.zeros(0), seen)
    enough = max(counts.pixels[seen].mean(), 2.0)
    number = -enough * np.expm1(counts.pixels[seen] * np.log1p(-1.0 / enough))
    return _scatter((1.0 / number) / np.mean(1.0 / number), seen)


def _scatter(weights: np.ndarray, seen: np.ndarray) -> tuple[float, ...]:
    every = np.ones(len(seen))
    every[seen] = weights
    return tuple(float(weight) for weight in every)
