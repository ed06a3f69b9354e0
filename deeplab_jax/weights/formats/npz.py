"""NumPy's .npz archives of named arrays; pickled objects are refused.

Source: numpy.lib.format (NEP 1).
"""

from __future__ import annotations

import io
import os
import tokenize

import numpy as np

from deeplab_jax.weights.formats.arrays import ITEM_SIZES, UnsuitableError, array_from_bytes
from deeplab_jax.weights.formats.zip_archive import open_zip, read_member

_SUFFIX = ".npy"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


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
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"array '{name}' is of .npy version {version}")
    try:
        shape, is_fortran, dtype = _HEADERS[version](stream)
    except (tokenize.TokenError, SyntaxError):
        raise ValueError(f"array '{name}' has a damaged header") from None
    if dtype.kind in "SU":
        return None
    if dtype.name not in ITEM_SIZES:
        kind = "pickled objects" if dtype.hasobject else f"dtype {dtype.str}"
        raise UnsuitableError(f"array '{name}' holds {kind}; save it as an array of plain numbers")
    big_endian = dtype.newbyteorder(">") == dtype
    array = array_from_bytes(
        memoryview(data)[stream.tell() :], dtype.name, shape[::-1] if is_fortran else shape, big_endian=big_endian
    )
    return array.T if is_fortran else array
