"""TensorFlow's checkpoints of version 2, written from the specification: for the readers' tests and the layouts'.

It lies beside conftest.py, whose folder is on the path of every test.

Source: LevelDB's doc/table_format.md; tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import itertools
import struct

from deeplab_jax.weights.formats.crc32c import masked_crc32c

DTYPE_IDS = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int8": 6, "int64": 9, "bool": 10, "float16": 19}
DTYPE_IDS |= {"complex64": 8, "int16": 5, "uint16": 17, "complex128": 18, "uint32": 22, "uint64": 23}


def varint(value):
    value &= 0xFFFFFFFFFFFFFFFF
    octets = []
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])


def field(number, value):
    """One field of a message: integers as varints, all else by its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def shape_message(sizes):
    return b"".join(field(2, field(1, int(size))) for size in sizes)


def block_of(entries, restart_interval=3):
    """Entries whose keys share what they can with the one before, except at restarts."""
    body, restarts, previous = b"", [], b""
    for index, (key, value) in enumerate(entries):
        shared = 0
        if index % restart_interval == 0:
            restarts.append(len(body))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return body + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def snappy(data):
    """Packed as literals alone, which is allowed."""
    pieces = [data[start : start + 60] for start in range(0, len(data), 60)]
    return varint(len(data)) + b"".join(bytes([(len(piece) - 1) << 2]) + piece for piece in pieces)


def table(entries, *, block_entries=4, packed=False):
    """A table of several blocks; every other one packed, if so wished."""
    output, handles = b"", []

    def put(block, is_packed):
        nonlocal output
        contents = (snappy(block) if is_packed else block) + bytes([is_packed])
        handle = varint(len(output)) + varint(len(contents) - 1)
        output += contents + struct.pack("<I", masked_crc32c(contents))
        return handle

    entries = sorted(entries)
    for index, start in enumerate(range(0, len(entries), block_entries)):
        part = entries[start : start + block_entries]
        handles.append((part[-1][0], put(block_of(part), packed and index % 2 == 0)))
    footer = put(block_of([]), False) + put(block_of(handles, 1), False)
    return output + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def entry(value, shard_id, offset, dtype_id=None):
    data = value.tobytes()
    fields = field(1, dtype_id or DTYPE_IDS[value.dtype.name]) + field(2, shape_message(value.shape))
    fields += field(3, shard_id) + field(4, offset) + field(5, len(data))
    return fields + varint(6 << 3 | 5) + struct.pack("<I", masked_crc32c(data))


def write_bundle(prefix, values, *, num_shards=2, packed=False, extra=(), big_endian=False):
    """A checkpoint of version 2: index and shards, the variables dealt out in turn."""
    shards = [b"pad" for _ in range(num_shards)]
    entries = [(b"", field(1, num_shards) + field(2, int(big_endian)) + field(3, field(1, 1)))]
    for (name, value), shard_id in zip(values.items(), itertools.cycle(range(num_shards)), strict=False):
        stored = value.astype(value.dtype.newbyteorder(">")) if big_endian else value
        entries.append((name.encode(), entry(stored, shard_id, len(shards[shard_id]))))
        shards[shard_id] += stored.tobytes()
    prefix.with_name(f"{prefix.name}.index").write_bytes(table([*entries, *extra], packed=packed))
    for shard_id, shard in enumerate(shards):
        prefix.with_name(f"{prefix.name}.data-{shard_id:05d}-of-{num_shards:05d}").write_bytes(shard)
    return prefix
