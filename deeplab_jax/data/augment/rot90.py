"""Rotations by multiples of 90 degrees, for images without a natural up."""

from __future__ import annotations

import numpy as np

from deeplab_jax.data.augment.by_name import Augmentation
from deeplab_jax.types import ImageLabel, Pixels


def rot90() -> Augmentation:
    """Rotates image and label by 0, 90, 180 or 270 degrees, all equally likely; crops must be square."""

    def augment(image: Pixels, label: ImageLabel, rng: np.random.Generator) -> tuple[Pixels, ImageLabel]:
        quarters = int(rng.integers(4))
        return np.rot90(image, quarters), np.rot90(label, quarters)

    return augment
