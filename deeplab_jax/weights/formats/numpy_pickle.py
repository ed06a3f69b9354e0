"""NumPy arrays from the description of a pickled array, without calling what the pickle names.

Source: numpy's ndarray.__reduce__, dtype.__reduce__ (versions 1.x and 2.x).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from deeplab_jax.weights.formats.arrays import ITEM_SIZES, UnsuitableError, array_from_bytes
from deeplab_jax.weights.formats.budget import spend
from deeplab_jax.weights.formats.pickle_machine import Inert

_CORES = ("numpy.core", "numpy._core")
_RECONSTRUCT = tuple(f"{core}.multiarray._reconstruct" for core in _CORES)
_SCALAR = tuple(f"{core}.multiarray.scalar" for core in _CORES)
_FROM_BUFFER = tuple(f"{core}.numeric._frombuffer" for core in _CORES)  # pickle protocol 5
_TUPLE = ("__builtin__.tuple", "builtins.tuple")
# NumPy's short codes ('f4') -> names.
_CODES = {np.dtype(name).str[1:]: name for name in ITEM_SIZES if name != "bfloat16"}
_EMPTY_BYTES = ("__builtin__.bytes", "builtins.bytes")  # b'' as written by Python 3 for Python 2


def decode_array(value: Any) -> np.ndarray | None:
    """The array that `value` describes, or None if it describes something else.

    Raises:
      ValueError: if the description is inconsistent, or the array is not numeric.
    """
    value = _without_name(value)
    if not isinstance(value, Inert):
        return None
    try:
        if value.name in _RECONSTRUCT:
            _, shape, dtype, is_fortran, data = value.state
        elif value.name in _FROM_BUFFER:
            data, dtype, shape, order = value.arguments
            is_fortran = order == "F"
        elif value.name in _SCALAR:
            (dtype, data), shape, is_fortran = value.arguments, (), False
        else:
            return None
    except (TypeError, ValueError):
        raise ValueError("a pickled array that lacks its parts") from None
    if not isinstance(shape, tuple):
        raise ValueError("a pickled array without a shape")
    scalar, big_endian = _scalar(dtype)
    array = array_from_bytes(_bytes(data), scalar, shape[::-1] if is_fortran else shape, big_endian=big_endian)
    return array.T if is_fortran else array


def _without_name(value: Any) -> Any:
    """Paddle's tensors are tuples (name, array), which it has the pickle construct."""
    if not isinstance(value, Inert) or value.name not in _TUPLE or len(value.arguments) != 1:
        return value
    pair = value.arguments[0]
    return pair[1] if isinstance(pair, tuple) and len(pair) == 2 else value


def _scalar(dtype: Any) -> tuple[str, bool]:
    """The name of the scalar type, and whether it is big-endian."""
    if not isinstance(dtype, Inert) or dtype.name != "numpy.dtype" or not dtype.arguments:
        raise ValueError("a pickled array without a dtype")
    code = dtype.arguments[0]
    if not isinstance(code, str) or code not in _CODES:
        raise UnsuitableError("holds an array that is not of plain numbers; save arrays of numbers only")
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "="
    return _CODES[code], order == ">"


def _bytes(data: Any) -> bytes | bytearray:
    """The bytes of an array, which Python 2, and Python 3 for Python 2, write as text with one character per byte."""
    if isinstance(data, Inert):
        if data.name == "_codecs.encode" and data.arguments:
            data = data.arguments[0]
        elif data.name in _EMPTY_BYTES:
            data = b""
    if isinstance(data, str):
        spend(len(data))
        return data.encode("latin-1")
    if isinstance(data, bytes | bytearray):
        return data
    raise UnsuitableError("holds an array that is not of plain numbers; save arrays of numbers only")
