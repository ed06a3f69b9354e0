"""Sizes of padded images: one rule for evaluation, prediction and exported files."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.core import max_dim

from deeplab_jax.canvas import Canvas, fill_outside, make_canvas


@pytest.mark.parametrize(
    ("size", "pad_to", "expected"),
    [
        ((375, 500), (513, 513), (513, 513)),
        ((513, 513), (513, 513), (513, 513)),
        ((375, 500), (0, 0), (385, 513)),
        ((65, 64), (0, 0), (65, 65)),
        ((66, 1), (0, 0), (129, 65)),
        ((600, 500), (513, 513), (641, 513)),  # a side that is larger grows by buckets
        ((361, 500), (361, 481), (361, 545)),
    ],
)
def test_sides_grow_by_buckets(size, pad_to, expected):
    assert make_canvas(pad_to, 64).around(size) == expected


def test_a_fixed_canvas_has_one_size():
    assert Canvas((40, 48), 0).around((3, 3)) == (40, 48)


def test_symbolic_sizes_follow_the_same_rule():
    canvas = make_canvas((65, 97), 32)

    def sides(image):
        return jnp.stack([jnp.asarray(side) for side in canvas.around(image.shape, maximum=max_dim)])

    program = export.export(jax.jit(sides))(jax.ShapeDtypeStruct(export.symbolic_shape("h, w"), np.float32))
    for size in ((2, 2), (65, 97), (66, 98), (100, 130)):
        assert tuple(program.call(np.zeros(size, np.float32)).tolist()) == canvas.around(size)


def test_only_the_outside_is_filled(rng):
    image = rng.integers(1, 256, (5, 6, 3), dtype=np.uint8)
    filled = image.copy()
    fill_outside(filled, (3, 4), (0, 0, 0))
    np.testing.assert_array_equal(filled[:3, :4], image[:3, :4])
    assert not filled[3:].any()
    assert not filled[:, 4:].any()
