"""TensorFlow checkpoints without TensorFlow: finds the files and distinguishes version 2 (bundles) from version 1.

Source: tensorflow/core/util/tensor_bundle, tensorflow/core/util/saved_tensor_slice_util, as specified there.
"""

from __future__ import annotations

import mmap
import os
import pathlib
import re

import numpy as np

from deeplab_jax.weights.formats import tf_bundle, tf_saved_slices
from deeplab_jax.weights.formats.arrays import UnsuitableError
from deeplab_jax.weights.formats.sstable import read_table

_FILE_OF_PREFIX = re.compile(r"(?P<prefix>.+)\.(index|meta|data-\d{5}-of-\d{5})")
_LATEST = re.compile(r'^model_checkpoint_path:\s*"(?P<path>[^"]+)"', re.MULTILINE)
_STATE_FILE = "checkpoint"
_STATE_BYTES = 1 << 20


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The variables by name, without the '/.ATTRIBUTES/VARIABLE_VALUE' of object-based checkpoints.

    Args:
      path: the files' common prefix, one of the files, or a folder with one checkpoint or with a file 'checkpoint' that
        names the latest.

    Raises:
      ValueError: if a file is damaged or missing, a checksum is wrong, or a variable is partitioned.
    """
    index = index_file(pathlib.Path(path))
    with open(index, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        table = read_table(data)
        first_key, header = next(table, (b"", b""))
        if first_key or not header:
            raise ValueError("a table that is no checkpoint")
        if tf_saved_slices.is_header(header):
            return tf_saved_slices.read(header, table)
        if index.suffix != ".index":
            raise UnsuitableError("is the index of a checkpoint under another name; name it PREFIX.index again")
        return tf_bundle.read(index.with_suffix(""), header, table)


def is_shard(path: pathlib.Path) -> bool:
    """Whether the name is that of a bundle's shard, whose content cannot be recognised."""
    return path.suffix.startswith(".data-") and _FILE_OF_PREFIX.fullmatch(path.name) is not None


def index_file(path: pathlib.Path) -> pathlib.Path:
    """The file to start from: PREFIX.index, or the only file of a version 1 checkpoint.

    Raises:
      ValueError: if a file is missing, or a folder's checkpoint is ambiguous.
    """
    if path.is_dir():
        return _latest(path)
    match = _FILE_OF_PREFIX.fullmatch(path.name)
    if match is None and path.is_file():
        return path
    prefix = path.with_name(match["prefix"]) if match else path
    index = prefix.with_name(f"{prefix.name}.index")
    if index.is_file():
        return index
    if prefix.is_file():  # next to the graph (.meta) of version 1
        return prefix
    raise UnsuitableError(f"needs the file {index.name} beside it, which is missing; copy it too")


def _latest(folder: pathlib.Path) -> pathlib.Path:
    state = folder / _STATE_FILE
    if state.is_file():
        with open(state, encoding="utf-8", errors="replace") as file:
            match = _LATEST.search(file.read(_STATE_BYTES))
        # The folder may have been moved since, so only the file name is used.
        prefix = folder / pathlib.Path(match["path"]).name if match else folder
        if prefix.is_dir():
            raise UnsuitableError(f"has a file '{_STATE_FILE}' that names no checkpoint; name the checkpoint's prefix")
        return index_file(prefix)
    indices = sorted(folder.glob("*.index"))
    if len(indices) != 1:
        names = ", ".join(index.stem for index in indices) or "none"
        raise UnsuitableError(f"is a folder that must hold one checkpoint, and holds {names}; name the one to read")
    return indices[0]
