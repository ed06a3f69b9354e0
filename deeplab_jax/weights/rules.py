"""The rule engine of weight import: foreign names in, a tree of ours and a report of everything left over out."""

from __future__ import annotations

import dataclasses
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
# What differs in the order of a kernel's input channels (its third axis, once permuted).
_CHANNEL_ORDERS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    # The first convolution of a network that reads blue, green, red.
    "bgr": lambda kernel: kernel[:, :, ::-1],
    # The projection behind an ASPP whose image pooling is concatenated last; ours, as TensorFlow's, comes first.
    "pool_last": lambda kernel: np.roll(kernel, kernel.shape[3], axis=2),
    # A decoder that concatenates [low-level, ASPP]; ours is [ASPP, low-level].
    "low_level_first": lambda kernel: np.roll(kernel, kernel.shape[3], axis=2),
}


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What an import did, name by name."""

    loaded: tuple[str, ...]  # our paths that were filled
    missing: tuple[str, ...]  # our paths that the source has nothing for
    unexpected: tuple[str, ...]  # foreign names that no rule knows
    misshapen: tuple[str, ...]  # 'name: shape, wanted path: shape'
    skipped: tuple[str, ...]  # foreign names left out on purpose

    @property
    def is_complete(self) -> bool:
        return not (self.missing or self.unexpected or self.misshapen)

    @property
    def summary(self) -> str:
        """Counts alone."""
        kinds = ("loaded", "missing", "unexpected", "misshapen", "skipped")
        return ", ".join(f"{len(getattr(self, kind))} {kind}" for kind in kinds if getattr(self, kind))

    def __str__(self) -> str:
        """Counts, and the names of all that did not go as it should."""
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
    """Fills `target` with the arrays of `source` that the rules find a place for.

    Args:
      source: foreign name -> array.
      rules: tried in order on each name; the first whole match counts.
      target: path 'collection/part/module/.../leaf' -> array of ours; it is not changed.
      skip: patterns of foreign names to leave out without complaint.

    Returns:
      A copy of `target` with what could be loaded, and the full report of what could not. A name whose place is
      in a part that `target` does not have counts as skipped.

    Raises:
      ValueError: for a rule whose transform does not exist.
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
    """(path, transform) of a foreign name; ('', 'copy') where no rule knows it."""
    for rule in rules:
        match = re.fullmatch(rule.pattern, name)
        if match:
            return _expand(rule.target, match), rule.transform
    return "", "copy"


def reorder(array: np.ndarray, transform: str) -> np.ndarray:
    """Puts the axes and channels of a foreign array in our order.

    Args:
      array: as its file has it.
      transform: 'copy'; an order of axes ('oihw', ...), behind which a '+' may name an order of input channels
        ('oihw+bgr'); or 'oi', a matrix that becomes a 1x1 kernel, 'oi+7x7' one over 7x7 cells.

    Raises:
      ValueError: for an unknown transform.
    """
    axes, _, channels = transform.partition("+")
    if axes == "oi" and array.ndim == 2:
        height, width = (int(cells) for cells in (channels or "1x1").split("x"))
        return array.reshape(array.shape[0], -1, height, width).transpose(_PERMUTATIONS["oihw"])
    if axes not in ("copy", *_PERMUTATIONS) or (channels and channels not in _CHANNEL_ORDERS):
        known = ", ".join(("copy", "oi", *_PERMUTATIONS))
        raise ValueError(f"unknown transform '{transform}'; there are {known}, with + {', '.join(_CHANNEL_ORDERS)}")
    if axes != "copy" and array.ndim == 4:
        array = array.transpose(_PERMUTATIONS[axes])
    return _CHANNEL_ORDERS[channels](array) if channels and array.ndim == 4 else array


def _expand(target: str, match: re.Match[str]) -> str:
    """The target with each {1} replaced by that group, and {1+1} by its number plus one."""

    def value(field: re.Match[str]) -> str:
        text = match[int(field[1])]
        return str(int(text) + int(field[2])) if field[2] else text

    return re.sub(r"\{(\d)([+-]\d+)?\}", value, target)


def _part(path: str) -> str:
    return path.split("/", 2)[1] if "/" in path else path
