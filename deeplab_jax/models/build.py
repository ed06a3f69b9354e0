"""From a config to a network, and to the layout of the weights that it starts from."""

from __future__ import annotations

import functools
import importlib

import flax.linen as nn
import jax.numpy as jnp

from deeplab_jax import registry
from deeplab_jax.config import ModelConfig, PartConfig
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.models.multi_scale import MultiScaleDeepLab
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.types import NORMALIZATIONS, DatasetInfo, UserError, WeightLayout


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
    except (TypeError, ValueError) as error:
        raise UserError(f"config.model: {error}") from None
    network = functools.partial(MultiScaleDeepLab, scales=tuple(config.scales)) if config.scales else DeepLab
    return network(
        backbone,
        head,
        NORMALIZATIONS[config.normalization],
        config.align_corners,
        auxiliary,
        config.upsample_in_training,
    )


def find_layout(config: ModelConfig) -> WeightLayout:
    """The layout of `config.pretrained`, once the config is seen to agree with what such weights need.

    Raises:
      UserError: for a layout that the backbone does not know, or a setting with which the weights would
        silently compute something else.
    """
    module_name = config.backbone.name.rpartition(".")[0]
    layouts = getattr(importlib.import_module(f"deeplab_jax.backbones.{module_name}"), "LAYOUTS", {})
    name = config.pretrained.layout
    if name not in layouts:
        known = ", ".join(layouts) or "none yet"
        raise UserError(f"config.model.pretrained.layout={name!r}: {config.backbone.name} has the layouts {known}")
    layout = layouts[name]
    if config.normalization != layout.normalization:
        raise UserError(
            f"config.model.normalization={config.normalization!r}: weights of layout '{name}' need "
            f"'{layout.normalization}'"
        )
    defaults = registry.defaults(registry.resolve("backbones", config.backbone.name))
    for argument, needed in layout.arguments.items():
        value = config.backbone.args.get(argument, defaults[argument])
        if value != needed:
            raise UserError(
                f"config.model.backbone.args.{argument}={value!r}: weights of layout '{name}' need {needed!r}"
            )
    return layout


def _hashable(arguments: dict) -> dict:
    """Lists, as the command line may give them, become tuples: modules must be hashable."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
