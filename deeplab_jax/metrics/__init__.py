"""Metrics: labels and predictions -> counts that add up over images, and the scores of the sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplab_jax import registry

if TYPE_CHECKING:
    from deeplab_jax.metrics.bootstrap import confidence_interval as confidence_interval
    from deeplab_jax.metrics.bootstrap import image_counts as image_counts
    from deeplab_jax.metrics.boundary import boundary_iou as boundary_iou
    from deeplab_jax.metrics.boundary import count_boundaries as count_boundaries
    from deeplab_jax.metrics.confusion import confusion_matrix as confusion_matrix
    from deeplab_jax.metrics.confusion import scores as scores
else:
    _NAMES = {
        "bootstrap": ("image_counts", "confidence_interval"),
        "boundary": ("boundary_iou", "count_boundaries"),
        "confusion": ("confusion_matrix", "scores"),
    }
    __getattr__, __dir__ = registry.lazy_names(__name__, _NAMES)
