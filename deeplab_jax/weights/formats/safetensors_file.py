"""Safetensors files: a JSON header, then the bytes of all tensors.

The safetensors library does not read bfloat16, which half of all such files contain, into NumPy, and is not among the
requirements; the format is simple enough to be read and written without it.

Source: the format's description in the safetensors repository.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from deeplab_jax.weights.formats.arrays import UnsuitableError, array_from_bytes
from deeplab_jax.weights.formats.budget import spend

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
_METADATA = "__metadata__"
_MAX_HEADER_BYTES = 100_000_000  # the library's own bound; the header of a network is below 1 MB
_PARSED_BYTES = 16  # of memory for each byte of it


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors by name.

    Raises:
      ValueError: if the file is damaged, or a tensor has fewer than 8 bits per element and is unknown to NumPy.
    """
    with open(path, "rb") as file:
        header = _read_header(file)
        body = memoryview(file.read())
    header.pop(_METADATA, None)
    tensors, num_bytes = {}, 0
    for name, entry in header.items():
        tensors[name] = _tensor(name, entry, body)
        num_bytes += entry["data_offsets"][1] - entry["data_offsets"][0]
        if num_bytes > len(body):  # otherwise a small file could exhaust memory
            raise ValueError("tensors that share their bytes")
    return tensors


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata, text by name; {} if there is none.

    Raises:
      ValueError: if the file is damaged, or its metadata is not text.
    """
    with open(path, "rb") as file:
        metadata = _read_header(file).get(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError(f"{_METADATA} that are no texts by name")
    return metadata


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes arrays, whose dtypes the format must support, and metadata, by name.

    Raises:
      OSError: if the file cannot be written.
    """
    names = {np.dtype(name): scalar for scalar, name in _SCALARS.items() if name != "bfloat16"}
    # The widest first, so that each tensor is aligned to its own width.
    ordered = dict(sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    end = 0
    for name, array in ordered.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH.size)
    with open(path, "wb") as file:
        file.write(_LENGTH.pack(len(text)) + text)
        for array in ordered.values():
            file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())


def has_header(start: bytes, num_bytes: int) -> bool:
    """Whether a file of `num_bytes` bytes with these first 9 bytes can be a safetensors file."""
    if len(start) <= _LENGTH.size:
        return False
    return 2 <= _LENGTH.unpack_from(start)[0] <= num_bytes - _LENGTH.size and start[_LENGTH.size :][:1] == b"{"


def _read_header(file: BinaryIO) -> dict[str, Any]:
    """What stands before the tensors; the file is left behind it.

    Raises:
      ValueError: when it is damaged.
    """
    start = file.read(_LENGTH.size)
    num_bytes = os.fstat(file.fileno()).st_size
    if not has_header(start + file.read(1), num_bytes):
        raise ValueError("no header of the size that it names")
    (length,) = _LENGTH.unpack(start)
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    spend(_PARSED_BYTES * length)
    file.seek(_LENGTH.size)
    try:
        header: dict[str, Any] = json.loads(file.read(length))
    except RecursionError:
        raise ValueError("a header nested too deeply") from None
    return header


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
