"""Walks a traced program, for formats with operations of their own (ONNX)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from deeplab_jax.types import UserError

Equation = Any  # a jax.extend.core.JaxprEqn; JAX's types do not declare that its values have shapes
# A rule writes one operation: (equation, input values) -> output values. A value is a NumPy array if it is known, else
# whatever the format refers to it by.
Rule = Callable[[Equation, Sequence[Any]], Sequence[Any]]

_CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat", "checkpoint")
_IDENTITIES = ("optimization_barrier", "copy", "copy_p", "stop_gradient")
_PLATFORM = "platform_index"


def trace(function: Callable[..., Any], shape: Sequence[Any], dtype: str) -> tuple[ClosedJaxpr, Any]:
    """(program of `function`, shapes of its output) for one argument; sizes may be symbolic."""
    return jax.make_jaxpr(function, return_shape=True)(jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype)))


def walk(program: ClosedJaxpr, inputs: Sequence[Any], rules: Mapping[str, Rule], format_name: str) -> list[Any]:
    """The program's outputs, with every operation on unknown values written by its rule.

    Calls are inlined, platform-dependent code takes its default branch, and what depends only on constants (the weights
    of a resize, batch norm's factors) is computed immediately.

    Raises:
      UserError: for an operation without a rule.
    """
    jaxpr: Any = program.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, map(np.asarray, program.consts), strict=True))
    values.update(zip(jaxpr.invars, inputs, strict=True))

    def read(variable: Any) -> Any:
        if not isinstance(variable, Literal):
            return values[variable]
        aval: Any = variable.aval
        return np.asarray(variable.val, aval.dtype)

    for equation in jaxpr.eqns:
        results = _step(equation, [read(variable) for variable in equation.invars], rules, format_name)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _step(equation: Equation, inputs: list[Any], rules: Mapping[str, Rule], format_name: str) -> Sequence[Any]:
    name = equation.primitive.name
    if name == _PLATFORM:
        return [_PLATFORM]
    if name == "cond" and isinstance(inputs[0], str) and inputs[0] == _PLATFORM:
        return walk(equation.params["branches"][-1], inputs[1:], rules, format_name)
    if name in _CALLS:
        called: Any = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        closed = called if isinstance(called, ClosedJaxpr) else ClosedJaxpr(called, ())
        return walk(closed, inputs, rules, format_name)
    if name in _IDENTITIES:
        return inputs
    if all(isinstance(value, np.ndarray) for value in inputs) and _has_known_shape(equation):
        return _compute(equation, inputs)
    if name not in rules:
        raise UserError(f"--format={format_name}: cannot hold the operation '{name}'; use --format=stablehlo")
    return rules[name](equation, inputs)


def gathered_positions(equation: Equation, index: np.ndarray) -> dict[int, np.ndarray]:
    """The positions, int64, that a gather with a known index takes along each axis; slices of all kinds reduce to this.

    Raises:
      UserError: if the axes cannot be indexed independently.
    """
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    positions = {}
    for part, axis in enumerate(numbers.start_index_map):
        starts = index[..., part].astype(np.int64)
        if axis in numbers.collapsed_slice_dims:
            varying = [dim for dim in range(starts.ndim) if np.ptp(starts, axis=dim).any()]
            positions[axis] = (
                np.moveaxis(starts, varying[0], 0).reshape(starts.shape[varying[0]], -1)[:, 0]
                if varying
                else starts.ravel()[:1]
            )
        else:
            positions[axis] = starts.flat[0] + np.arange(sizes[axis])
    _check_positions(equation, index, positions)
    return positions


def _check_positions(equation: Equation, index: np.ndarray, positions: Mapping[int, np.ndarray]) -> None:
    """Compares with the gather itself on an example whose elements are all different."""
    shape = [axis if isinstance(axis, int) else 1 for axis in equation.invars[0].aval.shape]
    example = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    sizes = tuple(size if isinstance(size, int) else 1 for size in equation.params["slice_sizes"])
    params = {**equation.params, "slice_sizes": sizes, "fill_value": None}
    expected = np.asarray(equation.primitive.bind(example, index, **params))
    for axis, taken in positions.items():
        example = example.take(taken, axis=axis)
    if not np.array_equal(example.ravel(), expected.ravel()):
        raise UserError("this format cannot hold a gather whose axes depend on each other; use --format=stablehlo")


def _has_known_shape(equation: Equation) -> bool:
    return all(isinstance(axis, int) for variable in equation.outvars for axis in variable.aval.shape)


def _compute(equation: Equation, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    results = equation.primitive.bind(*inputs, **equation.params)
    return [np.asarray(result) for result in (results if equation.primitive.multiple_results else [results])]
