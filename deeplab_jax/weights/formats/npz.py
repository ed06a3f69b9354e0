"""NumPy's .npz archives of named arrays; pickled objects are refused.

Source: numpy.lib.format (NEP 1).
"""

from __future__ import annotations

import os
import re
import struct

import numpy as np

from deeplab_jax.weights.formats.arrays import ITEM_SIZES, UnsuitableError, array_from_bytes
from deeplab_jax.weights.formats.zip_archive import open_zip, read_member

_SUFFIX = ".npy"
_LENGTHS = {b"\x93NUMPY\1\0": struct.Struct("<H"), b"\x93NUMPY\2\0": struct.Struct("<I")}  # of the header, by version
_MAGIC_BYTES = 8
_MAX_HEADER_BYTES = 10_000  # NumPy's own bound
# What NumPy writes; its own parser is Python's, which fails in many ways.
_HEADER = re.compile(
    rb"\{\s*'descr':\s*(?P<dtype>'[^']{1,20}'|\[.*\]),\s*'fortran_order':\s*(?P<fortran>True|False),"
    rb"\s*'shape':\s*\((?P<shape>[\d\s,L]*)\),?\s*\}\s*"
)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The numeric arrays by name, without arrays of text.

    Raises:
      ValueError: if the archive is damaged or contains pickled objects.
    """
    arrays = {}
    with open_zip(path) as archive:
        for member in archive.namelist():
            name = member.removesuffix(_SUFFIX)
            if name == member:
                continue
            array = _npy_array(name, read_member(archive, member))
            if array is not None:
                arrays[name] = array
    return arrays


def _npy_array(name: str, data: bytes) -> np.ndarray | None:
    header, body = _split(name, data)
    found = _HEADER.fullmatch(header)
    if found is None:
        raise ValueError(f"array '{name}' has a damaged header")
    dtype = _dtype(name, found["dtype"].decode("latin-1"))
    if dtype.kind in "SU":
        return None
    shape = tuple(int(size) for size in re.findall(rb"\d+", found["shape"]))
    is_fortran = found["fortran"] == b"True"
    big_endian = dtype.newbyteorder(">") == dtype
    array = array_from_bytes(body, dtype.name, shape[::-1] if is_fortran else shape, big_endian=big_endian)
    return array.T if is_fortran else array


def _split(name: str, data: bytes) -> tuple[bytes, memoryview]:
    """The header and the array's bytes."""
    length = _LENGTHS.get(data[:_MAGIC_BYTES])
    if length is None:
        raise ValueError(f"array '{name}' is of another .npy version than 1 and 2")
    start = _MAGIC_BYTES + length.size
    if len(data) < start or length.unpack_from(data, _MAGIC_BYTES)[0] > min(_MAX_HEADER_BYTES, len(data) - start):
        raise ValueError(f"array '{name}' has a damaged header")
    stop = start + length.unpack_from(data, _MAGIC_BYTES)[0]
    return data[start:stop], memoryview(data)[stop:]


def _dtype(name: str, text: str) -> np.dtype:
    """Of plain numbers or of text.

    Raises:
      UnsuitableError: if it is another.
    """
    try:
        dtype = np.dtype(text.strip("'"))
    except (TypeError, ValueError):
        dtype = np.dtype("V1")
    if dtype.kind not in "SU" and dtype.name not in ITEM_SIZES:
        kind = "pickled objects" if dtype.hasobject else f"dtype {text}"
        raise UnsuitableError(f"array '{name}' holds {kind}; save it as an array of plain numbers")
    return dtype
