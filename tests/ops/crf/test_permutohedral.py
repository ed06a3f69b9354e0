"""The permutohedral lattice against one built vertex by vertex; its transpose, its limits, how far it is from exact."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.ops.crf.fan_in import safe_sizes
from deeplab_jax.ops.crf.gaussian_filter import filter_exactly, filter_positions
from deeplab_jax.ops.crf.lattice_geometry import bilateral_features, position_features, simplices
from deeplab_jax.ops.crf.lattice_in_program import build_in_program, count_vertices
from deeplab_jax.ops.crf.lattice_on_host import build_on_host
from deeplab_jax.ops.crf.permutohedral import filter_lattice, finish_lattice, normalize

NUM_POINTS = 60


def _slow_filter(features, values, touch_origin=False):
    """Adams et al. 2010, sec. 3, one point and one vertex at a time, in a dictionary."""
    d = features.shape[0]
    points = [_slow_simplex(point) for point in features.T]
    vertices = {}
    for value, simplex in zip(values, points, strict=True):
        for key, weight in simplex:
            vertices[key] = vertices.get(key, 0) + weight * value
    for key, _ in _slow_simplex(np.zeros(d)) if touch_origin else ():
        vertices.setdefault(key, np.zeros(values.shape[1]))
    for axis in range(d + 1):
        step = -np.ones(d + 1, int)
        step[axis] = d
        vertices = {
            key: value
            + 0.5 * (vertices.get(tuple(np.array(key) + step), 0) + vertices.get(tuple(np.array(key) - step), 0))
            for key, value in vertices.items()
        }
    scale = 1 / (1 + 2.0**-d)
    return np.array([scale * sum(weight * vertices[key] for key, weight in simplex) for simplex in points])


def _slow_simplex(point):
    """The d + 1 vertices around a point and their weights, found by trying all orders of the axes."""
    d = len(point)
    scaled = [x * (d + 1) * np.sqrt(2 / 3) / np.sqrt((i + 1) * (i + 2)) for i, x in enumerate(point)]
    elevated = np.array([sum(scaled[i:]) - (i * scaled[i - 1] if i else 0) for i in range(d + 1)])
    nearest = np.rint(elevated / (d + 1)).astype(int)
    order = np.argsort(-(elevated - nearest * (d + 1)), kind="stable")
    while nearest.sum() > 0:  # lower the axes that were rounded up the most
        nearest[order[-1]] -= 1
        order = np.roll(order, 1)
    while nearest.sum() < 0:
        nearest[order[0]] += 1
        order = np.roll(order, -1)
    base = nearest * (d + 1)
    offset = np.sort(elevated - base)[::-1] / (d + 1)
    order = np.argsort(-(elevated - base), kind="stable")
    weights = [1 + offset[-1] - offset[0]] + [offset[d - r] - offset[d - r + 1] for r in range(1, d + 1)]
    keys = []
    for remainder in range(d + 1):
        key = base + remainder
        key[order[d + 1 - remainder :]] -= d + 1
        keys.append(tuple(key))
    return list(zip(keys, weights, strict=True))


def _host_lattice(features, num_points=None, **options):
    return jax.tree.map(jnp.asarray, finish_lattice(*build_on_host(features, num_points, **options)))


@jax.jit
def _build_and_finish(features, mask, touch_origin):
    d, n = features.shape
    num_entries = (d + 1) * (n + 1)
    vertices = build_in_program(features, mask, capacity=num_entries, touch_origin=touch_origin)
    return finish_lattice(vertices, safe_sizes(num_entries, n + 1, num_entries))


def _program_lattice(features, mask=None, touch_origin=False):
    mask = np.ones(features.shape[1], bool) if mask is None else mask
    return _build_and_finish(jnp.asarray(features), mask, touch_origin)


_filter = jax.jit(filter_lattice)
_count = jax.jit(count_vertices)
_filter_exactly = jax.jit(filter_exactly, static_argnames="block")


def _first(values):
    return np.pad(values, ((0, NUM_POINTS - len(values)), (0, 0)))


@pytest.fixture
def points(rng):
    """Clustered, so that vertices share points and have neighbours; off the origin."""

    def draw(num_dimensions):
        return rng.normal(size=(num_dimensions, NUM_POINTS), loc=2.5, scale=0.9).astype(np.float32)

    return draw


@pytest.fixture
def values(rng):
    return rng.normal(size=(NUM_POINTS, 3)).astype(np.float32)


@pytest.mark.parametrize("touch_origin", [False, True])
@pytest.mark.parametrize("num_dimensions", [1, 2, 3, 5])
def test_the_hosts_lattice_equals_the_definition(points, values, num_dimensions, touch_origin):
    features = points(num_dimensions)
    got = _filter(_host_lattice(features, touch_origin=touch_origin), values)
    np.testing.assert_allclose(got, _slow_filter(features, values, touch_origin), atol=2e-5)  # float32 geometry


@pytest.mark.parametrize("num_dimensions", [2, 5])
def test_the_programs_lattice_equals_the_hosts(points, values, num_dimensions, rng):
    features = points(num_dimensions)
    host, program = _host_lattice(features), _program_lattice(features)
    assert host.num_vertices == program.num_vertices == _count(features)[0]
    np.testing.assert_allclose(_filter(program, values), _filter(host, values), atol=2e-5)
    anchored = _filter(_program_lattice(features, touch_origin=True), values)
    np.testing.assert_allclose(anchored, _slow_filter(features, values, touch_origin=True), atol=2e-5)

    mask = rng.random(NUM_POINTS) < 0.7
    masked = _program_lattice(features, mask)
    alone = _host_lattice(features[:, mask], NUM_POINTS)
    assert masked.num_vertices == alone.num_vertices
    got = _filter(masked, values)
    np.testing.assert_allclose(got[mask], _filter(alone, _first(values[mask]))[: mask.sum()], atol=2e-5)
    np.testing.assert_array_equal(got[~mask], 0)


def test_rows_behind_the_points_take_no_part(points, values):
    features = points(5)
    alone = _filter(_host_lattice(features), values)
    padded = _filter(_host_lattice(features, NUM_POINTS + 9), np.pad(values, ((0, 9), (0, 0)), constant_values=7))
    np.testing.assert_array_equal(padded[:NUM_POINTS], alone)
    np.testing.assert_array_equal(padded[NUM_POINTS:], 0)


@pytest.mark.parametrize("num_dimensions", [1, 2, 5])
def test_weights_place_the_point_among_its_vertices(points, num_dimensions):
    """A point is the weighted mean of its vertices, which are a step down along the axes of highest rank."""
    features = points(num_dimensions)
    found = simplices(features)
    cell, rank, weight = (np.stack(part) for part in found)
    assert (weight >= -1e-5).all()
    np.testing.assert_allclose(weight.sum(0), 1, atol=1e-6)
    assert (np.sort(rank, axis=0) == np.arange(num_dimensions + 1)[:, None]).all()
    assert (cell.sum(0) == 0).all()
    size = num_dimensions + 1
    vertices = [size * (cell - (rank > num_dimensions - remainder)) + remainder for remainder in range(size)]
    mean = sum(w[None] * v for w, v in zip(weight, vertices, strict=True))
    np.testing.assert_allclose(mean.sum(0), 0, atol=1e-3)
    # The last axis is the last feature's alone: -d times it, scaled.
    scale = size * np.sqrt(2 / 3) / np.sqrt(num_dimensions * size)
    np.testing.assert_allclose(mean[-1], -num_dimensions * scale * features[-1], atol=1e-3)


@pytest.mark.parametrize("normalization", [None, "symmetric", "after"])
def test_the_gradient_is_the_exact_transpose(points, values, rng, normalization):
    lattice = _host_lattice(points(5))
    if normalization:
        lattice = normalize(lattice, normalization)

    @jax.jit
    def matrices(lattice):
        pullback = jax.vjp(lambda values: filter_lattice(lattice, values), jnp.eye(NUM_POINTS))[1]
        return filter_lattice(lattice, jnp.eye(NUM_POINTS)), pullback(jnp.eye(NUM_POINTS))[0]

    forward, backward = matrices(lattice)
    np.testing.assert_allclose(backward, forward.T, atol=1e-6)
    if normalization == "after":
        np.testing.assert_allclose(forward.sum(1), 1, atol=1e-5)
    assert np.abs(forward - forward.T).max() > 1e-4, "blurring axis by axis is not quite symmetric"


def test_too_small_a_capacity_is_seen_and_gives_nan(points, values):
    features = jnp.asarray(points(2))
    needed = int(_count(features)[0])

    @jax.jit
    def run(features, values):
        lattices = [
            finish_lattice(
                build_in_program(features, capacity=capacity), safe_sizes(3 * (NUM_POINTS + 1), NUM_POINTS, capacity)
            )
            for capacity in (needed, needed - 1)
        ]
        normalized = normalize(lattices[1], "symmetric")
        return lattices, [filter_lattice(lattice, values) for lattice in (*lattices, normalized)]

    (enough, short), (right, *wrong) = run(features, values)
    assert enough.complete
    assert not short.complete
    assert short.num_vertices == needed
    np.testing.assert_allclose(right, _slow_filter(np.asarray(features), values), atol=2e-5)
    assert all(np.isnan(result).all() for result in wrong)


def test_points_too_far_apart_for_the_keys_are_refused(points):
    features = 1e5 * points(5)
    with pytest.raises(ValueError, match=r"cells, more than a 64-bit key holds: use larger"):
        build_on_host(features)
    assert not _count(features)[1]


def test_an_unknown_normalization_is_named(points):
    with pytest.raises(ValueError, match=r"'before'; there are symmetric, after"):
        normalize(_host_lattice(points(2)), "before")


def test_a_batch_equals_one_by_one(points, values, rng):
    features = jnp.stack([points(2), points(2)])
    batch_values = jnp.stack([values, -2 * values])
    batch = jax.jit(jax.vmap(lambda f, v: filter_lattice(_build_and_finish(f, jnp.ones(NUM_POINTS, bool), False), v)))
    got = batch(features, batch_values)
    for index in range(2):
        alone = _filter(_program_lattice(np.asarray(features[index])), batch_values[index])
        np.testing.assert_allclose(got[index], alone, atol=1e-6)


def test_stages_stay_apart_in_the_cpus_program(points, values):
    """Fused, each row would be computed as often as the next stage reads it."""
    lattice = _host_lattice(points(5))
    program = _filter.lower(lattice, jnp.asarray(values)).compile().as_text()
    calls = re.findall(r" call\(.*inlineable", program)
    num_stages = 1 + len(lattice.fan_in.upper) + 1 + 6 + 1  # chunks, their chunks, all together, blurs, slice
    assert len(calls) == num_stages
    assert "scatter" not in program
    assert "conditional" not in program


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_lowers_for_accelerators_without_calls_to_the_host(platform):
    def run(features, values):
        lattice = normalize(_build_and_finish(features, jnp.ones(NUM_POINTS, bool), False), "symmetric")
        return filter_lattice(lattice, values)

    def loss(features, values):
        return (run(features, values) ** 2).sum()

    shapes = jax.ShapeDtypeStruct((5, NUM_POINTS), jnp.float32), jax.ShapeDtypeStruct((NUM_POINTS, 3), jnp.float32)
    program = jax.jit(jax.grad(loss, argnums=1)).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
    assert "optimization_barrier" in program
    assert "custom_call" not in program
    assert "callback" not in program


def test_exact_filters_equal_the_definition(rng, values):
    features = rng.normal(size=(5, NUM_POINTS)).astype(np.float32)
    difference = features[:, :, None] - features[:, None]
    want = np.exp(-0.5 * (difference**2).sum(0)) @ values
    for block in (NUM_POINTS**2, 7 * NUM_POINTS, 1):
        np.testing.assert_allclose(_filter_exactly(features, values, block=block), want, atol=1e-5)
    image = rng.normal(size=(6, 10, 3)).astype(np.float32)
    got = filter_positions(jnp.asarray(image), 1.7)
    flat = filter_exactly(position_features(6, 10, 1.7, jnp), jnp.asarray(image.reshape(-1, 3)))
    np.testing.assert_allclose(got.reshape(-1, 3), flat, atol=1e-5)


def test_how_far_the_lattice_is_from_the_gaussian(rng):
    """Normalized, a mean error of 0.4 % of the values' range over position, of 0.7 % over position and colour."""
    y, x = np.mgrid[:32, :40] / 32
    image = np.stack([np.sin(5 * x + 2 * y), np.cos(4 * y), x * y], -1) * 100 + 128 + rng.normal(size=(32, 40, 3)) * 4
    values = jnp.asarray(np.stack([np.sin(9 * x), (y > 0.5)], -1).reshape(-1, 2), jnp.float32)
    for features, bound in (
        (position_features(32, 40, 3.0, np), 0.005),
        (bilateral_features(image, 20.0, 25.0, np), 0.01),
    ):
        lattice = _host_lattice(features)
        with_ones = jnp.pad(values, ((0, 0), (0, 1)), constant_values=1)
        near, exact = _filter(lattice, with_ones), _filter_exactly(features, with_ones)
        error = np.abs(near[:, :2] / near[:, 2:] - exact[:, :2] / exact[:, 2:]).mean()
        assert bound / 10 < error / np.ptp(values) < bound


def test_ties_do_not_matter():
    """Pixels of a grid lie on the borders of simplices over and over: the weights there are zero, whoever has them."""
    features = position_features(6, 10, 3.0, np)
    ramp = np.arange(NUM_POINTS, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    np.testing.assert_allclose(
        _filter(_program_lattice(features), ramp), _filter(_host_lattice(features), ramp), rtol=1e-4
    )
