"""Mean-field inference against a slow twin; its gradients, batches, padding, and what it refuses."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crf_cases import (
    COST,
    HEIGHT,
    MIXING,
    NUM_CLASSES,
    PARAMS,
    WIDTH,
    check_gradient,
    draw_image,
    draw_unary,
    softmax,
)

from deeplab_jax.ops.crf import mean_field as mean_field_module
from deeplab_jax.ops.crf.mean_field import mean_field, mean_field_batch
from deeplab_jax.ops.crf.parameters import (
    PRESETS,
    CRFParams,
    crf_preset,
    unary_from_labels,
    unary_from_logits,
    unary_from_probabilities,
)

NUM_ITERATIONS = 4

_run = jax.jit(mean_field, static_argnames=("num_iterations", "filtering"))


@pytest.fixture
def image(rng):
    return draw_image(rng)


@pytest.fixture
def unary(rng):
    return draw_unary(rng)


def _slow_mean_field(unary, image, params, num_iterations):
    """All pairs at once, in float64."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    position = np.stack([x, y], -1).reshape(-1, 2).astype(np.float64)
    color = image.reshape(-1, 3).astype(np.float64)

    def squared(points):
        return ((points[:, None] - points[None]) ** 2).sum(-1)

    near = squared(position)
    kernels = []
    for kernel in (
        np.exp(-near / (2 * params.pos_xy_std**2)),
        np.exp(-near / (2 * params.bi_xy_std**2) - squared(color) / (2 * params.bi_rgb_std**2)),
    ):
        norm = kernel.sum(1)
        symmetric = params.normalization == "symmetric"
        kernels.append(kernel / np.sqrt(norm[:, None] * norm[None]) if symmetric else kernel / norm[:, None])
    num_classes = unary.shape[-1]
    scores = unary.reshape(-1, num_classes).astype(np.float64)
    cost = 1 - np.eye(num_classes) if params.compatibility is None else np.asarray(params.compatibility)
    weights = [w @ np.eye(num_classes) if np.ndim(w) == 2 else np.diag(w * np.ones(num_classes)) for w in
               (params.pos_w, params.bi_w)]  # fmt: skip
    marginals = softmax(scores)
    for _ in range(num_iterations):
        messages = sum(kernel @ marginals @ w.T for kernel, w in zip(kernels, weights, strict=True))
        marginals = softmax(scores - messages @ cost.T)
    return marginals.reshape(unary.shape)


@pytest.mark.parametrize(
    "params",
    [
        PARAMS,
        dataclasses.replace(PARAMS, normalization="after"),
        dataclasses.replace(PARAMS, compatibility=COST),
        dataclasses.replace(PARAMS, pos_w=np.array([0.5, 1.0, 2.0], np.float32), bi_w=MIXING, compatibility=COST),
    ],
    ids=["potts", "after", "compatibility", "weights of classes"],
)
def test_equals_all_pairs_at_once(unary, image, params):
    got = _run(unary, image, params, num_iterations=NUM_ITERATIONS, filtering="exact")
    np.testing.assert_allclose(got, _slow_mean_field(unary, image, params, NUM_ITERATIONS), atol=2e-5)


@pytest.mark.parametrize("normalization", ["symmetric", "after"])
def test_lattices_are_near_the_exact_result(unary, image, normalization):
    params = dataclasses.replace(PARAMS, normalization=normalization)
    lattice = mean_field(unary, image, params, num_iterations=NUM_ITERATIONS)
    exact = _run(unary, image, params, num_iterations=NUM_ITERATIONS, filtering="exact")
    moved = np.abs(exact - softmax(unary)).mean()
    assert np.abs(lattice - exact).mean() < 0.3 * moved
    assert moved > 0.03, "the CRF did something"


def test_no_weight_or_no_iteration_gives_the_softmax(unary, image):
    nothing = dataclasses.replace(PARAMS, pos_w=0.0, bi_w=0.0)
    want = jax.jit(jax.nn.softmax)(unary)
    for filtering in ("host", "exact"):
        run = functools.partial(_run if filtering == "exact" else mean_field, unary, image, filtering=filtering)
        np.testing.assert_array_equal(run(nothing, num_iterations=NUM_ITERATIONS), want)
        np.testing.assert_array_equal(run(PARAMS, num_iterations=0), want)


def test_known_arrays_are_computed_with_where_something_else_is_traced(unary, image):
    """And checked: what is known is refused there as well."""
    known = jnp.asarray(unary), jnp.asarray(image)
    wrong = jnp.full_like(known[0], jnp.nan)
    want = mean_field(*known, PARAMS, num_iterations=NUM_ITERATIONS)

    @jax.jit
    def scaled(factor):
        with pytest.raises(ValueError, match="values that are not finite"):
            mean_field(wrong, known[1], PARAMS)
        return factor * mean_field(*known, PARAMS, num_iterations=NUM_ITERATIONS)

    np.testing.assert_allclose(scaled(2.0), 2 * want, rtol=1e-6)


def test_potts_is_a_matrix_and_a_weight_a_diagonal(unary, image):
    run = functools.partial(mean_field, unary, image, num_iterations=NUM_ITERATIONS)
    potts = run(dataclasses.replace(PARAMS, compatibility=1 - np.eye(NUM_CLASSES, dtype=np.float32)))
    np.testing.assert_allclose(potts, run(PARAMS), atol=1e-5)
    diagonal = 1.5 * np.eye(NUM_CLASSES, dtype=np.float32)
    per_class = dataclasses.replace(PARAMS, pos_w=diagonal, bi_w=np.full(NUM_CLASSES, 2.5, np.float32))
    np.testing.assert_allclose(run(per_class), run(PARAMS), atol=1e-5)


@pytest.mark.parametrize("filtering", ["host", "exact"])
def test_a_batch_equals_one_by_one_and_padding_changes_nothing(unary, image, filtering):
    """The second image is smaller: what lies around it is noise, masked out."""
    small = (slice(0, 7), slice(0, 9))  # 63 pixels: another remainder by 4 than the whole image's
    unaries, images = np.stack([unary, unary[::-1] * 2]), np.stack([image, image[::-1]])
    mask = np.zeros((2, HEIGHT, WIDTH), bool)
    mask[0] = True
    mask[(1, *small)] = True
    run = functools.partial(mean_field_batch, params=PARAMS, num_iterations=NUM_ITERATIONS, filtering=filtering)
    together = run(unaries, images, mask=mask)
    for index, place in enumerate((np.s_[:, :], small)):
        alone = run(unaries[index][place][None], images[index][place][None])[0]
        np.testing.assert_allclose(together[index][place], alone, atol=1e-6)
    np.testing.assert_allclose(together[1][~mask[1]], softmax(unaries[1])[~mask[1]], atol=1e-6)
    garbage = np.where(mask[..., None], images, 255 - images)
    np.testing.assert_array_equal(run(unaries, garbage, mask=mask), together)


@jax.jit
def _exact_loss(unary, image, params, target):
    marginals = mean_field(unary, image, params, num_iterations=NUM_ITERATIONS, filtering="exact")
    return (marginals * target).sum()


def test_exact_gradients_equal_differences(unary, image, rng):
    """In unary, kernel weights, compatibility and the kernels' widths."""
    params = dataclasses.replace(PARAMS, pos_w=np.array([0.5, 1.0, 2.0], np.float32), bi_w=MIXING, compatibility=COST)
    target = rng.normal(size=unary.shape).astype(np.float32)
    by_unary, by_params = jax.jit(jax.grad(_exact_loss, argnums=(0, 2)))(unary, image, params, target)
    check_gradient(lambda unary: _exact_loss(unary, image, params, target), unary, by_unary)
    for name in ("pos_w", "bi_w", "compatibility", "pos_xy_std", "bi_xy_std", "bi_rgb_std"):

        def value(x, name=name):
            return _exact_loss(unary, image, dataclasses.replace(params, **{name: x}), target)

        check_gradient(value, getattr(params, name), getattr(by_params, name))


def test_numbers_change_without_compiling_anew(unary, image):
    run = functools.partial(mean_field, unary, image, num_iterations=2)
    run(PARAMS)
    num_programs = mean_field_module._on_lattices._cache_size()
    first = run(dataclasses.replace(PARAMS, bi_w=1.0))
    second = run(dataclasses.replace(PARAMS, pos_w=7.0))
    assert np.abs(first - second).max() > 0.01
    assert mean_field_module._on_lattices._cache_size() == num_programs


def test_unaries_of_logits_probabilities_and_labels(unary):
    probabilities = softmax(5 * unary)
    np.testing.assert_allclose(np.exp(unary_from_logits(unary)), softmax(unary), rtol=1e-5)
    np.testing.assert_allclose(unary_from_probabilities(probabilities), np.log(probabilities.clip(1e-5)), rtol=1e-4)
    assert unary_from_probabilities(jnp.zeros((1, 1, 2))).min() == pytest.approx(np.log(1e-5))
    label = np.array([[0, 2], [1, 255]], np.uint8)
    got = unary_from_labels(label, 3, gt_prob=0.7, ignore_label=255)
    np.testing.assert_allclose(np.exp(got[0]), [[0.7, 0.15, 0.15], [0.15, 0.15, 0.7]], rtol=1e-5)
    np.testing.assert_allclose(np.exp(got[1]), [[0.15, 0.7, 0.15], [1 / 3] * 3], rtol=1e-5)
    for num_classes, gt_prob in ((1, 0.7), (3, 0.0), (3, 1.0)):
        with pytest.raises(ValueError, match=r"give a number in \(0, 1\) and two classes or more"):
            unary_from_labels(label, num_classes, gt_prob=gt_prob)


def test_presets_are_found_by_name():
    assert crf_preset("v2_resnet101").params == CRFParams(3.0, 1.0, 4.0, 67.0, 3.0, normalization="after")
    assert crf_preset("kazuto1011").params == CRFParams(3.0, 1.0, 4.0, 67.0, 3.0)
    assert crf_preset("pydensecrf_readme").num_iterations == 5
    assert {"v1", "v2_vgg16", "crf_as_rnn", "ccvl"} <= set(PRESETS)
    with pytest.raises(ValueError, match=r"no CRF preset 'v2_resnet'; did you mean 'v2_resnet101'"):
        crf_preset("v2_resnet")


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8)}, r"\(10, 15, 3\) does not fit the unary \(10, 14, 3\)"),
        ({"image": np.zeros((HEIGHT, WIDTH, 4), np.uint8)}, "does not fit the unary"),
        ({"image": np.full((HEIGHT, WIDTH, 3), 0.9, np.float32)}, r"end at 0.9: give RGB in \[0, 255\]"),
        ({"image": np.full((HEIGHT, WIDTH, 3), np.nan, np.float32)}, "the image has values that are not finite"),
        ({"unary": np.full((HEIGHT, WIDTH, 3), np.inf, np.float32)}, "the unary has values that are not finite"),
        ({"unary": np.zeros((HEIGHT, WIDTH), np.float32)}, "does not fit"),
        ({"mask": np.ones((HEIGHT, 3), bool)}, r"the mask \(10, 3\) does not fit"),
        ({"num_iterations": -1}, "num_iterations=-1: give 0 or more"),
        ({"max_vertices": 0}, "max_vertices=0: give how many vertices the lattice may have"),
        ({"filtering": "fast"}, "unknown filtering 'fast'; there are auto, host, program, exact"),
        ({"pos_xy_std": 0.0}, "pos_xy_std=0.0: a width is one positive number"),
        ({"bi_xy_std": -3.0}, "bi_xy_std=-3.0"),
        ({"bi_rgb_std": np.nan}, "bi_rgb_std=nan"),
        ({"pos_w": np.ones(4)}, r"pos_w has shape \(4,\): for 3 classes give \(\) or \(3,\) or \(3, 3\)"),
        ({"compatibility": np.ones(3)}, r"compatibility has shape \(3,\): for 3 classes give \(3, 3\)"),
        ({"normalization": "before"}, "unknown normalization 'before'"),
    ],
)
def test_bad_input_is_refused_in_one_line(unary, image, changes, message):
    names = {field.name for field in dataclasses.fields(CRFParams)}
    params = dataclasses.replace(PARAMS, **{name: value for name, value in changes.items() if name in names})
    arguments = {"unary": unary, "image": image} | {k: v for k, v in changes.items() if k not in names}
    with pytest.raises(ValueError, match=message) as caught:
        mean_field(params=params, **arguments)
    assert "\n" not in str(caught.value)
