"""What there is, by name: networks, their parts, data sets, layouts of weights, configs."""

from __future__ import annotations

from collections.abc import Mapping

from deeplab_jax import registry
from deeplab_jax.apps.find_config import config_names
from deeplab_jax.weights.pretrained import published

# What the builder hands to every part of a kind: by it a module's factories are told from its helpers.
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "backbones": ("output_stride", "options"),
    "heads": ("num_classes", "feature_info", "align_corners", "options"),
    "losses": ("logits", "label", "ignore_label", "class_weights"),
}
PAPERS: Mapping[str, str] = {"v1": "large_fov", "v2": "aspp_sum", "v3": "aspp"}  # a paper's network -> its head


def list_models() -> tuple[str, ...]:
    """The networks that `create` makes: the papers' ('v1', 'v2', 'v3') and every head by its own name.

    Example:
      >>> import deeplab_jax as dl
      >>> "v3plus" in dl.list_models() and "v1" in dl.list_models()
      True
    """
    return tuple(sorted({*PAPERS, *list_heads()}))


def list_backbones() -> tuple[str, ...]:
    """The backbones, as `create` takes them.

    Example:
      >>> import deeplab_jax as dl
      >>> dl.list_backbones()[:3]
      ('efficientnet_b0', 'efficientnet_b1', 'efficientnet_b2')
    """
    return _part_names("backbones")


def list_heads() -> tuple[str, ...]:
    """The heads.

    Example:
      >>> import deeplab_jax as dl
      >>> dl.list_heads()[:2]
      ('aspp', 'aspp_l')
    """
    return _part_names("heads")


def list_losses() -> tuple[str, ...]:
    """The losses, functions of `deeplab_jax.losses`.

    Example:
      >>> import deeplab_jax as dl
      >>> [name for name in dl.list_losses() if name.startswith("soft")]
      ['soft_dice', 'soft_tversky', 'softmax_cross_entropy', 'softmax_focal']
    """
    return _part_names("losses")


def list_datasets() -> tuple[str, ...]:
    """The data sets, as `config.data.dataset` takes them; 'folder' is one of your own.

    Example:
      >>> import deeplab_jax as dl
      >>> "cityscapes" in dl.list_datasets()
      True
    """
    return tuple(registry.module_names("data.datasets"))


def list_layouts() -> tuple[str, ...]:
    """The systems whose weights `load` reads.

    Example:
      >>> import deeplab_jax as dl
      >>> "torchvision" in dl.list_layouts()
      True
    """
    return tuple(registry.module_names("weights.layouts"))


def list_configs() -> tuple[str, ...]:
    """The project's own configs, as `train` takes them.

    Example:
      >>> import deeplab_jax as dl
      >>> "v3plus_voc" in dl.list_configs()
      True
    """
    return tuple(config_names())


def list_pretrained() -> tuple[str, ...]:
    """Names under which `load` finds weights that others publish: fetched once, verified, and kept.

    Where each is, its licence, data, protocol and published score are in deeplab_jax/weights/pretrained.json. A
    backbone alone ('..._imagenet') is a start for training: config.model.pretrained.source.

    Example:
      >>> import deeplab_jax as dl
      >>> "torchvision:deeplabv3_resnet50_coco_voc" in dl.list_pretrained()
      True
    """
    return tuple(published())


def _part_names(package: str) -> tuple[str, ...]:
    return tuple(registry.factories(package, ARGUMENTS[package]))
