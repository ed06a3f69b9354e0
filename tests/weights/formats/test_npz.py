"""NumPy archives: everything that np.savez writes, and nothing that would have to be unpickled."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from deeplab_jax.weights.formats.read import read_arrays

ARRAYS = {
    "kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(5, dtype=">i4"),
    "half": np.array([0.5, -2.0], np.float16),
    "flag": np.array(True),
    "empty": np.zeros((0, 3)),
    "scope/name:0": np.arange(3, dtype=np.uint8),
}


@pytest.fixture(params=[np.savez, np.savez_compressed], ids=["stored", "compressed"])
def archive(request, tmp_path):
    path = tmp_path / "weights.npz"
    request.param(path, **ARRAYS)
    return path


def test_arrays_come_back(archive):
    read = read_arrays(archive)
    assert set(read) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype.newbyteorder("=")
        assert read[name].shape == array.shape


def test_text_is_left_out(tmp_path):
    np.savez(tmp_path / "weights.npz", kernel=np.zeros(2), names=np.array(["cat", "dog"]))
    assert list(read_arrays(tmp_path / "weights.npz")) == ["kernel"]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([{"code": 1}], dtype=object), "pickled objects"),
        (np.zeros(2, dtype=[("x", "f4"), ("y", "i4")]), "dtype"),
    ],
    ids=["objects", "records"],
)
def test_other_than_numbers_is_refused(array, reason, tmp_path, refused):
    np.savez(tmp_path / "weights.npz", weights=array)
    assert f"'weights' holds {reason}" in refused(tmp_path / "weights.npz")


def test_cut_short_or_changed(archive, refused_when_cut, never_fatal):
    refused_when_cut(archive)
    never_fatal(archive)


@pytest.mark.parametrize(
    "shape", ["(1000000000000,)", "(3, 1000000)", "(-1,)", "(2.0,)", "(True,)", f"({10**30},)", "7"]
)
def test_a_shape_that_lies_allocates_nothing(shape, tmp_path, refused):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.arange(8.0))
    data = stream.getvalue().replace(b"(8,), }".ljust(len(shape) + 3), f"{shape}, }}".encode())
    assert shape.encode() in data
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as archive:
        archive.writestr("kernel.npy", data)
    assert "damaged" in refused(tmp_path / "weights.npz")


def test_an_archive_that_claims_more_than_it_can_hold(tmp_path, refused):
    """Members may overlap in the file, and so be many times as large together."""
    np.savez_compressed(tmp_path / "weights.npz", kernel=np.zeros(100_000))
    with zipfile.ZipFile(tmp_path / "weights.npz") as archive:
        member = archive.infolist()[0]
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member.filename, b"")
        archive.infolist()[0].file_size = 10**12
    assert "claim to be larger" in refused(path)
