"""Keras' HDF5 files, of versions 2 and 3, weights alone or whole models."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from deeplab_jax.types import UserError
from deeplab_jax.weights.formats import keras_h5
from deeplab_jax.weights.formats.keras_h5 import weight_name
from deeplab_jax.weights.formats.read import read_arrays

KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    """Reads without a process for each file, of which some tests have hundreds."""
    monkeypatch.setattr(keras_h5, "_convert_apart", keras_h5._convert)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as archive:
        archive.attrs["keras_version"] = "2.2.4"
        archive["entry_flow_conv1_1/entry_flow_conv1_1/kernel:0"] = KERNEL
        archive.create_dataset("logits/logits/bias:0", data=np.arange(4, dtype=">f8"), compression="gzip")
        archive["step"] = 7
        archive["none/none/kernel:0"] = np.zeros((0, 3), np.float32)
        archive["names"] = ["text"]
        archive.create_group("activation")
    return path


def test_arrays_come_back(file):
    read = read_arrays(file.rename(file.with_suffix("")))
    assert set(read) == {"entry_flow_conv1_1/kernel", "logits/bias", "step", "none/kernel"}
    np.testing.assert_array_equal(read["entry_flow_conv1_1/kernel"], KERNEL)
    np.testing.assert_array_equal(read["logits/bias"], np.arange(4.0))
    assert read["logits/bias"].dtype == np.float64
    assert read["step"].shape == ()
    assert not any(array.flags.writeable for array in read.values())


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("conv/conv/kernel:0", "conv/kernel"),
        ("model_weights/conv/conv/kernel:0", "conv/kernel"),
        ("model_weights/conv/sequential/conv/kernel", "conv/kernel"),
        ("resnet/conv1/kernel:0", "resnet/conv1/kernel"),
        ("conv/kernel", "conv/kernel"),
        ("layers/conv2d/vars/0", "layers/conv2d/vars/0"),
        ("kernel:0", "kernel"),
        ("a/a", "a/a"),
    ],
)
def test_names(source, name):
    assert weight_name(source) == name


@pytest.mark.parametrize("slots", ["optimizer_weights/Adam/m:0", "optimizer/vars/1"])
def test_the_optimizer_is_left_out(slots, file):
    with h5py.File(file, "a") as archive:
        archive[slots] = KERNEL
    assert len(read_arrays(file)) == 4


def test_names_that_become_one(file, refused):
    with h5py.File(file, "a") as archive:
        archive["logits/model/logits/bias"] = KERNEL
    assert "holds 'logits/bias' twice" in refused(file)


def test_cut_short_or_changed(file, refused_when_cut, never_fatal):
    refused_when_cut(file)
    never_fatal(file)


@pytest.mark.parametrize("options", [{}, {"chunks": (1000,)}, {"chunks": (1000,), "compression": "gzip"}])
def test_a_shape_without_data(options, tmp_path, refused):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as archive:
        archive.create_dataset("kernel", (10**12,), np.float32, **options)
    assert "not all there" in refused(path)


def test_other_files_are_not_read(file, refused):
    secret = file.with_name("secret")
    secret.write_bytes(bytes(96))
    with h5py.File(file, "a") as archive:
        archive["soft"] = h5py.SoftLink("/step")
        archive["outer"] = h5py.ExternalLink(str(file), "/step")
    assert len(read_arrays(file)) == 4
    with h5py.File(file, "a") as archive:
        archive.create_dataset("stolen", (24,), np.float32, external=[(str(secret), 0, 96)])
    assert "keeps 'stolen' in another file" in refused(file)


def test_a_type_that_is_not_plain(file, refused):
    with h5py.File(file, "a") as archive:
        archive["long"] = np.zeros(2, np.longdouble)
    assert "of dtype float128" in refused(file)


def test_reading_in_a_process_of_its_own(file, monkeypatch):
    monkeypatch.undo()
    np.testing.assert_array_equal(read_arrays(file)["entry_flow_conv1_1/kernel"], KERNEL)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match="damaged Keras HDF5 file"):
        read_arrays(file)


def test_a_file_on_which_libhdf5_crashes(file, refused, monkeypatch):
    monkeypatch.setattr(keras_h5, "_convert_apart", lambda path, copy: (-11, ""))
    assert "reading it ends the process with status -11" in refused(file)
