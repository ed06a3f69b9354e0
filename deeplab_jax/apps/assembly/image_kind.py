"""What follows from a data set's kind of images: what fills them up, and which settings need RGB bytes."""

from __future__ import annotations

from deeplab_jax.config import Config
from deeplab_jax.data.sources.bands import describe_format
from deeplab_jax.models.build import find_normalization
from deeplab_jax.types import DatasetInfo, Pixel, UserError


def pad_pixel(config: Config, info: DatasetInfo) -> Pixel:
    """What padding is made of, and missing values are replaced by: it normalises to (nearly) zero.

    Args:
      config: names the normalisation.
      info: of the data set.
    """
    normalization = find_normalization(config.model, info)
    return normalization.mean if info.dtype == "float32" else normalization.pad_pixel


def check_images(config: Config, info: DatasetInfo) -> None:
    """Raises UserError where a setting is made for RGB bytes, and the images are none."""
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
