"""Reads a weights file of any known format into named NumPy arrays; nothing in the file is executed."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deeplab_jax.types import UserError
from deeplab_jax.weights.formats import (
    budget,
    caffe_model,
    folder,
    keras_h5,
    npz,
    pickle_file,
    safetensors_file,
    sharded,
    sstable,
    tf_checkpoint,
    tflite,
    torch_file,
)
from deeplab_jax.weights.formats.arrays import UnsuitableError
from deeplab_jax.weights.formats.contents import Contents
from deeplab_jax.weights.formats.zip_archive import open_zip


@dataclasses.dataclass(frozen=True, slots=True)
class _Format:
    name: str
    suffixes: tuple[str, ...]
    read: Callable[[pathlib.Path, bool], Contents]


def _plain(read: Callable[[str | os.PathLike[str]], dict[str, np.ndarray]]) -> Callable[[pathlib.Path, bool], Contents]:
    """The reader of a format that holds nothing but arrays."""
    return lambda path, follow: Contents(read(path))


def _nested(read: Callable[..., Contents]) -> Callable[[pathlib.Path, bool], Contents]:
    """The reader of a format in which the arrays may stand under keys."""
    return lambda path, follow: read(path, follow=follow)


_NPZ = _Format(".npz archive", (".npz",), _plain(npz.read))
_TORCH = _Format("PyTorch file", (".pth", ".pt", ".ckpt", ".bin"), _nested(torch_file.read))
_PICKLE = _Format("pickle of arrays", (".pkl", ".pickle", ".pdparams"), _nested(pickle_file.read))
_SAFETENSORS = _Format("safetensors file", (".safetensors",), _plain(safetensors_file.read))
_SHARDED = _Format(
    "index of sharded weights",
    (sharded.SUFFIX,),
    lambda path, follow: Contents(sharded.read(path, lambda shard: read_contents(shard, follow=follow).arrays)),
)
_TENSORFLOW = _Format("TensorFlow checkpoint", (".index", ".meta"), _plain(tf_checkpoint.read))
_TFLITE = _Format("TensorFlow Lite model", (".tflite",), _plain(tflite.read))
_KERAS = _Format("Keras HDF5 file", (".h5", ".hdf5"), _plain(keras_h5.read))
_CAFFE = _Format("Caffe model", (".caffemodel",), _plain(caffe_model.read))
FORMATS = (_NPZ, _TORCH, _PICKLE, _SAFETENSORS, _SHARDED, _TENSORFLOW, _TFLITE, _KERAS, _CAFFE)

_HEAD_BYTES = 512
_TAR_OFFSET = 257
# Files mistaken for weights -> the remedy.
_MISTAKES = {
    b"\x1f\x8b": "a gzip archive; unpack it and name the file within",
    b"<": "a web page, not weights; the download went wrong",
    b"version https://git-lfs": "a pointer of Git LFS; run `git lfs pull`",
}


def read_arrays(path: str | os.PathLike[str]) -> Mapping[str, np.ndarray]:
    """The arrays of `read_contents`."""
    return read_contents(path).arrays


def read_contents(path: str | os.PathLike[str], *, follow: bool = True) -> Contents:
    """The named arrays in a weights file, whose format is recognised by its content, then by its suffix.

    Args:
      path: a file of one of FORMATS; for a TensorFlow checkpoint also the prefix of its files; or the folder of either.
      follow: whether to enter the keys under which training scripts store weights; False: all arrays by full names.

    Returns:
      Name in the file -> array in the machine's byte order, bfloat16 as float32, other dtypes as stored; and what the
      file, or a config beside it, says of them. The arrays are read-only; some may share memory or be strided.

    Raises:
      UserError: if the file does not exist, is damaged, has an unknown format, contains no arrays or costs more than
        budget.py allows.
    """
    path = pathlib.Path(path)
    kind, contents = _read(path, lambda kind, file: (kind.read(file, follow), file))
    contents, file = contents
    if not any(array.size for array in contents.arrays.values()):
        raise UserError(f"{path}: {kind.name} without arrays of numbers; name the file with the weights")
    if odd := [name for name in contents.arrays if not name.isprintable()]:
        raise UserError(f"{path}: an array's name holds control characters ({ascii(odd[0])[:80]}); rename it")
    beside, origin = folder.read_settings(file)
    return dataclasses.replace(contents, settings=beside, origin=origin) if origin else contents


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts by name that lie beside the arrays in the file; {} in formats that have none.

    Raises:
      UserError: as `read_contents`.
    """
    return _read(
        pathlib.Path(path), lambda kind, file: safetensors_file.read_metadata(file) if kind is _SAFETENSORS else {}
    )[1]


def _read(path: pathlib.Path, read: Callable[[_Format, pathlib.Path], Any]) -> tuple[_Format, Any]:
    """The file's format, and what `read` makes of it and the file."""
    try:
        file = _file(path)
        with budget.reading(file):
            kind = _format(file)
            return kind, read(kind, file)
    except UnsuitableError as error:
        raise UserError(_line(f"{path}: {error}")) from None
    except ValueError as error:
        raise UserError(_line(f"{path}: damaged {kind.name} ({error}); fetch or save it again")) from None
    except OSError as error:
        raise UserError(_line(f"{path}: cannot be read ({error.strerror or error}); name a file of weights")) from None


def _file(path: pathlib.Path) -> pathlib.Path:
    """The file of weights in a folder; a TensorFlow checkpoint is read from its folder."""
    if not path.is_dir() or (path / "checkpoint").is_file() or any(path.glob("*.index")):
        return path
    try:
        return folder.find_weights(path, {suffix for known in FORMATS for suffix in known.suffixes})
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _format(path: pathlib.Path) -> _Format:
    """The format of the file.

    Raises:
      UserError: if no known format fits.
      OSError: if the file cannot be read.
    """
    if path.is_dir():
        return _TENSORFLOW
    if path.name.endswith(sharded.SUFFIX) and path.is_file():
        return _SHARDED
    if not path.is_file():
        if path.with_name(f"{path.name}.index").is_file():
            return _TENSORFLOW
        raise UserError(f"{path}: no such file; name a file of weights")
    if tf_checkpoint.is_shard(path):
        return _TENSORFLOW
    kind = _format_by_content(path) or _format_by_suffix(path)
    if kind is None:
        raise UserError(f"{path}: {_mistake(path)}")
    return kind


def _format_by_content(path: pathlib.Path) -> _Format | None:
    num_bytes = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(max(0, num_bytes - len(sstable.MAGIC)))
        tail = file.read(len(sstable.MAGIC))
    if head.startswith(b"PK"):
        return _format_of_zip(path)
    if head.startswith(keras_h5.SIGNATURE):
        return _KERAS
    if head[4:8] == tflite.IDENTIFIER:
        return _TFLITE
    if tail == sstable.MAGIC:
        return _TENSORFLOW
    if safetensors_file.has_header(head[:9], num_bytes):  # before pickles: its first bytes may look like one
        return _SAFETENSORS
    if torch_file.is_legacy(head):
        return _TORCH
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):  # a pickle and its protocol
        return _PICKLE
    return None


def _format_of_zip(path: pathlib.Path) -> _Format | None:
    try:
        with open_zip(path) as archive:
            if torch_file.pickle_in_zip(archive):
                return _TORCH
            return _NPZ if any(name.endswith(".npy") for name in archive.namelist()) else None
    except ValueError:  # the suffix may still identify the damaged archive
        return None


def _format_by_suffix(path: pathlib.Path) -> _Format | None:
    return next((known for known in FORMATS if path.suffix.lower() in known.suffixes), None)


def _mistake(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    for start, remedy in _MISTAKES.items():
        if head.lstrip().startswith(start):
            return remedy
    if head[_TAR_OFFSET:].startswith(b"ustar"):
        return "a tar archive; unpack it and name the file within"
    known = ", ".join(f"{known.name} ({' '.join(known.suffixes)})" for known in FORMATS)
    return f"unknown format; there are {known}"


def _line(text: str) -> str:
    return " ".join(text.split())
