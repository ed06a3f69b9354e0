"""Builds a config's train step and what belongs to it from shapes only, for training and ahead-of-time compilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from deeplab_jax.apps.assembly import network
from deeplab_jax.apps.assembly.loss import make_loss
from deeplab_jax.config import Config
from deeplab_jax.data.inspection.class_counts import ClassCounts
from deeplab_jax.nn.remat import rematerialized
from deeplab_jax.ops.mesh import batch_sharding
from deeplab_jax.train.optimizer import make_optimizer
from deeplab_jax.train.state import Init, TrainState, abstract_train_state, abstract_variables
from deeplab_jax.train.step import TrainStep, make_train_step
from deeplab_jax.types import Batch, DatasetInfo


class Step(NamedTuple):
    """Network, optimiser, train step and abstract state of a config; nothing is computed yet."""

    model: nn.Module
    init: Init
    tx: optax.GradientTransformation
    train_step: TrainStep
    state: TrainState  # shapes, dtypes and shardings


def build_step(config: Config, info: DatasetInfo, mesh: Mesh, counts: Callable[[], ClassCounts] | None = None) -> Step:
    """The train step of a config.

    Args:
      mesh: its devices need not exist.
      counts: class counts of the training split, for class weights computed from them.

    Raises:
      UserError: if config and data set disagree.
      ValueError: if the loss needs counts and there are none.
    """
    model = network.build(config, info, mesh)
    init = network.make_init(config, model)
    variables = abstract_variables(init, mesh)
    tx, learning_rate = make_optimizer(config.optimizer, config.train.num_steps, variables["params"])
    state = abstract_train_state(variables, tx, mesh=mesh, **state_options(config))
    batch_norm = config.model.batch_norm
    train_step = make_train_step(
        rematerialized(model.apply, config.model.remat),
        make_loss(config.loss, info, counts),
        tx,
        learning_rate,
        mesh=mesh,
        ignore_label=info.ignore_label,
        seed=config.seed,
        accumulation_steps=config.train.accumulation_steps,
        ema_decay=config.train.ema_decay,
        batch_norm_decay=batch_norm.decay if batch_norm.start_correction else None,
        side_weight=config.loss.side_weight,
        task=info.task,
        state_sharding=jax.tree.map(lambda leaf: leaf.sharding, state),
    )
    return Step(model, init, tx, train_step, state)


def state_options(config: Config) -> dict[str, bool]:
    """Keyword arguments of `create_train_state` that a config sets."""
    return {"ema": config.train.ema_decay > 0, "shard_optimizer": config.mesh.shard_optimizer}


def abstract_batch(config: Config, info: DatasetInfo, mesh: Mesh) -> Batch:
    """Shapes, dtypes and shardings of one global batch."""
    size, sharding = (config.data.batch_size, *config.data.crop_size), batch_sharding(mesh)

    def shape(sizes: tuple[int, ...], dtype: str) -> Any:
        return jax.ShapeDtypeStruct(sizes, jnp.dtype(dtype), sharding=sharding)

    label = shape((*size, *info.label_maps), info.label_dtype)
    return Batch(shape((*size, info.channels), info.dtype), label, shape(size[:1], "bool"))
