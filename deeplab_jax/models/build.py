"""Builds a network from a config."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from deeplab_jax import registry
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.models.multi_scale import MultiScaleDeepLab
from deeplab_jax.models.settings import ModelConfig, PartConfig
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.types import DATASET_NORMALIZATION, NORMALIZATIONS, DatasetInfo, Normalization, UserError


def build_model(config: ModelConfig, info: DatasetInfo | None = None) -> DeepLab:
    """Builds the network that `config` describes.

    Args:
      info: the data set, which gives the number of classes if the config does not. None: images are RGB bytes.

    Raises:
      UserError: when neither gives the number of classes, an argument of a part is invalid, or the images cannot be
        normalised as configured.
    """
    num_outputs = _count_outputs(config, info)
    options = LayerOptions(jnp.dtype(config.compute_dtype), dataclasses.replace(config.batch_norm))
    try:
        backbone = registry.resolve("backbones", config.backbone.name)(
            output_stride=config.output_stride, options=options, **hashable(config.backbone.args)
        )

        def make_head(part: PartConfig) -> nn.Module:
            return registry.resolve("heads", part.name)(
                num_classes=num_outputs,
                feature_info=backbone.feature_info,
                align_corners=config.align_corners,
                options=options,
                **hashable(part.args),
            )

        head = make_head(config.head)
        auxiliary = make_head(config.auxiliary) if config.auxiliary.name else None
        crf = _make_crf(config, num_outputs, config.task or (info.task if info else ""))
    except (TypeError, ValueError) as error:
        raise UserError(f"config.model: {error}") from None
    network = functools.partial(MultiScaleDeepLab, scales=tuple(config.scales)) if config.scales else DeepLab
    return network(
        backbone,
        head,
        find_normalization(config, info),
        config.align_corners,
        auxiliary,
        crf,
        config.upsample_in_training,
    )


def _count_outputs(config: ModelConfig, info: DatasetInfo | None) -> int:
    """Logits of each pixel: one in a binary task, whose two classes exclude each other; else one for each class."""
    num_classes = config.num_classes or (info.num_classes if info else 0)
    if not num_classes:
        raise UserError("config.model.num_classes=0: give the number of classes, or a data set that knows it")
    task = config.task or (info.task if info else "multiclass")
    if (task, num_classes) == ("multiclass", 1):
        raise UserError(
            "config.model.num_classes=1: of one class every pixel is; an object and its background are two, with "
            "config.model.task=binary"
        )
    if task == "binary" and num_classes != 2:
        raise UserError(
            f"config.model.num_classes={num_classes}: a binary task has two classes, the background and the object"
        )
    return 1 if task == "binary" else num_classes


def find_normalization(config: ModelConfig, info: DatasetInfo | None) -> Normalization:
    """The input normalisation for the images of a data set (None: RGB bytes).

    Raises:
      UserError: when the config's normalisation is for RGB bytes and the images are not, or it is the data set's own
        and not known.
    """
    if config.normalization == DATASET_NORMALIZATION:
        if info is None or not info.channel_mean:
            raise UserError(
                f"config.model.normalization={config.normalization!r}: the means of the data set's channels are not "
                "known here; start a run with it, in a new --workdir"
            )
        return Normalization(info.channel_mean, info.channel_std)
    if info is not None and not info.is_rgb:
        raise UserError(
            f"config.model.normalization={config.normalization!r}: is for RGB bytes, data set {info.name} has "
            f"{info.channels} channels of {info.dtype}; set it to {DATASET_NORMALIZATION!r}, which takes the means and "
            "deviations of the training split"
        )
    return NORMALIZATIONS[config.normalization]


def _make_crf(config: ModelConfig, num_classes: int, task: str) -> nn.Module | None:
    """The CRF at the end of the network, if any; it reads the unnormalised images."""
    if not config.crf.name:
        return None
    if task == "multilabel":
        raise ValueError(
            f"crf.name='{config.crf.name}': needs classes that exclude each other, and those of this network overlap"
        )
    if not config.upsample_in_training:
        raise ValueError("upsample_in_training=False: a CRF refines logits at the size of the images")
    return registry.resolve("models", config.crf.name)(num_classes=num_classes, **hashable(config.crf.args))


def hashable(value: Any) -> Any:
    """Converts lists, as from JSON or the command line, to tuples, since modules must be hashable."""
    if isinstance(value, dict):
        return {name: hashable(each) for name, each in value.items()}
    return tuple(map(hashable, value)) if isinstance(value, list) else value
