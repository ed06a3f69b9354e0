"""Depthwise atrous convolution in the formulations for GPUs: against lax, on meshes, and lowered without a device."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from benchmarks import depthwise_pallas
from deeplab_jax.hardware.program_text import count_bytes
from deeplab_jax.hardware.topologies import find_topology
from deeplab_jax.ops.convolution import depthwise_fused
from deeplab_jax.ops.convolution import geometry as convolution
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.types import UserError

_PALLAS = {
    "forward": functools.partial(depthwise_pallas.depthwise_pallas, interpret=True),
    "input": functools.partial(depthwise_pallas.depthwise_input_pallas, interpret=True),
    "kernel": functools.partial(depthwise_pallas.depthwise_kernel_pallas, interpret=True),
}
_FUSED = {
    "forward": depthwise_fused.depthwise_fused,
    "input": depthwise_fused.depthwise_input_fused,
    "kernel": depthwise_fused.depthwise_kernel_fused,
}
_LAX = {
    "forward": convolution.lax_depthwise,
    "input": convolution.lax_depthwise_input,
    "kernel": convolution.lax_depthwise_kernel,
}


def _geometry(stride, rate, low, high):
    return convolution.Geometry((stride, stride), ((low, high), (low, high)), (rate, rate))


def _arguments(rng, shape, geometry, taps=3, dtype=jnp.float32):
    """x, kernel, dy of unit normals."""
    x, kernel = rng.normal(size=shape), rng.normal(size=(taps, taps, 1, shape[-1]))
    dy = rng.normal(size=(shape[0], *convolution.output_size(x, kernel, geometry), shape[-1]))
    return tuple(jnp.asarray(each, dtype) for each in (x, kernel, dy))


@jax.jit(static_argnames=("geometry", "functions"))
def _all_directions(x, kernel, dy, geometry, functions):
    formulations = dict(zip(("forward", "input", "kernel"), functions, strict=True))
    return {
        "forward": formulations["forward"](x, kernel, geometry),
        "input": formulations["input"](x, kernel, dy, geometry),
        "kernel": formulations["kernel"](x, kernel, dy, geometry),
    }


def _run(formulations, arguments, geometry):
    return _all_directions(*arguments, geometry=geometry, functions=tuple(formulations.values()))


# Odd and even sizes, more channels than a tile and fewer; rates near the size and beyond it; padding on one side.
CASES = [
    ((2, 9, 12, 20), 3, _geometry(1, 1, 1, 1)),
    ((1, 10, 11, 5), 3, _geometry(2, 1, 0, 1)),
    ((2, 8, 9, 3), 3, _geometry(2, 2, 2, 2)),
    ((1, 11, 9, 70), 3, _geometry(1, 6, 6, 6)),
    ((2, 7, 5, 4), 3, _geometry(1, 18, 18, 18)),
    ((1, 9, 8, 6), 2, _geometry(1, 3, 0, 2)),
    ((1, 33, 17, 2), 3, _geometry(1, 2, 2, 2)),
]


@pytest.mark.parametrize("formulations", [_PALLAS, _FUSED], ids=["pallas", "fused"])
@pytest.mark.parametrize(("shape", "taps", "geometry"), CASES)
def test_equals_lax_in_all_directions(rng, formulations, shape, taps, geometry):
    arguments = _arguments(rng, shape, geometry, taps)
    got, want = _run(formulations, arguments, geometry), _run(_LAX, arguments, geometry)
    for direction in want:
        scale = np.abs(want[direction]).max()
        np.testing.assert_allclose(got[direction], want[direction], atol=1e-5 * scale, err_msg=direction)


@pytest.mark.parametrize("formulations", [_PALLAS, _FUSED], ids=["pallas", "fused"])
def test_bfloat16_is_summed_in_float32_and_rounded_once(rng, formulations):
    """The nearest bfloat16 to the exact result, or the one beside it where that lies between the two."""
    geometry = _geometry(1, 2, 2, 2)
    arguments = _arguments(rng, (2, 17, 13, 9), geometry, dtype=jnp.bfloat16)
    got = _run(formulations, arguments, geometry)
    want = _run(_LAX, tuple(each.astype(jnp.float32) for each in arguments), geometry)
    for direction in want:
        assert got[direction].dtype == jnp.bfloat16
        exact = np.asarray(want[direction])
        error = np.abs(np.asarray(got[direction], np.float32) - exact)
        assert (error <= 2.0**-8 * np.abs(exact) + 1e-5 * np.abs(exact).max()).all(), direction


@pytest.mark.parametrize("spec", [PartitionSpec("data"), PartitionSpec("data", "space")], ids=["images", "strips"])
def test_shared_batches_give_the_same(rng, spec):
    """XLA cannot see into the kernel: it has to be told what of a batch may be shared."""
    mesh = make_mesh(4, 2)
    geometry = _geometry(1, 2, 2, 2)
    arguments = _arguments(rng, (4, 8, 9, 20), geometry)
    want = _run(_LAX, arguments, geometry)
    images, whole = NamedSharding(mesh, spec), NamedSharding(mesh, PartitionSpec())
    placed = [jax.device_put(each, place) for each, place in zip(arguments, (images, whole, images), strict=True)]
    got = _run(_PALLAS, placed, geometry)
    for direction in want:
        np.testing.assert_allclose(got[direction], want[direction], atol=1e-5 * np.abs(want[direction]).max())
    assert got["forward"].sharding.spec[0] == "data"


@pytest.mark.parametrize("stride", [1, 2])
def test_lowers_to_one_triton_kernel_for_cuda_without_a_device(stride):
    """What Triton cannot do (sizes that are no power of two, some operations) is said here, not on the GPU."""
    x, kernel = jax.ShapeDtypeStruct((2, 33, 33, 728), jnp.bfloat16), jax.ShapeDtypeStruct((3, 3, 1, 728), jnp.bfloat16)
    geometry = convolution.geometry_of(x, kernel, (stride, stride), (2, 2), "tf_same")
    dy = jax.ShapeDtypeStruct((2, *convolution.output_size(x, kernel, geometry), 728), jnp.bfloat16)
    for function, arguments in (
        (depthwise_pallas.depthwise_pallas, (x, kernel)),
        (depthwise_pallas.depthwise_input_pallas, (x, kernel, dy)),
        (depthwise_pallas.depthwise_kernel_pallas, (x, kernel, dy)),
    ):
        traced = jax.jit(functools.partial(function, geometry=geometry)).trace(*arguments)
        program = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert program.count("stablehlo.custom_call @") == 1
        assert "xla.gpu.triton" in program or "triton_kernel_call" in program


@pytest.mark.slow
@pytest.mark.parametrize(("stride", "rate"), [(1, 2), (2, 1)])
def test_no_array_passes_twice_through_the_memory_of_an_absent_gpu(stride, rate):
    """Compiled for it, as Triton does: a kernel moves its operands and its result, and at most a tenth more of sums."""
    try:
        sharding = SingleDeviceSharding(find_topology("h100").devices[0])
    except UserError as error:
        pytest.skip(str(error))
    x, kernel = (
        jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding) for shape in ((16, 33, 33, 728), (3, 3, 1, 728))
    )
    geometry = convolution.geometry_of(x, kernel, (stride, stride), (rate, rate), "tf_same")
    size = convolution.output_size(x, kernel, geometry)
    dy = jax.ShapeDtypeStruct((16, *size, 728), jnp.bfloat16, sharding=sharding)
    least = 2 * (x.size + kernel.size + dy.size)
    for function, arguments in (
        (depthwise_pallas.depthwise_pallas, (x, kernel)),
        (depthwise_pallas.depthwise_input_pallas, (x, kernel, dy)),
        (depthwise_pallas.depthwise_kernel_pallas, (x, kernel, dy)),
    ):
        text = jax.jit(functools.partial(function, geometry=geometry)).lower(*arguments).compile().as_text()
        assert least <= count_bytes(text) <= 1.1 * least, function.__name__
