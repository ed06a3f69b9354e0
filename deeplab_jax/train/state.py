"""The state that training carries from step to step, and its initialisation."""

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


@no_type_check  # JAX also fills it with shapes and shardings
@flax.struct.dataclass
class TrainState:
    """One point of a training run; together with the seed and the data position it determines the rest."""

    step: Int[Array, ""]  # updates so far, including skipped ones
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any  # moving average {'params': ..., 'batch_stats': ...}, or None

    @property
    def variables(self) -> Variables:
        """The variables that training updates."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def eval_variables(self) -> Variables:
        """The variables to evaluate and export: the moving average if one is kept."""
        return self.variables if self.ema is None else self.ema


def create_variables(init: Init, *, seed: int, mesh: Mesh) -> Variables:
    """Random variables, replicated over the mesh.

    Uses an 'rbg' key: a program that draws a few hundred kernels with threefry takes half a minute to compile on a CPU.
    Its numbers depend on the kind of device, but not on the number of devices.

    Args:
      init: key -> variables, `module.init` with its other arguments bound.
    """
    # A CPU runs it once: less effort of LLVM takes 0.6 of the time to compile, and the numbers are the same.
    is_cpu = mesh.devices.flat[0].platform == "cpu"
    compiler_options = {"xla_backend_optimization_level": 1} if is_cpu else {}
    return jax.jit(init, out_shardings=replicated(mesh), compiler_options=compiler_options)(_key(seed))


def create_train_state(
    variables: Variables, tx: optax.GradientTransformation, *, ema: bool, mesh: Mesh, shard_optimizer: bool = False
) -> TrainState:
    """The state at step 0 for these variables; it owns its arrays, so it can be donated.

    Args:
      ema: whether to keep a moving average of the variables.
      mesh: the state is replicated over it.
      shard_optimizer: shard the optimiser's state over the mesh instead of replicating it.
    """

    def start(variables: Variables) -> TrainState:
        # The moving average must not share buffers with the parameters, or neither could be donated.
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
    """The sharding of each array of a state."""
    whole = replicated(mesh)
    shardings = jax.tree.map(lambda _: whole, state)
    if not shard_optimizer:
        return shardings
    return dataclasses.replace(
        shardings, opt_state=jax.tree.map(lambda leaf: shard_longest_axis(leaf.shape, mesh), state.opt_state)
    )


def _placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
