"""All that training carries from step to step, and how it comes into being."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Int

from deeplab_jax.ops.mesh import replicated, shard_longest_axis
from deeplab_jax.types import Variables

Init = Callable[[jax.Array], Variables]


@no_type_check  # JAX also makes it of shapes and of shardings
@flax.struct.dataclass
class TrainState:
    """One point of a training run; with the seed and the data position it fixes all that follows."""

    step: Int[Array, ""]  # updates tried so far, the skipped ones included
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any  # {'params': ..., 'batch_stats': ...}, their running average; None where it is not kept

    @property
    def variables(self) -> Variables:
        """What training optimises."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def eval_variables(self) -> Variables:
        """What is scored and shipped: the average where one is kept."""
        return self.variables if self.ema is None else self.ema


def create_variables(init: Init, *, seed: int, mesh: Mesh) -> Variables:
    """Random variables, a copy on each device of the mesh.

    The key is of the 'rbg' kind: a program that draws a few hundred kernels by threefry
    compiles for half a minute on a CPU. Its numbers depend on the kind of device, though not
    on how many there are.

    Args:
      init: key -> variables, `module.init` with its other arguments bound.
      seed: of the key.
      mesh: where the variables will live.
    """
    return jax.jit(init, out_shardings=replicated(mesh))(_key(seed))


def create_train_state(
    variables: Variables, tx: optax.GradientTransformation, *, ema: bool, mesh: Mesh, shard_optimizer: bool = False
) -> TrainState:
    """The state at step 0 for these variables; it owns its arrays and may be donated.

    Args:
      variables: of the network.
      tx: whose state belongs to it.
      ema: whether a running average is kept.
      mesh: where the state will live, a copy on each device.
      shard_optimizer: each device keeps a part of the optimiser's state instead.
    """

    def start(variables: Variables) -> TrainState:
        # The average must not share buffers with the parameters, or neither could be donated.
        return jax.tree.map(jnp.array, _initial_state(variables, tx, ema=ema))

    shardings = _shardings(jax.eval_shape(start, variables), mesh, shard_optimizer)
    return jax.jit(start, out_shardings=shardings)(variables)


def abstract_variables(init: Init, mesh: Mesh) -> Variables:
    """Shapes, dtypes and shardings of `create_variables`, without computing anything."""
    shapes, whole = jax.eval_shape(init, _key(0)), replicated(mesh)
    return jax.tree.map(lambda leaf: _placed(leaf, whole), shapes)


def abstract_train_state(
    variables: Variables, tx: optax.GradientTransformation, *, ema: bool, mesh: Mesh, shard_optimizer: bool = False
) -> TrainState:
    """Shapes, dtypes and shardings of `create_train_state`, from those of `abstract_variables`."""
    shapes = jax.eval_shape(lambda variables: _initial_state(variables, tx, ema=ema), variables)
    return jax.tree.map(_placed, shapes, _shardings(shapes, mesh, shard_optimizer))


def _key(seed: int) -> jax.Array:
    return jax.random.key(seed, impl="rbg")


def _initial_state(variables: Variables, tx: optax.GradientTransformation, *, ema: bool) -> TrainState:
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=tx.init(params),
        ema={"params": params, "batch_stats": batch_stats} if ema else None,
    )


def _shardings(state: TrainState, mesh: Mesh, shard_optimizer: bool) -> TrainState:
    """Where each array of a state lives."""
    whole = replicated(mesh)
    shardings = jax.tree.map(lambda _: whole, state)
    if not shard_optimizer:
        return shardings
    return dataclasses.replace(
        shardings, opt_state=jax.tree.map(lambda leaf: shard_longest_axis(leaf.shape, mesh), state.opt_state)
    )


def _placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
