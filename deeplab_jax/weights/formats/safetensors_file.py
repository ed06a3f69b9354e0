"""Files of safetensors: a JSON header, then the bytes of all tensors.

The safetensors library reads no bfloat16 into NumPy, which half of all such files hold; the format is simple
enough to be read without it.

Source: the format's description in the safetensors repository.
"""

from __future__ import annotations

import json
import os
import pathlib
import struct
from typing import Any

import numpy as np

from deeplab_jax.weights.formats.arrays import UnsuitableError, array_from_bytes

_SCALARS = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
_LENGTH = struct.Struct("<Q")


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors by name.

    Raises:
      ValueError: when the file is damaged, or a tensor is of fewer than 8 bits and unknown to NumPy.
    """
    data = pathlib.Path(path).read_bytes()
    if not has_header(data[: _LENGTH.size + 1], len(data)):
        raise ValueError("no header of the size that it names")
    (length,) = _LENGTH.unpack_from(data)
    try:
        header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
    except RecursionError:
        raise ValueError("a header nested too deeply") from None
    body = memoryview(data)[_LENGTH.size + length :]
    return {name: _tensor(name, entry, body) for name, entry in header.items() if name != "__metadata__"}


def has_header(start: bytes, num_bytes: int) -> bool:
    """Whether a file of `num_bytes` bytes that starts so (9 bytes) can be one of safetensors."""
    if len(start) <= _LENGTH.size:
        return False
    return 2 <= _LENGTH.unpack_from(start)[0] <= num_bytes - _LENGTH.size and start[_LENGTH.size :][:1] == b"{"


def _tensor(name: str, entry: Any, body: memoryview) -> np.ndarray:
    try:
        scalar, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"tensor '{name}' lacks its dtype, shape or offsets") from None
    if not isinstance(scalar, str) or scalar not in _SCALARS:
        raise UnsuitableError(f"tensor '{name}' has dtype {scalar}; save it as float32")
    if type(start) is not int or type(stop) is not int or not 0 <= start <= stop <= len(body):
        raise ValueError(f"tensor '{name}' lies outside the file")
    return array_from_bytes(body[start:stop], _SCALARS[scalar], shape)
