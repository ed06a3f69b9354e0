"""Pooling against scalar NumPy under every padding, against PyTorch, and its gradient through windows with holes."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.ops.pooling import average_pool, max_pool, pool_padding

SIZE = (8, 11)


def _slow(x, window, stride, rate, padding, reduce):
    """One window at a time; `reduce` takes its values, without those of the padding."""
    edges = [pool_padding(size, taps, stride, rate, padding) for size, taps in zip(x.shape[1:3], window, strict=True)]
    cells = [
        (size + sum(edge) - (taps - 1) * rate - 1) // stride + 1
        for size, edge, taps in zip(x.shape[1:3], edges, window, strict=True)
    ]
    out = np.zeros((x.shape[0], *cells, x.shape[3]))
    for i, j in itertools.product(*map(range, cells)):
        rows = [i * stride + tap * rate - edges[0][0] for tap in range(window[0])]
        columns = [j * stride + tap * rate - edges[1][0] for tap in range(window[1])]
        inside = [x[:, r, c] for r in rows for c in columns if 0 <= r < x.shape[1] and 0 <= c < x.shape[2]]
        out[:, i, j] = reduce(inside)
    return out


@pytest.mark.parametrize("padding", ["tf_same", "symmetric", "ceil"])
@pytest.mark.parametrize(("window", "stride", "rate"), [(3, 2, 1), (2, 2, 1), (2, 1, 1), (3, 1, 2), (2, 1, 2)])
def test_max_pool_equals_its_definition(rng, window, stride, rate, padding):
    x = rng.normal(size=(2, *SIZE, 3)).astype(np.float32)
    got = jax.jit(lambda x: max_pool(x, window, stride=stride, rate=rate, padding=padding))(x)
    np.testing.assert_array_equal(
        got, _slow(x, (window, window), stride, rate, padding, lambda v: np.max(v, 0)).astype(np.float32)
    )


@pytest.mark.parametrize(("window", "stride", "padding"), [((3, 3), 1, "symmetric"), ((2, 5), 2, "tf_same")])
def test_average_pool_counts_padding_as_zeros(rng, window, stride, padding):
    x = rng.normal(size=(2, *SIZE, 3)).astype(np.float32)
    got = average_pool(x, window, stride=stride, padding=padding)
    wanted = _slow(x, window, stride, 1, padding, lambda values: np.sum(values, 0) / np.prod(window))
    np.testing.assert_allclose(got, wanted, atol=1e-6)  # ten float32 sums


def test_average_pool_without_padding_or_in_half_precision(rng):
    x = rng.normal(size=(1, *SIZE, 2)).astype(np.float32)
    np.testing.assert_allclose(average_pool(x, SIZE)[:, 0, 0], x.mean((1, 2)), atol=1e-6)
    assert average_pool(x.astype(jnp.bfloat16), (3, 3)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("size", "window", "stride", "symmetric", "ceil"),
    [
        (321, 3, 2, 161, 161),  # DeepLab's odd sizes: no difference
        (320, 3, 2, 160, 161),
        (500, 2, 2, 250, 250),  # FCN's 2x2 windows: none either
        (375, 2, 2, 188, 188),
        (40, 2, 1, 40, 39),  # DeepLab v1's first pool4
    ],
)
def test_output_sizes_of_the_authors(size, window, stride, symmetric, ceil):
    for padding, wanted in (("symmetric", symmetric), ("ceil", ceil)):
        pooled = jax.eval_shape(
            lambda x, padding=padding: max_pool(x, window, stride=stride, padding=padding), jnp.zeros((1, size, 2, 1))
        )
        assert pooled.shape[1] == wanted


@pytest.mark.parametrize("rate", [1, 2])
def test_the_gradient_goes_to_the_largest(rng, rate):
    """Every window sends its gradient to the cell that won, with holes and without; distinct values, so no ties."""
    x = rng.permutation(np.arange(np.prod(SIZE), dtype=np.float32)).reshape(1, *SIZE, 1)
    pooled, pull_back = jax.vjp(lambda x: max_pool(x, 3, rate=rate), x)
    weights = rng.normal(size=pooled.shape).astype(np.float32)
    wanted = np.zeros(x.size, np.float32)
    cell_of = {float(value): cell for cell, value in enumerate(x.ravel())}
    for value, weight in zip(np.asarray(pooled).ravel(), weights.ravel(), strict=True):
        wanted[cell_of[float(value)]] += weight
    np.testing.assert_allclose(np.ravel(pull_back(weights)[0]), wanted, atol=1e-6)  # sums of up to nine weights


def test_unknown_paddings_are_refused():
    x = np.zeros((1, 4, 4, 1), np.float32)
    with pytest.raises(ValueError, match="unknown padding 'caffe'; there are 'tf_same', 'symmetric' and 'ceil'"):
        max_pool(x, 3, padding="caffe")
    with pytest.raises(ValueError, match="averages know"):
        average_pool(x, (3, 3), padding="ceil")


@pytest.mark.peer
@pytest.mark.parametrize("size", [(7, 10), (8, 9)])
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (2, 2), (3, 1), (2, 1), (5, 3)])
def test_ceil_is_pytorchs_ceil_mode(rng, window, stride, size):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    pool = torch.nn.MaxPool2d(window, stride, padding=(window - 1) // 2, ceil_mode=True)
    wanted = pool(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(max_pool(x, window, stride=stride, padding="ceil"), wanted)


@pytest.mark.peer
def test_averages_are_pytorchs_with_padding_counted(rng):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, *SIZE, 3)).astype(np.float32)
    wanted = torch.nn.AvgPool2d(3, 1, padding=1)(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(average_pool(x, (3, 3), padding="symmetric"), wanted.numpy(), atol=1e-6)
