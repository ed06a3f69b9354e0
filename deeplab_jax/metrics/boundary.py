"""Scores near boundaries: Boundary IoU (2103.16562) and the trimap curves of DeepLab v3+ (1802.02611, sec. 4.4).

Counted on the host from class maps, image by image; calls share no state and may run in threads. All distances are
chessboard distances in pixels, the number of 3x3 erosions or dilations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from numpy.typing import NDArray

from deeplab_jax.metrics.confusion import confusion_on_host, scores

BAND_FRACTION = 0.02  # of the image's diagonal (2103.16562)
MAX_WIDTH = 40  # of a trimap, in pixels: the end of v3+'s figure
BAND_DEPTH = 5  # void pixels at most this deep are a border around objects (VOC: 0.99 of them, CamVid: 0.54)
BAND_SHARE = 0.75  # share of such pixels from which on the void counts as a border


class BoundaryCounts(NamedTuple):
    """Pixels of a split, or of one image, near the contours of each class."""

    intersection: Int[NDArray, " c"]  # in the bands of both the truth and the prediction
    union: Int[NDArray, " c"]  # in either


class TrimapCounts(NamedTuple):
    """Confusion by distance: [k - 1] holds the pixels at distance k."""

    void: Int[NDArray, "d c c"]  # from an unlabelled pixel
    label: Int[NDArray, "d c c"]  # from a labelled pixel of another class
    num_void: int  # void pixels
    num_band: int  # of them, at most BAND_DEPTH from a labelled pixel


def band_width(size: tuple[int, int], fraction: float = BAND_FRACTION) -> int:
    """The width in pixels, at least 1, of a contour's band in an image of (height, width)."""
    return max(1, round(fraction * float(np.hypot(*size))))


def inner_band(mask: Bool[NDArray, "h w"], width: int) -> Bool[NDArray, "h w"]:
    """The mask's pixels within `width` of a pixel outside the mask; pixels beyond the image are outside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    band = np.zeros(mask.shape, bool)
    if rows.size:
        # The nearest pixel outside a mask lies in its bounding box or on the ring around it.
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        depth = _distance(np.pad(mask[box], 1))[1:-1, 1:-1]
        band[box] = mask[box] & (depth <= width)
    return band


def count_boundaries(
    label: Integer[NDArray, "h w"],
    prediction: Integer[NDArray, "h w"],
    *,
    num_classes: int,
    ignore_label: int,
    fraction: float = BAND_FRACTION,
) -> BoundaryCounts:
    """Counts one image for `boundary_iou`.

    A class's band consists of its pixels near its contour; the image's edge and unlabelled pixels are part of the
    contour. Unlabelled pixels are not counted, but the prediction's contour may run through them.

    Args:
      label: class ids, or the ignore label.
      prediction: class ids.
      num_classes: pixels with labels from here on are not counted either.
      ignore_label: of unlabelled pixels.
      fraction: the band's width as a fraction of the image's diagonal.

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> label = np.zeros((8, 8), np.uint8)
      >>> label[2:6, 2:6] = 1
      >>> counts = dl.metrics.count_boundaries(label, label, num_classes=2, ignore_label=255)
      >>> print(counts.intersection)
      [48 12]
    """
    width = band_width(label.shape, fraction)
    known = (label != ignore_label) & (label < num_classes)
    intersection, union = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
    present = set(np.unique(label[known]).tolist()) | set(np.unique(prediction[known]).tolist())
    for class_id in present:
        truth_band = inner_band(known & (label == class_id), width)
        predicted_band = inner_band(prediction == class_id, width) & known
        intersection[class_id] = np.count_nonzero(truth_band & predicted_band)
        union[class_id] = np.count_nonzero(truth_band | predicted_band)
    return BoundaryCounts(intersection, union)


def boundary_iou(
    counts: BoundaryCounts, class_names: Sequence[str], *, fraction: float = BAND_FRACTION
) -> dict[str, Any]:
    """Boundary IoU per class over the split, ready for JSON.

        Boundary IoU_i = |G_d,i and P_d,i| / |G_d,i or P_d,i|

    with G_d,i, P_d,i the inner bands of class i in truth and prediction; None if a class has neither.

    Source: Boundary IoU (2103.16562), for the classes of a split instead of single objects.

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> label = np.zeros((8, 8), np.uint8)
      >>> label[2:6, 2:6] = 1
      >>> counts = dl.metrics.count_boundaries(label, np.roll(label, 1), num_classes=2, ignore_label=255)
      >>> dl.metrics.boundary_iou(counts, ("ground", "object"))["per_class"]
      {'ground': 0.7307692307692307, 'object': 0.3333333333333333}
    """
    values = [
        float(both / either) if either else None for both, either in zip(counts.intersection, counts.union, strict=True)
    ]
    present = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(present)) if present else None,
        "per_class": dict(zip(class_names, values, strict=True)),
        "band_fraction": fraction,
    }


def count_trimap(
    label: Integer[NDArray, "h w"],
    prediction: Integer[NDArray, "h w"],
    *,
    num_classes: int,
    ignore_label: int,
    max_width: int = MAX_WIDTH,
) -> TrimapCounts:
    """Counts one image for `trimap`: a confusion matrix per distance from 1 to `max_width`; see `count_boundaries`."""
    void = label == ignore_label
    known = ~void & (label < num_classes)

    def by_distance(distance: Float[NDArray, "h w"]) -> Int[NDArray, "d c c"]:
        return confusion_on_host(
            label,
            prediction,
            num_classes=num_classes,
            ignore_label=ignore_label,
            group=np.minimum(distance, max_width + 1).astype(np.int64) - 1,
            num_groups=max_width,
        )

    nowhere = np.full(label.shape, np.inf, np.float32)
    edges = _edges(label, known)
    num_band = np.count_nonzero(_distance(void)[void] <= BAND_DEPTH) if void.any() and known.any() else 0
    return TrimapCounts(
        void=by_distance(_distance(~void) if void.any() else nowhere),
        label=by_distance(_distance(~edges) + 1 if edges.any() else nowhere),
        num_void=int(np.count_nonzero(void)),
        num_band=int(num_band),
    )


def trimap(counts: TrimapCounts, class_names: Sequence[str], *, around: str = "auto") -> dict[str, Any]:
    """Mean IoU and pixel accuracy of the pixels at most 1, 2, ... from a boundary, ready for JSON.

    Args:
      counts: summed over the split.
      class_names: one per class.
      around: 'void': the boundary is the unlabelled border of objects, as in v3+'s figure (PASCAL VOC has one);
        'labels': where the label changes between classes; 'auto': 'void' if at least three quarters of the void lie at
        most five pixels deep, as in a border.
    """
    if around == "auto":
        is_border = counts.num_void and counts.num_band >= BAND_SHARE * counts.num_void
        around = "void" if is_border else "labels"
    confusions = np.cumsum(counts.void if around == "void" else counts.label, axis=0)
    rows = [scores(confusion, class_names) for confusion in confusions]
    return {
        "around": around,
        "widths": list(range(1, len(rows) + 1)),
        "mean_iou": [row["mean_iou"] for row in rows],
        "pixel_accuracy": [row["pixel_accuracy"] for row in rows],
    }


def _distance(inside: Bool[NDArray, "h w"]) -> Float[NDArray, "h w"]:
    """Chessboard distance of each pixel to the nearest pixel outside; 0 outside."""
    return cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_C, 3)


def _edges(label: Integer[NDArray, "h w"], known: Bool[NDArray, "h w"]) -> Bool[NDArray, "h w"]:
    """Labelled pixels with a pixel of another class among their eight neighbours.

    The nearest pixel of another class is one step farther than the nearest such pixel.
    """
    edges = np.zeros(label.shape, bool)
    height, width = label.shape
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        near = np.s_[: height - down, max(0, -right) : width - max(0, right)]
        far = np.s_[down:, max(0, right) : width + min(0, right)]
        differs = (label[near] != label[far]) & known[near] & known[far]
        edges[near] |= differs
        edges[far] |= differs
    return edges
