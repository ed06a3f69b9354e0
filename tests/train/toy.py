"""A toy segmentation network and its batches: small enough to compile in a second, with everything a real one has."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.config import OptimizerConfig
from deeplab_jax.losses.cross_entropy import softmax_cross_entropy
from deeplab_jax.nn.norm import BatchNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.settings import BatchNormConfig
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.train.optimizer import make_optimizer
from deeplab_jax.train.state import create_train_state, create_variables
from deeplab_jax.train.step import make_train_step
from deeplab_jax.types import Batch

IGNORE = 255
NUM_CLASSES = 3
SIZE = (8, 10)


class Backbone(nn.Module):
    batch_norm: bool
    group_size: int

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(6, (3, 3), use_bias=not self.batch_norm, name="conv")(x)
        if self.batch_norm:
            options = LayerOptions(batch_norm=BatchNormConfig(decay=0.9, group_size=self.group_size))
            x = BatchNorm(epsilon=1e-3, options=options, name="bn")(x, train=train)
        return nn.relu(x)


class Head(nn.Module):
    num_classes: int
    dropout: float

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Conv(self.num_classes, (1, 1), name="logits")(x)


class Toy(nn.Module):
    num_classes: int = NUM_CLASSES
    batch_norm: bool = True
    dropout: float = 0.0
    group_size: int = 0  # of batch norm

    @nn.compact
    def __call__(self, image, *, train):
        x = image.astype(jnp.float32) / 255
        x = Backbone(self.batch_norm, self.group_size, name="backbone")(x, train=train)
        return Head(self.num_classes, self.dropout, name="head")(x, train=train)


def make_init(model):
    return lambda key: model.init(key, jnp.zeros((1, *SIZE, 3), jnp.uint8), train=False)


def make_batch(position, size=16):
    """A learnable batch: the class of a pixel is its strongest channel; a border and some rows are ignored."""
    rng = np.random.default_rng([7, position])
    image = rng.integers(0, 256, size=(size, *SIZE, 3), dtype=np.uint8)
    label = image.argmax(axis=-1).astype(np.uint8)
    label[:, 0] = IGNORE
    label[::4, 5:] = IGNORE  # slices of the batch differ in weight
    return Batch(image, label, np.ones(size, bool))


def make_toy(
    *,
    num_devices=1,
    num_space=1,
    batch_norm=True,
    group_size=0,
    dropout=0.0,
    ema_decay=0.0,
    optimizer=None,
    shard_optimizer=False,
    num_steps=20,
    model=None,
    **options,
):
    """(state, step, mesh) of the toy; `options` go to make_train_step."""
    model = model or Toy(batch_norm=batch_norm, dropout=dropout, group_size=group_size)
    mesh = make_mesh(num_devices, num_space)
    variables = create_variables(make_init(model), seed=3, mesh=mesh)
    tx, learning_rate = make_optimizer(optimizer or OptimizerConfig(learning_rate=0.5), num_steps, variables["params"])
    state = create_train_state(variables, tx, ema=ema_decay > 0, mesh=mesh, shard_optimizer=shard_optimizer)
    loss = functools.partial(softmax_cross_entropy, ignore_label=IGNORE)
    step = make_train_step(
        model.apply,
        lambda logits, label, _: loss(logits, label),
        tx,
        learning_rate,
        mesh=mesh,
        ignore_label=IGNORE,
        seed=5,
        ema_decay=ema_decay,
        state_sharding=jax.tree.map(lambda leaf: leaf.sharding, state),
        **options,
    )
    return state, step, mesh


def to_host(tree):
    return jax.tree.map(np.asarray, jax.device_get(tree))
