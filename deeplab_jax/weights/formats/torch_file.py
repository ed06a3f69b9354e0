"""PyTorch's .pth and .pt files, zipped (since 1.6) and legacy, without PyTorch and without executing their content.

Both contain a pickle that describes the object, and separately the storages of its tensors. See pickle_machine.py for
why reading them is safe.

Source: torch/serialization.py of PyTorch 0.4 to 2.
"""

from __future__ import annotations

import io
import os
import pathlib
import struct
import zipfile

import numpy as np

from deeplab_jax.weights.formats.arrays import ITEM_SIZES, UnsuitableError, array_from_bytes
from deeplab_jax.weights.formats.contents import Contents
from deeplab_jax.weights.formats.pickle_machine import read_pickle
from deeplab_jax.weights.formats.state_dict import find_arrays
from deeplab_jax.weights.formats.torch_tensors import StorageKey, TensorDecoder, is_storage, storage_key
from deeplab_jax.weights.formats.zip_archive import open_zip, read_member

_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_COUNT = struct.Struct("<q")
_PICKLE = "data.pkl"


def read(path: str | os.PathLike[str], *, follow: bool = True) -> Contents:
    """The tensors by name, found as in `find_arrays`; they share memory if they do in the file.

    Raises:
      ValueError: if the file is damaged or contains no plain tensors.
    """
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(b"PK"):
        return _read_zip(path, follow)
    if is_legacy(start):
        return _read_legacy(path, follow)
    raise ValueError("neither the zipped nor the legacy form")


def is_legacy(start: bytes) -> bool:
    """Whether a file with these first bytes has the format used before PyTorch 1.6."""
    return _MAGIC.to_bytes(10, "little") in start[:64]


def pickle_in_zip(archive: zipfile.ZipFile) -> str | None:
    """The name of the member that describes the object; None if this is not a PyTorch file."""
    return next((name for name in archive.namelist() if name.endswith(f"/{_PICKLE}")), None)


def _read_zip(path: str | os.PathLike[str], follow: bool) -> Contents:
    with open_zip(path) as archive:
        pickle_name = pickle_in_zip(archive)
        if pickle_name is None:
            raise ValueError(f"no member {_PICKLE}")
        root = pickle_name.removesuffix(_PICKLE)
        order_name = f"{root}byteorder"
        is_big = order_name in archive.namelist() and read_member(archive, order_name) == b"big"

        def fetch(key: StorageKey) -> np.ndarray:
            data = read_member(archive, f"{root}data/{key.name}")
            return array_from_bytes(data, key.scalar, (key.num_elements,), big_endian=is_big)

        tree, _ = read_pickle(io.BytesIO(read_member(archive, pickle_name)))
        return find_arrays(tree, TensorDecoder(fetch), follow=follow)


def _read_legacy(path: str | os.PathLike[str], follow: bool) -> Contents:
    """Five pickles (magic number, version, system, object, names of the storages), then the storages' bytes."""
    data = pathlib.Path(path).read_bytes()
    stream = io.BytesIO(data)
    magic, version, system = (read_pickle(stream)[0] for _ in range(3))
    if magic != _MAGIC or version != _LEGACY_VERSION:
        raise ValueError("a legacy form of unknown version")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UnsuitableError("is big-endian in the legacy form; save it with PyTorch 1.6 or newer")
    tree, references = read_pickle(stream)
    keys = {key.name: key for key in map(storage_key, filter(is_storage, references))}
    names, _ = read_pickle(stream)
    storages = _legacy_storages(memoryview(data), stream.tell(), names, keys)

    def fetch(key: StorageKey) -> np.ndarray:
        if key.name not in storages:
            raise ValueError("a storage that the file lacks")
        return array_from_bytes(storages[key.name], key.scalar, (key.num_elements,))

    return find_arrays(tree, TensorDecoder(fetch), follow=follow)


def _legacy_storages(
    data: memoryview, position: int, names: object, keys: dict[str, StorageKey]
) -> dict[str, memoryview]:
    """The bytes of each storage, which follow its number of elements."""
    storages = {}
    if not isinstance(names, list):
        raise ValueError("no list of storages")
    for name in names:
        if not isinstance(name, str) or name not in keys or position + _COUNT.size > len(data):
            raise ValueError("a storage that the file lacks")
        (count,) = _COUNT.unpack_from(data, position)
        start = position + _COUNT.size
        position = start + count * ITEM_SIZES[keys[name].scalar]
        if count < 0 or position > len(data):
            raise ValueError("a storage that reaches beyond the file")
        storages[name] = data[start:position]
    return storages
