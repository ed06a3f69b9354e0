"""Loads a file's weights into a network: all of it, its backbone, or whatever fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_jax.types import UserError, WeightLayout
from deeplab_jax.weights.rules import LoadReport, load_pretrained


def load_weights(
    arrays: Mapping[str, np.ndarray],
    layout: WeightLayout,
    variables: Mapping[str, Any],
    *,
    scope: str = "model",
    path: str = "the file",
) -> tuple[dict[str, Any], LoadReport]:
    """Fills a network's variables with the arrays of a file.

    Args:
      arrays: the file's arrays by their own names.
      layout: the layout of these names.
      variables: {'params': ..., 'batch_stats': ...}, nested dicts.
      scope: 'model': every array of the network must be found, and every array of the file used; 'backbone': the same
        for the backbone, ignoring the rest of the file; 'fitting': whatever fits.
      path: of the file, for error messages.

    Returns:
      New variables and the report. If the layout has batch norm folded, statistics are mean 0 and variance 1 - epsilon,
      so batch norm only adds the file's biases; calibrate them before training with batch statistics.

    Raises:
      UserError: when the file does not provide what `scope` requires.
    """
    flat = _flatten(variables)
    inside = {name: value for name, value in flat.items() if scope != "backbone" or _part(name) == "backbone"}
    filled, report = load_pretrained(arrays, layout.rules, inside, skip=layout.ignored)
    if layout.folded:
        filled, report = _identity_batch_norm(filled, report, layout.model)
    if not (report.is_complete if scope != "fitting" else report.loaded):
        raise UserError(f"{path}: does not fit the {'backbone' if scope == 'backbone' else 'network'}: {report}")
    return _unflatten(flat | filled), report


def _identity_batch_norm(
    filled: dict[str, np.ndarray], report: LoadReport, model: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], LoadReport]:
    """Scale 1, mean 0, variance 1 - epsilon: the batch norm that remains after folding, apart from its biases."""
    constants = {"scale": 1.0, "mean": 0.0, "var": 1.0}
    made_up = tuple(path for path in report.missing if path.rpartition("/")[2] in constants and _part(path) in model)
    for path in made_up:
        leaf = path.rpartition("/")[2]
        epsilon = model[_part(path)]["args"]["epsilon"] if leaf == "var" else 0.0
        filled[path] = np.full_like(filled[path], constants[leaf] - epsilon)
    missing = tuple(path for path in report.missing if path not in made_up)
    return filled, dataclasses.replace(report, missing=missing)


def _part(path: str) -> str:
    return path.split("/")[1]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _unflatten(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *modules, leaf = path.split("/")
        node = tree
        for module in modules:
            node = node.setdefault(module, {})
        node[leaf] = value
    return tree
