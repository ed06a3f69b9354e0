"""The rule engine: maps foreign names to our paths, with a report of what is left over; and back."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deeplab_jax.types import WeightRule

# Order of a foreign kernel's axes -> the permutation that makes it (height, width, in, out).
_PERMUTATIONS = {
    "oihw": (2, 3, 1, 0),  # PyTorch, MXNet; depthwise too
    "ohwi": (1, 2, 3, 0),  # TFLite
    "1hwc": (1, 2, 0, 3),  # TFLite depthwise
    "hwc1": (0, 1, 3, 2),  # TensorFlow depthwise
}
# Orders of a kernel's input channels (the third axis after the permutation): (to ours, from ours).
_Order = Callable[[np.ndarray], np.ndarray]
_MOVE_TO_FRONT: tuple[_Order, _Order] = (
    lambda kernel: np.roll(kernel, kernel.shape[3], axis=2),
    lambda kernel: np.roll(kernel, -kernel.shape[3], axis=2),
)
_CHANNEL_ORDERS: Mapping[str, tuple[_Order, _Order]] = {
    # The first convolution of a network that reads BGR images.
    "bgr": (lambda kernel: kernel[:, :, ::-1],) * 2,
    # The projection after an ASPP that concatenates image pooling last; ours comes first, as in TensorFlow.
    "pool_last": _MOVE_TO_FRONT,
    # A decoder that concatenates [low-level, ASPP]; ours is [ASPP, low-level].
    "low_level_first": _MOVE_TO_FRONT,
}
# A piece of a pattern: a group, a character set, an escaped character or a plain one.
_PIECE = re.compile(r"\((?P<free>\?:)?(?P<group>[^()]*)\)|\[(?P<set>[^]])[^]]*\]|\\(?P<escaped>.)|(?P<plain>.)")
_FIELD = re.compile(r"\{(\d)([+-]\d+)?\}")  # of a target


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """The result of an import, name by name."""

    loaded: tuple[str, ...]  # our paths that were filled
    missing: tuple[str, ...]  # our paths that the source does not provide
    unexpected: tuple[str, ...]  # foreign names that no rule matches
    misshapen: tuple[str, ...]  # 'name: shape, wanted path: shape'
    skipped: tuple[str, ...]  # foreign names skipped on purpose
    outside: tuple[str, ...] = ()  # foreign names that are not of the network
    made_up: tuple[str, ...] = ()  # our paths that the source does not need, filled with what changes nothing

    @property
    def is_complete(self) -> bool:
        return not (self.missing or self.unexpected or self.misshapen)

    @property
    def summary(self) -> str:
        """The counts."""
        kinds = ("loaded", "missing", "unexpected", "misshapen", "skipped", "outside")
        return ", ".join(f"{len(getattr(self, kind))} {kind}" for kind in kinds if getattr(self, kind))

    def __str__(self) -> str:
        """The counts, and the names of all arrays that do not fit."""
        parts = [f"{len(self.loaded)} arrays loaded"]
        for kind in ("missing", "unexpected", "misshapen"):
            names = getattr(self, kind)
            if names:
                parts.append(f"{len(names)} {kind}: {', '.join(names)}")
        if self.skipped:
            parts.append(f"{len(self.skipped)} left out on purpose")
        return "; ".join(parts)


def load_pretrained(
    source: Mapping[str, np.ndarray],
    rules: Sequence[WeightRule],
    target: Mapping[str, np.ndarray],
    *,
    skip: Sequence[str] = (),
) -> tuple[dict[str, np.ndarray], LoadReport]:
    """Fills `target` with the arrays of `source`, renamed by the rules.

    Args:
      source: foreign name -> array.
      rules: tried in order on each name; the first full match counts.
      target: path 'collection/part/module/.../leaf' -> array of ours; not modified.
      skip: patterns of foreign names to skip silently.

    Returns:
      A copy of `target` with all that could be loaded, and the full report. A name that maps to a part missing in
      `target` counts as skipped.

    Raises:
      ValueError: for a rule with an unknown transform.
    """
    parts = {_part(path) for path in target}
    filled = dict(target)
    loaded: list[str] = []
    unexpected: list[str] = []
    misshapen: list[str] = []
    skipped: list[str] = []
    for name, array in source.items():
        if any(re.fullmatch(pattern, name) for pattern in skip):
            skipped.append(name)
            continue
        path, transform = place(name, rules)
        if path not in target:
            (skipped if path and _part(path) not in parts else unexpected).append(name)
            continue
        value = reorder(array, transform)
        if value.shape != target[path].shape:
            misshapen.append(f"{name}: {value.shape}, wanted {path}: {target[path].shape}")
            continue
        filled[path] = value.astype(target[path].dtype)
        loaded.append(path)
    missing = sorted(set(target) - set(loaded))
    return filled, LoadReport(tuple(loaded), tuple(missing), tuple(unexpected), tuple(misshapen), tuple(skipped))


def place(name: str, rules: Sequence[WeightRule]) -> tuple[str, str]:
    """(path, transform) of a foreign name; ('', 'copy') if no rule matches."""
    for rule in rules:
        match = re.fullmatch(rule.pattern, name)
        if match:
            return _expand(rule.target, match), rule.transform
    return "", "copy"


def names_of(source: Mapping[str, np.ndarray], rules: Sequence[WeightRule]) -> dict[str, np.ndarray]:
    """Inverse of `load_pretrained`: our arrays with the names and axis order of the foreign file.

    Args:
      source: path of ours -> array.
      rules: as in `load_pretrained`; of unnumbered alternatives in a pattern the first is written.

    Raises:
      ValueError: when no rule leads to a path.
    """
    written = {}
    for path, array in source.items():
        name, transform = _name_of(path, rules)
        written[name] = restore(array, transform)
    return written


def _name_of(path: str, rules: Sequence[WeightRule]) -> tuple[str, str]:
    """(foreign name, transform) of one of our paths."""
    for rule in rules:
        match = _path_pattern(rule.target).fullmatch(path)
        if match is None:
            continue
        name = _spell(rule, match.groups())
        if place(name, rules) == (path, rule.transform):
            return name, rule.transform
    raise ValueError(f"there is no place for '{path}'")


@functools.cache
def _path_pattern(target: str) -> re.Pattern[str]:
    """Matches the paths that a rule with this target can produce, with one group per field."""
    return re.compile("([^/]*)".join(map(re.escape, _FIELD.split(target)[::3])))


def _spell(rule: WeightRule, values: Sequence[str]) -> str:
    """The name that `rule` maps to the path with these values of its target's fields."""
    groups = {}
    for (number, offset), value in zip(_FIELD.findall(rule.target), values, strict=True):
        groups[int(number)] = str(int(value) - int(offset)) if offset and value.isdecimal() else value
    count = 0

    def spelled(piece: re.Match[str]) -> str:
        nonlocal count
        if piece["group"] is None:
            return piece["set"] or piece["escaped"] or piece["plain"]
        if not piece["free"]:
            count += 1
        known = None if piece["free"] else groups.get(count)
        return piece["group"].partition("|")[0] if known is None else known

    return _PIECE.sub(spelled, rule.pattern)


def reorder(array: np.ndarray, transform: str) -> np.ndarray:
    """Converts a foreign array to our order of axes and channels.

    Args:
      transform: 'copy'; an order of axes ('oihw', ...), optionally followed by '+' and an order of input channels
        ('oihw+bgr'); or 'oi', a matrix that becomes a 1x1 kernel, 'oi+7x7' a 7x7 one.

    Raises:
      ValueError: for an unknown transform.
    """
    axes, channels = _parse(transform)
    if axes == "oi" and array.ndim == 2:
        height, width = (int(cells) for cells in (channels or "1x1").split("x"))
        return array.reshape(array.shape[0], -1, height, width).transpose(_PERMUTATIONS["oihw"])
    if array.ndim == 4:
        if axes in _PERMUTATIONS:
            array = array.transpose(_PERMUTATIONS[axes])
        if channels in _CHANNEL_ORDERS:
            array = _CHANNEL_ORDERS[channels][0](array)
    return array


def restore(array: np.ndarray, transform: str) -> np.ndarray:
    """Inverse of `reorder`: one of our arrays in the foreign order."""
    axes, channels = _parse(transform)
    if array.ndim == 4:
        if channels in _CHANNEL_ORDERS:
            array = _CHANNEL_ORDERS[channels][1](array)
        if axes == "oi":
            return array.transpose(np.argsort(_PERMUTATIONS["oihw"])).reshape(array.shape[3], -1)
        if axes in _PERMUTATIONS:
            array = array.transpose(np.argsort(_PERMUTATIONS[axes]))
    return array


def _parse(transform: str) -> tuple[str, str]:
    """(order of axes, order of input channels or kernel size of a matrix)."""
    axes, _, channels = transform.partition("+")
    if axes not in ("copy", "oi", *_PERMUTATIONS) or (axes != "oi" and channels and channels not in _CHANNEL_ORDERS):
        known = ", ".join(("copy", "oi", *_PERMUTATIONS))
        raise ValueError(f"unknown transform '{transform}'; there are {known}, with + {', '.join(_CHANNEL_ORDERS)}")
    return axes, channels


def _expand(target: str, match: re.Match[str]) -> str:
    """The target with each {1} replaced by that group, and {1+1} by the group's number plus one."""

    def value(field: re.Match[str]) -> str:
        text = match[int(field[1])]
        return str(int(text) + int(field[2])) if field[2] else text

    return _FIELD.sub(value, target)


def _part(path: str) -> str:
    return path.split("/", 2)[1] if "/" in path else path
