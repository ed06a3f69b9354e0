"""Pickled NumPy arrays, as Detectron2's model zoo and Caffe2 store them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from deeplab_jax.weights.formats.read import read_arrays

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ARRAYS = {
    "stem.conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(5, dtype=">i4"),
    "half": np.array([0.5, -2.0], np.float16),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 3)),
    "zero_rank": np.array(3.5),
    "scalar": np.float32(1.25),
    "strided": np.arange(20, dtype=np.int64)[::3],
    "complex": np.array([1 + 2j]),
}


def _dump(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_come_back(protocol, tmp_path):
    zoo = {"model": ARRAYS, "__author__": "someone", "matching_heuristics": True}
    read = read_arrays(_dump(tmp_path / "model.pkl", zoo, protocol))
    assert set(read) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].shape == array.shape
        assert read[name].dtype == array.dtype.newbyteorder("=")
        assert not read[name].flags.writeable


def test_python_2_writes_bytes_as_text(tmp_path):
    """The bytes of an array are then a BINSTRING, here 'T'; written by hand from what cPickle gives."""
    data = (
        b"\x80\x02}U\x05blobs}U\x06conv_wcnumpy.core.multiarray\n_reconstruct\n"
        b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x01\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x08\x00\x00\x00\x00\x00\x80?\x00\x00\x00\xc0tbss."
    )
    (tmp_path / "weights.pkl").write_bytes(data)
    np.testing.assert_array_equal(read_arrays(tmp_path / "weights.pkl")["conv_w"], np.array([[1.0], [-2.0]], "f4"))


def test_needs_no_suffix(tmp_path):
    assert set(read_arrays(_dump(tmp_path / "weights", ARRAYS))) == set(ARRAYS)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_cut_short_or_changed(protocol, tmp_path, refused_when_cut, never_fatal):
    path = _dump(tmp_path / "weights.pkl", {"model": ARRAYS}, protocol)
    refused_when_cut(path)
    never_fatal(path)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"w": np.array([{}], dtype=object)}, "not of plain numbers"),
        ({"w": np.array(["text"])}, "not of plain numbers"),
        ({"w": np.zeros(2, dtype=[("x", "f4")])}, "not of plain numbers"),
        ({"w": np.array(["2020-01-01"], "datetime64[D]")}, "not of plain numbers"),
        ({"epoch": 3, "lr": [0.1]}, "no tensors"),
        ([np.zeros(3)], "no tensors"),
        (None, "no tensors"),
    ],
    ids=["objects", "text", "records", "dates", "settings", "list", "none"],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_other_than_arrays_is_refused(value, reason, protocol, tmp_path, refused):
    assert reason in refused(_dump(tmp_path / "weights.pkl", value, protocol))


@pytest.mark.parametrize("old", [b"K\x02K\x03\x86", b"K\x06\x85"])
def test_a_shape_that_lies_allocates_nothing(old, tmp_path, refused):
    array = np.arange(6.0).reshape((2, 3) if b"\x86" in old else (6,))
    data = pickle.dumps({"w": array}, 2)
    assert data.count(old) == 1
    for new in (
        b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86",
        b"J\xff\xff\xff\xff\x85",
        b"N\x85",
        b"K\x06",
        b"G" + bytes(8) + b"\x85",
    ):
        (tmp_path / "weights.pkl").write_bytes(data.replace(old, new))
        assert "damaged" in refused(tmp_path / "weights.pkl")


class _Named:
    """Paddle's tensor, which its pickles construct as tuple((name, array))."""

    def __init__(self, name, array):
        self.pair = (name, array)

    def __reduce__(self):
        return tuple, (self.pair,)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("named", [True, False], ids=["tensors", "arrays"])
def test_paddle_s_parameters(named, protocol, tmp_path):
    """As paddle.save writes a state dict: arrays, or tensors with their names, and a table of names beside them."""
    tree = {name: _Named(f"param_{name}", array) if named else array for name, array in ARRAYS.items()}
    tree["StructuredToParameterName@@"] = {name: f"param_{name}" for name in ARRAYS}
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps(tree, protocol))
    read = read_arrays(path)
    assert set(read) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read[name], array)
