"""Operations whose sizes are known only when the program runs, as in an exported one."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax import export

from deeplab_jax.ops import resize
from deeplab_jax.ops.convolution import tap_windows as windows
from deeplab_jax.ops.convolution.atrous import atrous_conv, atrous_depthwise_conv
from deeplab_jax.ops.convolution.geometry import Geometry, lax_dense


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("sizes", [(5, 65), (65, 5), (4, 7), (2, 2049)])
def test_weights_of_the_program_are_those_of_the_host(sizes, align_corners):
    got = resize._weights_in_program(*sizes, align_corners)
    np.testing.assert_allclose(got, resize._weights(*sizes, align_corners), atol=2e-7)  # one float32 division


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_taps_that_cannot_be_clipped_give_the_same_convolution(strides, rng):
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 9, 11, 3), (3, 3, 3, 4)))
    geometry = Geometry(strides, ((4, 4), (4, 4)), (4, 4))
    np.testing.assert_allclose(
        windows.dense_windows(x, kernel, geometry), lax_dense(x, kernel, geometry), atol=1e-5
    )  # sums of 27 products in another order


@pytest.mark.parametrize("function", [atrous_conv, atrous_depthwise_conv])
def test_one_program_convolves_maps_of_every_size(rng, function):
    kernel = rng.normal(size=(3, 3, 1 if function is atrous_depthwise_conv else 3, 3)).astype(np.float32)

    def convolve(x):
        return function(x, kernel, rate=(3, 3))

    shape = export.symbolic_shape("b, h, w, 3")
    exported = export.export(jax.jit(convolve))(jax.ShapeDtypeStruct(shape, np.float32))
    for size in ((1, 4, 5, 3), (2, 21, 17, 3)):
        x = rng.normal(size=size).astype(np.float32)
        np.testing.assert_allclose(exported.call(x), jax.jit(convolve)(x), atol=1e-5)
