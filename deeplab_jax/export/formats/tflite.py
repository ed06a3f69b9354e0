"""TensorFlow Lite (LiteRT), for phones and small devices: one image at a time, with operations of every runtime."""

from __future__ import annotations

import pathlib
import string
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Num

from deeplab_jax.export.graph import Equation, Rule, trace, walk
from deeplab_jax.export.program import INPUT, Format, Program, Runner
from deeplab_jax.types import UserError

# JAX primitives -> tf functions with the same arguments.
_SAME = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
    "max": "maximum",
    "min": "minimum",
    "exp": "exp",
    "log": "math.log",
    "tanh": "tanh",
    "logistic": "sigmoid",
    "sqrt": "sqrt",
    "rsqrt": "math.rsqrt",
    "square": "square",
    "neg": "negative",
    "abs": "abs",
    "floor": "floor",
    "lt": "less",
    "gt": "greater",
    "le": "less_equal",
    "ge": "greater_equal",
    "eq": "equal",
}


def write(program: Program, path: pathlib.Path) -> None:
    """Writes the program by TensorFlow's converter, in float32.

    JAX's own bridge would hand the converter what XLA likes; here each operation becomes the one that TensorFlow
    Lite has kernels for.

    Raises:
      UserError: if the network has an operation that this file does not implement.
    """
    import tensorflow as tf

    shape = (1, *program.canvas.smallest, program.channels)
    traced, results = trace(program.run, shape, program.dtype)

    def run(images: Any) -> dict[str, Any]:
        # The outputs form a dictionary, whose leaves are ordered by name.
        return dict(zip(sorted(results), walk(traced, [images], make_rules(), "tflite"), strict=True))

    spec = tf.TensorSpec(shape, program.dtype, name=INPUT)
    module = tf.Module()
    module.run = tf.function(run, input_signature=[spec], autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.run.get_concrete_function()], module)
    path.write_bytes(converter.convert())


def load(path: pathlib.Path) -> Runner:
    """Returns a function that runs the file in TensorFlow's interpreter."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this interpreter will move to a package of its own
        interpreter = tf.lite.Interpreter(model_path=str(path))
    signature = interpreter.get_signature_runner()

    def run(images: Num[np.ndarray, "1 h w bands"]) -> Mapping[str, np.ndarray]:
        return dict(signature(**{INPUT: images}))

    return run


def file_format() -> Format:
    """The format, for the registry."""
    return Format("model.tflite", write, load, ("tensorflow-cpu",), ("tensorflow",), any_batch=False)


def make_rules() -> Mapping[str, Rule]:
    """The rules by name of JAX primitive; values are tensors."""
    import tensorflow as tf

    def same(name: str) -> Callable[..., Any]:
        function: Any = tf
        for part in name.split("."):
            function = getattr(function, part)
        return lambda equation, *inputs: function(*inputs)

    def reshape(equation: Equation, x: Any) -> Any:
        return tf.reshape(x, equation.outvars[0].aval.shape)

    def broadcast(equation: Equation, x: Any) -> Any:
        target = equation.params["shape"]
        source = dict(zip(equation.params["broadcast_dimensions"], x.shape, strict=True))
        placed = tf.reshape(x, [source.get(axis, 1) for axis in range(len(target))])
        return placed if placed.shape == target else tf.broadcast_to(placed, target)

    def slices(equation: Equation, x: Any) -> Any:
        params = equation.params
        return tf.strided_slice(x, params["start_indices"], params["limit_indices"], params["strides"])

    def pad(equation: Equation, x: Any, value: Any) -> Any:
        low, high, interior = zip(*equation.params["padding_config"], strict=True)
        if any(interior) or min(*low, *high) < 0:
            raise UserError("--format=tflite: cannot hold holes or cuts in a padding; use --format=stablehlo")
        return tf.pad(x, list(zip(low, high, strict=True)), constant_values=value)

    def argmax(equation: Equation, x: Any) -> Any:
        return tf.argmax(x, axis=equation.params["axes"][0], output_type=equation.params["index_dtype"])

    own: dict[str, Callable[..., Any]] = {
        "reshape": reshape,
        "squeeze": reshape,
        "broadcast_in_dim": broadcast,
        "transpose": lambda equation, x: tf.transpose(x, equation.params["permutation"]),
        "concatenate": lambda equation, *parts: tf.concat(parts, equation.params["dimension"]),
        "slice": slices,
        "pad": pad,
        "convert_element_type": lambda equation, x: tf.cast(x, equation.params["new_dtype"]),
        "integer_pow": lambda equation, x: tf.pow(x, float(equation.params["y"])),
        "clamp": lambda equation, low, x, high: tf.minimum(tf.maximum(x, low), high),
        "select_n": lambda equation, which, when_false, when_true: tf.where(which, when_true, when_false),
        "reduce_sum": lambda equation, x: tf.reduce_sum(x, equation.params["axes"]),
        "reduce_max": lambda equation, x: tf.reduce_max(x, equation.params["axes"]),
        "argmax": argmax,
        "dot_general": _dot,
        "conv_general_dilated": _convolution,
        "reduce_window_max": _max_pool,
        "reduce_window_sum": _sum_pool,
    }
    functions = {**{name: same(there) for name, there in _SAME.items()}, **own}
    return {name: _rule(function) for name, function in functions.items()}


def _rule(function: Callable[..., Any]) -> Rule:
    return lambda equation, inputs: [function(equation, *inputs)]


def _dot(equation: Equation, x: Any, y: Any) -> Any:
    import tensorflow as tf

    (x_sums, y_sums), batch = equation.params["dimension_numbers"]
    if any(map(len, batch)):
        raise UserError("--format=tflite: cannot hold a batched product; use --format=stablehlo")
    of_x, of_y = list(string.ascii_lowercase[: len(x.shape)]), list(string.ascii_uppercase[: len(y.shape)])
    for here, there in zip(x_sums, y_sums, strict=True):
        of_y[there] = of_x[here]
    rest = [each for each in of_x + of_y if (each in of_x) != (each in of_y)]
    return tf.einsum(f"{''.join(of_x)},{''.join(of_y)}->{''.join(rest)}", x, y)


def _convolution(equation: Equation, x: Any, kernel: Any) -> Any:
    """A dense or depthwise convolution; images are [b, h, w, c] on both sides."""
    import tensorflow as tf

    params = equation.params
    groups, channels = params["feature_group_count"], x.shape[-1]
    is_usual = params["batch_group_count"] == 1 and set(params["lhs_dilation"]) == {1}
    if not is_usual or groups not in (1, channels):
        raise UserError("--format=tflite: cannot hold a convolution of this kind; use --format=stablehlo")
    padded = tf.pad(x, [(0, 0), *params["padding"], (0, 0)]) if np.any(params["padding"]) else x
    strides, rate = params["window_strides"], params["rhs_dilation"]
    if groups == 1:
        return tf.nn.conv2d(padded, kernel, strides, "VALID", dilations=rate)
    filters = tf.reshape(kernel, (*kernel.shape[:2], channels, -1))
    return tf.nn.depthwise_conv2d(padded, filters, (1, *strides, 1), "VALID", dilations=rate)


def _max_pool(equation: Equation, x: Any) -> Any:
    import tensorflow as tf

    params = equation.params
    if set(params["window_dilation"]) != {1}:
        raise UserError("--format=tflite: cannot hold a pooling with holes; use --format=stablehlo")
    padded = tf.pad(x, params["padding"], constant_values=np.finfo(np.float32).min)
    return tf.nn.max_pool2d(padded, params["window_dimensions"], params["window_strides"], "VALID")


def _sum_pool(equation: Equation, x: Any) -> Any:
    import tensorflow as tf

    params = equation.params
    size = params["window_dimensions"]
    mean = tf.nn.avg_pool2d(tf.pad(x, params["padding"]), size, params["window_strides"], "VALID")
    return mean * float(np.prod(size))
