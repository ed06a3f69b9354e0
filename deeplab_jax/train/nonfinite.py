"""Where a value that is not finite came from: the module, and the file; `train.debug_nonfinite`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool

from deeplab_jax.ops.mesh import batch_sharding
from deeplab_jax.train.state import TrainState
from deeplab_jax.train.step import TrainStep
from deeplab_jax.types import Batch, Metrics

ExplainSkip = Callable[[TrainState, Batch, Sequence[str]], str]  # state after the step, batch, names of its files
_OUTPUT, _GRADIENT = "output", "gradient"


def make_explain_skip(train_step: TrainStep, mesh: Mesh) -> ExplainSkip:
    """Makes the function that says in one line where the first value of a skipped step that is not finite is.

    The step's own program is run again with a probe at the output of each module, forward and backward, so that loss,
    dropout, accumulation and rematerialisation are those of the step: once on the batch, for the module, and once for
    each row, repeated to the size of the batch, for the files. It is compiled at the first skipped step.

    Args:
      train_step: from `make_train_step`, not yet compiled.
      mesh: that of the step.
    """
    probes = _Probes()
    plain_step: Any = inspect.unwrap(train_step)

    @jax.jit
    def probe(state: TrainState, batch: Batch) -> Metrics:
        with nn.intercept_methods(probes):
            return plain_step(state, batch)[1]

    @functools.partial(jax.jit, out_shardings=batch_sharding(mesh))
    def repeat(batch: Batch, row: Array) -> Batch:
        return jax.tree.map(lambda rows: jnp.broadcast_to(rows[row], rows.shape), batch)

    def explain(state: TrainState, batch: Batch, names: Sequence[str]) -> str:
        before = dataclasses.replace(state, step=state.step - 1)  # all that a skipped step has changed
        probes.found.clear()
        loss = float(probe(before, batch)["loss"])
        jax.effects_barrier()
        place = probes.first(state.params, loss)
        rows = (repeat(batch, jnp.asarray(row)) for row in range(len(names)))
        guilty = [name for name, row in zip(names, rows, strict=True) if bool(probe(before, row)["skipped"])]
        return f"first not finite: {place}; {_describe(guilty, len(names))}"

    return explain


def _describe(guilty: Sequence[str], num_rows: int) -> str:
    if not guilty:
        return "no file alone does it, only the batch as a whole"
    if len(guilty) == num_rows > 1:
        return "each file of the batch does it: the weights or the learning rate, not the data"
    return f"caused by {', '.join(guilty)}"


class _Probes:
    """Intercepts the calls of all modules while a step is traced, and hears of each value when it runs."""

    def __init__(self) -> None:
        self.found: set[tuple[str, str]] = set()  # (_OUTPUT or _GRADIENT, path) of what is not finite
        self._order: dict[str, int] = {}  # paths in the order in which their calls end

    def __call__(self, call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        result = call(*args, **kwargs)
        if context.method_name != "__call__" or not context.module.scope:
            return result
        path = "/".join(context.module.path)
        self._order.setdefault(path, len(self._order))
        return jax.tree.map(lambda leaf: _probed(self._tell, path, leaf) if _is_real(leaf) else leaf, result)

    def first(self, params: Any, loss: float) -> str:
        """The earliest place in the order of the computation, in words."""
        outputs = [path for path in self._order if (_OUTPUT, path) in self.found]
        if outputs:
            spoiled = _spoiled(params, outputs[0])
            text = f"forward, the output of {outputs[0] or 'the network'}"
            return f"{text} (its {', '.join(spoiled)} is not finite)" if spoiled else text
        if not math.isfinite(loss):
            return "the loss, of logits that are finite"
        gradients = [path or "the network" for path in self._order if (_GRADIENT, path) in self.found]
        return f"backward, the gradient at the output of {gradients[-1]}" if gradients else "the sum of the gradients"

    def _tell(self, kind: str, path: str, value: Array) -> None:
        def note(finite: Bool[Array | np.ndarray, ""]) -> None:
            if not finite:
                self.found.add((kind, path))

        jax.debug.callback(note, jnp.isfinite(value).all())


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _probed(tell: Callable[[str, str, Array], None], path: str, value: Array) -> Array:
    tell(_OUTPUT, path, value)
    return value


def _forward(tell: Callable[[str, str, Array], None], path: str, value: Array) -> tuple[Array, None]:
    return _probed(tell, path, value), None


def _backward(tell: Callable[[str, str, Array], None], path: str, _: None, gradient: Array) -> tuple[Array]:
    tell(_GRADIENT, path, gradient)
    return (gradient,)


_probed.defvjp(_forward, _backward)


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def _spoiled(params: Any, path: str) -> list[str]:
    """Names of the parameters of a module's own that are not finite."""
    for name in filter(None, path.split("/")):
        params = params.get(name, {})
    return [name for name, value in params.items() if hasattr(value, "shape") and not bool(jnp.isfinite(value).all())]
