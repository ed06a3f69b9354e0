"""Loads a file's weights into a network: all of it, its backbone, or whatever fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_jax.types import UserError, WeightLayout
from deeplab_jax.weights.prefixes import roots
from deeplab_jax.weights.rules import LoadReport, load_pretrained, place

_TRAINING_WORDS = ("criterion", "loss", "metric", "optim", "scheduler", "ema", "teacher", "perceptual")
_KERNELS = ("weight", "weights", "kernel")


def load_weights(
    arrays: Mapping[str, np.ndarray],
    layout: WeightLayout,
    variables: Mapping[str, Any],
    *,
    scope: str = "model",
    path: str = "the file",
    strict: bool = False,
) -> tuple[dict[str, Any], LoadReport]:
    """Fills a network's variables with the arrays of a file.

    Args:
      arrays: the file's arrays by their own names.
      layout: the layout of these names.
      variables: {'params': ..., 'batch_stats': ...}, nested dicts.
      scope: 'model': every array of the network must be found, and every array of the file's network used; 'backbone':
        the same for the backbone, ignoring the rest of the file; 'fitting': whatever fits.
      path: of the file, for error messages.
      strict: whether the file must hold all of the network and nothing else (a loss's weights).

    Returns:
      New variables and the report. If the layout has batch norm folded, statistics are mean 0 and variance 1 - epsilon,
      so batch norm only adds the file's biases; calibrate them before training with batch statistics. Where a
      convolution has no bias and ours has one, it is zero, which computes the same.

    Raises:
      UserError: when the file does not provide what `scope` requires, or its numbers are those of a broken training.
    """
    flat = _flatten(variables)
    inside = {name: value for name, value in flat.items() if scope != "backbone" or _part(name) == "backbone"}
    filled, report = load_pretrained(arrays, layout.rules, inside, skip=layout.ignored)
    if layout.folded:
        filled, report = _identity_batch_norm(filled, report, layout.model)
    if not strict:
        filled, report = _zero_biases(filled, report)
        apart = _set_outside_apart(report, arrays, layout)
        report = apart if apart.is_complete else report
    if not (report.is_complete if scope != "fitting" else report.loaded):
        raise UserError(f"{path}: does not fit the {'backbone' if scope == 'backbone' else 'network'}: {report}")
    _check_numbers(arrays, layout, path)
    return _unflatten(flat | filled), report


def _check_numbers(arrays: Mapping[str, np.ndarray], layout: WeightLayout, path: str) -> None:
    """Raises UserError at the first array of the network that no working network has."""
    for name, array in arrays.items():
        target, _ = place(name, layout.rules)
        if not target or array.dtype.kind != "f":
            continue
        if not np.isfinite(array).all():
            raise UserError(f"{path}: '{name}' holds values that are not finite; take an earlier checkpoint")
        if target.endswith("/var") and array.size and array.min() < 0:
            raise UserError(f"{path}: '{name}' holds negative variances; take an earlier checkpoint")


def _zero_biases(filled: dict[str, np.ndarray], report: LoadReport) -> tuple[dict[str, np.ndarray], LoadReport]:
    """Zeros for the biases of convolutions that have none in the file."""
    loaded = set(report.loaded)
    made_up = tuple(
        path for path in report.missing if path.endswith("/bias") and f"{path.removesuffix('bias')}kernel" in loaded
    )
    missing = tuple(path for path in report.missing if path not in made_up)
    zeros = {path: np.zeros_like(filled[path]) for path in made_up}
    return filled | zeros, dataclasses.replace(report, missing=missing, made_up=made_up)


def _set_outside_apart(report: LoadReport, arrays: Mapping[str, np.ndarray], layout: WeightLayout) -> LoadReport:
    """Unexpected names that no part of the network can have: those of a loss, of metrics, of a second network."""
    inside = roots(name for name in arrays if place(name, layout.rules)[0])
    outside: list[str] = []
    unexpected: list[str] = []
    for name in report.unexpected:
        root = next(iter(roots([name])))
        is_apart = root not in inside and (_is_of_training(root) or not _is_kernel(name, arrays[name]))
        (outside if is_apart else unexpected).append(name)
    return dataclasses.replace(report, unexpected=tuple(unexpected), outside=tuple(outside))


def _is_of_training(root: str) -> bool:
    return any(part.startswith(_TRAINING_WORDS) for part in root.lower().split("_"))


def _is_kernel(name: str, array: np.ndarray) -> bool:
    """Whether it may be a layer between those that are known, without which a network computes something else."""
    return array.ndim >= 2 and name.endswith(_KERNELS)


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
