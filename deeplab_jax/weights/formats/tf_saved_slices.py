"""TensorFlow checkpoints of version 1: one sorted string table that contains the variables' values.

Source: tensorflow/core/util/saved_tensor_slice.proto, tensorflow/core/framework/{tensor,tensor_slice}.proto.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from deeplab_jax.weights.formats.arrays import UnsuitableError, array_from_bytes
from deeplab_jax.weights.formats.protobuf import fields, signed, varints
from deeplab_jax.weights.formats.tf_bundle import NOT_NUMBERS, SCALARS, parse_shape

_CONTENT = 4  # TensorProto's field of plain bytes
_FIXED_WIDTH = {"float32": 5, "complex64": 9, "float64": 6, "complex128": 12}  # fields with the array's own bytes
_BITS = {"float16": 13, "bfloat16": 13}  # varints with the bits of a number
_INTEGERS = {"int32": 7, "int16": 7, "int8": 7, "uint8": 7, "uint16": 7, "int64": 10, "bool": 11}
_INTEGERS |= {"uint32": 16, "uint64": 17}


@dataclasses.dataclass(slots=True)
class _Variable:
    """A variable's entry in the header: SavedSliceMeta."""

    name: str
    shape: tuple[int, ...]
    dtype_id: int
    slices: list[bytes]


def is_header(message: bytes) -> bool:
    """Whether a table's first value is a SavedTensorSlices with its meta, rather than a bundle's header.

    Raises:
      ValueError: if the message is damaged.
    """
    return isinstance(dict(fields(message)).get(1), bytes)


def read(header: bytes, table: Iterator[tuple[bytes, bytes]]) -> dict[str, np.ndarray]:
    """The variables by name.

    Raises:
      ValueError: if the file is damaged, or a variable is partitioned.
    """
    variables = {variable.name: variable for variable in _variables(header)}
    arrays = {}
    for _, value in table:
        for number, saved_slice in fields(value):
            if number == 2 and isinstance(saved_slice, bytes):
                name, extents, tensor = _saved_slice(saved_slice)
                if name not in variables:
                    raise ValueError(f"'{name}' is missing in the header")
                variable = variables[name]
                if variable.dtype_id not in NOT_NUMBERS:
                    _check_whole(variable, extents)
                    arrays[name] = _values(variable, tensor)
    missing = [v.name for v in variables.values() if v.name not in arrays and v.dtype_id not in NOT_NUMBERS]
    if missing:
        raise ValueError(f"'{missing[0]}' is in the header only")
    return arrays


def _variables(header: bytes) -> Iterator[_Variable]:
    for number, meta in fields(header):
        if number != 1 or not isinstance(meta, bytes):
            continue
        for meta_number, tensor_meta in fields(meta):
            if meta_number == 1 and isinstance(tensor_meta, bytes):
                yield _variable(tensor_meta)


def _variable(message: bytes) -> _Variable:
    variable = _Variable("", (), 0, [])
    for number, value in fields(message):
        if number == 3 and isinstance(value, int):
            variable.dtype_id = value
        elif isinstance(value, bytes):
            if number == 1:
                variable.name = value.decode("utf-8", "replace")
            elif number == 2:
                variable.shape = parse_shape(value)
            elif number == 4:
                variable.slices.append(value)
    return variable


def _saved_slice(message: bytes) -> tuple[str, bytes, bytes]:
    """Name, TensorSliceProto and TensorProto."""
    parts = {number: value for number, value in fields(message) if isinstance(value, bytes)}
    return parts.get(1, b"").decode("utf-8", "replace"), parts.get(2, b""), parts.get(3, b"")


def _check_whole(variable: _Variable, extents: bytes) -> None:
    """Refuses partitioned variables; an extent without a length covers its whole axis."""
    lengths = [dict(fields(extent)).get(2) for number, extent in fields(extents) if isinstance(extent, bytes)]
    is_whole = all(length in (None, size) for length, size in zip(lengths, variable.shape, strict=False))
    if not is_whole or len(variable.slices) > 1:
        raise UnsuitableError(f"holds the partitioned variable '{variable.name}'; save it again without a partitioner")


def _values(variable: _Variable, tensor: bytes) -> np.ndarray:
    if variable.dtype_id not in SCALARS:
        raise UnsuitableError(f"holds '{variable.name}' of data type {variable.dtype_id}; save it as float32")
    scalar = SCALARS[variable.dtype_id]
    packed = [value for number, value in fields(tensor) if number == _CONTENT and isinstance(value, bytes)]
    if packed:
        return array_from_bytes(packed[0], scalar, variable.shape)
    wanted = (_FIXED_WIDTH | _BITS | _INTEGERS)[scalar]
    values = b"".join(_packed(value, scalar) for number, value in fields(tensor) if number == wanted)
    return array_from_bytes(values, scalar, variable.shape)


def _packed(value: int | bytes, scalar: str) -> bytes:
    """The bytes of a repeated field, packed or a single number."""
    if scalar in _FIXED_WIDTH:
        return value if isinstance(value, bytes) else b""
    numbers = varints(value) if isinstance(value, bytes) else [signed(value)]
    stored = np.dtype("uint16" if scalar in _BITS else scalar).newbyteorder("<")
    return np.array(numbers, np.int64).astype(stored).tobytes()
