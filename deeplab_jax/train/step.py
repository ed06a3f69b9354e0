"""The train step: one batch, one update. The heart of the project.

The batch is sharded over the mesh and the state is replicated; under `jax.jit` every sum below runs over the GLOBAL
batch, so batch norm is synchronised and the loss is normalised globally with no extra code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Integer

from deeplab_jax.ops.mesh import DATA_AXIS, batch_sharding, replicated, split_height
from deeplab_jax.ops.resize import resize_nearest
from deeplab_jax.ops.tasks import find_task
from deeplab_jax.train.state import TrainState
from deeplab_jax.types import BN_DECAY, SIDE_LOGITS, ApplyFn, Batch, Label, Logits, Metrics

StepLoss: TypeAlias = Callable[[Logits, Label, Int[Array, ""]], tuple[Float[Array, ""], Float[Array, ""]]]


@runtime_checkable
class TrainStep(Protocol):
    """(state, batch) -> (state, metrics), jitted."""

    def __call__(self, state: TrainState, batch: Batch, /) -> tuple[TrainState, Metrics]: ...

    def lower(self, state: TrainState, batch: Batch, /) -> jax.stages.Lowered:
        """The program for arguments of these shapes, lowered but not compiled."""
        ...


class _Totals(NamedTuple):
    """Sums over pixels; means are computed once, at the end."""

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    num_correct: Float[Array, ""]
    num_counted: Float[Array, ""]


_Slice: TypeAlias = tuple[Any, Any, _Totals]  # gradient of the loss's SUM, new statistics, totals


def make_train_step(
    apply_fn: ApplyFn,
    loss_fn: StepLoss,
    tx: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    *,
    mesh: Mesh,
    ignore_label: int,
    seed: int,
    accumulation_steps: int = 1,
    ema_decay: float = 0.0,
    batch_norm_decay: float | None = None,
    side_weight: float = 1.0,
    state_sharding: Any = None,
    task: str = "multiclass",
) -> TrainStep:
    """Compiles (state, batch) -> (state, metrics); the state is donated.

        loss = Σ sum_j / max(Σ weight_j, 1),   (sum_j, weight_j) = loss_fn of slice j
        p <- p - r(t) tx(d loss / dp)

    Side outputs, if the network records any, add `side_weight` times their own loss. Labels are downsampled to the size
    of the logits they are compared with.

    With accumulation the slices of the batch go through the network one after another. Sums are added up before the
    single division, so without batch norm the result equals that of the whole batch; batch norm sees one slice at a
    time and updates its statistics after each.

    If the loss or the gradient norm is not finite, only `step` changes and the metric `skipped` is 1.

    Args:
      apply_fn: `module.apply`; called with train=True, mutable=['batch_stats'] and a dropout key.
      loss_fn: (logits, label, step) -> (sum, weight); the step is for losses that ramp.
      tx: gives the update in units of the learning rate (see train/optimizer.py).
      mesh: the batch is sharded along its data axis, image height along its space axis; the batch size must be a
        multiple of the data axis times `accumulation_steps`.
      ignore_label: also assigned to all pixels of rows whose `valid` is False.
      seed: of the dropout keys; the key of a step depends only on (seed, step).
      accumulation_steps: number of slices of the batch.
      ema_decay: weight of the old average; at step t it is min(ema_decay, (1 + t) / (10 + t)), so that the random
        initialisation is forgotten quickly. Used only if the state keeps an average.
      batch_norm_decay: the same of batch norm's running statistics; None: the network's own decay from the start.
      task: of the labels; the accuracy is that of its likeliest prediction.
      state_sharding: of each array of the state, from `abstract_train_state`; None: replicated.

    Returns:
      The step. Its metrics are float32 scalars: loss, learning_rate, gradient_norm (before clipping), pixel_accuracy,
      skipped.
    """

    def totals_of(
        params: Any, batch_stats: Any, batch: Batch, key: jax.Array, step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Any, _Totals]]:
        batch = split_height(batch, mesh)
        logits, updated = apply_fn(
            {"params": params, "batch_stats": batch_stats, **_decays(batch_stats, batch_norm_decay, step)},
            batch.image,
            train=True,
            mutable=["batch_stats", SIDE_LOGITS],
            rngs={"dropout": key},
        )
        valid = batch.valid.reshape([-1] + [1] * (batch.label.ndim - 1))
        full_label = jnp.where(valid, batch.label.astype(jnp.int32), ignore_label)
        label = _label_for(logits, full_label)
        loss, weight = loss_fn(logits, label, step)
        for side in jax.tree.leaves(updated.get(SIDE_LOGITS, {})):
            loss += side_weight * _side_loss(loss_fn(side, _label_for(side, full_label), step), weight)
        counted = label != ignore_label
        correct = counted & (find_task(task).likeliest(logits).astype(label.dtype) == label)
        totals = _Totals(loss, weight, _count(correct), _count(counted))
        return loss, (updated.get("batch_stats", batch_stats), totals)

    def slice_gradient(state: TrainState, batch_stats: Any, batch: Batch, key: jax.Array) -> _Slice:
        """(gradient of the loss's SUM, new statistics, totals) of one slice."""
        gradient, (batch_stats, totals) = jax.grad(totals_of, has_aux=True)(
            state.params, batch_stats, batch, key, state.step
        )
        return gradient, batch_stats, totals

    def batch_gradient(state: TrainState, batch: Batch, key: jax.Array) -> _Slice:
        """The same for the whole batch."""
        if accumulation_steps == 1:
            return slice_gradient(state, state.batch_stats, batch, key)

        def add_slice(carry: _Slice, item: tuple[Batch, jax.Array]) -> tuple[_Slice, None]:
            gradient, batch_stats, totals = carry
            part, index = item
            more, batch_stats, more_totals = slice_gradient(state, batch_stats, part, jax.random.fold_in(key, index))
            return (_add(gradient, more), batch_stats, _add(totals, more_totals)), None

        start = (_zeros_like(state.params), state.batch_stats, _Totals(*[jnp.zeros(())] * 4))
        items = (_slices(batch, accumulation_steps, mesh), jnp.arange(accumulation_steps))
        return jax.lax.scan(add_slice, start, items)[0]

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        gradient, batch_stats, totals = batch_gradient(state, batch, key)
        weight = jnp.maximum(totals.weight, 1.0)
        gradient = jax.tree.map(lambda g: g / weight, gradient)
        loss, gradient_norm, rate = totals.loss / weight, optax.tree.norm(gradient), learning_rate(state.step)

        direction, opt_state = tx.update(gradient, state.opt_state, state.params)
        params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
        updated = dataclasses.replace(state, params=params, batch_stats=batch_stats, opt_state=opt_state)
        updated = dataclasses.replace(updated, ema=_average(state, updated.variables, ema_decay))
        finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
        updated = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
        metrics = {
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": gradient_norm,
            "pixel_accuracy": totals.num_correct / jnp.maximum(totals.num_counted, 1.0),
            "skipped": ~finite,
        }
        updated = dataclasses.replace(updated, step=state.step + 1)
        return updated, jax.tree.map(lambda metric: jnp.asarray(metric, jnp.float32), metrics)

    everywhere = replicated(mesh)
    of_state = everywhere if state_sharding is None else state_sharding
    return jax.jit(
        train_step,
        in_shardings=(of_state, batch_sharding(mesh)),
        out_shardings=(of_state, everywhere),
        donate_argnums=0,
    )


def _label_for(
    logits: Float[Array, "b h w classes"], label: Integer[Array, "b H W *maps"]
) -> Integer[Array, "b h w *maps"]:
    """The label at the logits' size."""
    return resize_nearest(label, (logits.shape[1], logits.shape[2]))


def _side_loss(side: tuple[Float[Array, ""], Float[Array, ""]], weight: Float[Array, ""]) -> Float[Array, ""]:
    """The sum that, divided by the main output's weight, gives the side output's own mean over the slice."""
    total, own_weight = side
    return total * (weight / jnp.maximum(own_weight, 1.0))


def _slices(batch: Batch, num_slices: int, mesh: Mesh) -> Batch:
    """[b, ...] -> [num_slices, b / num_slices, ...]; slice j is rows j::num_slices, so no row leaves its device."""
    sharding = NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))

    def split(rows: jax.Array) -> jax.Array:
        rows = rows.reshape(rows.shape[0] // num_slices, num_slices, *rows.shape[1:])
        return jax.lax.with_sharding_constraint(rows.swapaxes(0, 1), sharding)

    return jax.tree.map(split, batch)


def _average(state: TrainState, variables: Mapping[str, Any], full_decay: float) -> Any:
    if state.ema is None:
        return None
    decay = _started(full_decay, state.step)
    return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.ema, dict(variables))


def _decays(batch_stats: Any, full_decay: float | None, step: Int[Array, ""]) -> dict[str, Any]:
    """The decay of each batch norm's statistics, beside them."""
    if full_decay is None:
        return {}
    layers = {path[:-1] for path in traverse_util.flatten_dict(batch_stats)}
    decay = _started(full_decay, step)
    return {BN_DECAY: traverse_util.unflatten_dict({(*layer, "decay"): decay for layer in layers})}


def _started(full_decay: float, step: Int[Array, ""]) -> Float[Array, ""]:
    """The decay of an average that is young: after t updates it reaches back over about t / 9 of them."""
    t = step.astype(jnp.float32)
    return jnp.minimum(full_decay, (1.0 + t) / (10.0 + t))


def _count(mask: jax.Array) -> Float[Array, ""]:
    return jnp.sum(mask, dtype=jnp.float32)


def _add(left: Any, right: Any) -> Any:
    return jax.tree.map(jnp.add, left, right)


def _zeros_like(tree: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, tree)
