"""TensorFlow checkpoints of version 2, 'tensor bundles': an index (a sorted string table) and shards of bytes.

Source: tensorflow/core/protobuf/tensor_bundle.proto, tensorflow/core/framework/types.proto.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from deeplab_jax.weights.formats.arrays import ITEM_SIZES, UnsuitableError, array_from_bytes, num_elements
from deeplab_jax.weights.formats.budget import spend
from deeplab_jax.weights.formats.crc32c import masked_crc32c
from deeplab_jax.weights.formats.protobuf import fields, signed

SCALARS = {  # of types.proto's DataType
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
NOT_NUMBERS = (7, 20, 21)  # strings (the object graph), resources, variants
_OBJECT_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclasses.dataclass(slots=True)
class _Entry:
    """The location of a variable's bytes: BundleEntryProto."""

    dtype_id: int = 0
    shape: tuple[int, ...] = ()
    shard_id: int = 0
    offset: int = 0
    size: int = 0
    checksum: int = 0
    is_partitioned: bool = False


def read(prefix: pathlib.Path, header: bytes, table: Iterator[tuple[bytes, bytes]]) -> dict[str, np.ndarray]:
    """The variables by name.

    Args:
      prefix: of the shards' file names.
      header: the value of the table's empty key.
      table: its other keys and values.

    Raises:
      ValueError: if the index or a shard is damaged, or a variable is partitioned.
    """
    header_fields = dict(fields(header))
    num_shards, big_endian = header_fields.get(1, 0), header_fields.get(2, 0) == 1
    if not isinstance(num_shards, int):
        raise ValueError("an index that does not say how many shards there are")
    arrays = {}
    for key, value in table:
        name = key.decode("utf-8", "replace")
        entry = _entry(value)
        if entry.is_partitioned:
            raise UnsuitableError(f"holds the partitioned variable '{name}'; save it again without a partitioner")
        if entry.dtype_id in NOT_NUMBERS:
            continue
        if entry.dtype_id not in SCALARS:
            raise UnsuitableError(f"holds '{name}' of data type {entry.dtype_id}; save it as float32")
        shard = prefix.with_name(f"{prefix.name}.data-{entry.shard_id:05d}-of-{num_shards:05d}")
        data = _shard_bytes(shard, name, entry)
        scalar = SCALARS[entry.dtype_id]
        arrays[name.removesuffix(_OBJECT_SUFFIX)] = array_from_bytes(data, scalar, entry.shape, big_endian=big_endian)
    return arrays


def parse_shape(message: bytes) -> tuple[int, ...]:
    """The sizes in a TensorShapeProto.

    Raises:
      ValueError: if the message is damaged.
    """
    sizes = []
    for number, value in fields(message):
        if number == 2 and isinstance(value, bytes):
            size = dict(fields(value)).get(1, 0)
            sizes.append(signed(size) if isinstance(size, int) else -1)
    return tuple(sizes)


def _entry(message: bytes) -> _Entry:
    entry = _Entry()
    names = {1: "dtype_id", 3: "shard_id", 4: "offset", 5: "size", 6: "checksum"}
    for number, value in fields(message):
        if number == 2 and isinstance(value, bytes):
            entry.shape = parse_shape(value)
        elif number == 7:
            entry.is_partitioned = True
        elif number in names and isinstance(value, int):
            setattr(entry, names[number], value)
    return entry


def _shard_bytes(shard: pathlib.Path, name: str, entry: _Entry) -> bytes:
    """The variable's bytes, after checking their number and location."""
    if entry.size != num_elements(entry.shape) * ITEM_SIZES[SCALARS[entry.dtype_id]]:
        raise ValueError(f"'{name}' has another size than its shape")
    if not shard.is_file():
        raise UnsuitableError(f"needs the file {shard.name} beside it, which is missing; copy it too")
    if entry.offset + entry.size > shard.stat().st_size:
        raise ValueError(f"'{name}' lies beyond the end of {shard.name}")
    spend(entry.size)
    with open(shard, "rb") as file:
        file.seek(entry.offset)
        data = file.read(entry.size)
    if masked_crc32c(data) != entry.checksum:
        raise ValueError(f"'{name}' has a wrong checksum in {shard.name}")
    return data
