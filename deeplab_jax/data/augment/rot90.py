"""Rotations by multiples of 90 degrees, for images without a natural up."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from deeplab_jax.data.augment.by_name import Augmentation
from deeplab_jax.types import Pixels


def rot90() -> Augmentation:
    """Rotates image and label by 0, 90, 180 or 270 degrees, all equally likely; crops must be square."""

    def augment(
        image: Pixels, label: UInt8[np.ndarray, "h w"], rng: np.random.Generator
    ) -> tuple[Pixels, UInt8[np.ndarray, "h w"]]:
        quarters = int(rng.integers(4))
        return np.rot90(image, quarters), np.rot90(label, quarters)

    return augment
