"""Augmentations that a config adds by name, applied in order to a finished crop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from deeplab_jax import registry
from deeplab_jax.data.augment.transforms import sample_rng
from deeplab_jax.fields import PartConfig
from deeplab_jax.types import ImageLabel, Pixels, UserError

PACKAGE = "data.augment"
_FIRST_STREAM = 3  # of a sample's random numbers; each augmentation has its own stream

Augmentation: TypeAlias = Callable[[Pixels, ImageLabel, np.random.Generator], tuple[Pixels, ImageLabel]]


class NamedAugmentation(NamedTuple):
    """An augmentation (image, label, rng) -> (image, label) that keeps sizes and types, and its name in the config."""

    name: str
    augment: Augmentation


def make_augmentations(parts: Sequence[PartConfig]) -> list[NamedAugmentation]:
    """The augmentations of a config, in order.

    Raises:
      UserError: when one does not exist or does not accept its arguments.
    """
    found = []
    for position, part in enumerate(parts):
        try:
            found.append(NamedAugmentation(part.name, registry.resolve(PACKAGE, part.name)(**part.args)))
        except (TypeError, ValueError) as error:
            raise UserError(f"config.data.augment[{position}]: '{part.name}': {error}") from None
    return found


def apply_in_turn(
    augmentations: Sequence[NamedAugmentation],
    image: Pixels,
    label: ImageLabel,
    *,
    seed: int,
    sample: int,
) -> None:
    """Augments one crop in place, including its padding; a function of the crop, the seed and the sample's number.

    Raises:
      UserError: when an augmentation changes the size or type.
    """
    for position, (name, augment) in enumerate(augmentations):
        results = augment(image, label, sample_rng(seed, sample, _FIRST_STREAM + position))
        for what, result, target in zip(("an image", "a label"), results, (image, label), strict=True):
            if (result.shape, result.dtype) != (target.shape, target.dtype):
                raise UserError(
                    f"config.data.augment[{position}]: '{name}' returned {what} {result.shape} of {result.dtype} for "
                    f"one {target.shape} of {target.dtype}; both must stay as they are"
                )
        image[...], label[...] = results
