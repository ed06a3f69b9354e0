"""Predictor options from a config."""

from __future__ import annotations

import dataclasses

from deeplab_jax.apps.assembly.crf_settings import find_crf
from deeplab_jax.apps.assembly.image_kind import pad_pixel
from deeplab_jax.config import Config
from deeplab_jax.inference.predictor import PredictorOptions
from deeplab_jax.ops.tasks import EVEN
from deeplab_jax.types import DatasetInfo, UserError


def predictor_options(config: Config, info: DatasetInfo) -> PredictorOptions:
    """The predictor options of a config; later changes to the config do not affect them.

    Raises:
      UserError: if a setting is not for the data set's task.
    """
    crf = find_crf(config.inference.crf)
    if crf is not None and info.task == "multilabel":
        raise UserError(
            f"config.inference.crf={config.inference.crf!r}: gives each pixel one class, and those of data set "
            f"{info.name} overlap; leave it out"
        )
    return PredictorOptions(
        settings=dataclasses.replace(config.inference),
        align_corners=config.model.align_corners,
        pad_pixel=pad_pixel(config, info),
        task=info.task,
        thresholds=_find_thresholds(config, info),
        crf=crf,
    )


def thresholds_of(options: PredictorOptions) -> list[float] | None:
    """The thresholds of a prediction, ready for JSON; None where it takes the likeliest class."""
    return None if options.task == "multiclass" else list(options.thresholds)


def _find_thresholds(config: Config, info: DatasetInfo) -> tuple[float, ...]:
    given, num_sigmoids = config.inference.threshold, info.num_outputs
    if given and info.task == "multiclass":
        raise UserError(
            f"config.inference.threshold={given}: data set {info.name} is multiclass, where the likeliest class is "
            "taken; leave it out"
        )
    if len(given) not in (0, 1, num_sigmoids):
        raise UserError(
            f"config.inference.threshold={given}: give one for all, or one for each of the {num_sigmoids} classes "
            "that a sigmoid decides on"
        )
    return given or (EVEN,)
