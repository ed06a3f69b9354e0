"""TensorFlow Lite models: flatbuffers written from the format, and a real one."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from deeplab_jax.weights.formats.read import read_arrays

FLOAT32, FLOAT16, INT32, UINT8, INT8 = 0, 1, 2, 3, 9


class Flatbuffer:
    """Puts tables one behind the other, children behind their parents."""

    def __init__(self):
        self.data = bytearray(b"\0\0\0\0TFL3")

    def table(self, slots):
        """Slots: field number -> integer, or a function that puts a child and returns its place."""
        self._align()
        num_fields = max(slots, default=-1) + 1
        start, size = len(self.data), 4 + 4 * len(slots)
        places = {field: 4 + 4 * index for index, field in enumerate(slots)}
        self.data += struct.pack("<HH", 4 + 2 * num_fields, size)
        self.data += b"".join(struct.pack("<H", places.get(field, 0)) for field in range(num_fields))
        self._align()
        table = len(self.data)
        self.data += struct.pack("<i", table - start) + bytes(size - 4)
        for field, value in slots.items():
            place = table + places[field]
            if callable(value):
                self.point(place, value())
            else:
                struct.pack_into("<i", self.data, place, value)
        return table

    def tables(self, children):
        start = len(self.data)
        self.data += struct.pack("<I", len(children)) + bytes(4 * len(children))
        for index, child in enumerate(children):
            place = start + 4 + 4 * index
            self.point(place, child())
        return start

    def vector(self, data, count):
        start = len(self.data)
        self.data += struct.pack("<I", count) + data
        self._align()
        return start

    def point(self, place, target):
        struct.pack_into("<I", self.data, place, target - place)

    def _align(self):
        self.data += bytes(-len(self.data) % 4)


def _model(tensors):
    """Tensors: (name, type, shape, data) each; a buffer of its own each, behind the empty one of all variables."""
    flat = Flatbuffer()

    def buffer(data):
        return lambda: flat.table({0: lambda: flat.vector(data, len(data))} if data else {})

    def tensor(index, name, type_id, shape):
        slots = {
            0: lambda: flat.vector(struct.pack(f"<{len(shape)}i", *shape), len(shape)),
            2: index + 1,
            3: lambda: flat.vector(name.encode(), len(name)),
        }
        return lambda: flat.table(slots | ({1: type_id} if type_id else {}))

    made = [tensor(index, name, type_id, shape) for index, (name, type_id, shape, _) in enumerate(tensors)]
    buffers = [buffer(data) for data in (b"", *(data for *_, data in tensors))]
    subgraph = {0: lambda: flat.tables(made)}
    slots = {0: 3, 4: lambda: flat.tables(buffers), 2: lambda: flat.tables([lambda: flat.table(subgraph)])}
    flat.point(0, flat.table(slots))
    return bytes(flat.data)


KERNEL = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
TENSORS = [
    ("image", FLOAT32, (1, 5, 5, 3), b""),
    ("conv/weights", FLOAT32, KERNEL.shape, KERNEL.tobytes()),
    ("conv/half", FLOAT16, (2,), np.array([0.5, -2.0], np.float16).tobytes()),
    ("size", INT32, (2,), struct.pack("<2i", 5, 5)),
    ("beta", FLOAT32, (), struct.pack("<f", 0.25)),
]


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(_model(TENSORS))
    return path


def test_constants_of_floating_point_come_back(model):
    read = read_arrays(model.rename(model.with_suffix("")))
    assert set(read) == {"conv/weights", "conv/half", "beta"}
    np.testing.assert_array_equal(read["conv/weights"], KERNEL)
    np.testing.assert_array_equal(read["conv/half"], [0.5, -2.0])
    assert read["beta"] == 0.25
    assert {array.dtype for array in read.values()} == {np.dtype(np.float32)}
    assert not any(array.flags.writeable for array in read.values())


def test_cut_short_or_changed(model, refused_when_cut, never_fatal):
    refused_when_cut(model)
    never_fatal(model)


@pytest.mark.parametrize("type_id", [UINT8, INT8])
def test_quantised_weights_are_refused(type_id, tmp_path, refused):
    path = tmp_path / "model.tflite"
    path.write_bytes(_model([*TENSORS, ("conv/quantised", type_id, (2,), b"ab")]))
    assert "is quantised ('conv/quantised'" in refused(path)
    assert "read the float model" in refused(path)


@pytest.mark.parametrize("shape", [(2**30, 2**30, 2**30), (4,), (-3,)])
def test_a_shape_that_lies(shape, tmp_path, refused):
    path = tmp_path / "model.tflite"
    path.write_bytes(_model([("w", FLOAT32, shape, bytes(12))]))
    assert "damaged" in refused(path)


def test_a_name_that_is_not_unique(tmp_path, refused):
    path = tmp_path / "model.tflite"
    zeros, ones = struct.pack("<f", 0.0), struct.pack("<f", 1.0)
    path.write_bytes(_model([("w", FLOAT32, (1,), zeros), ("w", FLOAT32, (1,), zeros)]))
    assert list(read_arrays(path)) == ["w"]
    path.write_bytes(_model([("w", FLOAT32, (1,), zeros), ("w", FLOAT32, (1,), ones)]))
    assert "two tensors 'w'" in refused(path)


def test_the_model_of_257_pixels(shared):
    """Its names and shapes: MobileNetV2 of half the width, image pooling and a 1x1 branch."""
    read = read_arrays(shared / "weights" / "deeplabv3_257_mv_gpu.tflite")
    assert len(read) == 110
    assert sum(array.size for array in read.values()) == 688_357
    shapes = {name: array.shape for name, array in read.items()}
    assert shapes["MobilenetV2/Conv/weights"] == (16, 3, 3, 3)
    assert shapes["MobilenetV2/expanded_conv_16/depthwise/depthwise_weights"] == (1, 3, 3, 480)
    assert shapes["MobilenetV2/expanded_conv_16/project/Conv2D_bias"] == (160,)
    assert shapes["concat_projection/weights"] == (256, 1, 1, 512)
    assert shapes["logits/semantic/weights"] == (21, 1, 1, 256)
    assert all(np.isfinite(array).all() for array in read.values())
