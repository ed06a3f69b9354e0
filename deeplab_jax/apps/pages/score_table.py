"""Scores of an evaluation as text: the per-class table, the means, and a warning if the network has collapsed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

_COLLAPSED = 0.99  # fraction of predictions that are one class
_MISSED = 0.95  # fraction of the other classes' pixels that are predicted as that class


def collapse_warning(scores: Mapping[str, Any]) -> str | None:
    """One line if the network predicts a single class whatever the image, else None.

    That is, if more than 99 % of the predictions are one class, and at least 95 % of the other classes' pixels are
    predicted as it. The second condition exempts a good network on a split with nearly a single class.

    Args:
      scores: content of scores.json.
    """
    confusion = np.asarray(scores["confusion"], np.int64)
    predicted, truth = confusion.sum(axis=0), confusion.sum(axis=1)
    k = int(predicted.argmax())
    num_others = truth.sum() - truth[k]
    num_missed = predicted[k] - confusion[k, k]
    if not num_others or predicted[k] <= _COLLAPSED * predicted.sum() or num_missed < _MISSED * num_others:
        return None
    name = list(scores["iou_per_class"])[k]
    return (
        f"predictions have collapsed to '{name}': {predicted[k] / predicted.sum():.1%} of the pixels, of which "
        f"{truth[k] / truth.sum():.1%} are labelled so; if this lasts, check the masks with --mode=lint, lower "
        "config.optimizer.learning_rate, start from pretrained weights, or try config.loss.class_weights=balanced"
    )


@dataclasses.dataclass(frozen=True, slots=True)
class ClassRow:
    """One class of an evaluation; None if the class has no pixels that the number is based on."""

    name: str
    iou: float | None
    accuracy: float | None  # fraction of the class's pixels predicted correctly
    pixel_fraction: float  # of the labelled pixels, in [0, 1]


def class_rows(scores: Mapping[str, Any]) -> list[ClassRow]:
    """The per-class table of scores.json, in the order of the class ids."""
    confusion = np.asarray(scores["confusion"], np.int64)
    truth = confusion.sum(axis=1)
    total = max(int(truth.sum()), 1)
    return [
        ClassRow(name, iou, float(confusion[k, k] / truth[k]) if truth[k] else None, float(truth[k] / total))
        for k, (name, iou) in enumerate(scores["iou_per_class"].items())
    ]


def format_table(scores: Mapping[str, Any]) -> str:
    """The per-class table and the means as text."""
    rows = class_rows(scores)
    width = max(len("class"), *(len(row.name) for row in rows))
    lines = [f"{'class':{width}}      IoU  accuracy  pixels"]
    lines += [
        f"{row.name:{width}}  {_number(row.iou)}  {_number(row.accuracy):>8}  {row.pixel_fraction:6.1%}" for row in rows
    ]
    lines.append(f"{'mean':{width}}  {_number(scores['mean_iou'])}  {_number(scores['mean_accuracy']):>8}")
    lines.append(f"pixel accuracy {_number(scores['pixel_accuracy']).strip()}")
    lines += _further_lines(scores)
    return "\n".join(lines)


def _further_lines(scores: Mapping[str, Any]) -> list[str]:
    """One line for each further measure."""
    lines = []
    interval = scores.get("confidence_interval")
    if interval and interval["mean_iou"]:
        low, high = interval["mean_iou"]
        lines.append(f"mean IoU between {low:.4f} and {high:.4f} in {interval['level']:.0%} of draws of the images")
    if near := scores.get("boundary_iou"):
        lines.append(f"boundary IoU {_number(near['mean']).strip()} ({near['band_fraction']:.0%} of the diagonal)")
    if curve := scores.get("trimap"):
        picked = [
            (width, curve["mean_iou"][width - 1]) for width in (1, 5, 10, 20, 40) if width <= len(curve["widths"])
        ]
        values = ", ".join(f"{_number(value).strip()} at {width}" for width, value in picked)
        lines.append(f"mean IoU within pixels of the {curve['around']} boundary: {values}")
    if sure := scores.get("calibration"):
        lines.append(f"expected calibration error {_number(sure['ece']).strip()}")
    return lines


def _number(value: float | None) -> str:
    return " absent" if value is None else f"{value:7.4f}"
