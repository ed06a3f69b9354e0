"""safetensors: written from the format's description, and by the library where it is installed."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from deeplab_jax.types import UserError
from deeplab_jax.weights.formats import safetensors_file
from deeplab_jax.weights.formats.read import read_arrays, read_metadata


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


def test_a_header_too_large_to_be_one(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(safetensors_file, "_MAX_HEADER_BYTES", 100)
    assert "a header of 101 bytes" in refused(_write(tmp_path / "m.safetensors", b"{}".ljust(101)))


def test_tensors_that_share_their_bytes(tmp_path, refused):
    """Each bfloat16 becomes a float32 of its own: many names for one tensor would fill the memory."""
    entry = {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}
    assert "share their bytes" in refused(_write(tmp_path / "m.safetensors", {"v": entry, "w": entry}, bytes(8)))


@pytest.mark.parametrize("metadata", [["text"], {"name": 1}, "text"])
def test_metadata_that_are_no_texts(metadata, tmp_path):
    path = _write(tmp_path / "m.safetensors", {"__metadata__": metadata})
    with pytest.raises(UserError, match="metadata__ that are no texts"):
        read_metadata(path)


def _arrays(rng):
    kinds = ("bool", "uint8", "int64", "float16", "float32")
    arrays = {name: rng.integers(2, size=(3, 5)).astype(name) for name in kinds}
    return {**arrays, "scalar": np.float32(3.5).reshape(()), "transposed": arrays["float32"].T, "empty": np.zeros(0)}


def test_what_is_written_comes_back(tmp_path, rng):
    arrays = _arrays(rng)
    safetensors_file.write(tmp_path / "m.safetensors", arrays, {"name": "Umlaut ä"})
    read = read_arrays(tmp_path / "m.safetensors")
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    assert read_metadata(tmp_path / "m.safetensors") == {"name": "Umlaut ä"}


def test_formats_without_metadata_have_none(tmp_path):
    np.savez(tmp_path / "m.npz", weight=np.zeros(3))
    assert read_metadata(tmp_path / "m.npz") == {}


@pytest.mark.peer
def test_the_library_reads_what_is_written(tmp_path, rng):
    library = pytest.importorskip("safetensors")
    arrays = _arrays(rng)
    path = tmp_path / "m.safetensors"
    safetensors_file.write(path, arrays, {"name": "Umlaut ä"})
    with library.safe_open(path, "np") as file:
        assert file.metadata() == {"name": "Umlaut ä"}
        assert set(file.keys()) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)


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
