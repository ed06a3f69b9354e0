"""Fields with ranges: what each constructor takes, and that no odd value of any setting ends in a traceback."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from deeplab_jax.config import AddedLoss, Config
from deeplab_jax.fields import (
    a_size,
    above,
    at_least,
    check,
    each_above,
    each_at_least,
    one_of,
    some_of,
    within,
)
from deeplab_jax.types import UserError
from deeplab_jax.validation import validate, warnings_for


def _settings(kind, made):
    """A dataclass of one field; by a call, since the annotations of this file are strings."""
    return dataclasses.make_dataclass("Settings", [("value", kind, made)])


@pytest.mark.parametrize(
    ("kind", "made", "good", "bad", "words"),
    [
        (int, at_least(1, default=2), [1, 7], [0, 1.5, True, "1", None], "at least 1"),
        (float, at_least(0, default=0.0), [0, 0.5], [-1e-9, float("nan"), float("inf")], "0 or more"),
        (float, above(0, default=1.0), [1e-9, 3], [0.0, 10**400], "positive"),
        (float, within(0, 1, default=0.5), [0, 1], [-0.1, 1.1], r"in \[0, 1\]"),
        (float, within(0, 1, default=0.5, open_low=True), [1], [0], r"in \(0, 1\]"),
        (float, within(0, 1, default=0.5, open_high=True), [0], [1], r"in \[0, 1\)"),
        (str, one_of("", "a", "b", default="a"), ["", "b"], ["c", 1], "'', a or b"),
        (
            tuple[int, int],
            a_size("whole images"),
            [(0, 0), (1, 2), [1, 2]],
            [(0, 1), (-1, -1), (1,), [0, 1], 1],
            "for whole",
        ),
        (tuple[int, int], a_size("any", least=2), [(0, 0), (2, 2)], [(1, 2)], "each at least 2, or"),
        (tuple[float, ...], each_above(0, default=()), [(), (1.0, 2)], [(0.0,), (1, "2"), 1.0], "numbers above 0"),
        (tuple[float, ...], each_above(0, default=(1.0,), empty=False), [(2.0,)], [()], "one or more numbers"),
        (dict[str, float], each_at_least(0, default={}), [{}, {"a": 0}], [{"a": -1}, {1: 1.0}], "numbers of 0 or more"),
        (tuple[str, ...], some_of("a", "b", default=("a",)), [("a", "b")], [(), ("a", "a"), ("c",)], "of a and b"),
    ],
)
def test_a_range_takes_what_is_in_it_and_names_itself_for_the_rest(kind, made, good, bad, words):
    settings = _settings(kind, made)()
    check(settings, "here")  # the default
    for settings.value in good:
        check(settings, "here")
    for settings.value in bad:
        with pytest.raises(UserError, match=r"^here\.value=.*: must be "):
            check(settings, "here")
    settings.value = bad[0]
    with pytest.raises(UserError, match=words):
        check(settings, "here")


def test_settings_within_settings_are_checked_and_named_by_their_path():
    config = Config()
    config.model.batch_norm.decay = 2.0
    with pytest.raises(UserError, match=r"^config\.model\.batch_norm\.decay=2\.0: must be in \[0, 1\)$"):
        check(config, "config")
    config = Config()
    config.loss.added = (AddedLoss("dice.soft_dice"), AddedLoss("dice.soft_dice", factor=-1.0))
    with pytest.raises(UserError, match=r"^config\.loss\.added\[1\]\.factor=-1\.0: must be positive$"):
        check(config, "config")


def test_a_dictionary_of_a_default_is_not_shared():
    first, second = Config(), Config()
    first.optimizer.learning_rate_multipliers["head/.*"] = 2.0
    assert second.optimizer.learning_rate_multipliers == {}


ODD_VALUES = [
    None, True, 0, 1, -1, 10**30, 0.5, -0.0, 1e300, float("nan"), float("inf"), "", "eight", "a.b", ".", "\n", "\0",
    (), (1,), (1, 2), (0, 513), (1.5, 2.5), (float("nan"), 1.0), ("a", "b"), ((),), (None,), [513, 513], [], {},
    {"a": 1}, {1: 2}, {"width": object()}, object(), b"16", np.int64(16), np.zeros((2, 2)), int, Config(),
]  # fmt: skip


def _fields(part, path=()):
    for field in dataclasses.fields(part):
        yield (*path, field.name)
        if dataclasses.is_dataclass(getattr(part, field.name)):
            yield from _fields(getattr(part, field.name), (*path, field.name))


@pytest.mark.parametrize("path", list(_fields(Config())), ids=".".join)
def test_an_odd_value_is_refused_in_one_line_or_is_valid(path):
    """A config file can put anything anywhere: settings, and whole parts of them."""
    refusals = [refusal for value in ODD_VALUES if (refusal := _refusal(path, value))]
    assert len(refusals) >= len(ODD_VALUES) // 2
    assert all(text.startswith("config.") and "\n" not in text and len(text) < 1_000 for text in refusals)


def _refusal(path, value):
    """What is said of a config with `value` in that place; '' where it is valid."""
    config = part = Config()
    for name in path[:-1]:
        part = getattr(part, name)
    setattr(part, path[-1], value)
    try:
        validate(config)
        warnings_for(config)
    except UserError as error:
        return str(error)
    return ""
