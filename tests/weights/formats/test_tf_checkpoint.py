"""TensorFlow's checkpoints: tables, shards and messages written from the specifications."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest

from deeplab_jax.weights.formats.crc32c import masked_crc32c
from deeplab_jax.weights.formats.read import read_arrays

DTYPE_IDS = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int8": 6, "int64": 9, "bool": 10, "float16": 19}
DTYPE_IDS |= {"complex64": 8, "int16": 5, "uint16": 17, "complex128": 18, "uint32": 22, "uint64": 23}
OBJECT = "/.ATTRIBUTES/VARIABLE_VALUE"
VALUES = {
    "MobilenetV2/Conv/BatchNorm/beta": np.arange(4, dtype=np.float32),
    "MobilenetV2/Conv/BatchNorm/gamma": np.arange(4, dtype=np.float32) + 0.5,
    "MobilenetV2/Conv/weights": np.arange(108, dtype=np.float32).reshape(3, 3, 3, 4),
    "MobilenetV2/expanded_conv/depthwise/depthwise_weights": np.full((3, 3, 4, 1), -2.0, np.float32),
    "global_step": np.array(123456789012),
    "none": np.zeros((0, 3), np.float32),
    **{f"types/{name}": np.array([[0, 1, 7]], name) for name in DTYPE_IDS},
}


def _varint(value):
    value &= 0xFFFFFFFFFFFFFFFF
    octets = []
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])


def _field(number, value):
    """One field of a message: integers as varints, all else by its length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _shape(sizes):
    return b"".join(_field(2, _field(1, int(size))) for size in sizes)


def _block(entries, restart_interval=3):
    """Entries whose keys share what they can with the one before, except at restarts."""
    body, restarts, previous = b"", [], b""
    for index, (key, value) in enumerate(entries):
        shared = 0
        if index % restart_interval == 0:
            restarts.append(len(body))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        body += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return body + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _snappy(data):
    """Packed as literals alone, which is allowed."""
    pieces = [data[start : start + 60] for start in range(0, len(data), 60)]
    return _varint(len(data)) + b"".join(bytes([(len(piece) - 1) << 2]) + piece for piece in pieces)


def _table(entries, *, block_entries=4, packed=False):
    """A table of several blocks; every other one packed, if so wished."""
    output, handles = b"", []

    def put(block, is_packed):
        nonlocal output
        contents = (_snappy(block) if is_packed else block) + bytes([is_packed])
        handle = _varint(len(output)) + _varint(len(contents) - 1)
        output += contents + struct.pack("<I", masked_crc32c(contents))
        return handle

    entries = sorted(entries)
    for index, start in enumerate(range(0, len(entries), block_entries)):
        part = entries[start : start + block_entries]
        handles.append((part[-1][0], put(_block(part), packed and index % 2 == 0)))
    footer = put(_block([]), False) + put(_block(handles, 1), False)
    return output + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def _entry(value, shard_id, offset, dtype_id=None):
    data = value.tobytes()
    fields = _field(1, dtype_id or DTYPE_IDS[value.dtype.name]) + _field(2, _shape(value.shape))
    fields += _field(3, shard_id) + _field(4, offset) + _field(5, len(data))
    return fields + _varint(6 << 3 | 5) + struct.pack("<I", masked_crc32c(data))


def _write_bundle(prefix, values, *, num_shards=2, packed=False, extra=(), big_endian=False):
    """A checkpoint of version 2: index and shards, the variables dealt out in turn."""
    shards = [b"pad" for _ in range(num_shards)]
    entries = [(b"", _field(1, num_shards) + _field(2, int(big_endian)) + _field(3, _field(1, 1)))]
    for (name, value), shard_id in zip(values.items(), itertools.cycle(range(num_shards)), strict=False):
        stored = value.astype(value.dtype.newbyteorder(">")) if big_endian else value
        entries.append((name.encode(), _entry(stored, shard_id, len(shards[shard_id]))))
        shards[shard_id] += stored.tobytes()
    prefix.with_name(f"{prefix.name}.index").write_bytes(_table([*entries, *extra], packed=packed))
    for shard_id, shard in enumerate(shards):
        prefix.with_name(f"{prefix.name}.data-{shard_id:05d}-of-{num_shards:05d}").write_bytes(shard)
    return prefix


def _tensor(value):
    """A TensorProto with the values in the field of their type, as TensorFlow's saver fills it."""
    name = value.dtype.name
    fixed = {"float32": 5, "float64": 6, "complex64": 9, "complex128": 12}
    if name in fixed:
        return _field(fixed[name], value.tobytes())
    if name == "float16":
        return _field(13, b"".join(map(_varint, value.view(np.uint16).ravel().tolist())))
    number = {"int64": 10, "bool": 11, "uint32": 16, "uint64": 17}.get(name, 7)
    return _field(number, b"".join(_varint(int(item)) for item in value.ravel()))


def _write_slices(path, values, *, tensor=_tensor, num_slices=1, packed=False):
    """A checkpoint of version 1: one table."""
    metas, entries = b"", []
    for name, value in values.items():
        extents = b"".join(_field(1, b"") for _ in value.shape)
        meta = _field(1, name.encode()) + _field(2, _shape(value.shape)) + _field(3, DTYPE_IDS[value.dtype.name])
        metas += _field(1, meta + _field(4, extents) * num_slices)
        saved = _field(1, name.encode()) + _field(2, extents) + _field(3, tensor(value))
        entries.append((b"\0" + name.encode() + b"\0\1", _field(2, saved)))
    path.write_bytes(_table([(b"", _field(1, metas)), *entries], packed=packed))
    return path


def _check(read, values):
    assert set(read) == set(values)
    for name, value in values.items():
        np.testing.assert_array_equal(read[name], value)
        assert (read[name].dtype, read[name].shape) == (value.dtype, value.shape)
        assert not read[name].flags.writeable


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("num_shards", [1, 3])
def test_variables_of_version_2(num_shards, packed, tmp_path):
    prefix = _write_bundle(tmp_path / "model.ckpt-7", VALUES, num_shards=num_shards, packed=packed)
    _check(read_arrays(prefix), VALUES)


def test_big_endian_bundles(tmp_path):
    _check(read_arrays(_write_bundle(tmp_path / "model", VALUES, big_endian=True)), VALUES)


@pytest.mark.parametrize("packed", [False, True])
def test_variables_of_version_1(packed, tmp_path):
    _check(read_arrays(_write_slices(tmp_path / "resnet_v1_50.ckpt", VALUES, packed=packed)), VALUES)


def test_version_1_with_plain_bytes(tmp_path):
    path = _write_slices(tmp_path / "model.ckpt", VALUES, tensor=lambda value: _field(4, value.tobytes()))
    _check(read_arrays(path), VALUES)


def test_version_1_with_unpacked_numbers(tmp_path):
    values = {"steps": np.array([3, -4], np.int64)}
    path = _write_slices(tmp_path / "model.ckpt", values, tensor=lambda value: _field(10, 3) + _field(10, -4))
    _check(read_arrays(path), values)


def test_bfloat16_becomes_float32(tmp_path):
    bits = np.array([0x3F80, 0xC020], np.uint16)
    extra = [(b"brain", _entry(bits, 0, 0, dtype_id=14))]
    prefix = _write_bundle(tmp_path / "model", {}, num_shards=1, extra=extra)
    (tmp_path / "model.data-00000-of-00001").write_bytes(bits.tobytes())
    np.testing.assert_array_equal(read_arrays(prefix)["brain"], np.array([1.0, -2.5], np.float32))


def test_names_of_object_based_checkpoints(tmp_path):
    """TensorFlow 2's; the graph of objects beside the variables is a string."""
    values = {f"model/conv/kernel{OBJECT}": np.ones((3, 3), np.float32), f"step{OBJECT}": np.array(3)}
    graph = _field(1, 7) + _field(5, 100)
    prefix = _write_bundle(tmp_path / "ckpt-1", values, extra=[(b"_CHECKPOINTABLE_OBJECT_GRAPH", graph)])
    assert set(read_arrays(prefix)) == {"model/conv/kernel", "step"}


@pytest.mark.parametrize("suffix", ["", ".index", ".meta", ".data-00000-of-00002", ".data-00001-of-00002"])
def test_any_name_of_the_checkpoint_will_do(suffix, tmp_path):
    prefix = _write_bundle(tmp_path / "model.ckpt-7", VALUES)
    (tmp_path / "model.ckpt-7.meta").write_bytes(b"graph")
    _check(read_arrays(f"{prefix}{suffix}"), VALUES)


@pytest.mark.parametrize("named", ["model.ckpt-7", "/elsewhere/run/model.ckpt-7"])
def test_a_folder_names_its_latest(named, tmp_path):
    _write_bundle(tmp_path / "model.ckpt-3", {"old": np.zeros(1)})
    _write_bundle(tmp_path / "model.ckpt-7", VALUES)
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\nall_model_checkpoint_paths: "x"\n')
    _check(read_arrays(tmp_path), VALUES)


def test_a_folder_of_version_1(tmp_path):
    _write_slices(tmp_path / "model.ckpt-7", VALUES)
    (tmp_path / "model.ckpt-7.meta").write_bytes(b"graph")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
    for path in (tmp_path, tmp_path / "model.ckpt-7", tmp_path / "model.ckpt-7.meta"):
        _check(read_arrays(path), VALUES)


def test_a_folder_with_one_checkpoint(tmp_path, refused):
    _write_bundle(tmp_path / "one", VALUES)
    _check(read_arrays(tmp_path), VALUES)
    _write_bundle(tmp_path / "two", VALUES)
    assert "holds one, two; name the one" in refused(tmp_path)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("", "names no checkpoint"),
        ('model_checkpoint_path: "."', "names no checkpoint"),
        ('model_checkpoint_path: ".."', "names no checkpoint"),
        ('model_checkpoint_path: "gone"', "needs the file gone.index"),
        ("\0\xff", "names no checkpoint"),
    ],
)
def test_a_folder_that_names_nothing(state, reason, tmp_path, refused):
    (tmp_path / "checkpoint").write_text(state)
    assert reason in refused(tmp_path)


def test_missing_files_are_named(tmp_path, refused):
    prefix = _write_bundle(tmp_path / "model", VALUES)
    shard, index = tmp_path / "model.data-00001-of-00002", tmp_path / "model.index"
    data = shard.read_bytes()
    shard.unlink()
    assert f"needs the file {shard.name}" in refused(prefix)
    shard.write_bytes(data)
    index.unlink()
    assert f"needs the file {index.name}" in refused(shard)


def test_an_index_under_another_name(tmp_path, refused):
    _write_bundle(tmp_path / "model", VALUES)
    renamed = (tmp_path / "model.index").rename(tmp_path / "weights")
    assert "name it PREFIX.index" in refused(renamed)


def test_cut_short_or_changed(tmp_path, refused_when_cut, never_fatal):
    _write_bundle(tmp_path / "model", VALUES, packed=True)
    slices = _write_slices(tmp_path / "model.ckpt", VALUES, packed=True)
    for path in (tmp_path / "model.index", tmp_path / "model.data-00000-of-00002", slices):
        refused_when_cut(path)
        never_fatal(path)


def test_a_changed_value_is_found(tmp_path, refused):
    _write_bundle(tmp_path / "model", VALUES, num_shards=1)
    shard = tmp_path / "model.data-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)
    assert "wrong checksum in model.data-00000-of-00001" in refused(shard)


@pytest.mark.parametrize(
    "fields",
    [
        _field(1, 1) + _field(2, _shape([2**40])) + _field(5, 2**42),
        _field(1, 1) + _field(2, _shape([2**40])) + _field(5, 4),
        _field(1, 1) + _field(2, _shape([-1])) + _field(5, 4),
        _field(1, 1) + _field(2, _shape([1])) + _field(4, 2**60) + _field(5, 4),
        _field(1, 1) + _field(2, _shape([1])) + _field(4, 2**64 - 4) + _field(5, 4),
        _field(1, 1) + _field(2, b"\xff"),
        _field(1, 1) + _field(2, _field(2, _field(1, b"x"))),
        _field(1, b"x"),
    ],
)
def test_entries_that_lie(fields, tmp_path, refused):
    refused(_write_bundle(tmp_path / "model", {}, num_shards=1, extra=[(b"w", fields)]))


@pytest.mark.parametrize("dtype_id", [11, 12, 15, 24, 99])
def test_quantised_and_unknown_types_are_named(dtype_id, tmp_path, refused):
    extra = [(b"conv/weights", _field(1, dtype_id))]
    assert f"holds 'conv/weights' of data type {dtype_id}" in refused(
        _write_bundle(tmp_path / "model", {}, num_shards=1, extra=extra)
    )


def test_partitioned_variables_are_named(tmp_path, refused):
    part = _field(1, 1) + _field(2, _shape([2])) + _field(7, b"")
    bundle = _write_bundle(tmp_path / "model", {}, num_shards=1, extra=[(b"logits/weights", part)])
    slices = _write_slices(tmp_path / "model.ckpt", {"logits/weights": np.zeros(2)}, num_slices=2)
    for path in (bundle, slices):
        assert "holds the partitioned variable 'logits/weights'" in refused(path)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [(b"w", b"")],
        [(b"", b"")],
        [(b"", _field(1, b"\xff"))],
        [(b"", _field(1, _field(1, _field(1, b"w") + _field(2, _shape([2**40])) + _field(3, 1))))],  # no values
        [(b"", _field(1, b"")), (b"w", _field(2, _field(1, b"w")))],  # no header
    ],
)
def test_tables_that_are_no_checkpoints(entries, tmp_path, refused):
    path = tmp_path / "model.ckpt"
    path.write_bytes(_table(entries))
    refused(path)


@pytest.mark.parametrize("shape", [(2**40,), (3,), (-2,), (2, 2)])
def test_shapes_of_version_1_that_lie(shape, tmp_path, refused):
    meta = _field(1, b"w") + _field(2, _shape(shape)) + _field(3, 1)
    saved = _field(1, b"w") + _field(3, _field(5, bytes(8)))
    path = tmp_path / "model.ckpt"
    path.write_bytes(_table([(b"", _field(1, _field(1, meta))), (b"w", _field(2, saved))]))
    refused(path)


@pytest.mark.parametrize(
    "block",
    [
        _varint(1) + _varint(1) + _varint(0) + b"k" + struct.pack("<II", 0, 1),  # shares a key with nothing
        _varint(0) + _varint(2**31) + _varint(0) + b"k" + struct.pack("<II", 0, 1),
        _varint(0) + _varint(1) + _varint(2**31) + b"k" + struct.pack("<II", 0, 1),
        _varint(0) + _varint(1) + _varint(4) + b"k" + struct.pack("<II", 0, 1),  # a value in the restarts
        struct.pack("<I", 2**32 - 1),
        b"",
        b"\x80",
    ],
)
def test_blocks_that_lie(block, tmp_path, refused):
    contents = block + b"\0"
    stored = contents + struct.pack("<I", masked_crc32c(contents))
    index = _block([(b"z", _varint(0) + _varint(len(block)))], 1) + b"\0"
    footer = _varint(0) + _varint(0) + _varint(len(stored)) + _varint(len(index) - 1)
    path = tmp_path / "model.index"
    path.write_bytes(
        stored
        + index
        + struct.pack("<I", masked_crc32c(index))
        + footer.ljust(40, b"\0")
        + struct.pack("<Q", 0xDB4775248B80FB57)
    )
    assert "damaged" in refused(path)
