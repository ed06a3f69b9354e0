"""Resolves `config.inference.crf`: a preset by name, or the best result of a search by its file."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from deeplab_jax.ops.crf.parameters import CRFParams, CRFPreset, crf_preset
from deeplab_jax.types import UserError

_NUMBERS = ("pos_w", "pos_xy_std", "bi_w", "bi_xy_std", "bi_rgb_std")


def find_crf(name: str) -> CRFPreset | None:
    """The CRF called `name`; None for ''.

    Args:
      name: '', a preset, or the path of a JSON file with the keys of `setting_to_dict`, at the top level or under
        'best'.

    Raises:
      UserError: if the preset or file does not exist, or the file does not hold a CRF.
    """
    if not name:
        return None
    if name.endswith(".json"):
        return _read(pathlib.Path(name).expanduser())
    try:
        return crf_preset(name)
    except ValueError as error:
        raise UserError(f"config.inference.crf: {error} (or give the path of a crf_search.json)") from None


def setting_to_dict(setting: CRFPreset) -> dict[str, Any]:
    """Plain numbers, ready for JSON."""
    params = dataclasses.asdict(setting.params)
    return {name: params[name] for name in (*_NUMBERS, "normalization")} | {"num_iterations": setting.num_iterations}


def setting_from_dict(values: Mapping[str, Any]) -> CRFPreset:
    """The inverse of `setting_to_dict`.

    Raises:
      ValueError: if a key is missing or unknown, or a value is out of range.
    """
    wanted = {*_NUMBERS, "normalization", "num_iterations"}
    if set(values) != wanted:
        raise ValueError(f"a CRF has {', '.join(sorted(wanted))}; here are {', '.join(sorted(map(str, values)))}")
    numbers: dict[str, Any] = {name: float(values[name]) for name in _NUMBERS}
    for name, number in numbers.items():
        if not 0 <= number < float("inf") or (number == 0 and name.endswith("_std")):
            raise ValueError(f"{name}={number}: weights are 0 or more, widths positive")
    if values["normalization"] not in ("symmetric", "after"):
        raise ValueError(f"normalization={values['normalization']!r}: give symmetric or after")
    if not isinstance(values["num_iterations"], int) or values["num_iterations"] < 0:
        raise ValueError(f"num_iterations={values['num_iterations']!r}: give a whole number, 0 or more")
    params = CRFParams(**numbers, normalization=values["normalization"])
    return CRFPreset(params, values["num_iterations"])


def _read(path: pathlib.Path) -> CRFPreset:
    try:
        values = json.loads(path.read_text())
        return setting_from_dict(values.get("best", values))
    except OSError as error:
        raise UserError(f"config.inference.crf: cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"config.inference.crf: {path} holds no CRF ({error}); --mode=crf-search writes crf_search.json"
        ) from None
