"""Mean field with lattices built in the compiled program: as on the host; gradients, batches, never too small."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest
from crf_cases import COST, HEIGHT, MIXING, PARAMS, WIDTH, check_gradient, draw_image, draw_unary, softmax

from deeplab_jax.ops.crf.mean_field import mean_field, mean_field_batch

NUM_ITERATIONS = 4
LEARNED = dataclasses.replace(PARAMS, pos_w=np.array([0.5, 1.0, 2.0], np.float32), bi_w=MIXING, compatibility=COST)
SMALL = np.s_[:7, :9]  # 63 pixels: another remainder by 4 than the whole image's

_host = functools.partial(mean_field, num_iterations=NUM_ITERATIONS, filtering="host")


@functools.partial(jax.jit, static_argnames="argnums")
def _batch_gradient(unary, image, params, mask, target, argnums=(0, 2)):
    """The loss, marginals, and gradients of a padded batch."""

    def loss(unary, image, params):
        marginals = mean_field_batch(unary, image, params, num_iterations=NUM_ITERATIONS, mask=mask)
        return (marginals * target).sum(), marginals

    return jax.value_and_grad(loss, argnums=argnums, has_aux=True)(unary, image, params)


@pytest.fixture
def batch(rng):
    """Two images of which the second is smaller; what lies around it is noise."""
    unary, image = draw_unary(rng), draw_image(rng)
    mask = np.zeros((2, HEIGHT, WIDTH), bool)
    mask[0] = True
    mask[(1, *SMALL)] = True
    target = rng.normal(size=(2, *unary.shape)).astype(np.float32)
    return np.stack([unary, unary[::-1] * 2]), np.stack([image, image[::-1]]), mask, target


def test_a_padded_batch_equals_the_hosts_results_one_by_one(batch):
    unary, image, mask, target = batch
    (_, got), _ = _batch_gradient(unary, image, LEARNED, mask, target)
    np.testing.assert_allclose(got[0], _host(unary[0], image[0], LEARNED), atol=2e-5)
    np.testing.assert_allclose(got[1][SMALL], _host(unary[1][SMALL], image[1][SMALL], LEARNED), atol=2e-5)
    np.testing.assert_allclose(got[1][~mask[1]], softmax(unary[1])[~mask[1]], atol=1e-6)

    garbage = np.where(mask[..., None], image, 255 - image)
    np.testing.assert_array_equal(_batch_gradient(unary, garbage, LEARNED, mask, target)[0][1], got)
    swapped = [x[::-1] for x in batch]
    np.testing.assert_array_equal(_batch_gradient(*swapped[:2], LEARNED, *swapped[2:])[0][1], got[::-1])
    alone = dataclasses.replace(LEARNED, pos_w=0 * LEARNED.pos_w, bi_w=0 * LEARNED.bi_w)
    without = _batch_gradient(unary, image, alone, mask, target)[0][1]
    np.testing.assert_array_equal(without, jax.jit(jax.nn.softmax)(unary))
    mask[1] = False
    (_, padding_alone), _ = _batch_gradient(unary, image, LEARNED, mask, target)
    np.testing.assert_array_equal(padding_alone[0], got[0])
    np.testing.assert_allclose(padding_alone[1], softmax(unary[1]), atol=1e-6)


def test_gradients_equal_differences(batch):
    """In unary, kernel weights and compatibility; widths and images count as constants."""
    unary, image, mask, target = batch
    _, (by_unary, by_params) = _batch_gradient(unary, image, LEARNED, mask, target)

    def value(unary=unary, **changes):
        return _batch_gradient(unary, image, dataclasses.replace(LEARNED, **changes), mask, target)[0][0]

    check_gradient(value, unary, by_unary)
    for name in ("pos_w", "bi_w", "compatibility"):
        check_gradient(lambda x, name=name: value(**{name: x}), getattr(LEARNED, name), getattr(by_params, name))
    assert not any(getattr(by_params, name) for name in ("pos_xy_std", "bi_xy_std", "bi_rgb_std"))


def test_vmap_equals_one_by_one_and_too_many_vertices_give_nan(batch):
    unary, image, _, _ = batch
    busy = np.random.default_rng(0).integers(0, 256, image[0].shape, np.uint8)  # its pixels share few vertices
    run = functools.partial(mean_field, params=PARAMS, num_iterations=NUM_ITERATIONS, max_vertices=350)
    got = jax.jit(jax.vmap(run))(unary, np.stack([image[0], busy]))
    np.testing.assert_allclose(got[0], _host(unary[0], image[0], PARAMS), atol=2e-5)
    assert np.isnan(got[1]).all()


def test_untraced_the_capacity_is_found(batch):
    unary, image, _, _ = batch
    busy = np.random.default_rng(0).integers(0, 256, image[0].shape, np.uint8)
    narrow = dataclasses.replace(PARAMS, bi_rgb_std=3.0)  # no pixel shares a vertex
    got = mean_field(unary[0], busy, narrow, num_iterations=NUM_ITERATIONS, filtering="program")
    np.testing.assert_allclose(got, _host(unary[0], busy, narrow), atol=2e-5)


def test_what_the_program_cannot_do_is_refused(batch):
    unary, image, _, _ = batch
    with pytest.raises(ValueError, match="cannot run within a compiled program"):
        jax.jit(_host)(unary[0], image[0], PARAMS)
    with pytest.raises(ValueError, match="over too many cells for the lattice's keys"):
        mean_field(unary[0], image[0], dataclasses.replace(PARAMS, bi_rgb_std=1e-3), filtering="program")


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_lowers_for_accelerators_without_calls_to_the_host(batch, platform):
    """Lattices, ten iterations and their gradient for a padded batch: one program, and all of it on the device."""
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in batch]

    def loss(unary, image, mask, target):
        return (mean_field_batch(unary, image, PARAMS, mask=mask, filtering="program") * target).sum()

    program = jax.jit(jax.grad(loss)).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.sort" in program
    assert "custom_call" not in program
    assert "callback" not in program
