"""TensorFlow's checkpoints: tables, shards and messages written from the specifications."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from tf_bundles import DTYPE_IDS, block_of, entry, field, shape_message, table, varint, write_bundle

from deeplab_jax.weights.formats.crc32c import masked_crc32c
from deeplab_jax.weights.formats.read import read_arrays

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


def _tensor(value):
    """A TensorProto with the values in the field of their type, as TensorFlow's saver fills it."""
    name = value.dtype.name
    fixed = {"float32": 5, "float64": 6, "complex64": 9, "complex128": 12}
    if name in fixed:
        return field(fixed[name], value.tobytes())
    if name == "float16":
        return field(13, b"".join(map(varint, value.view(np.uint16).ravel().tolist())))
    number = {"int64": 10, "bool": 11, "uint32": 16, "uint64": 17}.get(name, 7)
    return field(number, b"".join(varint(int(item)) for item in value.ravel()))


def _write_slices(path, values, *, tensor=_tensor, num_slices=1, packed=False):
    """A checkpoint of version 1: one table."""
    metas, entries = b"", []
    for name, value in values.items():
        extents = b"".join(field(1, b"") for _ in value.shape)
        meta = field(1, name.encode()) + field(2, shape_message(value.shape)) + field(3, DTYPE_IDS[value.dtype.name])
        metas += field(1, meta + field(4, extents) * num_slices)
        saved = field(1, name.encode()) + field(2, extents) + field(3, tensor(value))
        entries.append((b"\0" + name.encode() + b"\0\1", field(2, saved)))
    path.write_bytes(table([(b"", field(1, metas)), *entries], packed=packed))
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
    prefix = write_bundle(tmp_path / "model.ckpt-7", VALUES, num_shards=num_shards, packed=packed)
    _check(read_arrays(prefix), VALUES)


def test_big_endian_bundles(tmp_path):
    _check(read_arrays(write_bundle(tmp_path / "model", VALUES, big_endian=True)), VALUES)


@pytest.mark.parametrize("packed", [False, True])
def test_variables_of_version_1(packed, tmp_path):
    _check(read_arrays(_write_slices(tmp_path / "resnet_v1_50.ckpt", VALUES, packed=packed)), VALUES)


def test_version_1_with_plain_bytes(tmp_path):
    path = _write_slices(tmp_path / "model.ckpt", VALUES, tensor=lambda value: field(4, value.tobytes()))
    _check(read_arrays(path), VALUES)


def test_version_1_with_unpacked_numbers(tmp_path):
    values = {"steps": np.array([3, -4], np.int64)}
    path = _write_slices(tmp_path / "model.ckpt", values, tensor=lambda value: field(10, 3) + field(10, -4))
    _check(read_arrays(path), values)


def test_bfloat16_becomes_float32(tmp_path):
    bits = np.array([0x3F80, 0xC020], np.uint16)
    extra = [(b"brain", entry(bits, 0, 0, dtype_id=14))]
    prefix = write_bundle(tmp_path / "model", {}, num_shards=1, extra=extra)
    (tmp_path / "model.data-00000-of-00001").write_bytes(bits.tobytes())
    np.testing.assert_array_equal(read_arrays(prefix)["brain"], np.array([1.0, -2.5], np.float32))


def test_names_of_object_based_checkpoints(tmp_path):
    """TensorFlow 2's; the graph of objects beside the variables is a string."""
    values = {f"model/conv/kernel{OBJECT}": np.ones((3, 3), np.float32), f"step{OBJECT}": np.array(3)}
    graph = field(1, 7) + field(5, 100)
    prefix = write_bundle(tmp_path / "ckpt-1", values, extra=[(b"_CHECKPOINTABLE_OBJECT_GRAPH", graph)])
    assert set(read_arrays(prefix)) == {"model/conv/kernel", "step"}


@pytest.mark.parametrize("suffix", ["", ".index", ".meta", ".data-00000-of-00002", ".data-00001-of-00002"])
def test_any_name_of_the_checkpoint_will_do(suffix, tmp_path):
    prefix = write_bundle(tmp_path / "model.ckpt-7", VALUES)
    (tmp_path / "model.ckpt-7.meta").write_bytes(b"graph")
    _check(read_arrays(f"{prefix}{suffix}"), VALUES)


@pytest.mark.parametrize("named", ["model.ckpt-7", "/elsewhere/run/model.ckpt-7"])
def test_a_folder_names_its_latest(named, tmp_path):
    write_bundle(tmp_path / "model.ckpt-3", {"old": np.zeros(1)})
    write_bundle(tmp_path / "model.ckpt-7", VALUES)
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\nall_model_checkpoint_paths: "x"\n')
    _check(read_arrays(tmp_path), VALUES)


def test_a_folder_of_version_1(tmp_path):
    _write_slices(tmp_path / "model.ckpt-7", VALUES)
    (tmp_path / "model.ckpt-7.meta").write_bytes(b"graph")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
    for path in (tmp_path, tmp_path / "model.ckpt-7", tmp_path / "model.ckpt-7.meta"):
        _check(read_arrays(path), VALUES)


def test_a_folder_with_one_checkpoint(tmp_path, refused):
    write_bundle(tmp_path / "one", VALUES)
    _check(read_arrays(tmp_path), VALUES)
    write_bundle(tmp_path / "two", VALUES)
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
    prefix = write_bundle(tmp_path / "model", VALUES)
    shard, index = tmp_path / "model.data-00001-of-00002", tmp_path / "model.index"
    data = shard.read_bytes()
    shard.unlink()
    assert f"needs the file {shard.name}" in refused(prefix)
    shard.write_bytes(data)
    index.unlink()
    assert f"needs the file {index.name}" in refused(shard)


def test_an_index_under_another_name(tmp_path, refused):
    write_bundle(tmp_path / "model", VALUES)
    renamed = (tmp_path / "model.index").rename(tmp_path / "weights")
    assert "name it PREFIX.index" in refused(renamed)


def test_cut_short_or_changed(tmp_path, refused_when_cut, never_fatal):
    write_bundle(tmp_path / "model", VALUES, packed=True)
    slices = _write_slices(tmp_path / "model.ckpt", VALUES, packed=True)
    for path in (tmp_path / "model.index", tmp_path / "model.data-00000-of-00002", slices):
        refused_when_cut(path)
        never_fatal(path)


def test_a_changed_value_is_found(tmp_path, refused):
    write_bundle(tmp_path / "model", VALUES, num_shards=1)
    shard = tmp_path / "model.data-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)
    assert "wrong checksum in model.data-00000-of-00001" in refused(shard)


@pytest.mark.parametrize(
    "fields",
    [
        field(1, 1) + field(2, shape_message([2**40])) + field(5, 2**42),
        field(1, 1) + field(2, shape_message([2**40])) + field(5, 4),
        field(1, 1) + field(2, shape_message([-1])) + field(5, 4),
        field(1, 1) + field(2, shape_message([1])) + field(4, 2**60) + field(5, 4),
        field(1, 1) + field(2, shape_message([1])) + field(4, 2**64 - 4) + field(5, 4),
        field(1, 1) + field(2, b"\xff"),
        field(1, 1) + field(2, field(2, field(1, b"x"))),
        field(1, b"x"),
    ],
)
def test_entries_that_lie(fields, tmp_path, refused):
    refused(write_bundle(tmp_path / "model", {}, num_shards=1, extra=[(b"w", fields)]))


@pytest.mark.parametrize("dtype_id", [11, 12, 15, 24, 99])
def test_quantised_and_unknown_types_are_named(dtype_id, tmp_path, refused):
    extra = [(b"conv/weights", field(1, dtype_id))]
    assert f"holds 'conv/weights' of data type {dtype_id}" in refused(
        write_bundle(tmp_path / "model", {}, num_shards=1, extra=extra)
    )


def test_partitioned_variables_are_named(tmp_path, refused):
    part = field(1, 1) + field(2, shape_message([2])) + field(7, b"")
    bundle = write_bundle(tmp_path / "model", {}, num_shards=1, extra=[(b"logits/weights", part)])
    slices = _write_slices(tmp_path / "model.ckpt", {"logits/weights": np.zeros(2)}, num_slices=2)
    for path in (bundle, slices):
        assert "holds the partitioned variable 'logits/weights'" in refused(path)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [(b"w", b"")],
        [(b"", b"")],
        [(b"", field(1, b"\xff"))],
        [(b"", field(1, field(1, field(1, b"w") + field(2, shape_message([2**40])) + field(3, 1))))],  # no values
        [(b"", field(1, b"")), (b"w", field(2, field(1, b"w")))],  # no header
    ],
)
def test_tables_that_are_no_checkpoints(entries, tmp_path, refused):
    path = tmp_path / "model.ckpt"
    path.write_bytes(table(entries))
    refused(path)


@pytest.mark.parametrize("shape", [(2**40,), (3,), (-2,), (2, 2)])
def test_shapes_of_version_1_that_lie(shape, tmp_path, refused):
    meta = field(1, b"w") + field(2, shape_message(shape)) + field(3, 1)
    saved = field(1, b"w") + field(3, field(5, bytes(8)))
    path = tmp_path / "model.ckpt"
    path.write_bytes(table([(b"", field(1, field(1, meta))), (b"w", field(2, saved))]))
    refused(path)


@pytest.mark.parametrize(
    "block",
    [
        varint(1) + varint(1) + varint(0) + b"k" + struct.pack("<II", 0, 1),  # shares a key with nothing
        varint(0) + varint(2**31) + varint(0) + b"k" + struct.pack("<II", 0, 1),
        varint(0) + varint(1) + varint(2**31) + b"k" + struct.pack("<II", 0, 1),
        varint(0) + varint(1) + varint(4) + b"k" + struct.pack("<II", 0, 1),  # a value in the restarts
        struct.pack("<I", 2**32 - 1),
        b"",
        b"\x80",
    ],
)
def test_blocks_that_lie(block, tmp_path, refused):
    contents = block + b"\0"
    stored = contents + struct.pack("<I", masked_crc32c(contents))
    index = block_of([(b"z", varint(0) + varint(len(block)))], 1) + b"\0"
    footer = varint(0) + varint(0) + varint(len(stored)) + varint(len(index) - 1)
    path = tmp_path / "model.index"
    path.write_bytes(
        stored
        + index
        + struct.pack("<I", masked_crc32c(index))
        + footer.ljust(40, b"\0")
        + struct.pack("<Q", 0xDB4775248B80FB57)
    )
    assert "damaged" in refused(path)
