"""Predictor options from a config."""

from __future__ import annotations

import dataclasses

from deeplab_jax.apps.assembly.crf_settings import find_crf
from deeplab_jax.apps.assembly.image_kind import pad_pixel
from deeplab_jax.config import Config
from deeplab_jax.inference.predictor import PredictorOptions
from deeplab_jax.types import DatasetInfo


def predictor_options(config: Config, info: DatasetInfo) -> PredictorOptions:
    """The predictor options of a config; later changes to the config do not affect them."""
    return PredictorOptions(
        settings=dataclasses.replace(config.inference),
        align_corners=config.model.align_corners,
        pad_pixel=pad_pixel(config, info),
        crf=find_crf(config.inference.crf),
    )
