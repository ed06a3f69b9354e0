"""Writes Caffe's binary files, by src/caffe/proto/caffe.proto of BVLC/caffe."""

from __future__ import annotations

import numpy as np


def varint(number):
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


def field(number, value):
    """A field of a message: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array, *, legacy=False):
    data = field(5, np.asarray(array, "<f4").tobytes())
    if not legacy:
        return field(7, field(1, b"".join(map(varint, np.shape(array))))) + data
    sizes = (*(1,) * (4 - np.ndim(array)), *np.shape(array))
    return b"".join(field(number, size) for number, size in enumerate(sizes, start=1)) + data


def layer(name, kind, *arrays):
    """A LayerParameter within a NetParameter."""
    blobs = b"".join(field(7, blob(array)) for array in arrays)
    return field(100, field(1, name.encode()) + field(2, kind.encode()) + field(3, b"data") + blobs)


def old_layer(name, *arrays):
    """A V1LayerParameter."""
    blobs = b"".join(field(6, blob(array, legacy=True)) for array in arrays)
    return field(2, field(2, b"data") + field(4, name.encode()) + field(5, 4) + blobs)
