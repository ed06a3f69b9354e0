"""Scores of an evaluation as text: the per-class table, the means, and a warning if the network has collapsed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_jax.metrics.confusion import outcomes

_COLLAPSED = 0.99  # fraction of predictions that are one class
_MISSED = 0.95  # fraction of the other classes' pixels that are predicted as that class
_REMEDY = (
    "if this lasts, check the masks with --mode=lint, lower config.optimizer.learning_rate, start from pretrained "
    "weights, or try config.loss.class_weights=balanced"
)


def collapse_warning(scores: Mapping[str, Any]) -> str | None:
    """One line if the network predicts a single class whatever the image, else None.

    That is, if more than 99 % of the predictions are one class, and at least 95 % of the other classes' pixels are
    predicted as it. The second condition exempts a good network on a split with nearly a single class.

    Args:
      scores: content of scores.json.
    """
    confusion = np.asarray(scores["confusion"], np.int64)
    if confusion.ndim == 3:
        return _silence_warning(scores)
    predicted, truth = confusion.sum(axis=0), confusion.sum(axis=1)
    k = int(predicted.argmax())
    num_others = truth.sum() - truth[k]
    num_missed = predicted[k] - confusion[k, k]
    if not num_others or predicted[k] <= _COLLAPSED * predicted.sum() or num_missed < _MISSED * num_others:
        return None
    name = list(scores["iou_per_class"])[k]
    return (
        f"predictions have collapsed to '{name}': {predicted[k] / predicted.sum():.1%} of the pixels, of which "
        f"{truth[k] / truth.sum():.1%} are labelled so; {_REMEDY}"
    )


def _silence_warning(scores: Mapping[str, Any]) -> str | None:
    """One line if next to none of what is labelled is found, of all classes that overlap."""
    hit, truth, _, _ = outcomes(np.asarray(scores["confusion"]), maps=True)
    if not truth.sum() or hit.sum() > (1 - _MISSED) * truth.sum():
        return None
    return (
        f"predictions have collapsed to no class: {hit.sum() / truth.sum():.1%} of what is labelled is found; {_REMEDY}"
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
    hit, truth, _, total = outcomes(confusion, maps=confusion.ndim == 3)
    return [
        ClassRow(name, iou, float(hit[k] / truth[k]) if truth[k] else None, float(truth[k] / max(int(total[k]), 1)))
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
    if "mean_iou_over" in scores:
        lines[-1] += f"  over {scores['mean_iou_over']}"
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
    if (found := scores.get("overlap")) and scores.get("task", "multiclass") != "multiclass":
        lines += _overlap_lines(found)
    if (protocol := scores.get("protocol", {})).get("threshold_split"):
        same = protocol["threshold_split"] == protocol["split"]
        chosen = (
            f"threshold {', '.join(map(str, protocol['threshold']))}, chosen on split '{protocol['threshold_split']}'"
        )
        lines.append(f"{chosen}{', the one that is scored here: a score from elsewhere is fairer' if same else ''}")
    if best := scores.get("best_threshold"):
        lines += [
            f"threshold with the greatest IoU of '{name}' on split '{best['split']}': {row['threshold']:g}, "
            f"IoU {_number(row['iou']).strip()}; at 0.5 it is {_number(row['iou_at_even']).strip()}"
            for name, row in best["per_class"].items()
        ]
    if kappa := scores.get("cohen_kappa"):
        lines.append(f"Cohen's kappa {_number(kappa['kappa']).strip()}")
    if surface := scores.get("surface"):
        lines.append(
            f"HD95 {_number(surface['mean_hd95']).strip()} pixels, over {surface['mean_hd95_over']}; surface Dice at "
            f"{surface['tolerance']:g} pixels {_number(surface['mean_surface_dice']).strip()}, over "
            f"{surface['mean_surface_dice_over']}"
        )
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


def _overlap_lines(found: Mapping[str, Any]) -> list[str]:
    """Dice and its like of each class, for those who look for objects."""
    names = ("dice", "precision", "recall", "specificity", "dice_per_image")
    width = max(len("class"), *(len(name) for name in found["per_class"]))
    titles = "  ".join(f"{name.replace('_', ' '):>14}" for name in names)
    return [
        f"{'class':{width}}  {titles}",
        *(
            f"{name:{width}}  " + "  ".join(f"{_number(row[score]):>14}" for score in names)
            for name, row in found["per_class"].items()
        ),
    ]


def _number(value: float | None) -> str:
    return " absent" if value is None else f"{value:7.4f}"
