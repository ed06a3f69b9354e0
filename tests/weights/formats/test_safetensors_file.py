"""safetensors: written from the format's description, and by the library where it is installed."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from deeplab_jax.weights.formats.read import read_arrays


def _write(path, header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


@pytest.fixture
def file(tmp_path):
    header = {
        "__metadata__": {"format": "pt"},
        "conv.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "conv.brain": {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]},
        "step": {"dtype": "I64", "shape": [], "data_offsets": [28, 36]},
        "none": {"dtype": "F16", "shape": [0, 4], "data_offsets": [36, 36]},
    }
    body = struct.pack("<6f", *range(6)) + b"\x80\x3f\x20\xc0" + struct.pack("<q", -7)
    return _write(tmp_path / "model.safetensors", header, body)


def test_tensors_come_back(file):
    read = read_arrays(file)
    assert set(read) == {"conv.weight", "conv.brain", "step", "none"}
    np.testing.assert_array_equal(read["conv.weight"], np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(read["conv.brain"], np.array([1.0, -2.5], np.float32))
    assert {name: array.dtype.name for name, array in read.items()} == {
        "conv.weight": "float32",
        "conv.brain": "float32",
        "step": "int64",
        "none": "float16",
    }
    assert read["step"] == -7
    assert read["none"].shape == (0, 4)


def test_needs_no_suffix(file):
    assert "step" in read_arrays(file.rename(file.with_name("model")))


def test_a_header_as_long_as_a_pickle_begins(tmp_path):
    """0x0280 in little-endian order are the first bytes of a pickle of protocol 2."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode().ljust(0x280)
    assert read_arrays(_write(tmp_path / "model", header, bytes(8)))["w"].shape == (2,)


def test_cut_short_or_changed(file, refused_when_cut, never_fatal):
    refused_when_cut(file)
    never_fatal(file)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]},
        {"dtype": "F32", "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0]},
        ["F32"],
        None,
    ],
    ids=str,
)
def test_an_entry_that_lies(entry, tmp_path, refused):
    assert "damaged" in refused(_write(tmp_path / "model.safetensors", {"w": entry}, bytes(8)))


def test_a_dtype_that_numpy_lacks(tmp_path, refused):
    entry = {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}
    assert "dtype F8_E4M3; save it as float32" in refused(_write(tmp_path / "m.safetensors", {"w": entry}, bytes(8)))


def test_a_header_nested_without_end(tmp_path, refused):
    assert "nested" in refused(_write(tmp_path / "m.safetensors", b'{"w":' + b"[" * 100_000))


@pytest.mark.peer
def test_reads_what_the_library_writes(tmp_path, rng):
    library = pytest.importorskip("safetensors.numpy")
    arrays = {
        dtype: rng.integers(2, size=(3, 4)).astype(dtype)
        for dtype in ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64")
    }
    library.save_file(arrays, tmp_path / "model.safetensors")
    read = read_arrays(tmp_path / "model.safetensors")
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype
