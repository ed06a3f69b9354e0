"""The table of compiled convolutions: its limits, and what a cell says."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import pytest

from benchmarks import compile_convolutions
from benchmarks.shapes import DIRECTIONS, Shape
from deeplab_jax.ops.convolution.geometry import geometry_of, output_size


@pytest.mark.parametrize(("size", "taps", "stride", "rate"), [(9, 3, 1, 2), (9, 3, 2, 1), (5, 3, 1, 18), (6, 2, 3, 1)])
def test_useful_work_is_what_a_convolution_of_ones_adds_up(size, taps, stride, rate):
    x, kernel = jnp.ones((1, size, size, 1)), jnp.ones((taps, taps, 1, 1))
    geometry = geometry_of(x, kernel, (stride, stride), (rate, rate), "tf_same")
    height, width = output_size(x, kernel, geometry)
    (low, _), _ = geometry.padding
    counted = sum(
        all(0 <= out * stride + tap * rate - low < size for out, tap in ((row, i), (column, j)))
        for row, column, i, j in itertools.product(range(height), range(width), range(taps), range(taps))
    )
    assert compile_convolutions._pixels_inside(x, kernel, geometry) == counted


def test_a_cell_lists_formulations_by_their_bytes_with_what_is_odd_about_them():
    plain = {"bytes": 300, "flops": 100, "windows": ["33x33"]}
    taps = {"bytes": 110, "flops": 200, "windows": []}
    cell = compile_convolutions._cell({"bytes": 100, "flops": 100, "formulations": {"lax": plain, "taps": taps}})
    assert cell == "taps 1.1 (work 2.0), lax 3.0 (33x33)"


def test_a_shape_is_named_by_what_it_does():
    shape = Shape(33, 33, 728, 0, 3, 1, 2)
    assert shape.name == "33x33, 728 depthwise, 3x3, rate 2"
    assert shape._replace(features=256, rate=1, stride=2).name == "33x33, 728 -> 256, 3x3, stride 2"


def test_every_direction_has_every_formulation_that_is_named():
    shape = Shape(33, 33, 64, 64, 3, 1, 2)
    names = {
        direction: [name for name, _ in compile_convolutions.formulations(shape, direction)] for direction in DIRECTIONS
    }
    assert names == {"forward": ["lax", "taps"], "input": ["lax", "taps"], "kernel": ["lax", "taps", "phases"]}
