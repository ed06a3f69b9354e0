"""Atrous convolution against lax.conv_general_dilated: value and both gradients, in every formulation."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from deeplab_jax.hardware.program_text import read_collectives
from deeplab_jax.ops.convolution import atrous, space_to_batch
from deeplab_jax.ops.convolution import geometry as convolution
from deeplab_jax.ops.convolution.implementations import IMPLEMENTATIONS, LAX, TABLE, deciding_row, serves
from deeplab_jax.ops.mesh import batch_sharding, make_mesh, replicated

# Sums of up to 9 * 20 products of unit normals in float32, in another order: a few units of 1e-6.
TOLERANCE = 3e-5

# height, width, taps, stride, rate, padding: odd and even sizes, rates near and beyond the image
CASES = [
    (9, 12, 3, 1, 1, "tf_same"),
    (9, 12, 1, 1, 1, "tf_same"),
    (10, 11, 1, 2, 1, "symmetric"),
    (10, 11, 3, 2, 1, "tf_same"),
    (10, 11, 3, 2, 1, "symmetric"),
    (12, 13, 7, 2, 1, "symmetric"),
    (11, 9, 3, 1, 2, "tf_same"),
    (11, 9, 3, 1, 6, "tf_same"),
    (7, 5, 3, 1, 18, "tf_same"),
    (8, 9, 3, 2, 2, "symmetric"),
]


def _reference(x, kernel, stride, rate, padding, groups):
    pads = [
        convolution.same_padding(size, taps, stride, rate, padding)
        for size, taps in zip(x.shape[1:3], kernel.shape[:2], strict=True)
    ]
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        rhs_dilation=(rate, rate),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _value_and_gradients(function, x, kernel, dy):
    y, pullback = jax.vjp(function, x, kernel)
    return (y, *pullback(dy))


@pytest.mark.parametrize("depthwise", [False, True], ids=["dense", "depthwise"])
@pytest.mark.parametrize(("height", "width", "taps", "stride", "rate", "padding"), CASES)
def test_equals_lax_with_rhs_dilation(rng, height, width, taps, stride, rate, padding, depthwise):
    channels, groups = 20, 20 if depthwise else 1
    x = rng.normal(size=(2, height, width, channels)).astype(np.float32)
    kernel = rng.normal(size=(taps, taps, channels // groups, 20 if depthwise else 6)).astype(np.float32)
    convolve = atrous.atrous_depthwise_conv if depthwise else atrous.atrous_conv

    def ours(x, kernel):
        return convolve(x, kernel, strides=(stride, stride), rate=(rate, rate), padding=padding)

    def reference(x, kernel):
        return _reference(x, kernel, stride, rate, padding, groups)

    dy = rng.normal(size=jax.eval_shape(reference, x, kernel).shape).astype(np.float32)
    for got, want in zip(
        _value_and_gradients(ours, x, kernel, dy), _value_and_gradients(reference, x, kernel, dy), strict=True
    ):
        np.testing.assert_allclose(got, want, atol=TOLERANCE * np.abs(want).max())


def test_a_kernel_of_fewer_inputs_is_a_grouped_convolution(rng):
    """Against a dense convolution of each group."""
    x = rng.normal(size=(2, 9, 12, 6)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 2, 12)).astype(np.float32)

    def ours(x, kernel):
        return atrous.atrous_conv(x, kernel, strides=(2, 2), rate=(2, 2), padding="symmetric")

    def reference(x, kernel):
        pairs = zip(jnp.split(x, 3, axis=-1), jnp.split(kernel, 3, axis=-1), strict=True)
        return jnp.concatenate([_reference(*pair, 2, 2, "symmetric", 1) for pair in pairs], axis=-1)

    dy = rng.normal(size=(2, 5, 6, 12)).astype(np.float32)
    for got, want in zip(
        _value_and_gradients(ours, x, kernel, dy), _value_and_gradients(reference, x, kernel, dy), strict=True
    ):
        np.testing.assert_allclose(got, want, atol=TOLERANCE * np.abs(want).max())


# Phases and Winograd's tiles have tests of their own: they know strides of 1 alone.
ON_ANY_PLATFORM = [
    (operation, name)
    for operation, found in IMPLEMENTATIONS.items()
    for name in found
    if name not in (LAX, "phases", "winograd")
]


@pytest.mark.parametrize(("operation", "name"), ON_ANY_PLATFORM)
@pytest.mark.parametrize(("height", "stride", "rate"), [(9, 1, 1), (9, 1, 4), (19, 1, 12), (35, 2, 1), (9, 2, 3)])
def test_every_implementation_equals_lax(rng, operation, name, height, stride, rate):
    """Also those that this platform does not choose; 35 and 19 rows: eights of rows, and a rest."""
    x = rng.normal(size=(2, height, 8, 5)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 1 if "depthwise" in operation else 5, 5)).astype(np.float32)
    geometry = convolution.geometry_of(x, kernel, (stride, stride), (rate, rate), "tf_same")
    arguments = [x, kernel]
    if operation.endswith(("input", "kernel")):
        arguments.append(rng.normal(size=(2, *convolution.output_size(x, kernel, geometry), 5)).astype(np.float32))
    got = IMPLEMENTATIONS[operation][name](*map(jnp.asarray, arguments), geometry=geometry)
    want = IMPLEMENTATIONS[operation][LAX](*map(jnp.asarray, arguments), geometry=geometry)
    np.testing.assert_allclose(got, want, atol=TOLERANCE * np.abs(want).max())


@pytest.mark.parametrize(("operation", "name"), ON_ANY_PLATFORM)
def test_every_implementation_in_bfloat16(rng, operation, name):
    """Within 2^-6 of the largest value, of the float32 result of the same numbers: taps add up rounded products."""
    x = rng.normal(size=(2, 19, 8, 5)).astype(jnp.bfloat16)
    kernel = rng.normal(size=(3, 3, 1 if "depthwise" in operation else 5, 5)).astype(jnp.bfloat16)
    geometry = convolution.geometry_of(x, kernel, (1, 1), (2, 2), "tf_same")
    arguments = [x, kernel]
    if operation.endswith(("input", "kernel")):
        arguments.append(rng.normal(size=(2, 19, 8, 5)).astype(jnp.bfloat16))
    got = IMPLEMENTATIONS[operation][name](*map(jnp.asarray, arguments), geometry=geometry)
    exact = [jnp.asarray(each, jnp.float32) for each in arguments]
    want = IMPLEMENTATIONS[operation][LAX](*exact, geometry=geometry)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=2**-6 * np.abs(want).max())


def test_the_table_names_what_there_is_and_unknown_platforms_get_lax():
    for row in TABLE:
        assert row.implementation in IMPLEMENTATIONS[row.operation]

    def name(platform, operation, size, window, rate, channels=16):
        x, kernel = jnp.zeros((1, size, size, channels)), jnp.zeros((window, window, channels, channels))
        geometry = convolution.geometry_of(x, kernel, (1, 1), (rate, rate), "tf_same")
        return deciding_row(platform, operation, x, kernel, geometry).implementation

    assert {name("an unknown one", operation, 33, 3, 12) for operation in IMPLEMENTATIONS} == {LAX}
    assert name("cpu", "dense", 33, 1, 1) == name("cpu", "dense", 33, 1, 12) == "taps"
    assert [name("cpu", "dense", 65, 3, rate) for rate in (1, 6, 18, 80)] == [LAX, LAX, "taps", "taps"]
    assert [name("cpu", "dense", 65, 3, rate, 128) for rate in (1, 6, 24)] == ["winograd", "winograd", "taps"]


# Rates that divide the size and that do not, near it and beyond it; padding on one side alone.
@pytest.mark.parametrize("rate", [(2, 2), (3, 4), (8, 9), (12, 1)])
@pytest.mark.parametrize("padding", ["tf_same", "valid", ((0, 5), (7, 2))])
def test_a_kernel_gradient_by_phases_equals_lax(rng, rate, padding):
    if padding == "valid" and max(rate) > 4:
        rate = (3, 3)
    x = rng.normal(size=(2, 9, 11, 5)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 5, 4)).astype(np.float32)
    geometry = convolution.geometry_of(x, kernel, (1, 1), rate, padding if isinstance(padding, str) else "tf_same")
    if not isinstance(padding, str):
        geometry = geometry._replace(padding=padding, rate=(2, 3))
    dy = rng.normal(size=(2, *convolution.output_size(x, kernel, geometry), 4)).astype(np.float32)
    got = space_to_batch.phased_dense_kernel(*map(jnp.asarray, (x, kernel, dy)), geometry)
    want = convolution.lax_dense_kernel(*map(jnp.asarray, (x, kernel, dy)), geometry)
    np.testing.assert_allclose(got, want, atol=TOLERANCE * np.abs(want).max())


@pytest.mark.parametrize("operation", ["dense", "dense_input", "dense_kernel"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("rate", [(1, 1), (2, 3), (12, 1)])
@pytest.mark.parametrize("padding", ["tf_same", "valid", ((0, 5), (7, 2))])
def test_winograd_equals_lax(rng, operation, dtype, rate, padding):
    """Padding on one side alone too, and rates that do not divide the size, or are larger."""
    if padding == "valid":
        rate = (min(rate[0], 3), rate[1])
    x = rng.normal(size=(2, 9, 11, 5)).astype(dtype)
    kernel = rng.normal(size=(3, 3, 5, 4)).astype(dtype)
    geometry = convolution.geometry_of(x, kernel, (1, 1), rate, padding if isinstance(padding, str) else "tf_same")
    if not isinstance(padding, str):
        geometry = geometry._replace(padding=padding, rate=(2, 3))
    arguments = [x, kernel]
    if operation != "dense":
        arguments.append(rng.normal(size=(2, *convolution.output_size(x, kernel, geometry), 4)).astype(dtype))
    assert serves("winograd", x, kernel, geometry)
    got = IMPLEMENTATIONS[operation]["winograd"](*map(jnp.asarray, arguments), geometry=geometry)
    want = IMPLEMENTATIONS[operation][LAX](*(jnp.asarray(each, jnp.float32) for each in arguments), geometry=geometry)
    assert got.dtype == dtype
    tolerance = TOLERANCE if dtype == jnp.float32 else 2**-8  # computed in float32, rounded once
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=tolerance * np.abs(want).max())


def test_winograd_serves_windows_of_three_in_steps_of_one():
    def served(size, window, stride):
        x, kernel = jnp.zeros((1, size, size, 2)), jnp.zeros((window, window, 2, 2))
        return serves("winograd", x, kernel, convolution.geometry_of(x, kernel, (stride, stride), (1, 1), "tf_same"))

    assert [served(9, window, stride) for window, stride in ((3, 1), (3, 2), (1, 1), (7, 1))] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("operation", "name"),
    [("dense_kernel", "phases"), ("dense_kernel", "taps"), ("dense_kernel", "winograd"), ("depthwise_kernel", "taps")],
)
def test_a_kernel_gradient_leaves_a_shared_batch_where_it_is(operation, name):
    """Only the gradient itself is summed over devices."""
    mesh = make_mesh(8)
    channels = 1 if operation.startswith("depthwise") else 8
    x, kernel = jax.ShapeDtypeStruct((8, 9, 9, 8), jnp.float32), jax.ShapeDtypeStruct((3, 3, channels, 8), jnp.float32)
    geometry = convolution.geometry_of(x, kernel, (1, 1), (2, 2), "tf_same")
    gradient = functools.partial(IMPLEMENTATIONS[operation][name], geometry=geometry)
    rows, whole = batch_sharding(mesh), replicated(mesh)
    program = jax.jit(gradient, in_shardings=(rows, whole, rows), out_shardings=whole).lower(x, kernel, x).compile()
    assert set(read_collectives(program.as_text())) == {"all-reduce"}


def test_phases_pay_but_for_rates_that_leave_the_centre_alone():
    x, dy = jax.ShapeDtypeStruct((16, 33, 33, 512), jnp.bfloat16), jax.ShapeDtypeStruct((16, 33, 33, 256), jnp.bfloat16)
    kernel = jax.ShapeDtypeStruct((3, 3, 512, 256), jnp.bfloat16)

    def pay(rate, stride=1):
        geometry = convolution.geometry_of(x, kernel, (stride, stride), (rate, rate), "tf_same")
        return space_to_batch.phases_pay(x, kernel, dy, geometry)

    assert [pay(rate) for rate in (2, 6, 18, 40)] == [True, True, True, False]
    assert not pay(2, stride=2)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "expected"),
    [  # a ramp i + j under a 3x3 kernel i + j: the numbers in TF-slim's Xception tests
        (4, 1, "tf_same", [[14, 28, 43, 26], [28, 48, 66, 37], [43, 66, 84, 46], [26, 37, 46, 22]]),
        (4, 2, "symmetric", [[14, 43], [43, 84]]),
        (4, 2, "tf_same", [[48, 37], [37, 22]]),
        (5, 2, "tf_same", [[14, 43, 34], [43, 84, 55], [34, 55, 30]]),
        (5, 2, "symmetric", [[14, 43, 34], [43, 84, 55], [34, 55, 30]]),
    ],
)
def test_padding_conventions_give_tensorflows_published_numbers(size, stride, padding, expected):
    ramp = jnp.add(*jnp.meshgrid(jnp.arange(size), jnp.arange(size))).astype(jnp.float32)
    x = ramp[None, :, :, None]
    kernel = jnp.add(*jnp.meshgrid(jnp.arange(3), jnp.arange(3))).astype(jnp.float32)[:, :, None, None]
    got = atrous.atrous_depthwise_conv(x, kernel, strides=(stride, stride), padding=padding)
    np.testing.assert_array_equal(got[0, :, :, 0], expected)


def test_the_cpu_program_has_no_convolution_where_taps_are_faster():
    def loss(x, kernel):
        dense = atrous.atrous_conv(x, kernel, rate=(6, 6))
        return dense.sum() + atrous.atrous_depthwise_conv(x, kernel[:, :, :1]).sum()

    x, kernel = jnp.ones((1, 9, 9, 16)), jnp.ones((3, 3, 16, 16))
    step = jax.jit(jax.grad(loss, argnums=(0, 1)))
    program = step.lower(x, kernel).compile().as_text()
    assert "convolution(" not in program
    assert "conditional(" not in program  # the choice among platforms is gone
    for platform in ("cuda", "tpu", "rocm"):  # the same trace, lowered without such a device
        assert "stablehlo.convolution" in step.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()


def test_no_window_is_as_large_as_the_map_on_cuda():
    """XLA for GPU makes of a dilated kernel's gradient, written plainly, a convolution whose window is dy."""

    def loss(x, kernel):
        return jnp.sum(atrous.atrous_conv(x, kernel, rate=(2, 2)))

    gradient = jax.jit(jax.grad(loss, argnums=1)).trace(jnp.ones((1, 17, 17, 16)), jnp.ones((3, 3, 16, 16)))
    assert "rhs_dilate = [1, 1]" in gradient.lower(lowering_platforms=("cuda",)).as_text()
    assert "stride = [2, 2]" in gradient.lower(lowering_platforms=("tpu",)).as_text()
    assert "stride = [2, 2]" not in gradient.lower(lowering_platforms=("cuda",)).as_text()


def test_unknown_padding_is_named():
    with pytest.raises(ValueError, match=r"'same'.*'tf_same'"):
        atrous.atrous_conv(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), padding="same")
