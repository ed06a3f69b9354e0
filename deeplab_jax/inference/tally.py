"""Accumulates counts over a split's images and computes the scores from them."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import json
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int, Integer

from deeplab_jax.inference.settings import MeasureConfig
from deeplab_jax.metrics import boundary, surface
from deeplab_jax.metrics.bootstrap import ImageCounts, confidence_interval
from deeplab_jax.metrics.calibration import CalibrationCounts, calibration
from deeplab_jax.metrics.confusion import Outcomes, outcomes, scores
from deeplab_jax.metrics.kappa import kappas
from deeplab_jax.metrics.overlap_ratios import overlap
from deeplab_jax.metrics.thresholds import ProbabilityCounts, best_thresholds
from deeplab_jax.ops.tasks import Prediction

_MAX_PENDING = 16  # images queued for boundary counting; bounds the memory of their maps

Counts = TypeVar("Counts", bound=tuple[Any, ...])


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of a pass over a split."""

    confusion: Int[
        np.ndarray, "c *two _"
    ]  # int64 pixels; rows: truth, columns: prediction; [c, 2, 2] of overlapping classes
    scores: dict[str, Any]  # mean_iou, iou_per_class, ...: ready for JSON
    per_image: list[dict[str, Any]]  # {'name', 'mean_iou'}, in the order of the batches, process by process
    num_images: int  # over all processes


class Tally:
    """Counts of a split, image by image; boundaries are counted in threads while the devices compute.

    Call `finish`, or use it as a context manager, to end its threads.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        ignore_label: int,
        measures: MeasureConfig | None = None,
        maps: bool = False,
    ) -> None:
        """`maps`: classes overlap, and labels and predictions have a map for each."""
        self._maps = maps
        self.measures = measures or MeasureConfig()
        self._class_names = tuple(class_names)
        self._ignore_label = ignore_label
        num_classes = len(self._class_names)
        self._confusion = np.zeros((num_classes, 2, 2) if maps else (num_classes, num_classes), np.int64)
        self._per_image: list[dict[str, Any]] = []
        self._images: list[Outcomes] = []
        self._surfaces: list[list[surface.SurfaceScores | None]] = []
        self._confidence: CalibrationCounts | None = None
        self._probabilities: ProbabilityCounts | None = None
        self._boundary: boundary.BoundaryCounts | None = None
        self._trimap: boundary.TrimapCounts | None = None
        self._pool = concurrent.futures.ThreadPoolExecutor()
        self._pending: collections.deque[concurrent.futures.Future[Any]] = collections.deque()

    def __enter__(self) -> Tally:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the threads; images not yet counted are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, confusion: Int[np.ndarray, "c *two _"], name: str | None = None) -> None:
        """Adds one image of the split; with its name if it belongs to this process."""
        confusion = np.asarray(confusion, np.int64)
        self._confusion += confusion
        self._images.append(outcomes(confusion, maps=self._maps))
        if name is not None:
            self._per_image.append({"name": name, "mean_iou": scores(confusion, self._class_names)["mean_iou"]})

    def add_confidence(self, counts: CalibrationCounts) -> None:
        """Confidences of one image or more, over all processes."""
        wide = (np.int64, np.int64, np.float64)
        parts = (np.asarray(part, dtype) for part, dtype in zip(counts, wide, strict=True))
        self._confidence = _added(self._confidence, CalibrationCounts(*parts))

    def add_probabilities(self, counts: ProbabilityCounts) -> None:
        """Probabilities of one image or more of a task of sigmoids, over all processes."""
        wide = ProbabilityCounts(*(np.asarray(part, np.int64) for part in counts))
        self._probabilities = _added(self._probabilities, wide)

    def add_maps(self, label: Integer[np.ndarray, "h w *maps"], prediction: Prediction) -> None:
        """Class maps of one of this process's images, without padding; counted by a thread."""
        self._pending.append(self._pool.submit(self._count_maps, label, prediction))
        while len(self._pending) > _MAX_PENDING:
            self._take(self._pending.popleft())

    def finish(self) -> Evaluation:
        """Scores of all images added, over all processes."""
        while self._pending:
            self._take(self._pending.popleft())
        self._pool.shutdown()
        found = scores(self._confusion, self._class_names)
        found["confidence_interval"] = confidence_interval([ImageCounts(*each[:3]) for each in self._images])
        if self.measures.overlap and self._images:
            images = Outcomes(*(np.stack(part) for part in zip(*self._images, strict=True)))
            found["overlap"] = overlap(images, self._class_names)
        if self.measures.kappa:
            found["cohen_kappa"] = kappas(self._confusion, self._class_names)
        if self.measures.surface:
            rows = [[each and surface.SurfaceScores(*each) for each in row] for row in _gathered(self._surfaces)]
            tolerance = self.measures.surface_tolerance
            found["surface"] = surface.surfaces(rows, self._class_names, tolerance=tolerance)
        if self._probabilities:
            found["best_threshold"] = best_thresholds(self._probabilities, self._class_names[0 if self._maps else 1 :])
        if self.measures.calibration and self._confidence:
            found["calibration"] = calibration(self._confidence)
        if self.measures.boundary_iou:
            found["boundary_iou"] = boundary.boundary_iou(_over_processes(self._boundary_counts()), self._class_names)
        if self.measures.trimap:
            counts = _over_processes(self._trimap_counts())
            found["trimap"] = boundary.trimap(counts, self._class_names, around=self.measures.trimap_around)
        return Evaluation(self._confusion, found, _gathered(self._per_image), len(self._images))

    def _count_maps(
        self, label: np.ndarray, prediction: np.ndarray
    ) -> tuple[boundary.BoundaryCounts | None, boundary.TrimapCounts | None, list[surface.SurfaceScores | None] | None]:
        sizes = {"num_classes": len(self._class_names), "ignore_label": self._ignore_label}
        return (
            self._count_boundaries(label, prediction) if self.measures.boundary_iou else None,
            boundary.count_trimap(label, prediction, **sizes) if self.measures.trimap else None,
            self._score_surfaces(label, prediction) if self.measures.surface else None,
        )

    def _count_boundaries(self, label: np.ndarray, prediction: np.ndarray) -> boundary.BoundaryCounts:
        if not self._maps:
            num_classes = len(self._class_names)
            return boundary.count_boundaries(
                label, prediction, num_classes=num_classes, ignore_label=self._ignore_label
            )
        each = [
            boundary.count_boundaries(
                label[..., k], prediction[..., k].astype(np.uint8), num_classes=2, ignore_label=self._ignore_label
            )
            for k in range(len(self._class_names))
        ]
        return boundary.BoundaryCounts(*(np.array([part[1] for part in parts]) for parts in zip(*each, strict=True)))

    def _score_surfaces(self, label: np.ndarray, prediction: np.ndarray) -> list[surface.SurfaceScores | None]:
        """Of each class; pixels without a label belong to no mask."""
        masks = []
        for k in range(len(self._class_names)):
            truth, found = (label[..., k] == 1, prediction[..., k]) if self._maps else (label == k, prediction == k)
            known = (label[..., k] if self._maps else label) != self._ignore_label
            masks.append((truth & known, found & known))
        tolerance = self.measures.surface_tolerance
        return [surface.surface_scores(truth, found, tolerance=tolerance) for truth, found in masks]

    def _take(self, done: concurrent.futures.Future[Any]) -> None:
        near, trimap, surfaces = done.result()
        if surfaces is not None:
            self._surfaces.append(surfaces)
        self._boundary = _added(self._boundary, near) if near else None
        self._trimap = _added(self._trimap, trimap) if trimap else None

    def _boundary_counts(self) -> boundary.BoundaryCounts:
        """Zeros for a process that had no image."""
        zeros = np.zeros(len(self._class_names), np.int64)
        return self._boundary or boundary.BoundaryCounts(zeros, zeros)

    def _trimap_counts(self) -> boundary.TrimapCounts:
        zeros = np.zeros((boundary.MAX_WIDTH, *self._confusion.shape), np.int64)
        return self._trimap or boundary.TrimapCounts(zeros, zeros, 0, 0)


def _added(total: Counts | None, counts: Counts) -> Counts:
    """The sum, field by field."""
    if total is None:
        return counts
    return type(counts)(*(a + b for a, b in zip(total, counts, strict=True)))


def _over_processes(counts: Counts) -> Counts:
    """The sum over all processes, which must all call this."""
    if jax.process_count() == 1:
        return counts
    # int64 would be truncated to 32 bits in transfer: split into two halves that fit.
    halves = [(np.asarray(part, np.int64) >> 31, np.asarray(part, np.int64) & (2**31 - 1)) for part in counts]
    gathered = multihost_utils.process_allgather(
        [(high.astype(np.int32), low.astype(np.int32)) for high, low in halves]
    )
    parts = [(np.asarray(high, np.int64) << 31) + np.asarray(low, np.int64) for high, low in gathered]
    return type(counts)(*(part.sum(axis=0) for part in parts))


def _gathered(rows: list[Any]) -> list[Any]:
    """The rows of all processes, in the order of the processes."""
    if jax.process_count() == 1:
        return rows
    text = np.frombuffer(json.dumps(rows).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray(text.size, np.int32))
    texts = multihost_utils.process_allgather(np.pad(text, (0, int(lengths.max()) - text.size)))
    return [row for part, length in zip(texts, lengths, strict=True) for row in json.loads(part[:length].tobytes())]
