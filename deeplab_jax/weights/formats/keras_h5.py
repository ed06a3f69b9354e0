"""Keras weights in HDF5 (.h5): every numeric data set, by its path.

Keras stores layer/layer/kernel:0 (version 2) or layer/model/layer/kernel (version 3), the layer's group followed by the
variable's own name, within a group 'model_weights' if the whole model is saved. Here this becomes layer/kernel.
"""

from __future__ import annotations

import os

import h5py
import numpy as np

from deeplab_jax.weights.formats.arrays import ITEM_SIZES, UnsuitableError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_WEIGHTS = "model_weights"
_OPTIMIZER = ("optimizer_weights/", "optimizer/")  # of Keras 2 and 3
# Deflate's maximum ratio: a data set that claims more than this times its stored size is incomplete.
_MAX_COMPRESSION = 1032


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays by path, without the optimizer's; links to other files are not followed.

    Raises:
      ValueError: if the file is damaged, or a data set is in another file.
    """
    arrays: dict[str, np.ndarray] = {}
    with open(path, "rb") as file:
        try:
            with h5py.File(file, "r") as archive:
                for source, dataset in _datasets(archive):
                    name = weight_name(source)
                    if name in arrays:
                        raise UnsuitableError(f"holds '{name}' twice; save it with unique layer names")
                    arrays[name] = _array(source, dataset)
        except (OSError, RuntimeError, KeyError, TypeError) as error:
            raise ValueError(str(error)) from None
    return arrays


def weight_name(source: str) -> str:
    """'model_weights/conv/conv/kernel:0' -> 'conv/kernel'."""
    parts = source.removeprefix(f"{_WEIGHTS}/").removesuffix(":0").split("/")
    while parts[0] in parts[1:-1]:
        parts = parts[parts.index(parts[0], 1) :]
    return "/".join(parts)


def _datasets(archive: h5py.File) -> list[tuple[str, h5py.Dataset]]:
    found: list[tuple[str, h5py.Dataset]] = []

    def visit(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "biufc" and not name.startswith(_OPTIMIZER):
            found.append((name, node))

    archive.visititems(visit)
    return found


def _array(source: str, dataset: h5py.Dataset) -> np.ndarray:
    if dataset.external or dataset.is_virtual:
        raise UnsuitableError(f"keeps '{source}' in another file; save it as one file")
    if dataset.dtype.name not in ITEM_SIZES:
        raise UnsuitableError(f"holds '{source}' of dtype {dataset.dtype}; save it as float32")
    if dataset.nbytes > _MAX_COMPRESSION * dataset.id.get_storage_size():
        raise ValueError(f"'{source}' is not all there")
    array = dataset[()]
    array = np.asarray(array, array.dtype.newbyteorder("="))
    array.flags.writeable = False
    return array
