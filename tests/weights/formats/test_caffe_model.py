"""Caffe's files, written by hand from caffe.proto: layers in the new and the old form, packed and unpacked numbers."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from caffe_files import field, layer, old_layer, varint

from deeplab_jax.weights.formats.read import read_arrays

KERNEL, BIAS, MATRIX = np.arange(54.0).reshape(2, 3, 3, 3), np.arange(2.0), np.arange(6.0).reshape(2, 3)


def _write(tmp_path, *layers):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(field(1, b"net") + b"".join(layers))
    return path


@pytest.mark.parametrize("make", [lambda *a: layer("conv", "Convolution", *a), lambda *a: old_layer("conv", *a)])
def test_layers(make, tmp_path):
    read = read_arrays(_write(tmp_path, make(), make(KERNEL, BIAS)))
    assert set(read) == {"conv/weight", "conv/bias"}
    np.testing.assert_array_equal(read["conv/weight"], KERNEL)
    np.testing.assert_array_equal(read["conv/bias"], BIAS)
    assert read["conv/weight"].dtype == np.float32
    assert not read["conv/weight"].flags.writeable


def test_matrices_of_the_old_form(tmp_path):
    read = read_arrays(_write(tmp_path, old_layer("fc", MATRIX, BIAS)))
    np.testing.assert_array_equal(read["fc/weight"], MATRIX)
    np.testing.assert_array_equal(read["fc/bias"], BIAS)


@pytest.mark.parametrize(("weight", "factor"), [(1.0, 1.0), (999.98, 1 / 999.98), (0.0, 0.0)])
def test_moving_averages_are_divided_by_their_weight(weight, factor, tmp_path):
    sums = np.array([1.0, -2.0]), np.array([3.0, 4.0])
    read = read_arrays(_write(tmp_path, layer("bn", "BatchNorm", *sums, [weight]), layer("scale", "Scale", BIAS, BIAS)))
    # one rounding of the factor and one of the product
    np.testing.assert_allclose(read["bn/mean"], sums[0] * factor, rtol=2e-7)
    np.testing.assert_allclose(read["bn/variance"], sums[1] * factor, rtol=2e-7)
    assert set(read) == {"bn/mean", "bn/variance", "scale/weight", "scale/bias"}


def test_numbers_that_are_not_packed(tmp_path):
    single = b"".join(varint(5 << 3 | 5) + struct.pack("<f", number) for number in (1.5, -2.0))
    message = field(7, field(1, varint(2))) + single
    path = _write(tmp_path, field(100, field(1, b"scale") + field(7, message)))
    np.testing.assert_array_equal(read_arrays(path)["scale/weight"], [1.5, -2.0])


def _with_blob(message):
    return field(100, field(1, b"a") + field(7, message))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([layer("a", "Scale", BIAS), layer("a", "Scale", BIAS)], "two layers 'a'"),
        ([layer("bn", "BatchNorm", BIAS, BIAS)], "a batch norm without its three blobs"),
        ([_with_blob(field(7, field(1, varint(2**40))) + field(5, b""))], "a blob of 0 numbers"),
        ([_with_blob(field(5, b"123"))], "damaged Caffe model"),
        ([field(100, field(1, b"a"))], "without arrays"),
    ],
)  # fmt: skip
def test_a_file_that_lies(layers, words, tmp_path, refused):
    assert words in refused(_write(tmp_path, *layers))


def test_cut_short_or_changed(tmp_path, never_fatal):
    never_fatal(_write(tmp_path, layer("conv", "Convolution", KERNEL, BIAS), old_layer("fc", MATRIX, BIAS)))
