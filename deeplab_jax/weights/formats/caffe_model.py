"""Caffe's .caffemodel: the blobs of each layer of a binary NetParameter, read without Caffe.

A blob is named LAYER/weight and LAYER/bias; those of a BatchNorm layer LAYER/mean and LAYER/variance, already divided
by the third, the weight of its moving average.

Source: src/caffe/proto/caffe.proto of BVLC/caffe; src/caffe/layers/batch_norm_layer.cpp there.
"""

from __future__ import annotations

import os
import pathlib

import numpy as np

from deeplab_jax.weights.formats.arrays import num_elements
from deeplab_jax.weights.formats.protobuf import fields, varints

# Field numbers.
_LAYER, _LAYER_V1 = 100, 2  # of NetParameter
_NAME, _TYPE, _BLOBS = 1, 2, 7  # of LayerParameter
_NAME_V1, _BLOBS_V1 = 4, 6  # of V1LayerParameter, whose types are numbers, none of them BatchNorm
_LEGACY_SIZES, _DATA, _SHAPE, _DOUBLES = (1, 2, 3, 4), 5, 7, 8  # of BlobProto
_BATCH_NORM = b"BatchNorm"
_LEAVES = ("weight", "bias")


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The blobs by 'layer/leaf'; layers without any are left out.

    Raises:
      ValueError: if the file is damaged, or two layers have one name.
    """
    arrays: dict[str, np.ndarray] = {}
    for number, value in fields(pathlib.Path(path).read_bytes()):
        if number in (_LAYER, _LAYER_V1) and isinstance(value, bytes):
            name, is_batch_norm, blobs = _layer(value, is_v1=number == _LAYER_V1)
            named = _batch_norm(blobs) if is_batch_norm else _named(blobs)
            for leaf, array in named.items():
                if arrays.setdefault(f"{name}/{leaf}", array) is not array:
                    raise ValueError(f"two layers '{name}'")
                array.flags.writeable = False
    return arrays


def _layer(message: bytes, *, is_v1: bool) -> tuple[str, bool, list[np.ndarray]]:
    """(name, whether it is a batch norm, blobs)."""
    name, kind, blobs = "", b"", []
    for number, value in fields(message):
        if not isinstance(value, bytes):
            continue
        if number == (_NAME_V1 if is_v1 else _NAME):
            name = value.decode("utf-8", "replace")
        elif number == _TYPE and not is_v1:
            kind = value
        elif number == (_BLOBS_V1 if is_v1 else _BLOBS):
            blobs.append(_blob(value))
    return name, kind == _BATCH_NORM, blobs


def _blob(message: bytes) -> np.ndarray:
    legacy = dict.fromkeys(_LEGACY_SIZES, 0)
    shape: list[int] | None = None
    pieces: list[np.ndarray] = []
    for number, value in fields(message):
        if number in legacy and isinstance(value, int):
            legacy[number] = value
        elif number == _SHAPE and isinstance(value, bytes):
            shape = [
                size for _, dims in fields(value) for size in (varints(dims) if isinstance(dims, bytes) else [dims])
            ]
        elif number in (_DATA, _DOUBLES):
            pieces.append(_numbers(value, "<f4" if number == _DATA else "<f8"))
    array = np.concatenate([np.zeros(0, np.float32), *pieces]).astype(np.float32)
    wanted = list(legacy.values()) if shape is None else shape
    if num_elements(wanted) != array.size:
        raise ValueError(f"a blob of {array.size} numbers and shape {tuple(wanted)}")
    return array.reshape(wanted)


def _numbers(value: int | bytes, dtype: str) -> np.ndarray:
    """Those of a packed field, or the one of another."""
    width = np.dtype(dtype).itemsize
    return np.frombuffer(value if isinstance(value, bytes) else value.to_bytes(width, "little"), dtype)


def _named(blobs: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Weight and bias; biases and matrices of inner products without the leading ones of the old form."""
    named = {}
    for index, blob in enumerate(blobs):
        leaf = _LEAVES[index] if index < len(_LEAVES) else str(index)
        if blob.ndim == 4 and blob.shape[:2] == (1, 1):
            blob = blob.reshape(blob.shape[2:] if blob.shape[2] > 1 else blob.shape[3:])
        named[leaf] = blob
    return named


def _batch_norm(blobs: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The moving averages. A weight of zero means that none was ever added."""
    if len(blobs) != 3 or blobs[2].size != 1:
        raise ValueError("a batch norm without its three blobs")
    weight = float(blobs[2].reshape(()))
    factor = np.float32(1 / weight if weight else 0)
    return {leaf: blob.reshape(-1) * factor for leaf, blob in zip(("mean", "variance"), blobs, strict=False)}
