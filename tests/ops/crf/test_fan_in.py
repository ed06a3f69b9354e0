"""Sums over runs by gathers, against NumPy's unbuffered addition."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from deeplab_jax.ops.crf.fan_in import level_counts, make_fan_in, safe_sizes, sum_runs, typical_sizes
from deeplab_jax.ops.crf.lattice_on_host import round_up

NUM_ROWS = 700


_make_in_program = jax.jit(make_fan_in, static_argnums=4)


@jax.jit
def _sum_runs(fan_in, weights, values):
    return sum_runs(fan_in, weights, values, lambda function, *operands: function(*operands))


def _list_of_runs(rng, lengths):
    num_entries = int(lengths.sum())
    rows = rng.integers(0, NUM_ROWS, num_entries).astype(np.int32)
    weights = rng.normal(size=num_entries).astype(np.float32)
    return rows, weights


@pytest.mark.parametrize(
    ("longest", "make"),
    [(3, make_fan_in), (20, make_fan_in), (21, make_fan_in), (4500, make_fan_in), (4500, _make_in_program)],
)
def test_equals_addition_entry_by_entry(rng, longest, make):
    """Runs around every border of the tree: none, the first four, one chunk, two, two levels, three."""
    lengths = np.array([0, 1, 3, 4, 5, 20, 21, 36, 37, 260, 261, 4100, 0, longest])
    lengths = np.append(lengths[lengths <= longest], 0)  # the last run is nobody's
    rows, weights = _list_of_runs(rng, lengths)
    begin = np.cumsum(lengths) - lengths
    sizes = safe_sizes(rows.size, longest, lengths.size - 1)
    fan_in, tables, fits = make(rows, weights, begin.astype(np.int32), lengths.astype(np.int32), sizes)
    assert fits
    values = rng.normal(size=(NUM_ROWS, 3)).astype(np.float32)
    got = _sum_runs(fan_in, tables, values)
    want = np.zeros((lengths.size, 3))
    np.add.at(want, np.repeat(np.arange(lengths.size), lengths), weights[:, None] * values[rows].astype(np.float64))
    np.testing.assert_allclose(got, want, atol=2e-4)  # 4500 products of unit normals in float32
    np.testing.assert_array_equal(got[lengths == 0], 0)


def test_safe_sizes_are_never_exceeded(rng):
    for _ in range(200):
        kind = rng.integers(4)
        runs, longest = int(rng.integers(1, 400)), int(rng.integers(1, 5000))
        lengths = [
            rng.integers(0, longest + 1, runs),
            np.full(runs, longest),
            np.minimum(rng.zipf(1.5, runs), longest),
            rng.choice([0, 5, 21, 22, 277, 278], runs).clip(max=longest),
        ][kind]
        sizes = safe_sizes(int(lengths.sum()), longest, runs)
        counts = level_counts(lengths, len(sizes.levels))
        assert all(count.sum() <= capacity for count, capacity in zip(counts, sizes.levels, strict=True))
        assert counts[-1].max() <= 1, "the last level has every long run's root"


def test_typical_sizes_are_smaller_and_say_when_they_do_not_do(rng):
    lengths = np.append(np.full(1000, 6), 0)  # two entries behind the first four: a chunk of 16 for each
    rows, weights = _list_of_runs(rng, lengths)
    begin = np.cumsum(lengths) - lengths
    safe, typical = (make(rows.size, 1000, 1000) for make in (safe_sizes, typical_sizes))
    assert all(a <= b for a, b in zip(typical.levels, safe.levels, strict=True))
    assert typical.levels != safe.levels
    assert make_fan_in(rows, weights, begin, lengths, safe)[2]
    fan_in, _, fits = make_fan_in(rows, weights, begin, lengths, typical)
    assert not fits
    assert fan_in.chunk_root.max() <= typical.levels[0], "in bounds all the same"


@pytest.mark.parametrize("steps", [4, 16])
def test_rounding_up_wastes_little_and_gives_few_sizes(steps):
    sizes = np.arange(1, 5000)
    rounded = np.array([round_up(int(size), steps) for size in sizes])
    assert (rounded >= sizes).all()
    assert (rounded <= sizes * (1 + 1 / steps)).all()
    assert len(np.unique(rounded)) <= steps * 14
