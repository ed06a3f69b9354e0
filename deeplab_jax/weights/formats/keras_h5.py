"""Keras weights in HDF5 (.h5): every numeric data set, by its path.

Keras stores layer/layer/kernel:0 (version 2) or layer/model/layer/kernel (version 3), the layer's group followed by the
variable's own name, within a group 'model_weights' if the whole model is saved. Here this becomes layer/kernel. The
names in Keras 3's .weights.h5, layers/model/layers/layer/vars/0, stay as they are.

libhdf5 can crash on a damaged file, and so reads in a process of its own: `python -m ...keras_h5 FILE NPZ`.
"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import zipfile
from typing import Any

import numpy as np

from deeplab_jax.types import UserError
from deeplab_jax.weights.formats import budget, npz
from deeplab_jax.weights.formats.arrays import ITEM_SIZES, UnsuitableError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_WEIGHTS = "model_weights"
_OPTIMIZER = ("optimizer_weights/", "optimizer/")  # of Keras 2 and 3
# Deflate's maximum ratio: a data set that claims more than this times its stored size is incomplete.
_MAX_COMPRESSION = 1032
_MAX_SECONDS = 600  # libhdf5 does not look at the budget's clock
_DAMAGED, _UNSUITABLE, _COSTLY = 2, 3, 4  # exit statuses of the process that reads


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays by path, without the optimizer's; links to other files are not followed.

    Raises:
      ValueError: if the file is damaged, or a data set is in another file.
      UserError: if it costs more than budget.py allows.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "arrays.npz"
        status, reason = _convert_apart(os.fspath(path), str(copy))
        if status == 0:
            return npz.read(copy)
    error = {_UNSUITABLE: UnsuitableError, _COSTLY: UserError}.get(status, ValueError)
    raise error(reason or f"reading it ends the process with status {status}")


def _convert_apart(path: str, copy: str) -> tuple[int, str]:
    """`_convert` in a process of its own."""
    root = str(pathlib.Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "deeplab_jax.weights.formats.keras_h5", path, copy]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    return done.returncode, done.stdout.strip()


def _convert(path: str, copy: str) -> tuple[int, str]:
    """Writes the arrays to another file; the exit status, and the reason if it is not 0."""
    try:
        with budget.reading(pathlib.Path(path)), zipfile.ZipFile(copy, "x") as archive:
            for name, array in _read_here(path).items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
    except UnsuitableError as error:
        return _UNSUITABLE, str(error)
    except UserError as error:
        return _COSTLY, str(error)
    except ValueError as error:
        return _DAMAGED, str(error)
    return 0, ""


def _read_here(path: str) -> dict[str, np.ndarray]:
    import h5py

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
    while parts[0] != "layers" and parts[0] in parts[1:-1]:  # 'layers' has every network of Keras 3's .weights.h5
        parts = parts[parts.index(parts[0], 1) :]
    return "/".join(parts)


def _datasets(archive: Any) -> list[tuple[str, Any]]:
    import h5py

    found: list[tuple[str, Any]] = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "biufc" and not name.startswith(_OPTIMIZER):
            found.append((name, node))

    archive.visititems(visit)
    return found


def _array(source: str, dataset: Any) -> np.ndarray:
    if dataset.external or dataset.is_virtual:
        raise UnsuitableError(f"keeps '{source}' in another file; save it as one file")
    if dataset.dtype.name not in ITEM_SIZES:
        raise UnsuitableError(f"holds '{source}' of dtype {dataset.dtype}; save it as float32")
    if dataset.nbytes > _MAX_COMPRESSION * dataset.id.get_storage_size():
        raise ValueError(f"'{source}' is not all there")
    budget.spend(dataset.nbytes)
    return np.asarray(dataset[()])


if __name__ == "__main__":
    signal.alarm(_MAX_SECONDS)
    exit_status, message = _convert(*sys.argv[1:])
    print(message)
    sys.exit(exit_status)
