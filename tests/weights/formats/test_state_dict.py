"""Where checkpoints keep their tensors: bare, wrapped, nested, parallel."""

from __future__ import annotations

import collections
import pickle

import numpy as np
import pytest

from deeplab_jax.weights.formats.read import read_arrays
from deeplab_jax.weights.formats.state_dict import WRAPPERS

W = np.arange(3.0)


def _names(tmp_path, tree):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(tree, 2))
    return set(read_arrays(path))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_followed(wrapper, tmp_path):
    best = np.float64(0.7)
    assert _names(tmp_path, {"epoch": 1, "best": best, wrapper: {"conv.w": W}, "optimizer": {"m": W}}) == {"conv.w"}


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"conv.w": W, "conv.b": W, "steps": 3}, {"conv.w", "conv.b"}),
        ({"encoder": {"conv": {"w": W}}, "head": {"w": W}, 3: W}, {"encoder.conv.w", "head.w", "3"}),
        ({"model": {"state_dict": {"w": W}}, "ema": {"v": W}}, {"w"}),
        ({"ema": {"v": W}, "model": {"w": W}}, {"w"}),
        ({"model": {"name": "resnet", "layers": 50}, "net": {"w": W}}, {"w"}),
        ({"params": [{"lr": 1}], "weights": {"w": W}}, {"w"}),
        ({"weights": W, "bias": W}, {"weights", "bias"}),
        ({"module.conv.w": W, "module.conv.b": W}, {"conv.w", "conv.b"}),
        ({"module.conv.w": W, "head.w": W}, {"module.conv.w", "head.w"}),
        ({"state_dict": {"module": {"w": W}}}, {"w"}),
        (collections.OrderedDict(net=collections.OrderedDict(w=W)), {"w"}),
        (collections.defaultdict(dict, model=collections.OrderedDict(w=W)), {"w"}),
        ({"model": {}, "w": W}, {"w"}),
    ],
)
def test_names(tree, names, tmp_path):
    assert _names(tmp_path, tree) == names


def test_ordered_dicts_of_python_2(tmp_path):
    """It hands all pairs to the constructor, as lists."""
    array = pickle.dumps(W, 2)[2:-1]
    path = tmp_path / "weights.pkl"
    path.write_bytes(b"\x80\x02ccollections\nOrderedDict\n]](U\x06conv.w" + array + b"ea\x85R.")
    np.testing.assert_array_equal(read_arrays(path)["conv.w"], W)
