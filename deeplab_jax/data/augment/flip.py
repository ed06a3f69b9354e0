"""Vertical flips, for images without a natural up: aerial or microscope images."""

from __future__ import annotations

import numpy as np

from deeplab_jax.data.augment.by_name import Augmentation
from deeplab_jax.types import ImageLabel, Pixels


def vertical(*, probability: float = 0.5) -> Augmentation:
    """Flips image and label upside down with the given probability.

    Raises:
      ValueError: for a probability outside [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability={probability} must be in [0, 1]")

    def augment(image: Pixels, label: ImageLabel, rng: np.random.Generator) -> tuple[Pixels, ImageLabel]:
        return (image[::-1], label[::-1]) if rng.random() < probability else (image, label)

    return augment
