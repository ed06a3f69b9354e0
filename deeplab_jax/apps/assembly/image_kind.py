"""Consequences of a data set's image type: the padding value, and which settings need uint8 RGB."""

from __future__ import annotations

from deeplab_jax.config import Config
from deeplab_jax.data.sources.bands import describe_format
from deeplab_jax.models.build import find_normalization
from deeplab_jax.types import DatasetInfo, Pixel, UserError


def pad_pixel(config: Config, info: DatasetInfo) -> Pixel:
    """The value of padding and of missing pixels, which normalises to (nearly) zero."""
    normalization = find_normalization(config.model, info)
    return normalization.mean if info.dtype == "float32" else normalization.pad_pixel


def check_images(config: Config, info: DatasetInfo) -> None:
    """Raises UserError if a setting requires uint8 RGB and the images are something else."""
    if info.is_rgb:
        return
    for field, value, without in (
        ("data.photometric", config.data.photometric, "False"),
        ("inference.crf", config.inference.crf, "''"),
        ("model.crf.name", config.model.crf.name, "''"),
    ):
        if value:
            images = describe_format(info.channels, info.dtype)
            raise UserError(
                f"config.{field}={value!r}: is for RGB bytes, data set {info.name} has {images}; set it to {without}"
            )
