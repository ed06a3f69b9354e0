"""Where checkpoints keep their tensors: bare, wrapped, nested, parallel."""

from __future__ import annotations

import collections
import pickle

import numpy as np
import pytest

from deeplab_jax.weights.formats.read import read_arrays, read_contents
from deeplab_jax.weights.formats.state_dict import SETTINGS, WRAPPERS

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
        ({"module.conv.w": W, "module.conv.b": W}, {"module.conv.w", "module.conv.b"}),
        ({"state_dict": {"module": {"w": W}}}, {"module.w"}),
        ([{"conv.w": W, "conv.b": W}, {"epoch": 3}], {"0.conv.w", "0.conv.b"}),
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


def test_what_was_taken_and_what_lies_beside_it_is_told(tmp_path):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"epoch": 1, "model": {"state_dict": {"w": W}}, "ema": {"v": W}, "net": {}}, 2))
    contents = read_contents(path)
    assert (contents.taken, contents.others) == ("model.state_dict", ("ema",))
    assert set(read_contents(path, follow=False).arrays) == {"model.state_dict.w", "ema.v"}


class _Settings:
    """A stranger's class: it must be nowhere when the file is read."""

    def __init__(self, **values):
        self.__dict__ |= values


@pytest.mark.parametrize("key", SETTINGS)
def test_settings_are_read_as_plain_values(key, tmp_path):
    """Whatever classes they are of, none of which is imported."""
    nested = _Settings(encoder_output_stride=8, decoder_atrous_rates=(6, 12), model=collections.OrderedDict(name="v3"))
    nested.function = len
    data = pickle.dumps({"state_dict": {"w": W}, key: nested, "lr": 0.1}, 2).replace(b"_Settings", b"_Nowheres")
    path = tmp_path / "weights.pkl"
    path.write_bytes(data)
    contents = read_contents(path)
    assert contents.origin == key
    wanted = {"encoder_output_stride": 8, "decoder_atrous_rates": [6, 12], "model": {"name": "v3"}}
    assert contents.settings == wanted


def test_settings_without_end_are_cut(tmp_path):
    """A pickle of a few bytes that describes 2^60 values."""
    tree = {"x": 1}
    for _ in range(60):
        tree = {"a": tree, "b": tree}
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"state_dict": {"w": W}, "args": tree}, 2))
    assert set(read_contents(path).arrays) == {"w"}
