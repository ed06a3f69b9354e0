"""The rule engine of weight import: foreign names in, a tree of ours and a report of everything left over out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from deeplab_jax.types import WeightRule

# Order of a foreign kernel's axes -> the permutation that makes it (height, width, in, out).
_PERMUTATIONS = {
    "oihw": (2, 3, 1, 0),  # PyTorch, MXNet; depthwise too
    "ohwi": (1, 2, 3, 0),  # TFLite
    "1hwc": (1, 2, 0, 3),  # TFLite depthwise
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

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} arrays loaded"]
        for kind in ("missing", "unexpected", "misshapen", "skipped"):
            names = getattr(self, kind)
            if names:
                parts.append(f"{len(names)} {kind}: {', '.join(names)}")
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
      target: path 'collection/module/.../leaf' -> array of ours; it is not changed.
      skip: patterns of foreign names to leave out without complaint.

    Returns:
      A copy of `target` with what could be loaded, and the full report of what could not.
    """
    filled = dict(target)
    loaded, unexpected, misshapen, skipped = [], [], [], []
    for name, array in source.items():
        if any(re.fullmatch(pattern, name) for pattern in skip):
            skipped.append(name)
            continue
        path, transform = _place(name, rules)
        if path not in target:
            unexpected.append(name)
            continue
        value = reorder(array, transform)
        if value.shape != target[path].shape:
            misshapen.append(f"{name}: {value.shape}, wanted {path}: {target[path].shape}")
            continue
        filled[path] = value.astype(target[path].dtype)
        loaded.append(path)
    missing = sorted(set(target) - set(loaded))
    return filled, LoadReport(tuple(loaded), tuple(missing), tuple(unexpected), tuple(misshapen), tuple(skipped))


def reorder(array: np.ndarray, transform: str) -> np.ndarray:
    """Puts the axes of a foreign array in our order; 'copy' leaves them.

    Raises:
      ValueError: for an unknown transform.
    """
    if transform == "copy":
        return array
    if transform not in _PERMUTATIONS:
        raise ValueError(f"unknown transform '{transform}'; there are copy, {', '.join(_PERMUTATIONS)}")
    axes = _PERMUTATIONS[transform]
    return array.transpose(axes) if array.ndim == len(axes) else array


def _place(name: str, rules: Sequence[WeightRule]) -> tuple[str, str]:
    for rule in rules:
        match = re.fullmatch(rule.pattern, name)
        if match:
            return match.expand(rule.target), rule.transform
    return "", "copy"
