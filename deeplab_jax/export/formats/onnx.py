"""ONNX: the program operation by operation, for any number of images of one size (opset 18)."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax import export
from jaxtyping import Num

from deeplab_jax.export.graph import Equation, Rule, gathered_positions, trace, walk
from deeplab_jax.export.program import INPUT, Format, Program, Runner
from deeplab_jax.types import UserError

_OPSET = 18
_IR_VERSION = 9  # supported by readers of that opset
_BATCH = "batch"

# Operations of the same meaning on both sides.
_SAME = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "pow": "Pow",
    "exp": "Exp",
    "log": "Log",
    "tanh": "Tanh",
    "logistic": "Sigmoid",
    "sqrt": "Sqrt",
    "neg": "Neg",
    "abs": "Abs",
    "floor": "Floor",
    "sign": "Sign",
    "erf": "Erf",
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "and": "And",
    "or": "Or",
    "not": "Not",
}


def write(program: Program, path: pathlib.Path) -> None:
    """Writes the program; the batch size may vary.

    Raises:
      UserError: if the network has an operation that this file does not implement.
    """
    import onnx

    (batch,) = export.symbolic_shape("b")
    shape = (batch, *program.canvas.smallest, program.channels)
    traced, results = trace(program.run, shape, program.dtype)
    graph = _Graph()
    names = walk(traced, [INPUT], graph.rules(), "onnx")
    # The outputs form a dictionary, whose leaves are ordered by name.
    outputs = dict(zip(sorted(results), names, strict=True))
    for name, source in outputs.items():
        graph.add("Identity", [source], output=name)

    def tensor(name: str, axes: Sequence[Any], dtype: Any) -> Any:
        known = [axis if isinstance(axis, int) else _BATCH for axis in axes]
        return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), known)

    made = onnx.helper.make_graph(
        graph.nodes,
        "deeplab_jax",
        [tensor(INPUT, shape, program.dtype)],
        [tensor(name, results[name].shape, results[name].dtype) for name in program.outputs],
        initializer=graph.constants,
    )
    model = onnx.helper.make_model(
        made,
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="deeplab_jax",
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)


def load(path: pathlib.Path) -> Runner:
    """Returns a function that runs the file in ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Num[np.ndarray, "b h w bands"]) -> Mapping[str, np.ndarray]:
        return dict(zip(names, session.run(names, {INPUT: images}), strict=True))

    return run


def file_format() -> Format:
    """The format, for the registry."""
    packages = ("onnx", "onnxruntime")
    return Format("model.onnx", write, load, packages, packages)


class _Graph:
    """Nodes and constants of the graph being written; an unknown value is represented by its tensor's name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, inputs: Sequence[Any], *, output: str = "", **attributes: Any) -> str:
        """Writes one node; returns its output's name."""
        import onnx

        output = output or f"t{len(self.nodes)}"
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self.nodes.append(onnx.helper.make_node(kind, names, [output], **attributes))
        return output

    def _constant(self, value: np.ndarray) -> str:
        import onnx

        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return name

    def rules(self) -> Mapping[str, Rule]:
        """The rules by name of JAX primitive."""
        own = {name.removeprefix("_write_"): self._rule(getattr(self, name)) for name in dir(self) if "_write_" in name}
        return {**{name: self._rule(self._same(kind)) for name, kind in _SAME.items()}, **own}

    def _same(self, kind: str) -> Callable[..., str]:
        return lambda equation, *inputs: self.add(kind, inputs)

    def _rule(self, write: Callable[..., str]) -> Rule:
        return lambda equation, inputs: [write(equation, *inputs)]

    def _reshape(self, x: Any, sizes: Sequence[Any]) -> str:
        """Only the batch size may be unknown."""
        return self.add("Reshape", [x, np.array([axis if isinstance(axis, int) else -1 for axis in sizes], np.int64)])

    def _write_reshape(self, equation: Equation, x: Any) -> str:
        return self._reshape(x, equation.params["new_sizes"])

    def _write_squeeze(self, equation: Equation, x: Any) -> str:
        return self._reshape(x, equation.outvars[0].aval.shape)

    def _write_broadcast_in_dim(self, equation: Equation, x: Any) -> str:
        """Inserts axes of length 1, then expands those that must grow, except the batch axis."""
        target = equation.params["shape"]
        source = dict(zip(equation.params["broadcast_dimensions"], equation.invars[0].aval.shape, strict=True))
        sizes = [source.get(axis, 1) for axis in range(len(target))]
        placed = self._reshape(x, sizes)
        grown = [new if isinstance(new, int) and new != old else 1 for old, new in zip(sizes, target, strict=True)]
        return placed if set(grown) <= {1} else self.add("Expand", [placed, np.array(grown, np.int64)])

    def _write_transpose(self, equation: Equation, x: Any) -> str:
        return self.add("Transpose", [x], perm=list(equation.params["permutation"]))

    def _write_concatenate(self, equation: Equation, *parts: Any) -> str:
        return self.add("Concat", parts, axis=equation.params["dimension"])

    def _write_slice(self, equation: Equation, x: Any) -> str:
        start, strides = equation.params["start_indices"], equation.params["strides"]
        limits = [
            limit if isinstance(limit, int) else np.iinfo(np.int64).max for limit in equation.params["limit_indices"]
        ]
        axes = range(len(start))
        steps = strides or (1,) * len(start)
        return self.add("Slice", [x, *(np.array(values, np.int64) for values in (start, limits, axes, steps))])

    def _write_gather(self, equation: Equation, x: Any, index: Any) -> str:
        """A gather of known rows, columns and channels: what indexing becomes when the batch size is symbolic."""
        if not isinstance(index, np.ndarray):
            raise UserError("--format=onnx: cannot hold an index that is computed; use --format=stablehlo")
        for axis, positions in gathered_positions(equation, index).items():
            x = self.add("Gather", [x, positions], axis=axis)
        return self._reshape(x, equation.outvars[0].aval.shape)

    def _write_pad(self, equation: Equation, x: Any, value: Any) -> str:
        low, high, interior = zip(*equation.params["padding_config"], strict=True)
        if any(interior) or min(*low, *high) < 0:
            raise UserError("--format=onnx: cannot hold holes or cuts in a padding; use --format=stablehlo")
        return self.add("Pad", [x, np.array([*low, *high], np.int64), value])

    def _write_convert_element_type(self, equation: Equation, x: Any) -> str:
        return self._cast(x, equation.params["new_dtype"])

    def _cast(self, x: Any, dtype: Any) -> str:
        import onnx

        return self.add("Cast", [x], to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def _write_square(self, equation: Equation, x: Any) -> str:
        return self.add("Mul", [x, x])

    def _write_integer_pow(self, equation: Equation, x: Any) -> str:
        return self.add("Pow", [x, np.array(equation.params["y"], equation.invars[0].aval.dtype)])

    def _write_rsqrt(self, equation: Equation, x: Any) -> str:
        return self.add("Reciprocal", [self.add("Sqrt", [x])])

    def _write_clamp(self, equation: Equation, low: Any, x: Any, high: Any) -> str:
        return self.add("Min", [self.add("Max", [x, low]), high])

    def _write_select_n(self, equation: Equation, which: Any, when_false: Any, when_true: Any) -> str:
        return self.add("Where", [which, when_true, when_false])

    def _write_reduce_sum(self, equation: Equation, x: Any) -> str:
        return self.add("ReduceSum", [x, np.array(equation.params["axes"], np.int64)], keepdims=0)

    def _write_reduce_max(self, equation: Equation, x: Any) -> str:
        return self.add("ReduceMax", [x, np.array(equation.params["axes"], np.int64)], keepdims=0)

    def _write_argmax(self, equation: Equation, x: Any) -> str:
        (axis,) = equation.params["axes"]
        return self._cast(self.add("ArgMax", [x], axis=axis, keepdims=0), equation.params["index_dtype"])

    def _write_dot_general(self, equation: Equation, x: Any, y: Any) -> str:
        (x_sums, y_sums), (x_batch, y_batch) = equation.params["dimension_numbers"]
        letters = iter("abcdefghijklmnopqrstuvwxyz")
        of_x = [next(letters) for _ in equation.invars[0].aval.shape]
        of_y = [next(letters) for _ in equation.invars[1].aval.shape]
        for here, there in zip((*x_sums, *x_batch), (*y_sums, *y_batch), strict=True):
            of_y[there] = of_x[here]
        batch = [of_x[axis] for axis in x_batch]
        rest = [each for axis, each in enumerate(of_x) if axis not in (*x_sums, *x_batch)]
        rest += [each for axis, each in enumerate(of_y) if axis not in (*y_sums, *y_batch)]
        return self.add("Einsum", [x, y], equation=f"{''.join(of_x)},{''.join(of_y)}->{''.join(batch + rest)}")

    def _write_conv_general_dilated(self, equation: Equation, x: Any, kernel: Any) -> str:
        params = equation.params
        numbers = params["dimension_numbers"]
        if params["batch_group_count"] != 1 or set(params["lhs_dilation"]) != {1}:
            raise UserError("--format=onnx: cannot hold a transposed convolution; use --format=stablehlo")
        x = self.add("Transpose", [x], perm=list(numbers.lhs_spec))
        if isinstance(kernel, np.ndarray):
            kernel = kernel.transpose(numbers.rhs_spec)
        else:
            kernel = self.add("Transpose", [kernel], perm=list(numbers.rhs_spec))
        low, high = zip(*params["padding"], strict=True)
        y = self.add(
            "Conv",
            [x, kernel],
            strides=list(params["window_strides"]),
            pads=[*low, *high],
            dilations=list(params["rhs_dilation"]),
            group=params["feature_group_count"],
        )
        return self.add("Transpose", [y], perm=[int(axis) for axis in np.argsort(numbers.out_spec)])

    def _write_reduce_window_max(self, equation: Equation, x: Any) -> str:
        return self._pool("MaxPool", equation, x, dilations=list(equation.params["window_dilation"][1:3]))

    def _write_reduce_window_sum(self, equation: Equation, x: Any) -> str:
        mean = self._pool("AveragePool", equation, x, count_include_pad=1)
        size = np.prod(equation.params["window_dimensions"])
        return self.add("Mul", [mean, np.array(size, equation.invars[0].aval.dtype)])

    def _pool(self, kind: str, equation: Equation, x: Any, **attributes: Any) -> str:
        params = equation.params
        low, high = zip(*params["padding"][1:3], strict=True)
        y = self.add(
            kind,
            [self.add("Transpose", [x], perm=[0, 3, 1, 2])],
            kernel_shape=list(params["window_dimensions"][1:3]),
            strides=list(params["window_strides"][1:3]),
            pads=[*low, *high],
            **attributes,
        )
        return self.add("Transpose", [y], perm=[0, 2, 3, 1])
