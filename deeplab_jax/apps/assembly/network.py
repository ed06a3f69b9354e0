"""The network of a config, and its variables in a workdir."""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from deeplab_jax.apps.assembly.image_kind import check_images
from deeplab_jax.config import Config
from deeplab_jax.models.build import build_model
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.ops import mesh as meshes
from deeplab_jax.train import checkpoint as checkpoints
from deeplab_jax.train.state import Init, abstract_variables
from deeplab_jax.types import DatasetInfo, UserError, Variables


def build(config: Config, info: DatasetInfo, mesh: Mesh | None = None) -> DeepLab:
    """The network for the classes of the data set.

    Args:
      mesh: for training; determines the group size of batch norm when statistics are per device.

    Raises:
      UserError: if config and data set disagree on the task or the number of classes, or a setting does not suit its
        images.
    """
    check_images(config, info)
    if config.model.task not in ("", info.task):
        remedy = f"read its masks so with --config.data.task={config.model.task}"
        if "multilabel" in (config.model.task, info.task):
            remedy = "take a network for that task"
        raise UserError(f"config.model.task={config.model.task!r}: data set {info.name} is {info.task}; {remedy}")
    if config.model.num_classes not in (0, info.num_classes):
        raise UserError(
            f"config.model.num_classes={config.model.num_classes}: data set {info.name} has {info.num_classes} "
            "classes; 0 takes the data set's"
        )
    model = config.model
    if model.batch_norm.group_size < 0 and mesh is not None:
        rows = config.data.batch_size // config.train.accumulation_steps // meshes.num_data(mesh)
        model = dataclasses.replace(model, batch_norm=dataclasses.replace(model.batch_norm, group_size=rows))
    return build_model(model, info)


def for_inference(config: Config) -> Config:
    """The config with the compute dtype of inference."""
    if not config.inference.compute_dtype:
        return config
    model = dataclasses.replace(config.model, compute_dtype=config.inference.compute_dtype)
    return dataclasses.replace(config, model=model)


def make_init(config: Config, model: nn.Module) -> Init:
    """key -> the network's variables; jitted, so that shape inference and initialisation share one trace."""
    channels = len(model.normalization.mean) if isinstance(model, DeepLab) else 3
    images = jnp.zeros((1, *config.data.crop_size, channels), jnp.uint8)
    return jax.jit(lambda key: model.init(key, images, train=False))


def load_variables(
    config: Config, model: nn.Module, workdir: pathlib.Path, checkpoint: str = "", mesh: Mesh | None = None
) -> Variables:
    """The workdir's best variables, or those of `checkpoint`, on the devices of `mesh` (None: the first one).

    Raises:
      UserError: if there is no checkpoint, or it holds a different network.
    """
    target = abstract_variables(make_init(config, model), mesh or meshes.make_mesh(1))
    return checkpoints.restore_variables(pathlib.Path(checkpoint) if checkpoint else workdir, target)
