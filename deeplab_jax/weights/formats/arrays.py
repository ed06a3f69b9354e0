"""Converts raw bytes of a weight file to NumPy arrays, after checking their number against the shape."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from deeplab_jax.weights.formats.budget import spend


class UnsuitableError(ValueError):
    """The file is intact, but its content is not supported; the message names the remedy."""


# NumPy's names of the scalar types in files -> bytes of each; bfloat16, which NumPy lacks, becomes float32.
ITEM_SIZES = {
    "bool": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
}


def array_from_bytes(
    data: bytes | bytearray | memoryview, scalar: str, shape: Any, *, big_endian: bool = False
) -> np.ndarray:
    """Interprets bytes as an array in C order; a view of them if the byte order is the machine's.

    Args:
      data: exactly the bytes of the array.
      scalar: a key of ITEM_SIZES.
      shape: as stated in the file; it may be invalid.
      big_endian: the byte order of `data`.

    Returns:
      A read-only array in the machine's byte order, float32 if `scalar` is bfloat16.

    Raises:
      ValueError: if the shape is invalid or does not match the number of bytes.
    """
    count = num_elements(shape)
    if len(data) != count * ITEM_SIZES[scalar]:
        raise ValueError(f"{len(data)} bytes are not {scalar} of shape {tuple(shape)}")
    # A view costs nothing yet, but many views of the same bytes become arrays of their own later.
    spend(len(data) * (2 if scalar == "bfloat16" else 1))
    stored = np.dtype("uint16" if scalar == "bfloat16" else scalar).newbyteorder(">" if big_endian else "<")
    array = np.frombuffer(data, stored).astype(stored.newbyteorder("="), copy=False)
    if scalar == "bfloat16":  # the upper half of a float32
        array = (array.astype(np.uint32) << 16).view(np.float32)
    array = array.reshape(tuple(shape))
    array.flags.writeable = False
    return array


def num_elements(shape: object) -> int:
    """The number of elements of an array of this shape.

    Raises:
      ValueError: if it is not a sequence of valid sizes.
    """
    if not isinstance(shape, list | tuple) or not all(type(size) is int and 0 <= size <= sys.maxsize for size in shape):
        raise ValueError("a shape that no array has")
    return math.prod(shape)
