"""From a config to a network."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax.numpy as jnp

from deeplab_jax import registry
from deeplab_jax.config import ModelConfig, PartConfig
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.models.multi_scale import MultiScaleDeepLab
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.types import NORMALIZATIONS, DatasetInfo, UserError


def build_model(config: ModelConfig, info: DatasetInfo | None = None) -> DeepLab:
    """Builds the network that `config` describes.

    Args:
      config: the model's settings.
      info: the data set, whose number of classes is taken where the config names none.

    Raises:
      UserError: when neither says how many classes there are, or an argument of a part cannot work.
    """
    num_classes = config.num_classes or (info.num_classes if info else 0)
    if not num_classes:
        raise UserError("config.model.num_classes=0: give the number of classes, or a data set that knows it")
    norm = config.batch_norm
    options = LayerOptions(jnp.dtype(config.compute_dtype), norm.decay, norm.group_size, norm.frozen)
    try:
        backbone = registry.resolve("backbones", config.backbone.name)(
            output_stride=config.output_stride, options=options, **_hashable(config.backbone.args)
        )

        def make_head(part: PartConfig) -> nn.Module:
            return registry.resolve("heads", part.name)(
                num_classes=num_classes,
                feature_info=backbone.feature_info,
                align_corners=config.align_corners,
                options=options,
                **_hashable(part.args),
            )

        head = make_head(config.head)
        auxiliary = make_head(config.auxiliary) if config.auxiliary.name else None
        crf = _make_crf(config, num_classes)
    except (TypeError, ValueError) as error:
        raise UserError(f"config.model: {error}") from None
    network = functools.partial(MultiScaleDeepLab, scales=tuple(config.scales)) if config.scales else DeepLab
    return network(
        backbone,
        head,
        NORMALIZATIONS[config.normalization],
        config.align_corners,
        auxiliary,
        crf,
        config.upsample_in_training,
    )


def _make_crf(config: ModelConfig, num_classes: int) -> nn.Module | None:
    """The CRF at the end of the network, if any; it works on the images' own pixels."""
    if not config.crf.name:
        return None
    if not config.upsample_in_training:
        raise ValueError("upsample_in_training=False: a CRF refines logits at the size of the images")
    return registry.resolve("models", config.crf.name)(num_classes=num_classes, **_hashable(config.crf.args))


def _hashable(arguments: dict) -> dict:
    """Lists, as the command line may give them, become tuples: modules must be hashable."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
