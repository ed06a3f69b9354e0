"""Reads the JSON files that a workdir records, which anyone may have edited: a value of another kind gets one line."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deeplab_jax.fields import shown
from deeplab_jax.types import UserError

_EVALUATE = "write it again with --mode=evaluate"


def read_json(path: pathlib.Path, remedy: str = _EVALUATE) -> Any:
    """The file's content; None if there is no such file.

    Raises:
      UserError: if it cannot be read.
    """
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is damaged ({error}); {remedy}") from None


def read_object(path: pathlib.Path, remedy: str = _EVALUATE) -> dict[str, Any] | None:
    """A file that holds fields by name; None if there is no such file.

    Raises:
      UserError: if it holds something else.
    """
    found = read_json(path, remedy)
    if found is not None or path.exists():
        _demand(isinstance(found, dict), path, "the whole", found, "an object", remedy)
    return found


def read_scores(path: pathlib.Path) -> dict[str, Any] | None:
    """The content of scores.json; None if there is no such file.

    Raises:
      UserError: at the first field without which no page can be made.
    """
    scores = read_object(path)
    if scores is None:
        return None
    kinds: dict[str, tuple[Callable[[Any], bool], str]] = {
        "mean_iou": (_is_score, "a number or null"),
        "iou_per_class": (lambda value: _is_mapping(value) and all(map(_is_score, value.values())), "numbers by class"),
        "protocol": (_is_mapping, "an object"),
    }
    for name, (is_valid, words) in kinds.items():
        _demand(is_valid(scores.get(name)), path, name, scores.get(name), words, _EVALUATE)
    num_classes, confusion = len(scores["iou_per_class"]), scores.get("confusion")
    holds = num_classes > 0 and _is_confusion(confusion, num_classes)
    _demand(holds, path, "confusion", confusion, f"counts of {num_classes} x {num_classes} classes", _EVALUATE)
    return scores


def read_images(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows {'name', 'mean_iou'} of per_image.json; [] if there is no such file.

    Raises:
      UserError: at the first row that is none.
    """
    rows = read_json(path)
    if rows is None and not path.exists():
        return []
    _demand(isinstance(rows, list), path, "the whole", rows, "a list", _EVALUATE)
    for index, row in enumerate(rows):
        holds = _is_mapping(row) and isinstance(row.get("name"), str) and _is_score(row.get("mean_iou", ""))
        _demand(holds, path, f"row {index}", row, "an object with 'name' and 'mean_iou'", _EVALUATE)
    return rows


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; [] if there is none. Lines that a crash has cut off, or no run wrote, are skipped."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if _is_mapping(found) and _is_number(found.get("step")) and _is_mapping(found.get("evaluation", {})):
            lines.append(found)
    return lines


def _demand(holds: bool, path: pathlib.Path, field: str, value: Any, words: str, remedy: str) -> None:
    if not holds:
        raise UserError(f"{path}: {field} is {shown(value)}, must be {words}; {remedy}")


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_score(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_confusion(value: Any, num_classes: int) -> bool:
    try:
        counts = np.asarray(value)
    except ValueError:
        return False
    shapes = ((num_classes, num_classes), (num_classes, 2, 2))
    return counts.dtype.kind == "i" and counts.shape in shapes and bool(counts.min() >= 0)
