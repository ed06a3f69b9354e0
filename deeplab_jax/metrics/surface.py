"""Distances between the outlines of truth and prediction: the 95th percentile (HD95) and the surface Dice, by image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from deeplab_jax.metrics.confusion import over

PERCENTILE = 95.0
TOLERANCE = 2.0  # pixels


class SurfaceScores(NamedTuple):
    """Of one class in one image."""

    distance: float  # HD95 in pixels; infinite where only one of truth and prediction has the class
    dice: float  # surface Dice, in [0, 1]


def outline(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask's pixels with a pixel outside the mask above, below or beside them; beyond the image is outside."""
    return mask & ~ndimage.binary_erosion(mask)


def surface_scores(
    truth: Bool[np.ndarray, "h w"], prediction: Bool[np.ndarray, "h w"], *, tolerance: float = TOLERANCE
) -> SurfaceScores | None:
    """Both scores of one mask; None where neither has a pixel.

        HD95 = max(P95 of d(p, T) over p in P, P95 of d(t, P) over t in T)
        surface Dice = (#{p: d(p, T) <= τ} + #{t: d(t, P) <= τ}) / (#P + #T)

    with T and P the pixels of the two outlines, and d Euclidean, in pixels.

    Args:
      tolerance: τ, in pixels, 0 or more.

    Source: HD95 and surface Dice as in MONAI; the latter: 1809.04430

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> square = np.zeros((16, 16), bool)
      >>> square[4:9, 4:9] = True
      >>> dl.metrics.surface_scores(square, np.roll(square, 3, axis=1), tolerance=2.0)
      SurfaceScores(distance=3.0, dice=0.6875)
    """
    if not truth.any() and not prediction.any():
        return None
    if not truth.any() or not prediction.any():
        return SurfaceScores(math.inf, 0.0)
    rows, columns = np.nonzero(truth | prediction)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    outlines = outline(truth)[box], outline(prediction)[box]
    distances = [_distances(a, b) for a, b in (outlines, outlines[::-1])]
    distance = max(float(np.percentile(each, PERCENTILE)) for each in distances)
    num_near = sum(int(np.count_nonzero(each <= tolerance)) for each in distances)
    return SurfaceScores(distance, num_near / sum(each.size for each in distances))


def _distances(of: Bool[np.ndarray, "h w"], to: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, " n"]:
    """The distance of each pixel of one outline to the nearest of the other."""
    return ndimage.distance_transform_edt(~to)[of]


def surfaces(
    images: Sequence[Sequence[SurfaceScores | None]], class_names: Sequence[str], *, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """Means over images, ready for JSON.

    The surface Dice of a class is a mean over the images that have it in truth or prediction; HD95 over those that have
    it in both, since it is infinite in the others, which are counted ('num_one_sided').

    Args:
      images: the scores of each class in each image.
      tolerance: with which they were made.
    """
    per_class = {}
    for name, column in zip(class_names, zip(*images, strict=True) if images else [()] * len(class_names), strict=True):
        known = [each for each in column if each is not None]
        both = [each.distance for each in known if math.isfinite(each.distance)]
        per_class[name] = {
            "hd95": float(np.mean(both)) if both else None,
            "surface_dice": float(np.mean([each.dice for each in known])) if known else None,
            "num_images": len(known),
            "num_one_sided": len(known) - len(both),
        }
    result: dict[str, Any] = {"tolerance": tolerance, "per_class": per_class}
    for score in ("hd95", "surface_dice"):
        values = [row[score] for row in per_class.values()]
        present = [value for value in values if value is not None]
        result[f"mean_{score}"] = float(np.mean(present)) if present else None
        result[f"mean_{score}_over"] = over(class_names, np.array([value is not None for value in values]))
    return result
