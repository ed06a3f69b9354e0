"""Pickles as data: what they hold is found, and whatever they would do is not done."""

from __future__ import annotations

import argparse
import builtins
import collections
import datetime
import functools
import io
import os
import pathlib
import pickle
import random
import sys

import numpy as np
import pytest

from deeplab_jax.weights.formats.pickle_machine import Inert, Persistent, read_pickle
from deeplab_jax.weights.formats.read import read_arrays

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Touch:
    """Makes a file when it is unpickled, by whatever `reduce` says."""

    def __init__(self, *reduction):
        self.reduction = reduction

    def __reduce__(self):
        return self.reduction


class Bag:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def _read(data):
    stream = io.BytesIO(data)
    tree, references = read_pickle(stream)
    assert stream.read() == b""
    return tree, references


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_comes_back(protocol):
    shared = ["a", 1.5]
    data = {
        "numbers": [0, -1, 255, 65536, -(2**31), 2**40, -(2**100), 1.5, float("inf"), True, False, None],
        "text": ("", "straße", "x" * 300),
        "bytes": [b"", b"\x00\xff", b"y" * 300] if protocol >= 3 else [],
        "deep": {"shared": (shared, shared), 7: (), "one": (1,), "two": (1, 2), "four": (1, 2, 3, 4)},
    }
    tree, references = _read(pickle.dumps(data, protocol))
    assert tree == data
    assert tree["deep"]["shared"][0] is tree["deep"]["shared"][1]
    assert references == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_are_described(protocol):
    data = {
        "ordered": collections.OrderedDict(a=1, b=2),
        "bag": Bag(scale=2.0),
        "sets": ({1}, frozenset([2])),
        "queue": collections.deque([1, 2]),
        "function": os.path.join,
    }
    tree, _ = _read(pickle.dumps(data, protocol))
    assert tree["ordered"].name == "collections.OrderedDict"
    assert tree["ordered"].entries == {"a": 1, "b": 2}
    assert tree["bag"].state == {"scale": 2.0}
    assert isinstance(tree["queue"], Inert)
    assert tree["function"].endswith("path.join")
    assert isinstance(tree["function"], str)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_references_are_listed(protocol):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return str(value) if isinstance(value, complex) else None

    stream = io.BytesIO()
    Pickler(stream, protocol).dump([1j, "text", 2j])
    tree, references = _read(stream.getvalue())
    assert [type(value) for value in tree] == [Persistent, str, Persistent]
    assert [reference.key for reference in references] == ["1j", "2j"]


def test_stops_behind_each_of_several():
    stream = io.BytesIO(b"".join(pickle.dumps(number) for number in range(3)))
    assert [read_pickle(stream)[0] for _ in range(3)] == [0, 1, 2]


def _reductions(marker):
    """Ways to make a file by being unpickled."""
    command = f"touch {marker}"
    source = f"open({str(marker)!r}, 'w').close()"
    return {
        "system": Touch(os.system, (command,)),
        "eval": Touch(eval, (source,)),
        "exec": Touch(exec, (source,)),
        "open": Touch(builtins.open, (str(marker), "w")),
        "getattr": Touch(getattr(pathlib.Path, "touch"), (marker,)),  # noqa: B009
        "partial": Touch(functools.partial(os.system, command), ()),
        "map": Touch(list, (map(os.system, [command]),)),
        "state": Touch(Bag, (), {"x": Touch(os.system, (command,))}),
        "items": Touch(collections.OrderedDict, (), None, None, iter([("key", Touch(os.system, (command,)))])),
        "setter": Touch(Bag, (), command, None, None, os.system),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("way", _reductions(""))
@pytest.mark.parametrize("depth", ["top", "beside", "within"])
def test_nothing_is_executed(way, protocol, depth, tmp_path, refused):
    marker = tmp_path / "marker"
    evil = _reductions(marker)[way]
    data = pickle.dumps(
        {"top": evil, "beside": {"epoch": evil}, "within": {"model": {"weight": evil}}}[depth], protocol
    )
    path = tmp_path / "evil.pkl"
    path.write_bytes(data)
    refused(path)
    assert not marker.exists()


@pytest.mark.parametrize("way", ["system", "eval", "exec", "open", "getattr", "partial", "map", "state", "items"])
def test_the_same_pickles_do_execute_in_python(way, tmp_path):
    """Else the test above could not fail."""
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(_reductions(marker)[way]))
    assert marker.exists()


@pytest.mark.parametrize(
    "template",
    [
        b"cos\nsystem\n(S'touch %s'\ntR.",
        b"cposix\nsystem\n(S'touch %s'\ntR.",
        b"(S'touch %s'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch %s'\no.",
        b"\x80\x02cos\nsystem\nS'touch %s'\n\x85\x81.",
        b"\x80\x04cos\nsystem\nS'touch %s'\n\x85}\x92.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93S'touch %s'\n\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x0dgetattr.__doc\x93S'touch %s'\n\x85R.",
        b"cos\nsystem\nS'touch %s'\nb.",
        b"(cos\nsystem\nS'touch %s'\nd.",
        b"}cos\nsystem\nS'touch %s'\n\x85Rs.",
    ],
)
def test_handwritten_instructions(template, tmp_path, refused):
    marker = tmp_path / "m"
    path = tmp_path / "evil.pkl"
    path.write_bytes(template % str(marker).encode())
    refused(path)
    assert not marker.exists()


def test_named_modules_are_not_imported(tmp_path, refused):
    path = tmp_path / "evil.pkl"
    assert "this" not in sys.modules
    path.write_bytes(b"\x80\x02cthis\ns\n.")
    refused(path)
    assert "this" not in sys.modules


def test_named_objects_are_not_changed(tmp_path, refused):
    """BUILD on a class or module sets its attributes, in Python's unpickler."""
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"\x80\x02cdeeplab_jax.types\nUserError\n}X\x05\x00\x00\x00wornsNsb.".replace(b"worns", b"worse"))
    refused(path)
    assert not hasattr(sys.modules["deeplab_jax.types"].UserError, "worse")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02.",  # nothing
        b"\x80\x022.",  # a copy of nothing
        b"\x80\x02h\x00.",  # out of an empty memo
        b"\x80\x02q\x00.",
        b"\x80\x02t.",  # no mark
        b"\x80\x02R.",
        b"\x80\x02\x82\x01.",  # a code of copyreg's registry
        b"\x80\x05\x97.",  # a buffer from elsewhere
        b"\x80\x02]",  # no end
        b"\x80\x02\xff.",  # no such instruction
        b"\x80\x02\x8a\xff.",
    ],
)
def test_damaged_pickles(data, tmp_path, refused):
    path = tmp_path / "weights.pkl"
    path.write_bytes(data)
    assert "damaged" in refused(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02r\xff\xff\xff\xff.",  # PUT at 2^32
        b"\x80\x02]r\xff\xff\xff\xff.",
        b"\x80\x03B\xff\xff\xff\xff.",  # 4 GB of bytes
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x00.",
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x00.",
        b"\x80\x04\x95" + b"\xff" * 8 + b".",  # the length of a frame
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # an integer of 2 GB
        b"I" + b"9" * 100_000 + b"\n.",
    ],
)
def test_sizes_that_lie_allocate_nothing(data, tmp_path, refused):
    path = tmp_path / "weights.pkl"
    path.write_bytes(data)
    refused(path)


def test_ends_in_time(tmp_path, refused):
    """Pickles of few bytes that describe endless, or exponentially many, or very deep values."""
    twice = b"}(X\x01\x00\x00\x00a%bX\x01\x00\x00\x00b%bu"
    doubled = b"\x80\x02]q\x00" + b"".join(
        twice % (b"h" + bytes([level]), b"h" + bytes([level])) + b"q" + bytes([level + 1]) for level in range(60)
    )
    deep = b"\x80\x02" + b"}X\x05\x00\x00\x00model" * 10_000 + b"N" + b"s" * 10_000
    tuples = b"\x80\x02}N" + b"\x85" * 200_000 + b"Ns"
    for name, data in (("cycle", b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s"), ("doubled", doubled), ("deep", deep)):
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(data + b".")
        assert "nested without end" in refused(path)
    assert _read(tuples + b".")[0] == {}


def test_a_checkpoint_with_anything_beside_the_weights(tmp_path):
    """Namespaces, dates and random states are common; they must not keep anyone from the weights."""
    path = tmp_path / "checkpoint.pkl"
    checkpoint = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("x")),
        "when": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
        "rng": (random.getstate(), np.random.get_state(), np.random.default_rng(0)),
        "best": np.float64(0.7),
        "model": {"weight": np.arange(3.0)},
    }
    for protocol in PROTOCOLS:
        path.write_bytes(pickle.dumps(checkpoint, protocol))
        read = read_arrays(path)
        assert list(read) == ["weight"]
        np.testing.assert_array_equal(read["weight"], np.arange(3.0))
