"""Dataclass fields that declare their valid range, and a check of all fields at once.

    prefetch: int = at_least(1, default=2)
    fuse: str = one_of("mean", "max", default="mean")

The range is declared with the field and nowhere else. Types are checked too, since a config file can assign anything.
"""

# No `from __future__ import annotations` here, nor in any settings.py: fields' types must not be strings.

import dataclasses
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

from deeplab_jax.types import UserError

_MAX_SHOWN = 100  # characters of a value, in messages
_NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "a string"}


@dataclasses.dataclass(slots=True)
class PartConfig:
    """A part, found by name; `args` are keyword arguments of its factory."""

    name: str = ""  # 'module.factory' of the part's package, or 'package.module:factory' from anywhere
    args: dict[str, Any] = dataclasses.field(default_factory=dict)


def checked(holds: Callable[[Any], bool], words: str, *, default: Any) -> Any:
    """A field whose values satisfy `holds` (after the type check); `words` complete the sentence 'must be ...'."""
    metadata = {"holds": holds, "words": words}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def at_least(low: float, *, default: Any, words: str = "") -> Any:
    """A number >= `low`."""
    return checked(
        lambda value: value >= low, words or ("0 or more" if low == 0 else f"at least {low}"), default=default
    )


def above(low: float, *, default: Any, words: str = "") -> Any:
    """A number > `low`."""
    words = words or ("positive" if low == 0 else f"above {low}")
    return checked(lambda value: value > low, words, default=default)


def within(
    low: float, high: float, *, default: Any, open_low: bool = False, open_high: bool = False, words: str = ""
) -> Any:
    """A number from `low` to `high`; an open end is excluded."""

    def holds(value: float) -> bool:
        return (low < value if open_low else low <= value) and (value < high if open_high else value <= high)

    ends = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
    return checked(holds, words or f"in {ends}", default=default)


def one_of(*choices: Any, default: Any, words: str = "") -> Any:
    """One of a few values."""
    return checked(lambda value: value in choices, words or _listed(choices, "or"), default=default)


def a_size(otherwise: str, *, default: tuple[int, int] = (0, 0), least: int = 1) -> Any:
    """A (height, width) in pixels, each >= `least`; (0, 0) means `otherwise`."""
    words = f"(height, width){f', each at least {least},' if least > 1 else ','} or (0, 0) for {otherwise}"
    return checked(lambda size: size == (0, 0) or min(size) >= least, words, default=default)


def each_above(low: float, *, default: Any, empty: bool = True, words: str = "") -> Any:
    """Numbers (or the values of a dictionary) that are all > `low`; `empty`: there may be none."""
    return _each(lambda value: value > low, words or f"numbers above {low}", default, empty)


def each_at_least(low: float, *, default: Any, empty: bool = True, words: str = "") -> Any:
    """Numbers (or the values of a dictionary) that are all >= `low`; `empty`: there may be none."""
    return _each(lambda value: value >= low, words or f"numbers of {low} or more", default, empty)


def some_of(*choices: Any, default: tuple[Any, ...]) -> Any:
    """One or more of a few values, without duplicates."""

    def holds(values: Sequence[Any]) -> bool:
        return len(values) > 0 and len(set(values)) == len(values) and set(values) <= set(choices)

    return checked(holds, f"one or more of {_listed(choices, 'and')}", default=default)


def check(settings: Any, path: str) -> None:
    """Checks the type and range of every field, including nested settings; lists become tuples.

    Args:
      settings: an instance of a dataclass whose annotations are types, not strings.
      path: its dotted path in messages, e.g. 'config.data'.

    Raises:
      UserError: at the first invalid value.
    """
    for field in dataclasses.fields(settings):
        place, value, kind = f"{path}.{field.name}", getattr(settings, field.name), typing.cast(Any, field.type)
        if isinstance(value, list) and typing.get_origin(kind) is tuple:
            value = tuple(value)
            setattr(settings, field.name, value)
        if not _is_a(kind, value):
            raise UserError(f"{place}={shown(value)}: must be {_name(kind)}")
        if "holds" in field.metadata and not field.metadata["holds"](value):
            raise UserError(f"{place}={shown(value)}: must be {field.metadata['words']}")
        if dataclasses.is_dataclass(value):
            check(value, place)
        elif isinstance(value, tuple):
            for position, item in enumerate(value):
                if dataclasses.is_dataclass(item):
                    check(item, f"{place}[{position}]")


def shown(value: Any) -> str:
    """A value on one line, truncated if it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _each(holds: Callable[[Any], bool], words: str, default: Any, empty: bool) -> Any:
    def all_hold(values: Any) -> bool:
        items = values.values() if isinstance(values, dict) else values
        return (empty or len(items) > 0) and all(map(holds, items))

    return checked(all_hold, words if empty else f"one or more {words}", default=default)


def _listed(choices: Sequence[Any], last: str) -> str:
    *first, final = [str(choice) or "''" for choice in choices]
    return f"{', '.join(first)} {last} {final}" if first else final


def _is_a(kind: Any, value: Any) -> bool:
    """Whether a value has an annotated type; numbers must be finite, and integers must fit into 64 bits."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is object:
        return True
    if kind is Any:
        return _is_plain(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return len(kinds) == len(value) and all(map(_is_a, kinds, value))
    if origin is dict:
        if not isinstance(value, dict):
            return False
        return all(isinstance(key, str) and _is_a(arguments[1], item) for key, item in value.items())
    return isinstance(value, kind)


def _is_plain(value: Any) -> bool:
    """Whether config.json can hold it."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str))


def _name(kind: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a tuple, each item {_name(arguments[0])}"
    if origin is tuple:
        return f"a tuple of {len(arguments)}, each {_name(arguments[0])}"
    if origin is dict:
        value = "a number, string, tuple or the like" if arguments[1] is Any else _name(arguments[1])
        return f"a dictionary with strings as keys, each value {value}"
    return _NAMES.get(kind) or f"a {kind.__name__}"
