"""Constant tensors of a TensorFlow Lite model, read from its flatbuffer.

Source: tensorflow/lite/schema/schema.fbs; FlatBuffers' internals page.
"""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Iterator

import numpy as np

from deeplab_jax.weights.formats.arrays import UnsuitableError, array_from_bytes
from deeplab_jax.weights.formats.budget import spend

IDENTIFIER = b"TFL3"  # at byte 4
# Indices of the fields in their tables.
_MODEL_SUBGRAPHS, _MODEL_BUFFERS = 2, 4
_SUBGRAPH_TENSORS = 0
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME = 0, 1, 2, 3
_BUFFER_DATA, _BUFFER_OFFSET = 0, 1
_FLOATS = {0: "float32", 1: "float16", 10: "float64", 18: "bfloat16"}  # of TensorType
_QUANTISED = {3: "uint8", 9: "int8", 17: "int4"}


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The constant floating-point tensors by name, as float32; integers such as shapes are left out.

    Kernels are (out, height, width, in), depthwise ones (1, height, width, channels).

    Raises:
      ValueError: if the file is damaged, or its weights are quantised.
    """
    data = pathlib.Path(path).read_bytes()
    if data[4:8] != IDENTIFIER:
        raise ValueError(f"no {IDENTIFIER.decode()} at its start")
    try:
        return _read_model(_Table(data, _follow(data, 0)))
    except (struct.error, IndexError):
        raise ValueError("a table that lies outside the file") from None


def _read_model(model: _Table) -> dict[str, np.ndarray]:
    buffers = list(model.tables(_MODEL_BUFFERS))
    arrays: dict[str, np.ndarray] = {}
    for subgraph in model.tables(_MODEL_SUBGRAPHS):
        for tensor in subgraph.tables(_SUBGRAPH_TENSORS):
            buffer = buffers[tensor.number("I", _TENSOR_BUFFER)]
            if buffer.number("Q", _BUFFER_OFFSET) > 1:
                raise UnsuitableError("keeps its weights behind the model (over 2 GB); convert a smaller model")
            if not buffer.vector(_BUFFER_DATA, 1):
                continue
            name = bytes(tensor.vector(_TENSOR_NAME, 1)).decode("utf-8", "replace")
            array = _constant(name, tensor, buffer)
            if array is None:
                continue
            spend(array.nbytes)  # of float32, made from smaller ones or compared
            if name in arrays and not np.array_equal(array, arrays[name]):
                raise UnsuitableError(f"holds two tensors '{name}'; convert the model with unique names")
            arrays[name] = array
    return arrays


def _constant(name: str, tensor: _Table, buffer: _Table) -> np.ndarray | None:
    type_id = tensor.number("B", _TENSOR_TYPE)
    if type_id in _QUANTISED:
        raise UnsuitableError(f"is quantised ('{name}' is {_QUANTISED[type_id]}); read the float model instead")
    if type_id not in _FLOATS:
        return None
    shape_bytes = tensor.vector(_TENSOR_SHAPE, 4)
    shape = [size for (size,) in struct.iter_unpack("<i", shape_bytes)]
    array = array_from_bytes(buffer.vector(_BUFFER_DATA, 1), _FLOATS[type_id], shape).astype(np.float32, copy=False)
    array.flags.writeable = False
    return array


class _Table:
    """One table: fields are found through a list of offsets shared by tables of the same form."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position
        self._offsets = position - struct.unpack_from("<i", data, position)[0]
        if self._offsets < 0:
            raise IndexError
        (self._num_bytes,) = struct.unpack_from("<H", data, self._offsets)

    def number(self, code: str, field: int) -> int:
        """A number field, 0 if absent; `code` as in `struct`."""
        position = self._field(field)
        return struct.unpack_from(f"<{code}", self._data, position)[0] if position else 0

    def vector(self, field: int, item_bytes: int) -> memoryview:
        """The bytes of a vector or a string, empty if absent."""
        position = self._field(field)
        if not position:
            return memoryview(b"")
        start = _follow(self._data, position) + 4
        stop = start + item_bytes * struct.unpack_from("<I", self._data, start - 4)[0]
        if stop > len(self._data):
            raise IndexError
        return memoryview(self._data)[start:stop]

    def tables(self, field: int) -> Iterator[_Table]:
        """The tables in a vector of tables."""
        position = self._field(field)
        num_tables = len(self.vector(field, 4)) // 4
        start = _follow(self._data, position) + 4 if num_tables else 0
        for index in range(num_tables):
            spend()
            yield _Table(self._data, _follow(self._data, start + 4 * index))

    def _field(self, field: int) -> int:
        """The position of a field, 0 if absent."""
        entry = 4 + 2 * field
        if entry + 2 > self._num_bytes:
            return 0
        (offset,) = struct.unpack_from("<H", self._data, self._offsets + entry)
        return self._position + offset if offset else 0


def _follow(data: bytes, position: int) -> int:
    """The target of the offset at `position`."""
    return position + struct.unpack_from("<I", data, position)[0]
