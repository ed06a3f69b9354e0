"""A pretrained start: a weight file into one part of a network, batch norm that was folded away included."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_jax.types import UserError, WeightLayout
from deeplab_jax.weights.rules import LoadReport, load_pretrained


def load_pretrained_part(
    path: str, layout: WeightLayout, variables: Mapping[str, Any], *, part: str = "backbone"
) -> tuple[dict[str, Any], LoadReport]:
    """Loads a file into the variables under `part`; every array of that part must be found.

    Args:
      path: an .npz file of named arrays.
      layout: whose names they are.
      variables: {'params': ..., 'batch_stats': ...} of the whole network, as nested dicts.
      part: top-level module that takes the weights.

    Returns:
      New variables and the report. Where the layout is folded, the statistics are mean 0 and variance
      1 - epsilon, so that batch norm is exactly the identity with the file's biases; they must be
      calibrated before training by batch statistics.

    Raises:
      UserError: when the file cannot be read, or leaves any array of the part unfilled.
    """
    flat = _flatten(variables)
    inside = {_without(name, part): value for name, value in flat.items() if _is_inside(name, part)}
    filled, report = load_pretrained(read_npz(path), layout.rules, inside, skip=layout.ignored)
    if layout.folded:
        filled, report = _identity_batch_norm(filled, report, layout.arguments["epsilon"])
    if not report.is_complete:
        raise UserError(f"config.model.pretrained.source={path}: does not fit the {part}: {report}")
    return _unflatten(flat | {_within(name, part): value for name, value in filled.items()}), report


def read_npz(path: str) -> dict[str, np.ndarray]:
    """The named arrays of an .npz file; pickled objects are refused.

    Raises:
      UserError: when the file is absent or no such archive.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(f"config.model.pretrained.source={path}: no such file") from None
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"config.model.pretrained.source={path}: not a readable .npz file ({error})") from None


def _identity_batch_norm(
    filled: dict[str, np.ndarray], report: LoadReport, epsilon: float
) -> tuple[dict[str, np.ndarray], LoadReport]:
    """Scale 1, mean 0, variance 1 - epsilon: what folding left of batch norm, apart from its biases."""
    constants = {"scale": 1.0, "mean": 0.0, "var": 1.0 - epsilon}
    made_up = tuple(name for name in report.missing if name.rpartition("/")[2] in constants)
    for name in made_up:
        filled[name] = np.full_like(filled[name], constants[name.rpartition("/")[2]])
    missing = tuple(name for name in report.missing if name not in made_up)
    return filled, LoadReport(report.loaded, missing, report.unexpected, report.misshapen, report.skipped)


def _is_inside(name: str, part: str) -> bool:
    return name.split("/")[1] == part


def _without(name: str, part: str) -> str:
    return name.replace(f"/{part}/", "/", 1)


def _within(name: str, part: str) -> str:
    return name.replace("/", f"/{part}/", 1)


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
