"""How a config wants images to go through the network."""

from __future__ import annotations

from deeplab_jax.apps.assembly.crf_settings import find_crf
from deeplab_jax.apps.assembly.image_kind import pad_pixel
from deeplab_jax.config import Config
from deeplab_jax.inference.predictor import PredictorOptions
from deeplab_jax.inference.resizing import ResizeRule
from deeplab_jax.types import DatasetInfo


def predictor_options(config: Config, info: DatasetInfo | None = None) -> PredictorOptions:
    """How the config wants an image of a data set (None: RGB bytes) to go through the network."""
    inference = config.inference
    return PredictorOptions(
        scales=tuple(inference.scales),
        flip=inference.flip,
        fuse=inference.fuse,
        window=inference.window,
        stride=inference.stride,
        blend=inference.blend,
        align_corners=config.model.align_corners,
        pad_to=inference.pad_to,
        bucket=inference.bucket,
        pad_pixel=pad_pixel(config, info),
        resize=resize_rule(config),
        crf=find_crf(config.inference.crf),
    )


def resize_rule(config: Config) -> ResizeRule | None:
    """How the config wants images resized before all else; None where not at all."""
    inference = config.inference
    if not inference.resize_shorter:
        return None
    return ResizeRule(inference.resize_shorter, inference.resize_longer, inference.resize_antialias)
